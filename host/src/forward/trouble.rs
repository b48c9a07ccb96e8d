//! Since when a webhook fails, by what it did with the last messages: the operator is shown it until it does well again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::metrics::ForwardOutcome;

/// The row of failures that a webhook is in, if it is.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<Row>>);

#[derive(Debug)]
struct Row {
    since: Instant,
    messages: u64,
    why: String,
}

/// A webhook that failed at the last messages it was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// How long ago the first of them failed, in s.
    pub since_s: u64,
    /// How many they are; 0 while the first one still waits for somebody to be there.
    pub messages: u64,
    /// Why the last one failed: "it …".
    pub why: String,
}

impl Trouble {
    /// Says what came of a message; `why` is asked where it failed.
    pub(super) fn judge(&self, outcome: ForwardOutcome, why: impl FnOnce() -> String, now: Instant) {
        match outcome {
            // It is there, and what it says of one message is its author's to mend.
            ForwardOutcome::Replied | ForwardOutcome::Silent | ForwardOutcome::Refused => *self.row() = None,
            // It was not asked.
            ForwardOutcome::Busy => {}
            ForwardOutcome::Timeout
            | ForwardOutcome::Unreachable
            | ForwardOutcome::Status
            | ForwardOutcome::Unreadable => {
                let why = why();
                let mut row = self.row();
                let (since, messages) = row.as_ref().map_or((now, 0), |row| (row.since, row.messages));
                *row = Some(Row { since, messages: messages + 1, why });
            }
        }
    }

    /// Says that nobody is there to connect to, though a message may still wait for it.
    pub(super) fn missed(&self, why: impl FnOnce() -> String, now: Instant) {
        self.row().get_or_insert_with(|| Row { since: now, messages: 0, why: why() });
    }

    /// How it fails, if it does.
    pub(super) fn told(&self, now: Instant) -> Option<Failing> {
        self.row().as_ref().map(|Row { since, messages, why }| Failing {
            since_s: now.saturating_duration_since(*since).as_secs(),
            messages: *messages,
            why: why.clone(),
        })
    }

    fn row(&self) -> MutexGuard<'_, Option<Row>> {
        // An option is always whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_webhook_fails_from_its_first_failure_to_its_next_answer() {
        let (trouble, start) = (Trouble::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let judge = |outcome, why: &str, seconds| trouble.judge(outcome, || why.to_owned(), at(seconds));
        judge(ForwardOutcome::Replied, "", 0);
        assert_eq!(trouble.told(at(0)), None);
        judge(ForwardOutcome::Unreachable, "cannot be reached", 1);
        judge(ForwardOutcome::Busy, "has too many", 2);
        judge(ForwardOutcome::Status, "answered with status 500", 3);
        let why = "answered with status 500".to_owned();
        assert_eq!(trouble.told(at(9)), Some(Failing { since_s: 8, messages: 2, why }));
        judge(ForwardOutcome::Silent, "", 10);
        assert_eq!(trouble.told(at(10)), None);
    }

    #[test]
    fn it_fails_while_a_message_waits_for_it_and_not_once_that_was_answered() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        let why = || "cannot be reached".to_owned();
        trouble.missed(why, now);
        assert_eq!(trouble.told(now), Some(Failing { since_s: 0, messages: 0, why: why() }));
        trouble.judge(ForwardOutcome::Replied, why, now);
        assert_eq!(trouble.told(now), None);
    }

    #[test]
    fn a_reply_that_wechat_would_refuse_comes_from_a_webhook_that_is_there() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        trouble.judge(ForwardOutcome::Timeout, || "gave no answer".to_owned(), now);
        trouble.judge(ForwardOutcome::Refused, || "it is too long".to_owned(), now);
        assert_eq!(trouble.told(now), None);
    }
}
