//! When a plugin that keeps failing is left alone, and for how long.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::{
    defaults,
    section::{Section, to_usize},
};

/// The most that `users_min` may be: so many users are remembered for each plugin that fails.
pub const USERS_MAX: usize = 100;

/// `[quarantine]`, with a plugin's own over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// How many failures in a row take a plugin out. Default 5; 0: no number does.
    pub failures: u64,
    /// Which share of its calls, in percent, takes it out. Default 50; 0: no share does.
    pub share_percent: u64,
    /// Of how many calls at least a share is taken. Default 20.
    pub calls_min: u64,
    /// At how many different users it must have failed: one must not take it away from the others. Default 3.
    pub users_min: usize,
    /// `window_s`: how far back the share looks. Default 60 s.
    pub window: Duration,
    /// `back_off_s`: how long the plugin is left alone at first. Default 30 s.
    pub back_off: Duration,
    /// `back_off_max_s`: how long it is left alone at most. Default 1,800 s.
    pub back_off_max: Duration,
}

impl Quarantine {
    /// Whether nothing takes the plugin out.
    pub fn is_off(&self) -> bool {
        self.failures == 0 && self.share_percent == 0
    }

    /// Returns these thresholds with a plugin's own over them.
    pub(super) fn with(mut self, own: &OwnQuarantine) -> Self {
        for (key, number) in &own.0 {
            (key.set)(&mut self, *number);
        }
        self
    }
}

/// The thresholds of `defaults.toml`.
impl Default for Quarantine {
    fn default() -> Self {
        let zero = Duration::ZERO;
        let mut quarantine = Self {
            failures: 0,
            share_percent: 0,
            calls_min: 0,
            users_min: 0,
            window: zero,
            back_off: zero,
            back_off_max: zero,
        };
        for key in &KEYS {
            (key.set)(&mut quarantine, defaults::number(defaults::quarantine(), key.name));
        }
        quarantine
    }
}

/// One key: its name, its bounds, and where it goes.
struct Key {
    name: &'static str,
    bounds: RangeInclusive<u64>,
    set: fn(&mut Quarantine, u64),
}

static KEYS: [Key; 7] = [
    Key { name: "failures", bounds: 0..=1_000, set: |own, count| own.failures = count },
    Key { name: "share_percent", bounds: 0..=100, set: |own, percent| own.share_percent = percent },
    Key { name: "calls_min", bounds: 1..=100_000, set: |own, count| own.calls_min = count },
    Key { name: "users_min", bounds: 1..=USERS_MAX as u64, set: |own, count| own.users_min = to_usize(count) },
    Key { name: "window_s", bounds: 1..=3_600, set: |own, s| own.window = Duration::from_secs(s) },
    Key { name: "back_off_s", bounds: 1..=86_400, set: |own, s| own.back_off = Duration::from_secs(s) },
    Key { name: "back_off_max_s", bounds: 1..=604_800, set: |own, s| own.back_off_max = Duration::from_secs(s) },
];

/// The thresholds that one table gives.
#[derive(Clone, Default)]
pub(super) struct OwnQuarantine(Vec<(&'static Key, u64)>);

impl OwnQuarantine {
    /// Reads a table with the keys of `[quarantine]`.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let given = |key: &'static Key| Some((key, section.given_number(key.name, &key.bounds)?));
        Self(KEYS.iter().filter_map(given).collect())
    }
}

impl fmt::Debug for OwnQuarantine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.iter().map(|(key, number)| (key.name, number))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{error, load};

    #[test]
    fn the_nearest_table_that_gives_a_threshold_counts() {
        let config = load(
            "[quarantine]\nfailures = 3\nback_off_s = 10\n[plugins.weather.quarantine]\nfailures = 0\nshare_percent = 0\n\
             [accounts.main]\ntoken = \"abc\"\n[accounts.main.plugins.news.quarantine]\nback_off_s = 7",
        );
        let of = |plugin| config.plugin(&config.accounts[0], plugin, false).quarantine;
        assert_eq!((of("echo").failures, of("echo").back_off.as_secs(), of("echo").calls_min), (3, 10, 20));
        assert_eq!((of("news").failures, of("news").back_off.as_secs()), (3, 7));
        assert!(of("weather").is_off() && !of("news").is_off());
    }

    #[test]
    fn a_threshold_of_a_plugin_has_the_bounds_of_the_shared_one() {
        assert_eq!(
            error("[plugins.a.quarantine]\nshare_percent = 101\nback_of_s = 1\n[accounts.main]\ntoken = \"abc\""),
            "aviary.toml:2: `plugins.a.quarantine.share_percent` is 101; it must be a whole number, 0 to 100\n\
             aviary.toml:3: unknown key `plugins.a.quarantine.back_of_s`; did you mean `back_off_s`?"
        );
    }
}
