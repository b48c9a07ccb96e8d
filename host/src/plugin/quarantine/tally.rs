//! How many calls of a plugin failed lately, and whose.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::config;

/// How many calls failed lately: in the half of the window that is being counted, and in the one before.
///
/// Calls are added up elsewhere and looked at only when one fails: what went well long ago is then thrown away unseen.
#[derive(Debug, Default)]
pub(super) struct Tally {
    began: Option<Instant>,
    failures: u64,
    before: (u64, u64),
    users: Users,
    users_before: Users,
}

/// Different users, as many as matter.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeSet<Box<str>>);

impl Users {
    pub(super) fn add(&mut self, user: &str) {
        if !self.is_full() && !self.contains(user) {
            self.0.insert(user.into());
        }
    }

    pub(super) fn contains(&self, user: &str) -> bool {
        self.0.contains(user)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() >= config::QUARANTINE_USERS_MAX
    }
}

impl Tally {
    /// Counts a failure, of which `calls` knows already. Returns the failures and calls of the window.
    pub(super) fn failed(&mut self, calls: &AtomicU64, user: &str, window: Duration, now: Instant) -> (u64, u64) {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        match age {
            Some(age) if age < window / 2 => {}
            Some(age) if age < window => {
                // The call that failed is the first of the next half.
                self.before = (self.failures, calls.swap(1, Ordering::Relaxed).saturating_sub(1));
                (self.began, self.failures) = (Some(now), 0);
                self.users_before = std::mem::take(&mut self.users);
            }
            _ => {
                calls.store(1, Ordering::Relaxed);
                *self = Self { began: Some(now), ..Self::default() };
            }
        }
        self.failures += 1;
        self.users.add(user);
        (self.failures + self.before.0, calls.load(Ordering::Relaxed) + self.before.1)
    }

    /// How many different users the failures of the window are of.
    pub(super) fn users(&self) -> usize {
        self.users.0.union(&self.users_before.0).count()
    }
}
