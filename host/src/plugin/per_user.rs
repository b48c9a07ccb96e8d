//! `per_user`: how often one user may call a plugin.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::config::Rate;

/// Who called which plugin lately. Cheap to clone: all clones are one memory.
#[derive(Clone, Debug)]
pub struct PerUser {
    memory: Arc<Mutex<Memory>>,
    /// Users are kept by a keyed hash: no openid stays in memory, and nobody can choose one that meets another's.
    hasher: Arc<RandomState>,
}

/// Each user of each plugin, with the time at which all of its calls are forgiven.
///
/// Two generations: when the younger is full, the older is dropped, and with it those who were quiet longest.
#[derive(Debug)]
struct Memory {
    young: HashMap<u64, Instant>,
    old: HashMap<u64, Instant>,
    users_max: usize,
}

impl PerUser {
    /// Remembers up to `users_max` users of plugins.
    pub fn new(users_max: usize) -> Self {
        let memory = Memory { young: HashMap::new(), old: HashMap::new(), users_max };
        Self { memory: Arc::new(Mutex::new(memory)), hasher: Arc::default() }
    }

    /// Changes the bound, for what comes from now on.
    pub fn resize(&self, users_max: usize) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).users_max = users_max;
    }

    /// Whether this call is within the rate, and counts it if it is. `rate.calls` may come at once; then one more each
    /// `rate.per / rate.calls`.
    pub fn allows(&self, rate: Rate, account: &str, plugin: &str, openid: &str, now: Instant) -> bool {
        let key = self.hasher.hash_one((account, plugin, openid));
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        // What was remembered under a longer rate is not held against anyone for longer than this one says.
        let forgiven = memory.recall(key).unwrap_or(now).clamp(now, now + rate.per);
        let next = forgiven + rate.per / rate.calls;
        let is_within = next <= now + rate.per + SLACK;
        memory.remember(key, if is_within { next } else { forgiven });
        is_within
    }
}

/// A rate that does not divide evenly must not cost its last call.
const SLACK: Duration = Duration::from_micros(1);

impl Memory {
    fn recall(&mut self, key: u64) -> Option<Instant> {
        self.young.get(&key).copied().or_else(|| self.old.remove(&key))
    }

    fn remember(&mut self, key: u64, forgiven: Instant) {
        if self.young.len() >= self.users_max / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, forgiven);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(calls: u32, seconds: u64) -> Rate {
        Rate { calls, per: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_user_may_call_so_often_at_once_and_then_as_calls_are_forgiven() {
        let (users, now) = (PerUser::new(100), Instant::now());
        let allows = |now| users.allows(rate(3, 60), "main", "weather", "oA", now);
        assert_eq!([now; 4].map(allows), [true, true, true, false]);
        assert_eq!([now + 19 * SECOND, now + 20 * SECOND, now + 20 * SECOND].map(allows), [false, true, false]);
        assert_eq!([now + 600 * SECOND; 4].map(allows), [true, true, true, false]);
    }

    #[test]
    fn a_rate_that_does_not_divide_evenly_gives_all_of_its_calls() {
        let (users, now) = (PerUser::new(100), Instant::now());
        let allowed = (0..10).filter(|_| users.allows(rate(7, 1), "main", "weather", "oA", now)).count();
        assert_eq!(allowed, 7);
    }

    #[test]
    fn users_plugins_and_accounts_have_rates_of_their_own() {
        let (users, now) = (PerUser::new(100), Instant::now());
        let allows = |account, plugin, openid| users.allows(rate(1, 60), account, plugin, openid, now);
        assert!(allows("main", "weather", "oA") && !allows("main", "weather", "oA"));
        assert!(allows("main", "weather", "oB") && allows("main", "news", "oA") && allows("shop", "weather", "oA"));
    }

    #[test]
    fn a_shorter_rate_counts_at_once() {
        let (users, now) = (PerUser::new(100), Instant::now());
        assert!(users.allows(rate(1, 86_400), "main", "weather", "oA", now));
        assert!(!users.allows(rate(1, 10), "main", "weather", "oA", now + SECOND));
        assert!(users.allows(rate(1, 10), "main", "weather", "oA", now + 12 * SECOND));
    }

    #[test]
    fn memory_stays_within_its_bound_and_keeps_whoever_calls_again() {
        let (users, now) = (PerUser::new(100), Instant::now());
        let allows = |openid: &str| users.allows(rate(1, 60), "main", "weather", openid, now);
        assert!(allows("oA"));
        for n in 0..1_000 {
            assert!(allows(&format!("o{n}")));
            assert!(!allows("oA"), "after {n} others");
        }
        let memory = users.memory.lock().unwrap();
        assert!(memory.young.len() + memory.old.len() <= 100);
    }
}
