//! Step 6: the plugins of an account are asked in order until one replies.

mod guest_log;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use crate::{
    config::{Account, GuestLog},
    forward::Forward,
    metrics::{AccountMetrics, LateStep, Outcome},
    plugin::{
        self, Call, Failure, Plugin,
        bindings::{Body, Event, Reply},
        question::Question,
        record::Held,
        rules::{self, Facts},
    },
    reply,
};
use guest_log::{last_lines, masked};

/// How much earlier plugins must be done where an apology may have to go out: it is to arrive within the window, too.
const APOLOGY_TAKES: Duration = Duration::from_millis(100);

/// The plugins of one account in the order they are asked. A reload makes a new one; it never edits this.
#[derive(Debug, Default)]
pub struct Chain {
    pub plugins: Vec<Arc<Plugin>>,
    index: rules::Index,
    terms: Terms,
}

/// What holds for all plugins of an account.
#[derive(Debug, Default)]
struct Terms {
    /// What a message has from its arrival to its answer.
    window: Duration,
    /// What the user reads when every plugin asked failed.
    apology: Option<Reply>,
    guest_log: GuestLog,
    /// Whom to ask when no plugin answered.
    forward: Option<Forward>,
    /// Nothing for plugins that answer no user.
    metrics: Option<AccountMetrics>,
}

impl Chain {
    /// A chain that answers no user: nothing is counted or logged, and nobody gets an apology.
    pub fn of(plugins: Vec<Arc<Plugin>>) -> Self {
        let index = rules::Index::of(plugins.iter().map(|plugin| plugin.settings.matches.as_slice()));
        Self { plugins, index, terms: Terms::default() }
    }

    /// The same chain, as it serves an account.
    pub fn serving(
        self,
        account: &Account,
        forward: Option<Forward>,
        guest_log: GuestLog,
        metrics: AccountMetrics,
    ) -> Self {
        let apology = account.apology_text.clone().map(Reply::Text);
        let window = account.late.window;
        Self { terms: Terms { window, apology, guest_log, forward, metrics: Some(metrics) }, ..self }
    }

    /// The webhook that is asked when no plugin answered.
    pub fn forward(&self) -> Option<&Forward> {
        self.terms.forward.as_ref()
    }

    /// Counts a step of the ladder of late replies.
    pub fn count_late(&self, step: LateStep) {
        self.terms.metrics.iter().for_each(|metrics| metrics.late(step));
    }

    /// Tells what one of its plugins did for a user. Returns what the log says of its failure: "it …". Where there is no user,
    /// whoever holds the conversation shows the steps.
    pub fn tell(&self, step: &Step, account: &str, openid: &str) -> String {
        let failure = step.outcome.as_ref().err().map(|failure| masked(&failure.to_string(), openid));
        let failure = failure.unwrap_or_default();
        if self.answers_users() {
            log(step, &failure, account, openid, self.terms.guest_log);
        }
        failure
    }

    /// Whether it is an account's, which counts what it does: a rehearsal, a simulator and a canary have none.
    fn answers_users(&self) -> bool {
        self.terms.metrics.is_some()
    }

    /// The plugins whose rules fit a message, in order.
    fn fitting<'a>(&'a self, facts: &Facts<'a>) -> impl Iterator<Item = &'a Arc<Plugin>> {
        let candidates = self.index.candidates(facts).into_iter().map(move |place| &self.plugins[place]);
        candidates.filter(move |plugin| rules::fit(&plugin.settings.matches, facts))
    }

    /// Counts a push that joined a message that was there already.
    pub fn count_retry(&self) {
        self.terms.metrics.iter().for_each(AccountMetrics::retry);
    }

    /// Counts a message for which no plugin could be asked in time.
    pub fn count_unanswered(&self) {
        self.terms.metrics.iter().for_each(AccountMetrics::unanswered);
    }
}

/// What came of a message.
#[derive(Debug)]
pub struct Dispatch {
    /// The reply, ready for WeChat; none when no plugin had one.
    pub reply: Option<Reply>,
    pub outcome: Outcome,
    /// Whether the webhook was asked, because no plugin answered.
    pub is_forwarded: bool,
    /// Whether it was not there.
    pub is_unasked: bool,
    /// The plugins that were asked, in order. Those whose rules did not fit are not among them, nor are those that were
    /// held back.
    pub steps: Vec<Step>,
}

/// One plugin that was asked.
#[derive(Debug)]
pub struct Step {
    pub plugin: Arc<str>,
    pub outcome: Result<Said, Failure>,
    pub duration: Duration,
    /// How much of that it waited before it could begin.
    pub waited: Duration,
    pub memory_bytes: usize,
    pub output: Vec<String>,
}

/// What a plugin that did not fail did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Not mine, ask the next.
    Passed,
    Replied,
    /// It made a page for a visitor.
    Served,
}

impl Dispatch {
    /// The plugin that answered.
    pub fn answered_by(&self) -> Option<&str> {
        self.steps.last().filter(|step| matches!(step.outcome, Ok(Said::Replied))).map(|step| &*step.plugin)
    }
}

/// Asks the plugins one after another, all of them done by `deadline`, and then the account's webhook. A plugin that fails is
/// skipped; when all do, or the webhook does, the user reads the account's apology, if it has one.
pub async fn run(chain: &Chain, question: &Question, deadline: Instant) -> Dispatch {
    let started = Instant::now();
    let apology = chain.terms.apology.as_ref().filter(|_| expects_words(&question.message.body));
    let deadline = apology.and_then(|_| deadline.checked_sub(APOLOGY_TAKES)).unwrap_or(deadline);
    let mut dispatch = ask_in_order(chain, question, deadline).await;
    if let Some(forward) = &chain.terms.forward
        && matches!(dispatch.outcome, Outcome::Passed | Outcome::Failed)
    {
        dispatch.reply = Box::pin(forward.ask(question, deadline)).await;
        dispatch.outcome = dispatch.reply.as_ref().map_or(Outcome::Failed, outcome_of);
        (dispatch.is_forwarded, dispatch.is_unasked) = (true, dispatch.reply.is_none() && forward.is_away());
    }
    if dispatch.outcome == Outcome::Failed
        && let Some(apology) = apology
    {
        dispatch.reply = Some(apology.clone());
        dispatch.outcome = Outcome::Apologised;
    }
    if let Some(metrics) = &chain.terms.metrics {
        metrics.message(dispatch.outcome, started.elapsed());
    }
    dispatch
}

async fn ask_in_order(chain: &Chain, question: &Question, deadline: Instant) -> Dispatch {
    let message = &question.message;
    let facts = Facts::of(message);
    let mut steps = Vec::new();
    // A plugin that is held back counts as what it would most likely have done.
    let (mut passed, mut failed, mut is_late) = (0, 0, false);
    for plugin in chain.fitting(&facts) {
        let now = Instant::now();
        if now >= deadline {
            warn!(account = %message.account, plugin.name = %plugin.name, "No time was left to ask plugin `{}`", plugin.name);
            is_late = true;
            break;
        }
        let admitted = match plugin.record.admit(&message.from_user, now) {
            Ok(admitted) => admitted,
            Err(Held::Quarantined) => {
                failed += 1;
                continue;
            }
            Err(Held::PerUser) => {
                passed += 1;
                continue;
            }
        };
        let (step, reply) = ask(plugin, question, deadline).await;
        let told = chain.tell(&step, &message.account, &message.from_user);
        admitted.settle(&step, &told, expected(plugin, chain.terms.window));
        match step.outcome {
            Ok(Said::Passed) => passed += 1,
            Ok(Said::Replied | Said::Served) => {}
            Err(_) => failed += 1,
        }
        steps.push(step);
        if let Some(reply) = reply {
            let outcome = outcome_of(&reply);
            return Dispatch { reply: Some(reply), outcome, is_forwarded: false, is_unasked: false, steps };
        }
    }
    let outcome = match (passed, failed) {
        (0, 1..) => Outcome::Failed,
        _ if is_late => Outcome::Unanswered,
        _ => Outcome::Passed,
    };
    Dispatch { reply: None, outcome, is_forwarded: false, is_unasked: false, steps }
}

fn outcome_of(reply: &Reply) -> Outcome {
    if matches!(reply, Reply::Nothing) { Outcome::Silent } else { Outcome::Replied }
}

/// The time that a plugin may count on, if those before it take none.
fn expected(plugin: &Plugin, window: Duration) -> Duration {
    match plugin.settings.limits.timeout_ms {
        0 => window,
        own => window.min(Duration::from_millis(own)),
    }
}

/// Whether the user said or did something, and waits. To what happens by itself, such as a reported place, an apology would
/// come out of nowhere.
pub(crate) fn expects_words(body: &Body) -> bool {
    match body {
        Body::Event(event) => matches!(
            event,
            Event::Subscribe(_)
                | Event::Scan(_)
                | Event::Click(_)
                | Event::ScancodeWaitmsg(_)
                | Event::PicSysphoto(_)
                | Event::PicPhotoOrAlbum(_)
                | Event::PicWeixin(_)
                | Event::LocationSelect(_)
        ),
        _ => true,
    }
}

/// Asks one plugin and makes its reply fit for WeChat.
async fn ask(plugin: &Plugin, question: &Question, deadline: Instant) -> (Step, Option<Reply>) {
    let message = &question.message;
    let Call { answer, duration, waited, memory_bytes, output } = plugin.call(question, deadline).await;
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
    (Step { plugin: plugin.name.clone(), outcome, duration, waited, memory_bytes, output }, reply)
}

/// Tells what a plugin did in an account for a user, and how it failed if it did.
fn log(step: &Step, failure: &str, account: &str, openid: &str, guest_log: GuestLog) {
    let Step { plugin, duration, memory_bytes, output, .. } = step;
    let duration_ms = plugin::millis(*duration);
    for line in output {
        match guest_log {
            GuestLog::Trace => {
                debug!(target: GUEST, %account, plugin.name = %plugin, "{line}");
            }
            GuestLog::Log => {
                let line = masked(line, openid);
                info!(target: GUEST, %account, plugin.name = %plugin, "Plugin `{plugin}` wrote: {line}");
            }
            GuestLog::Off => {}
        }
    }
    match &step.outcome {
        Ok(said) => {
            debug!(
                %account, plugin.name = %plugin, duration_ms, memory_bytes, "Plugin `{plugin}`: {said:?}"
            );
        }
        Err(_) => {
            let output = last_lines(output, openid);
            warn!(
                %account, plugin.name = %plugin, duration_ms, memory_bytes, output,
                "Plugin `{plugin}` failed: it {failure}"
            );
        }
    }
}

/// Whose the lines are that a plugin wrote, for `[log] level`.
const GUEST: &str = "aviary::guest";
