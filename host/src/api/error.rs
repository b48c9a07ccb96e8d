//! Why a call of WeChat's API came to nothing.

use std::time::Duration;

use hyper::StatusCode;

use super::advice;
use crate::{egress::NoAnswer, foreign::fit, metrics::ApiOutcome, secret::Secret};

/// How much of WeChat's own words is kept.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a call came to nothing. No text has a secret in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// `errcode` and `errmsg`.
    #[error("WeChat refused: {code} {message}")]
    Refused { code: i64, message: String },
    #[error("WeChat's API answered with status {0}")]
    Status(StatusCode),
    #[error("the answer is no JSON, so it is not from WeChat's API; see `api_base_url`, or a proxy in between")]
    NotJson,
    #[error("the answer is JSON, but not what this call gives; see `api_base_url`")]
    Unexpected,
    #[error("no answer within {} ms", .limit.as_millis())]
    Timeout { limit: Duration },
    #[error(
        "too many calls of WeChat's API are on their way; raise `wechat_api.calls_max` or \
         `wechat_api.calls_per_account_max`"
    )]
    NoTurn,
    #[error("the body has more than {0} bytes (`wechat_api.body_mib_max`)")]
    TooLarge(u64),
    #[error("{0}")]
    Unreachable(String),
    /// The call went out, and no whole answer came back.
    #[error("{0}")]
    Lost(String),
    /// The call makes no sense, so it was not made.
    #[error("{0}")]
    Invalid(String),
    /// Where nothing is really called: nobody wrote the exchange down. The text ends a sentence that begins with who asked.
    #[error("{0}")]
    NotPlayed(String),
}

impl ApiError {
    /// Keeps what WeChat said, made safe to show.
    pub(super) fn refused<'a>(code: i64, message: &str, secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let is_shown = |secret: &&Secret| !secret.expose().is_empty();
        let message = secrets
            .filter(is_shown)
            .fold(message.to_owned(), |message, secret| message.replace(secret.expose(), "[redacted]"));
        Self::Refused { code, message: fit(&message).chars().take(MESSAGE_CHARS_MAX).collect() }
    }

    /// Puts what became of an exchange with this limit into the API's words.
    pub(super) fn of(no_answer: NoAnswer, limit: Duration) -> Self {
        match no_answer {
            NoAnswer::Timeout => Self::Timeout { limit },
            NoAnswer::TooLarge(bytes_max) => Self::TooLarge(bytes_max),
            NoAnswer::Unreachable(reason) => Self::Unreachable(reason),
            NoAnswer::Lost(reason) => Self::Lost(reason),
            NoAnswer::Invalid(reason) => Self::Invalid(reason),
            NoAnswer::Denied(reason) => Self::NotPlayed(reason),
        }
    }

    /// The same trouble, met while fetching a token: the call itself was not sent yet.
    pub(super) fn of_token(self) -> Self {
        match self {
            Self::Timeout { limit } => {
                Self::Unreachable(format!("no access_token came within {} ms", limit.as_millis()))
            }
            Self::Lost(reason) => Self::Unreachable(format!("no access_token came: {reason}")),
            error => error,
        }
    }

    /// WeChat's `errcode`, if it refused the call.
    pub fn code(&self) -> Option<i64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What the operator can do, if that is known.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Refused { code, message } => advice::of(*code, message),
            _ => None,
        }
    }

    /// The error and what to do about it, as a log or a terminal shows them.
    pub fn advised(&self) -> String {
        let advice = self.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{self}{advice}")
    }

    /// Whether the same call may well succeed later: nothing is wrong with it, with the account or with the user.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code, -1 | 45_009 | 45_011) || self.is_about_token(),
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Timeout { .. } | Self::NoTurn | Self::Unreachable(_) | Self::Lost(_) | Self::NotJson => true,
            Self::Unexpected | Self::TooLarge(_) | Self::Invalid(_) | Self::NotPlayed(_) => false,
        }
    }

    /// Whether WeChat may have done what it was asked to do all the same: the answer is what is missing.
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Lost(_) | Self::NotJson | Self::Unexpected | Self::TooLarge(_) => true,
            Self::Status(status) => status.is_server_error(),
            _ => false,
        }
    }

    /// Whether another access_token may help.
    pub(super) fn is_about_token(&self) -> bool {
        matches!(self.code(), Some(40_001 | 40_014 | 42_001))
    }

    /// Whether WeChat asks for patience.
    pub(super) fn is_busy(&self) -> bool {
        self.code() == Some(-1)
    }

    pub(super) fn outcome(&self) -> ApiOutcome {
        match self {
            Self::Refused { code: -1, .. } => ApiOutcome::Busy,
            Self::Refused { code: 45_009 | 45_011, .. } => ApiOutcome::Quota,
            Self::Refused { .. } if self.is_about_token() => ApiOutcome::Token,
            Self::Refused { .. } | Self::Invalid(_) | Self::NotPlayed(_) => ApiOutcome::Refused,
            Self::Timeout { .. } => ApiOutcome::Timeout,
            Self::NoTurn => ApiOutcome::NoTurn,
            Self::Unreachable(_) | Self::Lost(_) | Self::Status(_) => ApiOutcome::Unreachable,
            Self::NotJson | Self::Unexpected | Self::TooLarge(_) => ApiOutcome::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i64) -> ApiError {
        ApiError::refused(code, "why", std::iter::empty())
    }

    #[test]
    fn what_wechat_says_is_shown_without_secrets_and_without_end() {
        let secret = Secret::from("hidden7");
        let error = ApiError::refused(40125, "bad secret hidden7\u{1b}[2J", [&secret].into_iter());
        assert_eq!(error.to_string(), "WeChat refused: 40125 bad secret [redacted] [2J");
        let long = ApiError::refused(1, &"微".repeat(9_999), std::iter::empty()).to_string();
        assert_eq!(long.chars().count(), "WeChat refused: 1 ".len() + MESSAGE_CHARS_MAX);
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        let passing = [refused(-1), refused(45009), refused(42001), ApiError::Timeout { limit: Duration::ZERO }];
        assert!(passing.iter().all(ApiError::may_pass));
        let lasting = [refused(45015), refused(45047), refused(48001), refused(40003), ApiError::Unexpected];
        assert!(!lasting.iter().any(ApiError::may_pass));
        assert!(
            ApiError::Status(StatusCode::BAD_GATEWAY).may_pass() && !ApiError::Status(StatusCode::FOUND).may_pass()
        );
    }

    #[test]
    fn what_was_refused_or_never_asked_was_not_done() {
        assert!(ApiError::Timeout { limit: Duration::ZERO }.may_be_done());
        assert!(ApiError::Lost("https://a broke off: reset".into()).may_be_done());
        let of_token = ApiError::Timeout { limit: Duration::from_secs(1) }.of_token();
        assert_eq!(
            (of_token.to_string().as_str(), of_token.may_be_done()),
            ("no access_token came within 1000 ms", false)
        );
        let undone = [refused(-1), ApiError::NoTurn, ApiError::Unreachable("cannot reach https://a: refused".into())];
        assert!(!undone.iter().any(ApiError::may_be_done));
    }
}
