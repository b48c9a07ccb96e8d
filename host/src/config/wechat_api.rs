//! `[wechat_api]`: how WeChat's own API is called.

use std::time::Duration;

use super::{Http, section::Section};

/// `[wechat_api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WechatApi {
    /// `timeout_ms`: how long one exchange may take. Default 10 s.
    pub timeout: Duration,
    /// How many calls may be on their way at once. Default 256.
    pub calls_max: usize,
    /// How many of them for one account. Default 64.
    pub calls_per_account_max: usize,
    /// The largest body of a call and of an answer, in MiB. Default 12.
    pub body_mib_max: usize,
}

/// Where an account's access_token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `stable_token`: everybody who asks gets the same one.
    Stable,
    /// The older `token`: each fetch makes the token before it invalid, whoever has it.
    Classic,
}

impl TokenKind {
    /// The calls of WeChat's API that give it, which are the words for it in an account's table.
    pub(super) const WORDS: [(&str, Self); 2] = [("stable_token", Self::Stable), ("token", Self::Classic)];
}

impl WechatApi {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            timeout: section.millis("timeout_ms", 100..=120_000),
            calls_max: section.count("calls_max", 1..=10_000),
            calls_per_account_max: section.count("calls_per_account_max", 1..=10_000),
            body_mib_max: section.count("body_mib_max", 1..=64),
        }
    }

    /// Returns how the API is reached: as `[http]` says, with the bounds of this table.
    pub fn http(&self, http: &Http) -> Http {
        Http {
            body_mib_max: self.body_mib_max,
            // Nobody waits there who has got a turn here.
            connections_max: self.calls_max,
            connections_per_host_max: self.calls_max,
            ..http.clone()
        }
    }
}
