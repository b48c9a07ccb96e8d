//! Whether a plugin's settings are right, in its own words: it is asked about an event of ours when they are new.
//!
//! A setting may be more than a host can judge, such as a table of keywords. A plugin whose `match` names the event
//! [`EVENT`] may fail at it with what is wrong; the operator reads that in the log, or from `aviary check`, before any user is
//! concerned. Nothing that it does meanwhile counts: its store is empty, and there is no HTTP.

mod verdicts;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

pub use self::verdicts::{Verdicts, WrongSettings};
use super::{Failure, Plugin, record::Record, services::Services};
use crate::{
    conversation::{DEFAULT_USER, Playback, Said},
    dispatch::Chain,
    foreign::on_one_line,
    rehearsal,
};

/// The event's name. WeChat has none like it.
pub const EVENT: &str = "aviary_check";

/// Whether a plugin is to be asked: a rule of its `match` names the event.
pub fn is_wanted(plugin: &Plugin) -> bool {
    let named = |event: &String| event.eq_ignore_ascii_case(EVENT);
    plugin.settings.matches.iter().any(|rule| rule.event.as_ref().is_some_and(named))
}

/// What asking a plugin about its settings came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// What is wrong, on one line.
    Wrong(String),
    /// Why it did not say, which may have been the host's fault: "…, it …".
    None(String),
}

/// Asks a plugin, within this time.
pub async fn ask(plugin: &Plugin, time: Duration) -> Verdict {
    match failure(plugin, time).await {
        Ok(None) => Verdict::Right,
        Ok(Some(Failure::Guest(text))) => Verdict::Wrong(on_one_line(&text)),
        Ok(Some(failure)) => {
            let told = format!("asked about the event `{EVENT}`, it {failure}");
            match failure {
                Failure::Busy(_) | Failure::Timeout { .. } => Verdict::None(told),
                _ => Verdict::Wrong(told),
            }
        }
        Err(error) => Verdict::None(format!("the event `{EVENT}` could not be told: {error:#}")),
    }
}

async fn failure(plugin: &Plugin, time: Duration) -> anyhow::Result<Option<Failure>> {
    let said = Said::parse(&format!("[event {EVENT}]"))?;
    let push = Playback::default().push(DEFAULT_USER, &said);
    let asked = Plugin {
        name: plugin.name.clone(),
        account: plugin.account.clone(),
        file: plugin.file.clone(),
        code: plugin.code.clone(),
        settings: plugin.settings.clone(),
        services: Services::scratch().into(),
        api: None,
        // Of its own, in an account that no operator can name: those who wait for the plugin do not hold it up.
        lanes: plugin.code.lanes("(check)", &plugin.name),
        record: Record::default(),
    };
    // It is told by whoever asked, and not as a message of a user.
    let chain = Chain::of(vec![Arc::new(asked)]);
    let said = rehearsal::say(&chain, &push, time).with_subscriber(NoSubscriber::new());
    let (mut dispatch, _) = said.await?;
    Ok(dispatch.steps.pop().context("the plugin was not asked")?.outcome.err())
}
