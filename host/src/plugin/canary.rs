//! Canaries: the conversation beside a plugin, `30-weather.txt` beside `30-weather.wasm`, which a new version must hold
//! before it serves.
//!
//! It is held in a scratch environment: the file's own `! env` and its played HTTP, an empty store, and the limits of the
//! plugin. Nothing that the operator set or granted is there, so no stranger's file can read it, and nothing that a canary does
//! is seen outside.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use super::{Hash, Plugin, aside, code::Code, directory::canary_of, record::Record, services::Services};
use crate::{
    api::Api,
    config::{Grants, Limits, PluginSettings},
    conversation::{Conversation, ParseError},
    dispatch::Chain,
    foreign::on_one_line,
    rehearsal::{self, Fault, Pace},
    secret::Secret,
};

/// The largest conversation that is read.
pub const BYTES_MAX: u64 = 1 << 20;

/// The conversation beside a plugin, as it was read.
#[derive(Clone, Debug)]
pub struct Canary {
    pub hash: Hash,
    pub text: String,
}

/// What a plugin's canary is held under.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long a plugin has for an answer that is not late.
    pub window: Duration,
    /// How long the whole conversation may take.
    pub timeout: Duration,
}

/// Why a plugin does not hold its conversation. The text goes on after the file's name.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    #[error("{0}")]
    Malformed(#[from] ParseError),
    #[error("{}", told(.0))]
    Differs(Fault),
    #[error("took longer than {} s; raise `canary.timeout_s` if that is right", .limit.as_secs())]
    Timeout { limit: Duration },
    #[error("{0:#}")]
    Unsaid(anyhow::Error),
}

/// Holds the conversation with fresh code. Returns how many expected replies came.
pub async fn hold(
    code: &Arc<Code>,
    file: &Path,
    name: &str,
    canary: &Canary,
    limits: &Limits,
    terms: &Terms,
) -> Result<usize, CanaryError> {
    // A late reply may take what is left of the whole time.
    let pace = Pace { window: terms.window, late: terms.timeout + terms.window };
    match timeout(terms.timeout, replay(code, file, name, canary, limits, pace)).await {
        Err(_) => Err(CanaryError::Timeout { limit: terms.timeout }),
        Ok(held) => held,
    }
}

async fn replay(
    code: &Arc<Code>,
    file: &Path,
    name: &str,
    canary: &Canary,
    limits: &Limits,
    pace: Pace,
) -> Result<usize, CanaryError> {
    let text = canary.text.clone();
    let conversation = aside(move || Conversation::parse(&text)).await?;
    let settings = PluginSettings {
        env: conversation.env.iter().map(|(name, value)| (name.clone(), Secret::from(value.clone()))).collect(),
        limits: limits.clone(),
        grants: Grants::scratch(),
        ..PluginSettings::default()
    };
    let services = Services::played(conversation.exchanges.clone());
    let plugin = Plugin {
        // A lane of its own, in an account that no operator can name: those who wait for the plugin do not hold it up.
        lanes: code.lanes("(canary)", name),
        name: name.into(),
        account: "main".into(),
        file: file.into(),
        code: code.clone(),
        settings: Arc::new(settings),
        api: Some(Api::played(services.egress.clone())),
        services: services.into(),
        record: Record::default(),
    };
    let chain = Chain::of(vec![Arc::new(plugin)]);
    // What goes wrong is told once, as the reason why the plugin is not loaded, and not as a message of a user.
    let replay = rehearsal::replay(&chain, &conversation, pace, |_, _, _| ()).with_subscriber(NoSubscriber::new());
    match replay.await {
        Err(error) => Err(CanaryError::Unsaid(error)),
        Ok(Err(fault)) => Err(CanaryError::Differs(fault)),
        Ok(Ok(count)) => Ok(count),
    }
}

/// The name of the conversation of a plugin's file, for a person who knows the directory.
pub fn file_name(file: &Path) -> String {
    canary_of(file).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A difference as one line of the log: a guest's own line breaks begin no line there.
fn told(fault: &Fault) -> String {
    let mut line = String::new();
    for part in fault.difference.lines() {
        let words = on_one_line(part);
        let separator = match words.starts_with('|') || line.is_empty() {
            true if line.is_empty() => "",
            true => " ",
            false => "; ",
        };
        line = line + separator + &words;
    }
    for failure in &fault.failures {
        line = line + "; " + &on_one_line(failure);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_line_of_the_log() {
        let fault = Fault {
            difference: "line 7: another reply than expected\n  expected: 北京：*\n  got:      上海\u{1b}晴\n              | 明天".into(),
            failures: vec!["plugin `b` failed: it said: no\nway".into()],
        };
        assert_eq!(
            CanaryError::Differs(fault).to_string(),
            "line 7: another reply than expected; expected: 北京：*; got: 上海 晴 | 明天; plugin `b` failed: it said: no way"
        );
    }
}
