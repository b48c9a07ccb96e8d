//! What is counted about the calls of WeChat's API.

use std::{array, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::label::{AccountOutcome, Label, OfAccount, account_outcome};

/// The upper bounds of how long a call takes, in s: WeChat's answers take tens of milliseconds.
const SECONDS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0];

/// What came of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiOutcome {
    /// WeChat did as it was asked.
    #[default]
    Done,
    /// WeChat refused it, or would have.
    Refused,
    /// WeChat took no access_token.
    Token,
    /// WeChat was busy each time (-1).
    Busy,
    /// WeChat's quota is used up (45009, 45011).
    Quota,
    Timeout,
    /// Too many calls were on their way.
    NoTurn,
    /// Nobody answered, or not WeChat's API.
    Unreachable,
}

impl ApiOutcome {
    /// In the order of the enum.
    const WORDS: [&str; 8] = ["done", "refused", "token", "busy", "quota", "timeout", "no_turn", "unreachable"];
}

/// What came of fetching a token.
const FETCH_WORDS: [&str; 2] = ["failed", "fetched"];

/// What is counted about one account's calls of the API.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    calls: [Counter; ApiOutcome::WORDS.len()],
    seconds: Histogram,
    tokens: [Counter; FETCH_WORDS.len()],
}

impl ApiMetrics {
    /// Counts a call; `duration` is all that it took, with waiting and repeating.
    pub fn call(&self, outcome: ApiOutcome, duration: Duration) {
        self.calls[outcome as usize].inc();
        self.seconds.observe(duration.as_secs_f64());
    }

    /// Counts a fetch of an access_token.
    pub fn token(&self, worked: bool) {
        self.tokens[usize::from(worked)].inc();
    }
}

/// The series of all accounts.
#[derive(Debug)]
pub(super) struct ApiFamilies {
    calls: Family<AccountOutcome, Counter>,
    seconds: Family<OfAccount, Histogram, fn() -> Histogram>,
    tokens: Family<AccountOutcome, Counter>,
}

impl ApiFamilies {
    pub(super) fn new() -> Self {
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        Self { calls: Family::default(), seconds, tokens: Family::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Calls of WeChat's API by what came of them";
        registry.register("aviary_wechat_api_calls", help, self.calls.clone());
        let help = "How long a call of WeChat's API took, waiting and repeating included";
        registry.register_with_unit("aviary_wechat_api_call", help, Unit::Seconds, self.seconds.clone());
        let help = "Fetches of an account's access_token";
        registry.register("aviary_access_token_fetches", help, self.tokens.clone());
    }

    pub(super) fn of(&self, account: &Label) -> ApiMetrics {
        let counter = |family: &Family<AccountOutcome, Counter>, word| {
            family.get_or_create_owned(&account_outcome(account, word))
        };
        ApiMetrics {
            calls: array::from_fn(|index| counter(&self.calls, ApiOutcome::WORDS[index])),
            seconds: self.seconds.get_or_create_owned(&OfAccount { account: account.clone() }),
            tokens: array::from_fn(|index| counter(&self.tokens, FETCH_WORDS[index])),
        }
    }

    pub(super) fn remove(&self, account: &Label) {
        for outcome in ApiOutcome::WORDS {
            self.calls.remove(&account_outcome(account, outcome));
        }
        for outcome in FETCH_WORDS {
            self.tokens.remove(&account_outcome(account, outcome));
        }
        self.seconds.remove(&OfAccount { account: account.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Levels, Metrics};

    #[test]
    fn calls_are_told_by_account_and_outcome_and_gone_with_the_account() {
        assert_eq!(ApiOutcome::WORDS[ApiOutcome::Unreachable as usize], "unreachable");
        let metrics = Metrics::new(0);
        let api = metrics.api("main");
        api.call(ApiOutcome::Quota, Duration::from_millis(20));
        api.token(true);
        let text = metrics.text(&Levels::default(), &[]);
        for line in [
            "aviary_wechat_api_calls_total{account=\"main\",outcome=\"quota\"} 1",
            "aviary_wechat_api_calls_total{account=\"main\",outcome=\"done\"} 0",
            "aviary_wechat_api_call_seconds_bucket{le=\"0.03\",account=\"main\"} 1",
            "aviary_access_token_fetches_total{account=\"main\",outcome=\"fetched\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
        }
        metrics.retain(&[].into(), &[].into());
        assert!(!metrics.text(&Levels::default(), &[]).contains("main"));
    }
}
