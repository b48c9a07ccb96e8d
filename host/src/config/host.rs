//! The settings of the host itself: one small struct for each table that is not about an account or a plugin.

use std::time::Duration;

use super::{
    defaults,
    section::{Section, to_usize},
};
use crate::machine;

/// How many calls may run at once where nothing is said and there is memory enough: a thousand that wait, and some that do not.
const PLACES: usize = 1_100;

/// How much memory a machine must have for each of them. A place keeps what was used of its stack, and the beginnings of its
/// memories and tables, 1.2 MiB at most with the stack and the reset that ship: half of them, which is what one plugin gets for
/// messages, then keep less than a third of the memory, and the quarter more for its pages less than a sixth, whatever it does.
const PLACE_BYTES: usize = 2 << 20;

/// `[listener]`: the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The largest body of a push. Default 262,144 bytes.
    pub body_bytes_max: usize,
    /// The largest header of a request. Default 16,384 bytes.
    pub header_bytes_max: usize,
    /// `header_timeout_ms`: how long a caller may take to send a request's header. Default 5 s.
    pub header_timeout: Duration,
    /// `idle_timeout_ms`: how long a connection without a request is kept. Default 75 s.
    pub idle_timeout: Duration,
    /// How many connections may be open at once. Default 4,096.
    pub connections_max: usize,
    /// `shutdown_ms`: how long a shutdown waits for the messages in flight. Default 6 s.
    pub shutdown: Duration,
}

/// `[dedupe]`: the memory that recognises a message WeChat sends again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// How many pushes it holds at once. Default 500,000.
    pub keys_max: usize,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it. Default `info`.
    pub level: String,
    /// How an event is written. Default text.
    pub format: LogFormat,
    /// How a user is named. Default by a keyed hash.
    pub user: LogUser,
    /// Where a plugin's own output goes. Default: only to whoever traces.
    pub guest: GuestLog,
}

/// How a log event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How a user is named in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogUser {
    /// By a keyed hash of the openid: events of one user can be found together, and nobody learns who it is.
    Hash,
    /// Not at all.
    Off,
}

/// Where a plugin's own output goes; with a failure, its last lines always come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestLog {
    /// Into the log at level `debug`, as it is.
    #[default]
    Trace,
    /// Into the log at level `info`, openids masked.
    Log,
    /// Nowhere.
    Off,
}

/// `[watch]`: how changed files are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// `quiet_ms`: how long a file must have been left alone before it is read. Default 50 ms.
    pub quiet: Duration,
    /// `poll_ms`: how often to look where the system reports no changes. Default 2 s.
    pub poll: Duration,
}

/// `[metrics]`: what `/metrics` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How many plugins have series of their own, in all accounts together; one in two accounts counts twice. Default 1,000.
    pub plugins_max: usize,
}

/// `[per_user]`: the memory of who called which plugin lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerUser {
    /// How many users of plugins it holds at once. Default 100,000.
    pub users_max: usize,
}

/// `[engine]`: what is reserved once, for all plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// How many calls may run at once. Default 0: as many as the machine's memory bears.
    pub instances_max: usize,
    /// The linear memory of all guests together, in MiB. Default 0: half of the machine's.
    pub memory_mib: usize,
    /// The stack that a guest may use, in KiB. Default 512.
    pub stack_kib: usize,
    /// Whether the kernel is asked which pages a call has written. Default false.
    pub pagemap_scan: bool,
}

/// How many calls of one account's plugins may run and wait: keys of `[accounts.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountCalls {
    /// `calls_max`: how many run at once. Default 0: all that the host has for its only account, else three quarters.
    pub calls_max: usize,
    /// `calls_waiting_max`: how many wait for their turn. Default 1,000.
    pub waiting_max: usize,
}

/// `[versions]`: the plugins that served before, kept to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// How many of each plugin, the one that serves among them. Default 5.
    pub count_max: usize,
    /// How much room they may take in all, in MiB. Default 512.
    pub mib_max: u64,
}

/// `[canary]`: the conversations beside plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// `timeout_s`: how long one may take. Default 30 s.
    pub timeout: Duration,
}

impl Versions {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { count_max: section.count("count_max", 0..=100), mib_max: section.number("mib_max", 1..=1_048_576) }
    }
}

impl Canary {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { timeout: Duration::from_secs(section.number("timeout_s", 1..=600)) }
    }
}

impl Listener {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            body_bytes_max: section.count("body_bytes_max", 1024..=16_777_216),
            header_bytes_max: section.count("header_bytes_max", 8192..=1_048_576),
            header_timeout: section.millis("header_timeout_ms", 100..=60_000),
            idle_timeout: section.millis("idle_timeout_ms", 100..=3_600_000),
            connections_max: section.count("connections_max", 1..=65_536),
            shutdown: section.millis("shutdown_ms", 0..=600_000),
        }
    }
}

impl Dedupe {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { keys_max: section.count("keys_max", 1_000..=100_000_000) }
    }
}

impl Log {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let level = section.parsed("level", level);
        let format = section.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let user = section.choice("user", &[("hash", LogUser::Hash), ("off", LogUser::Off)]);
        let guest = [("trace", GuestLog::Trace), ("log", GuestLog::Log), ("off", GuestLog::Off)];
        let guest = section.choice("guest", &guest);
        Some(Self { level: level?, format: format?, user: user?, guest: guest? })
    }
}

/// Accepts what `EnvFilter` does, but for a single word that is no level: `EnvFilter` takes a misspelt `inof` for a
/// module and logs nothing else.
fn level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    let fits = |part: &str| match part.rsplit_once('=') {
        Some((module, level)) => !module.is_empty() && is_level(level),
        None => is_level(part),
    };
    match text.split(',').map(str::trim).all(fits) {
        true => Ok(text.to_owned()),
        false => Err(format!("may be {}, also by module: \"info,aviary_host=debug\"", LEVELS.join(", "))),
    }
}

impl Watch {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { quiet: section.millis("quiet_ms", 0..=10_000), poll: section.millis("poll_ms", 100..=3_600_000) }
    }
}

impl Metrics {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { plugins_max: section.count("plugins_max", 0..=100_000) }
    }
}

impl PerUser {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { users_max: section.count("users_max", 100..=10_000_000) }
    }
}

impl Engine {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            instances_max: section.count("instances_max", 0..=10_000),
            memory_mib: section.count("memory_mib", 0..=16_777_216),
            stack_kib: section.count("stack_kib", 64..=1_024),
            pagemap_scan: section.truth("pagemap_scan").unwrap_or(false),
        }
    }

    /// Returns `instances_max`; for 0, as many as the memory of the machine or the container bears.
    pub fn places(&self) -> usize {
        match self.instances_max {
            0 => places(machine::memory_bytes()),
            places => places,
        }
    }

    /// Returns `memory_mib` in bytes; for 0, half of what the machine or the container has.
    pub fn memory_bytes(&self) -> usize {
        match self.memory_mib {
            0 => machine::memory_bytes() / 2,
            mib => mib << 20,
        }
    }

    /// Returns `stack_kib` in bytes.
    pub fn stack_bytes(&self) -> usize {
        self.stack_kib << 10
    }
}

/// How many places are reserved where nothing is said, in so much memory.
fn places(memory_bytes: usize) -> usize {
    (memory_bytes / PLACE_BYTES).clamp(1, PLACES)
}

impl AccountCalls {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            calls_max: section.count("calls_max", 0..=10_000),
            waiting_max: section.count("calls_waiting_max", 1..=100_000),
        }
    }
}

/// For an account of which nothing is said.
impl Default for AccountCalls {
    fn default() -> Self {
        let number = |key| to_usize(defaults::number(defaults::account(), key));
        Self { calls_max: number("calls_max"), waiting_max: number("calls_waiting_max") }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{error, load};
    use super::*;

    #[test]
    fn a_small_machine_has_fewer_places() {
        for (mib, most) in [(0, 1), (512, 256), (1_024, 512), (2_048, 1_024), (4_096, 1_100), (65_536, 1_100)] {
            assert_eq!(places(mib << 20), most, "{mib} MiB");
        }
        let engine = |toml: &str| load(&format!("{toml}\n[accounts.main]\ntoken = \"abc\"")).engine;
        assert_eq!(engine("").places(), places(machine::memory_bytes()));
        assert_eq!(engine("[engine]\ninstances_max = 7").places(), 7);
    }

    #[test]
    fn what_is_logged_is_a_level_or_levels_by_module() {
        for text in ["info", "WARN", "off", "info,aviary_host=debug", "warn, aviary_host::dispatch=trace"] {
            assert_eq!(level(text).as_deref(), Ok(text));
        }
        for text in ["", "inof", "info,", "aviary_host=loud", "=info", "aviary_host"] {
            assert!(level(text).is_err(), "{text}");
        }
        assert_eq!(
            error("log.level = \"inof\""),
            "aviary.toml:1: `log.level` is \"inof\"; \
             it may be trace, debug, info, warn, error, off, also by module: \"info,aviary_host=debug\""
        );
    }

    #[test]
    fn a_choice_is_one_of_its_words() {
        let log = load("log = { format = \"json\", user = \"off\" }\n[accounts.main]\ntoken = \"abc\"").log;
        let guest = GuestLog::Trace;
        assert_eq!(log, Log { level: "info".to_owned(), format: LogFormat::Json, user: LogUser::Off, guest });
        assert_eq!(
            error("[log]\nformat = \"xml\"\nuser = true"),
            "aviary.toml:2: `log.format` is \"xml\"; it may be \"text\" or \"json\"\n\
             aviary.toml:3: `log.user` is true; it must be a text in quotes"
        );
    }
}
