//! Step 6: the plugins of an account are asked in order until one replies.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{
    plugin::{
        self, Call, Failure, Plugin,
        bindings::{Message, Reply},
        rules::{self, Facts},
    },
    reply,
};

/// The plugins of one account in the order they are asked. A reload makes a new one; it never edits this.
#[derive(Debug, Default)]
pub struct Chain {
    pub plugins: Vec<Arc<Plugin>>,
}

/// What came of a message.
#[derive(Debug)]
pub struct Dispatch {
    /// The reply, ready for WeChat; none when no plugin had one.
    pub reply: Option<Reply>,
    /// The plugins that were asked, in order. Those whose rules did not fit are not among them.
    pub steps: Vec<Step>,
}

/// One plugin that was asked.
#[derive(Debug)]
pub struct Step {
    pub plugin: Arc<str>,
    pub outcome: Result<Said, Failure>,
    pub duration: Duration,
    pub memory_bytes: usize,
    pub output: Vec<String>,
}

/// What a plugin that did not fail did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Not mine, ask the next.
    Passed,
    Replied,
}

impl Dispatch {
    /// The plugin that answered.
    pub fn answered_by(&self) -> Option<&str> {
        self.steps.last().filter(|step| matches!(step.outcome, Ok(Said::Replied))).map(|step| &*step.plugin)
    }
}

/// Asks the plugins one after another, all of them done by `deadline`. One that fails is skipped.
pub async fn run(chain: &Chain, message: &Arc<Message>, deadline: Instant) -> Dispatch {
    let facts = Facts::of(message);
    let mut steps = Vec::new();
    for plugin in &chain.plugins {
        if !rules::fit(&plugin.settings.matches, &facts) {
            continue;
        }
        if Instant::now() >= deadline {
            warn!(account = %message.account, plugin.name = %plugin.name, "No time was left to ask plugin `{}`", plugin.name);
            break;
        }
        let (step, reply) = ask(plugin, message, deadline).await;
        log(&step, message);
        steps.push(step);
        if reply.is_some() {
            return Dispatch { reply, steps };
        }
    }
    Dispatch { reply: None, steps }
}

/// Asks one plugin and makes its reply fit for WeChat.
async fn ask(plugin: &Plugin, message: &Arc<Message>, deadline: Instant) -> (Step, Option<Reply>) {
    let Call { answer, duration, memory_bytes, output } = plugin.call(message, deadline).await;
    let check = |reply| reply::check(reply, message, plugin.settings.limits.reply_bytes_max);
    let checked = answer.and_then(|reply| Ok(reply.map(check).transpose()?));
    let (outcome, reply) = match checked {
        Ok(Some((reply, warning))) => {
            if let Some(warning) = warning {
                warn!(account = %message.account, plugin.name = %plugin.name, "Plugin `{}` {warning}", plugin.name);
            }
            (Ok(Said::Replied), Some(reply))
        }
        Ok(None) => (Ok(Said::Passed), None),
        Err(failure) => (Err(failure), None),
    };
    (Step { plugin: plugin.name.clone(), outcome, duration, memory_bytes, output }, reply)
}

fn log(step: &Step, message: &Message) {
    let Step { plugin, duration, memory_bytes, .. } = step;
    let duration_ms = plugin::millis(*duration);
    for line in &step.output {
        debug!(target: "aviary::guest", account = %message.account, plugin.name = %plugin, "{line}");
    }
    match &step.outcome {
        Ok(said) => debug!(
            account = %message.account, plugin.name = %plugin, duration_ms, memory_bytes, "Plugin `{plugin}`: {said:?}"
        ),
        Err(failure) => {
            let failure = masked(&failure.to_string(), message);
            warn!(
                account = %message.account, plugin.name = %plugin, duration_ms, memory_bytes,
                "Plugin `{plugin}` failed: it {failure}"
            );
        }
    }
}

/// A plugin's own words for the log, without the user's openid: an error likes to quote what it was about.
fn masked(text: &str, message: &Message) -> String {
    // A line break would begin a line that looks like one of ours.
    let text = text.replace(char::is_control, " ");
    if message.from_user.is_empty() { text } else { text.replace(&message.from_user, "[openid]") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::bindings::Body;

    #[test]
    fn a_failure_is_logged_without_the_users_openid() {
        let message = Message {
            account: "main".into(),
            to_user: "gh_1".into(),
            from_user: "oABC".into(),
            create_time: 1,
            msg_id: None,
            article: None,
            body: Body::Other("x".into()),
            extra: Vec::new(),
        };
        assert_eq!(masked("no session\nfor oABC", &message), "no session for [openid]");
    }
}
