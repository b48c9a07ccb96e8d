//! Since when a webhook fails, by what it did with the last messages: the operator is shown it until it does well again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::Failure;

/// The row of failures that a webhook is in, if it is.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    row: Option<Row>,
    /// When it did well for the last time.
    did_well: Option<Instant>,
}

#[derive(Debug)]
struct Row {
    since: Instant,
    messages: u64,
    why: String,
    /// Whether the last one only took too long.
    is_slow: bool,
}

/// A webhook that failed at the last messages it was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// How long ago the first of them failed, in s.
    pub since_s: u64,
    /// How many of them were given up; 0 as long as none was, though one was kept waiting.
    pub messages: u64,
    /// Why the last one failed: "it …".
    pub why: String,
}

impl Trouble {
    /// Says how it failed at a message, if it did, and when it was first asked about it.
    pub(super) fn judge(&self, failure: Option<&Failure>, asked: Instant, now: Instant) {
        let mut state = self.state();
        match failure {
            // It is there: a reply that WeChat would refuse is for its author to mend.
            None | Some(Failure::Refused(_)) => *state = State { row: None, did_well: Some(now) },
            // It was not asked.
            Some(Failure::NoTime | Failure::Busy { .. }) => {}
            // It did well since: this is how it was.
            Some(_) if state.did_well.is_some_and(|then| asked < then) => {}
            Some(failure) => {
                let (since, messages) = state.row.as_ref().map_or((now, 0), |row| (row.since, row.messages));
                let is_slow = matches!(failure, Failure::Timeout { .. });
                state.row = Some(Row { since, messages: messages + 1, why: failure.to_string(), is_slow });
            }
        }
    }

    /// Says that nobody is there to connect to, though a message may still wait for it.
    pub(super) fn missed(&self, failure: &Failure, now: Instant) {
        let row = || Row { since: now, messages: 0, why: failure.to_string(), is_slow: false };
        self.state().row.get_or_insert_with(row);
    }

    /// How it fails, if it does. One message that took it too long says little of the next.
    pub(super) fn told(&self, now: Instant) -> Option<Failing> {
        let state = self.state();
        let row = state.row.as_ref().filter(|row| !row.is_slow || row.messages > 1);
        row.map(|Row { since, messages, why, .. }| Failing {
            since_s: now.saturating_duration_since(*since).as_secs(),
            messages: *messages,
            why: why.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::StatusCode;

    use super::*;
    use crate::reply::Refused;

    fn unreachable() -> Failure {
        Failure::Unreachable { reason: "refused".into(), may_pass: true }
    }

    #[test]
    fn a_webhook_fails_from_its_first_failure_to_its_next_answer() {
        let (trouble, start) = (Trouble::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        trouble.judge(None, at(0), at(0));
        assert_eq!(trouble.told(at(0)), None);
        trouble.judge(Some(&unreachable()), at(1), at(1));
        trouble.judge(Some(&Failure::Busy { max: 1 }), at(2), at(2));
        trouble.judge(Some(&Failure::Status(StatusCode::BAD_GATEWAY)), at(3), at(3));
        let why = "answered with status 502 Bad Gateway; its own log should say why".to_owned();
        assert_eq!(trouble.told(at(9)), Some(Failing { since_s: 8, messages: 2, why }));
        trouble.judge(None, at(10), at(10));
        assert_eq!(trouble.told(at(10)), None);
        // One that it was asked about before.
        trouble.judge(Some(&unreachable()), at(9), at(14));
        assert_eq!(trouble.told(at(14)), None);
    }

    #[test]
    fn it_fails_while_a_message_waits_for_it_and_not_once_that_was_answered() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        trouble.missed(&unreachable(), now);
        let why = "cannot be reached: refused".to_owned();
        assert_eq!(trouble.told(now), Some(Failing { since_s: 0, messages: 0, why }));
        trouble.judge(None, now, now);
        assert_eq!(trouble.told(now), None);
    }

    #[test]
    fn a_webhook_fails_at_the_second_message_that_takes_it_too_long() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        let slow = Failure::Timeout { limit: Duration::from_millis(4_500) };
        trouble.judge(Some(&slow), now, now);
        assert_eq!(trouble.told(now), None);
        trouble.judge(Some(&slow), now, now);
        let why = "gave no answer within 4500 ms".to_owned();
        assert_eq!(trouble.told(now), Some(Failing { since_s: 0, messages: 2, why }));
    }

    #[test]
    fn a_reply_that_wechat_would_refuse_comes_from_a_webhook_that_is_there() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        trouble.judge(Some(&unreachable()), now, now);
        trouble.judge(Some(&Failure::Refused(Refused::EmptyText)), now, now);
        assert_eq!(trouble.told(now), None);
    }
}
