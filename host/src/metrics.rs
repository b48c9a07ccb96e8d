//! What the host counts, for Prometheus to fetch from `/metrics`.
//!
//! Labels have names from the settings and of loaded plugins only, never what a request says, and their number is bounded.
//! The places that count are looked up when a chain is made, so that a message only adds to numbers; when an account or
//! a plugin is gone, so are its series.

mod forward;
mod wechat_api;

use std::{
    array,
    collections::{BTreeSet, HashSet},
    fmt::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

pub use forward::{ForwardMetrics, ForwardOutcome};

use crate::{
    dispatch::Said,
    plugin::{Failure, quarantine::Quarantined},
};
use forward::Forwards;
use wechat_api::ApiFamilies;
pub use wechat_api::{ApiMetrics, ApiOutcome};

/// The name under which the plugins are counted for which there is no room.
const OTHERS: &str = "(others)";

/// The upper bounds of how long a message or a call takes, in s.
const CALL_SECONDS: [f64; 13] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0];

/// The upper bounds of how long compiling a file takes, in s.
const COMPILE_SECONDS: [f64; 10] = [0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// What is not worth being called waiting: less is the time to ask whether there is a free instance.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A plugin replied.
    Replied,
    /// A plugin took it and had nothing to say.
    Silent,
    /// No plugin wanted it.
    Passed,
    /// Every plugin asked failed, and the account has words for that.
    Apologised,
    /// Every plugin asked failed.
    Failed,
    /// There was no time to ask, or to ask all.
    Unanswered,
}

impl Outcome {
    /// In the order of the enum.
    const WORDS: [&str; 6] = ["replied", "silent", "passed", "apologised", "failed", "unanswered"];
}

/// A step of the ladder of late replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateStep {
    /// A reply went out on a further try.
    NextTry,
    /// A reply was given to a try as WeChat hung up: it may be lost, or seen twice.
    Edge,
    /// A text was longer than one message.
    InParts,
    /// A try was answered `success`, and the reply is to be sent.
    PutOff,
    /// The last try was answered with `waiting_text`.
    Waiting,
    /// A customer-service message was sent.
    CustomerService,
    /// One is to be sent again.
    SentAgain,
    /// A reply is kept for its user.
    Kept,
    /// A user fetched one.
    Fetched,
    /// A reply was given up.
    Dead,
}

impl LateStep {
    /// In the order of the enum.
    const WORDS: [&str; 10] = [
        "next_try",
        "edge",
        "in_parts",
        "put_off",
        "waiting",
        "customer_service",
        "sent_again",
        "kept",
        "fetched",
        "dead",
    ];
}

/// What came of a plugin's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Replied,
    Passed,
    Cpu,
    Timeout,
    Memory,
    Stack,
    Trap,
    Error,
    Refused,
    Busy,
    /// It was not asked: it is out of its chain.
    Quarantined,
    /// It was not asked: the user had used up `per_user`.
    PerUser,
    /// It made a page.
    Served,
}

impl Turn {
    /// In the order of the enum.
    const WORDS: [&str; 13] = [
        "replied",
        "passed",
        "cpu",
        "timeout",
        "memory",
        "stack",
        "trap",
        "error",
        "refused",
        "busy",
        "quarantined",
        "per_user",
        "served",
    ];
}

impl Turn {
    /// Says what a call was.
    pub fn of(outcome: &Result<Said, Failure>) -> Self {
        match outcome {
            Ok(Said::Replied) => Self::Replied,
            Ok(Said::Passed) => Self::Passed,
            Ok(Said::Served) => Self::Served,
            Err(Failure::Cpu { .. }) => Self::Cpu,
            Err(Failure::Timeout { .. }) => Self::Timeout,
            Err(Failure::Memory { .. }) => Self::Memory,
            Err(Failure::Stack) => Self::Stack,
            Err(Failure::Trap(_)) => Self::Trap,
            Err(Failure::Guest(_)) => Self::Error,
            Err(Failure::Refused(_) | Failure::Page(_)) => Self::Refused,
            Err(Failure::Busy(_)) => Self::Busy,
        }
    }
}

/// What is counted about an account.
#[derive(Clone, Debug)]
pub struct AccountMetrics {
    messages: [Counter; Outcome::WORDS.len()],
    seconds: Histogram,
    retries: Counter,
    late: [Counter; LateStep::WORDS.len()],
}

impl AccountMetrics {
    /// Counts a message. `duration` is that of asking its plugins.
    pub fn message(&self, outcome: Outcome, duration: Duration) {
        self.messages[outcome as usize].inc();
        self.seconds.observe(duration.as_secs_f64());
    }

    /// Counts a push that joined a message that was there already.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// Counts a step of the ladder of late replies.
    pub fn late(&self, step: LateStep) {
        self.late[step as usize].inc();
    }

    /// Counts a message for which no plugin could be asked.
    pub fn unanswered(&self) {
        self.messages[Outcome::Unanswered as usize].inc();
    }
}

/// What is counted about a plugin in an account.
#[derive(Clone, Debug)]
pub struct PluginMetrics {
    turns: [Counter; Turn::WORDS.len()],
    seconds: Histogram,
    /// Of all plugins together.
    waits: Histogram,
}

impl PluginMetrics {
    /// Counts a call that took so long, and before waited so long until it could begin.
    pub fn call(&self, turn: Turn, duration: Duration, waited: Duration) {
        self.skip(turn);
        self.seconds.observe(duration.as_secs_f64());
        if waited >= WAIT_MIN {
            self.waits.observe(waited.as_secs_f64());
        }
    }

    /// Counts a turn that was no call.
    pub fn skip(&self, turn: Turn) {
        self.turns[turn as usize].inc();
    }
}

/// What is so and so large at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// Whether the first chains are complete.
    pub ready: bool,
    /// Guests that compute or wait.
    pub guests_running: usize,
    /// Places of the instance pool that are taken, and how many there are.
    pub instances: usize,
    pub instances_max: usize,
    /// Messages whose plugins are being asked.
    pub messages_in_flight: usize,
    /// Messages that would be recognised if WeChat sent them again.
    pub dedupe_keys: usize,
}

/// All that is counted. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    plugins_max: AtomicUsize,
    /// What has series now.
    known: Mutex<Known>,
    messages: Family<AccountOutcome, Counter>,
    message_seconds: Family<OfAccount, Histogram, fn() -> Histogram>,
    retries: Family<OfAccount, Counter>,
    late: Family<AccountStep, Counter>,
    refused: Family<Cause, Counter>,
    forwards: Forwards,
    turns: Family<PluginTurn, Counter>,
    call_seconds: Family<OfPlugin, Histogram, fn() -> Histogram>,
    wait_seconds: Histogram,
    quarantined: Family<OfPlugin, Gauge>,
    compiles: Family<CompileResult, Counter>,
    compile_seconds: Histogram,
    api: ApiFamilies,
    ready: Gauge,
    guests_running: Gauge,
    instances: Gauge,
    instances_max: Gauge,
    messages_in_flight: Gauge,
    dedupe_keys: Gauge,
}

#[derive(Debug, Default)]
struct Known {
    accounts: BTreeSet<Label>,
    plugins: BTreeSet<OfPlugin>,
}

/// A name as a label's value, with what the format would take for its own written out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Label(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAccount {
    account: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountOutcome {
    account: Label,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountStep {
    account: Label,
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct OfPlugin {
    account: Label,
    plugin: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginTurn {
    account: Label,
    plugin: Label,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CompileResult {
    result: &'static str,
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => encoder.write_str(r"\\"),
            '"' => encoder.write_str(r#"\""#),
            '\n' => encoder.write_str(r"\n"),
            char => encoder.write_char(char),
        })
    }
}

fn call_seconds() -> Histogram {
    Histogram::new(CALL_SECONDS)
}

impl Metrics {
    /// Counts from zero, with series for up to `plugins_max` plugins.
    pub fn new(plugins_max: usize) -> Self {
        let mut inner = Inner {
            registry: Registry::default(),
            plugins_max: AtomicUsize::new(plugins_max),
            known: Mutex::default(),
            messages: Family::default(),
            message_seconds: Family::new_with_constructor(call_seconds),
            retries: Family::default(),
            late: Family::default(),
            refused: Family::default(),
            forwards: Forwards::new(),
            turns: Family::default(),
            call_seconds: Family::new_with_constructor(call_seconds),
            wait_seconds: call_seconds(),
            quarantined: Family::default(),
            compiles: Family::default(),
            compile_seconds: Histogram::new(COMPILE_SECONDS),
            api: ApiFamilies::new(),
            ready: Gauge::default(),
            guests_running: Gauge::default(),
            instances: Gauge::default(),
            instances_max: Gauge::default(),
            messages_in_flight: Gauge::default(),
            dedupe_keys: Gauge::default(),
        };
        inner.register();
        Self(Arc::new(inner))
    }

    /// Changes how many plugins have series, for those that come from now on.
    pub fn resize(&self, plugins_max: usize) {
        self.0.plugins_max.store(plugins_max, Ordering::Relaxed);
    }

    /// Finds the series of an account.
    pub fn account(&self, account: &str) -> AccountMetrics {
        let account = Label(account.into());
        self.known().accounts.insert(account.clone());
        let inner = &self.0;
        let of_account = OfAccount { account };
        AccountMetrics {
            messages: array::from_fn(|index| {
                inner.messages.get_or_create_owned(&account_outcome(&of_account.account, Outcome::WORDS[index]))
            }),
            seconds: inner.message_seconds.get_or_create_owned(&of_account),
            retries: inner.retries.get_or_create_owned(&of_account),
            late: array::from_fn(|index| {
                inner.late.get_or_create_owned(&account_step(&of_account.account, LateStep::WORDS[index]))
            }),
        }
    }

    /// Finds the series of an account's calls of WeChat's API.
    pub fn api(&self, account: &str) -> ApiMetrics {
        let account = Label(account.into());
        self.known().accounts.insert(account.clone());
        self.0.api.of(&account)
    }

    /// Finds the series of an account's webhook.
    pub fn forward(&self, account: &str) -> ForwardMetrics {
        self.0.forwards.of(&Label(account.into()))
    }

    /// Finds the series of a plugin in an account; where there are too many, those of all the others together.
    pub fn plugin(&self, account: &Arc<str>, plugin: &Arc<str>) -> PluginMetrics {
        let inner = &self.0;
        let of_plugin = self.room_for(OfPlugin { account: Label(account.clone()), plugin: Label(plugin.clone()) });
        PluginMetrics {
            turns: array::from_fn(|index| {
                inner.turns.get_or_create_owned(&plugin_turn(&of_plugin, Turn::WORDS[index]))
            }),
            seconds: inner.call_seconds.get_or_create_owned(&of_plugin),
            waits: inner.wait_seconds.clone(),
        }
    }

    fn room_for(&self, own: OfPlugin) -> OfPlugin {
        let mut known = self.known();
        let is_full = known.plugins.len() >= self.0.plugins_max.load(Ordering::Relaxed);
        let labels = match known.plugins.contains(&own) || !is_full {
            true => own,
            false => OfPlugin { plugin: Label(OTHERS.into()), ..own },
        };
        known.plugins.insert(labels.clone());
        labels
    }

    /// Drops the series of every account and plugin that does not serve. `plugins` are named with their accounts.
    pub fn retain(&self, accounts: &HashSet<&str>, plugins: &HashSet<(&str, &str)>) {
        let mut known = self.known();
        known.plugins.retain(|of_plugin| {
            let (account, plugin) = (&*of_plugin.account.0, &*of_plugin.plugin.0);
            let serves = plugins.contains(&(account, plugin)) || plugin == OTHERS && accounts.contains(account);
            if !serves {
                self.0.remove_plugin(of_plugin);
            }
            serves
        });
        known.accounts.retain(|account| {
            let serves = accounts.contains(&*account.0);
            if !serves {
                self.0.remove_account(account);
            }
            serves
        });
    }

    /// Counts a request that was turned away. `cause` is one of a few words.
    pub fn refused(&self, cause: &'static str) {
        self.0.refused.get_or_create(&Cause { cause }).inc();
    }

    /// Counts a file that was compiled, or was not because it cannot be.
    pub fn compiled(&self, worked: bool, duration: Duration) {
        let result = if worked { "compiled" } else { "failed" };
        self.0.compiles.get_or_create(&CompileResult { result }).inc();
        self.0.compile_seconds.observe(duration.as_secs_f64());
    }

    /// Writes everything in the format of OpenMetrics. `out` are the plugins that are out of their chains now.
    pub fn text(&self, levels: &Levels, out: &[Quarantined]) -> String {
        self.0.set(levels);
        self.set_quarantined(out);
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry).expect("a `String` takes all that is written to it");
        text
    }

    /// Of the plugins that are counted together, it takes one that is out.
    fn set_quarantined(&self, out: &[Quarantined]) {
        let known = self.known();
        let label = |name: &str| Label(name.into());
        let series = |out: &Quarantined| {
            let own = OfPlugin { account: label(&out.account), plugin: label(&out.plugin) };
            if known.plugins.contains(&own) { own } else { OfPlugin { plugin: label(OTHERS), ..own } }
        };
        let out: HashSet<OfPlugin> = out.iter().map(series).collect();
        for of_plugin in &known.plugins {
            self.0.quarantined.get_or_create(of_plugin).set(out.contains(of_plugin).into());
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Only whole names go in and out, so a panic elsewhere does not spoil it.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn account_outcome(account: &Label, outcome: &'static str) -> AccountOutcome {
    AccountOutcome { account: account.clone(), outcome }
}

fn account_step(account: &Label, step: &'static str) -> AccountStep {
    AccountStep { account: account.clone(), step }
}

fn plugin_turn(OfPlugin { account, plugin }: &OfPlugin, outcome: &'static str) -> PluginTurn {
    PluginTurn { account: account.clone(), plugin: plugin.clone(), outcome }
}

impl Inner {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("aviary_build", "The version of this host", version);
        registry.register("aviary_ready", "1 once the plugins of the first start are loaded", self.ready.clone());

        let help = "Messages by what came of them; a message that WeChat sends again is the same one";
        registry.register("aviary_messages", help, self.messages.clone());
        let help = "How long it took to ask a message's plugins";
        registry.register_with_unit("aviary_message", help, Unit::Seconds, self.message_seconds.clone());
        let help = "Messages whose plugins are being asked";
        registry.register("aviary_messages_in_flight", help, self.messages_in_flight.clone());
        let help = "Pushes that joined the outcome of an earlier try";
        registry.register("aviary_retries", help, self.retries.clone());
        let help = "Steps on the way of replies that were not there in time, or not in one message";
        registry.register("aviary_late", help, self.late.clone());
        let help = "Requests that were turned away, by cause";
        registry.register("aviary_refused", help, self.refused.clone());
        let help = "Messages that are recognised when WeChat sends them again";
        registry.register("aviary_dedupe_keys", help, self.dedupe_keys.clone());
        self.forwards.register(registry);

        let help = "Turns of plugins by what came of them";
        registry.register("aviary_plugin_calls", help, self.turns.clone());
        let help = "How long a plugin's calls took, waiting included";
        registry.register_with_unit("aviary_plugin_call", help, Unit::Seconds, self.call_seconds.clone());
        let help = "How long calls waited that found no free instance at once";
        registry.register_with_unit("aviary_wait", help, Unit::Seconds, self.wait_seconds.clone());
        let help = "1 while a plugin is out of its account's chain because it kept failing";
        registry.register("aviary_plugin_quarantined", help, self.quarantined.clone());

        let help = "Guests that compute or wait for something";
        registry.register("aviary_guests_running", help, self.guests_running.clone());
        registry.register("aviary_instances", "Places for guests that are taken", self.instances.clone());
        registry.register(
            "aviary_instances_max",
            "Places for guests (`engine.instances_max`)",
            self.instances_max.clone(),
        );

        registry.register("aviary_compiles", "Plugin files that were compiled, or cannot be", self.compiles.clone());
        let help = "How long compiling a plugin file took";
        registry.register_with_unit("aviary_compile", help, Unit::Seconds, self.compile_seconds.clone());

        self.api.register(registry);
        registry.register_collector(Box::new(Process));
    }

    fn set(&self, levels: &Levels) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.ready.set(levels.ready.into());
        self.guests_running.set(number(levels.guests_running));
        self.instances.set(number(levels.instances));
        self.instances_max.set(number(levels.instances_max));
        self.messages_in_flight.set(number(levels.messages_in_flight));
        self.dedupe_keys.set(number(levels.dedupe_keys));
    }

    fn remove_plugin(&self, of_plugin: &OfPlugin) {
        for outcome in Turn::WORDS {
            self.turns.remove(&plugin_turn(of_plugin, outcome));
        }
        self.call_seconds.remove(of_plugin);
        self.quarantined.remove(of_plugin);
    }

    fn remove_account(&self, account: &Label) {
        for outcome in Outcome::WORDS {
            self.messages.remove(&account_outcome(account, outcome));
        }
        let of_account = OfAccount { account: account.clone() };
        self.message_seconds.remove(&of_account);
        self.retries.remove(&of_account);
        for step in LateStep::WORDS {
            self.late.remove(&account_step(account, step));
        }
        self.api.remove(account);
        self.forwards.remove(account);
    }
}

/// What the system knows about this process, under the names that Prometheus uses everywhere. Where there is no `/proc`,
/// there is nothing.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = resident_bytes() {
            let help = "Memory that this process holds";
            let name = "process_resident_memory";
            let gauge = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let help = "Computing time that this process took";
            let counter = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
            ConstCounter::new(seconds).encode(counter)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    Some(kib.parse::<u64>().ok()? << 10)
}

/// The unit of times in `/proc`: the same on every processor that Linux and we run on.
const TICKS_PER_SECOND: f64 = 100.0;

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; `utime` and `stime` are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        metrics.text(&Levels::default(), &[])
    }

    fn retain(metrics: &Metrics, plugins: &[(&str, &str)]) {
        let accounts = plugins.iter().map(|(account, _)| *account).collect();
        metrics.retain(&accounts, &plugins.iter().copied().collect());
    }

    #[test]
    fn every_outcome_has_a_word_of_its_own() {
        assert_eq!(Outcome::WORDS[Outcome::Unanswered as usize], "unanswered");
        assert_eq!(Turn::WORDS[Turn::PerUser as usize], "per_user");
        let word = |outcome| Turn::WORDS[Turn::of(&outcome) as usize];
        assert_eq!((word(Ok(Said::Replied)), word(Ok(Said::Passed))), ("replied", "passed"));
        assert_eq!(word(Err(Failure::Guest(String::new()))), "error");
        assert_eq!(word(Err(Failure::Stack)), "stack");
    }

    #[test]
    fn what_is_counted_is_told_by_account_plugin_and_outcome() {
        let metrics = Metrics::new(10);
        let (account, plugin) = (metrics.account("main"), metrics.plugin(&"main".into(), &"echo".into()));
        account.message(Outcome::Replied, Duration::from_millis(2));
        account.retry();
        plugin.call(Turn::Replied, Duration::from_millis(2), Duration::ZERO);
        plugin.call(Turn::Trap, Duration::from_millis(5), Duration::from_millis(4));
        plugin.skip(Turn::PerUser);
        metrics.refused("signature");
        metrics.compiled(true, Duration::from_millis(200));
        let text = metrics.text(&Levels { ready: true, dedupe_keys: 7, ..Levels::default() }, &[]);
        for line in [
            "aviary_messages_total{account=\"main\",outcome=\"replied\"} 1",
            "aviary_message_seconds_bucket{le=\"0.003\",account=\"main\"} 1",
            "aviary_retries_total{account=\"main\"} 1",
            "aviary_plugin_calls_total{account=\"main\",plugin=\"echo\",outcome=\"replied\"} 1",
            "aviary_plugin_calls_total{account=\"main\",plugin=\"echo\",outcome=\"per_user\"} 1",
            "aviary_plugin_calls_total{account=\"main\",plugin=\"echo\",outcome=\"cpu\"} 0",
            "aviary_wait_seconds_count 1",
            "aviary_plugin_call_seconds_count{account=\"main\",plugin=\"echo\"} 2",
            "aviary_refused_total{cause=\"signature\"} 1",
            "aviary_compiles_total{result=\"compiled\"} 1",
            "aviary_ready 1",
            "aviary_dedupe_keys 7",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
    }

    #[test]
    fn the_same_names_are_the_same_series_and_those_of_who_is_gone_are_gone() {
        let metrics = Metrics::new(10);
        for _ in 0..2 {
            metrics.account("main").retry();
            metrics.plugin(&"main".into(), &"echo".into()).skip(Turn::Passed);
        }
        metrics.account("shop");
        metrics.plugin(&"main".into(), &"gone".into());
        retain(&metrics, &[("main", "echo")]);
        let text = text(&metrics);
        assert!(text.contains("aviary_retries_total{account=\"main\"} 2"), "{text}");
        assert!(text.contains("plugin=\"echo\",outcome=\"passed\"} 2"), "{text}");
        assert!(!text.contains("gone") && !text.contains("shop"), "{text}");
    }

    #[test]
    fn plugins_beyond_the_bound_are_counted_together() {
        let metrics = Metrics::new(2);
        let names: Vec<String> = (0..9).map(|n| format!("p{n}")).collect();
        for name in &names {
            metrics.plugin(&"main".into(), &name.as_str().into()).skip(Turn::Passed);
        }
        let serving: Vec<_> = names.iter().map(|name| ("main", name.as_str())).collect();
        retain(&metrics, &serving);
        let text = text(&metrics);
        assert!(text.contains("plugin=\"p1\"") && !text.contains("plugin=\"p2\""), "{text}");
        assert!(text.contains("plugin=\"(others)\",outcome=\"passed\"} 7"), "{text}");
    }

    #[test]
    fn who_is_out_is_told_as_it_is_when_asked() {
        let metrics = Metrics::new(2);
        for name in ["a", "b", "c"] {
            metrics.plugin(&"main".into(), &name.into());
        }
        use crate::plugin::quarantine::Part;
        let out = |plugin: &str| Quarantined {
            part: Part::Bot,
            account: "main".into(),
            plugin: plugin.into(),
            code: String::new(),
            why: String::new(),
            out_s: 0,
            probe_in_s: 0,
            probes_failed: 0,
        };
        let told = |out: &[Quarantined]| {
            let text = metrics.text(&Levels::default(), out);
            ["a", "b", "(others)"].map(|name| {
                let start = format!("aviary_plugin_quarantined{{account=\"main\",plugin=\"{name}\"}} ");
                text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned).unwrap_or_default()
            })
        };
        assert_eq!(told(&[out("a"), out("c")]), ["1", "0", "1"]);
        assert_eq!(told(&[out("b"), out("gone elsewhere")])[..2], ["0", "1"]);
        assert_eq!(told(&[]), ["0", "0", "0"]);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new(10);
        metrics.plugin(&"main".into(), &"a\"} 1\nb\\".into());
        let text = text(&metrics);
        assert!(text.contains(r#"plugin="a\"} 1\nb\\""#), "{text}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_told_as_everywhere() {
        let text = text(&Metrics::new(10));
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(value("process_resident_memory_bytes ").is_some_and(|bytes| bytes > 1e6), "{text}");
        assert!(value("process_cpu_seconds_total ").is_some_and(|seconds| seconds >= 0.0), "{text}");
    }
}
