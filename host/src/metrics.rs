//! What the host counts, for Prometheus to fetch from `/metrics`.
//!
//! Labels have names from the settings and of loaded plugins only, never what a request says, and their number is bounded.
//! The places that count are looked up when a chain is made, so that a message only adds to numbers; when an account or
//! a plugin is gone, so are its series.

mod account;
mod forward;
mod label;
mod plugin;
mod process;
mod wechat_api;

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use self::{
    account::Accounts,
    forward::Forwards,
    label::{Label, OfPlugin},
    plugin::Plugins,
    process::Process,
    wechat_api::ApiFamilies,
};
pub use self::{
    account::{AccountMetrics, LateStep, Outcome},
    forward::{ForwardMetrics, ForwardOutcome},
    plugin::{PluginMetrics, Turn},
    wechat_api::{ApiMetrics, ApiOutcome},
};
use crate::plugin::quarantine::{Part, Quarantined};

/// The name under which the plugins are counted for which there is no room.
const OTHERS: &str = "(others)";

/// The upper bounds of how long a message or a call takes, in s.
const CALL_SECONDS: [f64; 13] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0];

/// The upper bounds of how long compiling a file takes, in s.
const COMPILE_SECONDS: [f64; 10] = [0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0];

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
    accounts: Accounts,
    refused: Family<Cause, Counter>,
    forwards: Forwards,
    plugins: Plugins,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CompileResult {
    result: &'static str,
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
            accounts: Accounts::new(),
            refused: Family::default(),
            forwards: Forwards::new(),
            plugins: Plugins::new(),
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
        self.0.accounts.of(&account)
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
        let own = OfPlugin { account: Label(account.clone()), plugin: Label(plugin.clone()) };
        self.0.plugins.of(&self.room_for(own))
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
                self.0.plugins.remove(of_plugin);
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
            let own = if known.plugins.contains(&own) { own } else { OfPlugin { plugin: label(OTHERS), ..own } };
            (own, out.part)
        };
        let out: HashSet<(OfPlugin, Part)> = out.iter().map(series).collect();
        for of_plugin in &known.plugins {
            for part in Part::ALL {
                self.0.plugins.set_quarantined(of_plugin, part, out.contains(&(of_plugin.clone(), part)));
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Only whole names go in and out, so a panic elsewhere does not spoil it.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("aviary_build", "The version of this host", version);
        registry.register("aviary_ready", "1 once the plugins of the first start are loaded", self.ready.clone());

        self.accounts.register(registry);
        let help = "Messages whose plugins are being asked";
        registry.register("aviary_messages_in_flight", help, self.messages_in_flight.clone());
        let help = "Requests that were turned away, by cause";
        registry.register("aviary_refused", help, self.refused.clone());
        let help = "Messages that are recognised when WeChat sends them again";
        registry.register("aviary_dedupe_keys", help, self.dedupe_keys.clone());
        self.forwards.register(registry);
        self.plugins.register(registry);

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

    fn remove_account(&self, account: &Label) {
        self.accounts.remove(account);
        self.api.remove(account);
        self.forwards.remove(account);
    }
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
    fn what_is_counted_is_told_by_account_plugin_and_outcome() {
        let metrics = Metrics::new(10);
        let (account, plugin) = (metrics.account("main"), metrics.plugin(&"main".into(), &"echo".into()));
        account.message(Outcome::Replied, Duration::from_millis(2));
        account.retry();
        plugin.call(Part::Bot, Turn::Replied, Duration::from_millis(2), Duration::ZERO);
        plugin.call(Part::Bot, Turn::Trap, Duration::from_millis(5), Duration::from_millis(4));
        plugin.call(Part::Pages, Turn::Busy, Duration::from_millis(5), Duration::from_millis(5));
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
            "aviary_wait_seconds_count{part=\"bot\"} 1",
            "aviary_wait_seconds_count{part=\"pages\"} 1",
            "aviary_plugin_call_seconds_count{account=\"main\",plugin=\"echo\"} 3",
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
        let part_out = |part, plugin: &str| Quarantined {
            part,
            account: "main".into(),
            plugin: plugin.into(),
            code: String::new(),
            why: String::new(),
            out_s: 0,
            probe_in_s: 0,
            again_in_s: 0,
            probing: false,
            probes_failed: 0,
        };
        let out = |plugin: &str| part_out(Part::Bot, plugin);
        let told = |out: &[Quarantined]| {
            let text = metrics.text(&Levels::default(), out);
            ["a", "b", "(others)"].map(|name| {
                let start = format!("aviary_plugin_quarantined{{account=\"main\",plugin=\"{name}\",part=\"bot\"}} ");
                text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned).unwrap_or_default()
            })
        };
        assert_eq!(told(&[out("a"), out("c")]), ["1", "0", "1"]);
        assert_eq!(told(&[out("b"), out("gone elsewhere")])[..2], ["0", "1"]);
        assert_eq!(told(&[]), ["0", "0", "0"]);
        let pages_out = [part_out(Part::Pages, "a")];
        assert_eq!(told(&pages_out), ["0", "0", "0"], "its bot goes on");
        let text = metrics.text(&Levels::default(), &pages_out);
        assert!(text.contains("aviary_plugin_quarantined{account=\"main\",plugin=\"a\",part=\"pages\"} 1\n"), "{text}");
        retain(&metrics, &[("main", "a")]);
        assert!(!self::text(&metrics).contains("quarantined{account=\"main\",plugin=\"b\""));
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
