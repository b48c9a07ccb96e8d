//! Why a request is turned away, and how the operator hears of it: one line with the cause and the next step, the same
//! cause at most once a minute.

use std::{
    collections::HashMap,
    hash::Hash,
    mem::Discriminant,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use aviary_wechat::{crypt::DecryptError, xml};
use axum::http::StatusCode;
use tracing::warn;

use crate::{message::Malformed, metrics::Metrics, query::NotOne};

/// How long the same cause stays unsaid after it was told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Why a request is not answered with 200. The text is for the operator; the caller gets only the status.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no account has the path `{0}`; the URL in WeChat's form must end in the `path` of an account")]
    Path(String),
    #[error("the method {0} is none that WeChat uses")]
    Method(String),
    #[error("the query has no `{}`, or more than one; only WeChat's own calls are answered", .0.0)]
    Query(NotOne),
    #[error("the query's `timestamp` is no number of seconds")]
    Timestamp,
    #[error("the query's `nonce` is longer than any of WeChat's")]
    Nonce,
    #[error("a browser or a probe opened the URL: the network works")]
    NotWeChat,
    #[error("the signature does not fit; compare the Token in WeChat's form with `accounts.{account}.token`")]
    Signature { account: String },
    #[error(
        "`msg_signature` does not fit the message; compare the Token in WeChat's form with `accounts.{account}.token`"
    )]
    MsgSignature { account: String },
    #[error(
        "it is not encrypted, but `accounts.{account}.mode` is safe; somebody forges it, or the console is set to 明文模式: set \
         it to 安全模式, or `mode` to \"plain\""
    )]
    NotEncrypted { account: String },
    #[error(
        "it is encrypted, but `accounts.{account}.mode` is plain; the console seems to be in 安全模式: give the account its \
         `encoding_aes_key` and `app_id`, or set the console to 明文模式"
    )]
    Encrypted { account: String },
    #[error("{error}; compare the AppID in WeChat's console with `accounts.{account}.app_id`")]
    AppId { account: String, error: DecryptError },
    #[error("{error}; compare the EncodingAESKey in WeChat's form with `accounts.{account}.encoding_aes_key`")]
    Decrypt { account: String, error: DecryptError },
    #[error(
        "it was signed {}, and `accounts.{account}.signature_max_age_s` is {max_age_s}; if it came from WeChat, this \
         machine's clock is {}", signed(*.age_s), clock(*.age_s)
    )]
    Age { account: String, age_s: i128, max_age_s: u64 },
    #[error(
        "its signature was already used for another message: somebody replays it; `mode = \"safe\"` makes that impossible \
         (`accounts.{account}`)"
    )]
    Replayed { account: String },
    #[error("the body is larger than `listener.body_bytes_max` ({bytes_max} bytes)")]
    TooLarge { bytes_max: usize },
    #[error("the body broke off: {0}")]
    Body(String),
    #[error("the body did not arrive within {window:?}; look at the network, or at what stands in front of this host")]
    SlowBody { window: Duration },
    #[error("the body is not what WeChat sends: {0}")]
    Xml(#[from] xml::ParseError),
    #[error("the body is not what WeChat sends: {0}")]
    Malformed(#[from] Malformed),
    #[error("WeChat's URL check comes with an `echostr`; this GET has none")]
    NoEchostr,
}

/// When a request was signed, by our clock.
fn signed(age_s: i128) -> String {
    let seconds = age_s.unsigned_abs();
    if age_s < 0 { format!("{seconds} s in the future") } else { format!("{seconds} s ago") }
}

/// What our clock is, if the request is WeChat's.
fn clock(age_s: i128) -> String {
    let seconds = age_s.unsigned_abs();
    format!("{seconds} s {}", if age_s < 0 { "slow" } else { "fast" })
}

impl Refusal {
    /// The status that the caller gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Query(_)
            | Self::Timestamp
            | Self::Nonce
            | Self::NotWeChat
            | Self::Signature { .. }
            | Self::MsgSignature { .. }
            | Self::NotEncrypted { .. }
            | Self::Encrypted { .. }
            | Self::AppId { .. }
            | Self::Age { .. }
            | Self::Replayed { .. } => StatusCode::FORBIDDEN,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(_)
            | Self::SlowBody { .. }
            | Self::Xml(_)
            | Self::Malformed(_)
            | Self::Decrypt { .. }
            | Self::NoEchostr => StatusCode::BAD_REQUEST,
        }
    }
}

impl Refusal {
    /// One word for each cause, as the metrics have it.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Method(_) => "method",
            Self::Query(_) => "query",
            Self::Timestamp => "timestamp",
            Self::Nonce => "nonce",
            Self::NotWeChat => "not_wechat",
            Self::Signature { .. } => "signature",
            Self::MsgSignature { .. } => "msg_signature",
            Self::NotEncrypted { .. } => "not_encrypted",
            Self::Encrypted { .. } => "encrypted",
            Self::AppId { .. } => "app_id",
            Self::Decrypt { .. } => "decrypt",
            Self::Age { .. } => "age",
            Self::Replayed { .. } => "replayed",
            Self::TooLarge { .. } => "too_large",
            Self::Body(_) => "body",
            Self::SlowBody { .. } => "slow_body",
            Self::Xml(_) => "xml",
            Self::Malformed(_) => "malformed",
            Self::NoEchostr => "no_echostr",
        }
    }
}

impl From<NotOne> for Refusal {
    fn from(parameter: NotOne) -> Self {
        Self::Query(parameter)
    }
}

/// Counts refusals, and tells the operator of them, each cause at most once a minute.
#[derive(Debug)]
pub struct Refusals {
    told: OnceAMinute<Discriminant<Refusal>>,
    metrics: Metrics,
}

impl Refusals {
    /// Refusals that are counted there.
    pub fn new(metrics: Metrics) -> Self {
        Self { told: OnceAMinute::default(), metrics }
    }

    /// Counts a refusal, and tells of it unless the same cause was told less than a minute ago.
    pub fn tell(&self, refusal: &Refusal, now: Instant) {
        self.metrics.refused(refusal.cause());
        if let Some(unsaid) = self.told.turn(std::mem::discriminant(refusal), now) {
            let status = refusal.status().as_u16();
            let more = if unsaid > 0 { format!(" ({unsaid} more of this kind in between)") } else { String::new() };
            warn!(status, "Refused with {status}: {refusal}{more}");
        }
    }
}

/// Remembers what was told lately. `K` names causes and has few values: that is the bound.
#[derive(Debug)]
pub struct OnceAMinute<K>(Mutex<HashMap<K, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    unsaid: u64,
}

impl<K> Default for OnceAMinute<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> OnceAMinute<K> {
    /// Whether it is this cause's turn to be told, and how often it was left unsaid since the last time.
    pub fn turn(&self, cause: K, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(&cause) {
            Some(last) if now.saturating_duration_since(last.at) < TELL_EVERY => {
                last.unsaid += 1;
                None
            }
            last => {
                let unsaid = last.map_or(0, |last| last.unsaid);
                told.insert(cause, Told { at: now, unsaid: 0 });
                Some(unsaid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told_by_how_much_and_which_way() {
        let told = |age_s| Refusal::Age { account: "main".into(), age_s, max_age_s: 600 }.to_string();
        assert_eq!(
            told(3_600),
            "it was signed 3600 s ago, and `accounts.main.signature_max_age_s` is 600; if it came from WeChat, this \
             machine's clock is 3600 s fast"
        );
        assert!(told(-3_600).contains("3600 s in the future"));
        assert!(told(-3_600).ends_with("clock is 3600 s slow"));
    }

    #[test]
    fn the_same_cause_is_told_once_a_minute_with_a_count_of_the_rest() {
        let (told, now) = (OnceAMinute::default(), Instant::now());
        assert_eq!(told.turn("token", now), Some(0));
        assert_eq!(told.turn("token", now + Duration::from_secs(1)), None);
        assert_eq!(told.turn("clock", now + Duration::from_secs(1)), Some(0));
        assert_eq!(told.turn("token", now + TELL_EVERY), Some(1));
    }
}
