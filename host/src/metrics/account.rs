//! What is counted about accounts: their messages, and the way of late replies.

use std::{array, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    call_seconds,
    label::{AccountOutcome, AccountStep, Label, OfAccount, account_outcome, account_step},
};

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

/// The series of all accounts.
#[derive(Debug)]
pub(super) struct Accounts {
    messages: Family<AccountOutcome, Counter>,
    seconds: Family<OfAccount, Histogram, fn() -> Histogram>,
    retries: Family<OfAccount, Counter>,
    late: Family<AccountStep, Counter>,
}

impl Accounts {
    pub(super) fn new() -> Self {
        Self {
            messages: Family::default(),
            seconds: Family::new_with_constructor(call_seconds),
            retries: Family::default(),
            late: Family::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Messages by what came of them; a message that WeChat sends again is the same one";
        registry.register("aviary_messages", help, self.messages.clone());
        let help = "How long it took to ask a message's plugins";
        registry.register_with_unit("aviary_message", help, Unit::Seconds, self.seconds.clone());
        let help = "Pushes that joined the outcome of an earlier try";
        registry.register("aviary_retries", help, self.retries.clone());
        let help = "Steps on the way of replies that were not there in time, or not in one message";
        registry.register("aviary_late", help, self.late.clone());
    }

    pub(super) fn of(&self, account: &Label) -> AccountMetrics {
        let message = |index| account_outcome(account, Outcome::WORDS[index]);
        let step = |index| account_step(account, LateStep::WORDS[index]);
        let of_account = OfAccount { account: account.clone() };
        AccountMetrics {
            messages: array::from_fn(|index| self.messages.get_or_create_owned(&message(index))),
            seconds: self.seconds.get_or_create_owned(&of_account),
            retries: self.retries.get_or_create_owned(&of_account),
            late: array::from_fn(|index| self.late.get_or_create_owned(&step(index))),
        }
    }

    pub(super) fn remove(&self, account: &Label) {
        for outcome in Outcome::WORDS {
            self.messages.remove(&account_outcome(account, outcome));
        }
        for step in LateStep::WORDS {
            self.late.remove(&account_step(account, step));
        }
        let of_account = OfAccount { account: account.clone() };
        self.seconds.remove(&of_account);
        self.retries.remove(&of_account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_stand_in_the_order_of_the_outcomes_and_steps() {
        assert_eq!(Outcome::WORDS[Outcome::Unanswered as usize], "unanswered");
        assert_eq!(LateStep::WORDS[LateStep::Dead as usize], "dead");
    }
}
