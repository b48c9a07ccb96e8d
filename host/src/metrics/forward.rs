//! What is counted about the webhooks behind accounts.

use std::{array, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    call_seconds,
    label::{AccountOutcome, Label, OfAccount, account_outcome},
};
use crate::{forward::Failure, plugin::bindings::Reply};

/// What came of a message that went to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    Replied,
    /// It answered `success`, or nothing.
    Silent,
    /// There was no room, or no time, to ask it.
    Busy,
    Timeout,
    Unreachable,
    /// It answered with a status that is no success.
    Status,
    /// It answered what is no reply.
    Unreadable,
    /// It replied what WeChat would refuse.
    Refused,
}

impl ForwardOutcome {
    /// In the order of the enum.
    const WORDS: [&str; 8] = ["replied", "silent", "busy", "timeout", "unreachable", "status", "unreadable", "refused"];

    /// Says what an exchange was.
    pub fn of(asked: &Result<Reply, Failure>) -> Self {
        match asked {
            Ok(Reply::Nothing) => Self::Silent,
            Ok(_) => Self::Replied,
            Err(Failure::NoTime | Failure::Busy { .. }) => Self::Busy,
            Err(Failure::Timeout { .. }) => Self::Timeout,
            Err(Failure::Unreachable { .. } | Failure::BrokenOff(_)) => Self::Unreachable,
            Err(Failure::Redirect { .. } | Failure::Forbidden(_) | Failure::Status(_)) => Self::Status,
            Err(Failure::NotXml(_) | Failure::TooLarge | Failure::Unreadable(_)) => Self::Unreadable,
            Err(Failure::Refused(_)) => Self::Refused,
        }
    }
}

/// What is counted about the webhook of an account.
#[derive(Clone, Debug)]
pub struct ForwardMetrics {
    outcomes: [Counter; ForwardOutcome::WORDS.len()],
    seconds: Histogram,
}

impl ForwardMetrics {
    /// Counts a message that it was asked about.
    pub fn asked(&self, outcome: ForwardOutcome, duration: Duration) {
        self.outcomes[outcome as usize].inc();
        self.seconds.observe(duration.as_secs_f64());
    }
}

/// The series of all webhooks.
#[derive(Debug)]
pub(super) struct Forwards {
    outcomes: Family<AccountOutcome, Counter>,
    seconds: Family<OfAccount, Histogram, fn() -> Histogram>,
}

impl Forwards {
    pub(super) fn new() -> Self {
        Self { outcomes: Family::default(), seconds: Family::new_with_constructor(call_seconds) }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Messages that no plugin answered and an account's webhook was asked about, by what came of them";
        registry.register("aviary_forwards", help, self.outcomes.clone());
        let help = "How long an account's webhook took, waiting included";
        registry.register_with_unit("aviary_forward", help, Unit::Seconds, self.seconds.clone());
    }

    pub(super) fn of(&self, account: &Label) -> ForwardMetrics {
        let outcome = |index| account_outcome(account, ForwardOutcome::WORDS[index]);
        ForwardMetrics {
            outcomes: array::from_fn(|index| self.outcomes.get_or_create_owned(&outcome(index))),
            seconds: self.seconds.get_or_create_owned(&OfAccount { account: account.clone() }),
        }
    }

    pub(super) fn remove(&self, account: &Label) {
        for outcome in ForwardOutcome::WORDS {
            self.outcomes.remove(&account_outcome(account, outcome));
        }
        self.seconds.remove(&OfAccount { account: account.clone() });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        metrics::{Levels, Metrics},
        reply::Refused,
    };

    #[test]
    fn a_webhook_is_counted_by_outcome_and_forgotten_with_its_account() {
        let metrics = Metrics::new(10);
        metrics.account("main");
        let forward = metrics.forward("main");
        forward.asked(ForwardOutcome::of(&Ok(Reply::Text("hi".into()))), Duration::from_millis(2));
        forward.asked(ForwardOutcome::of(&Ok(Reply::Nothing)), Duration::from_millis(2));
        forward.asked(ForwardOutcome::of(&Err(Refused::EmptyText.into())), Duration::from_millis(2));
        let told = metrics.text(&Levels::default(), &[]);
        for outcome in ["replied", "silent", "refused"] {
            let line = format!("aviary_forwards_total{{account=\"main\",outcome=\"{outcome}\"}} 1");
            assert!(told.lines().any(|found| found == line), "no `{line}` in:\n{told}");
        }
        assert!(told.contains("aviary_forward_seconds_count{account=\"main\"} 3"), "{told}");
        metrics.retain(&HashSet::new(), &HashSet::new());
        assert!(!metrics.text(&Levels::default(), &[]).contains("\"main\""));
    }
}
