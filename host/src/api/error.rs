//! Why a call of WeChat's API came to nothing, and what to do about it.

use std::net::IpAddr;

use hyper::StatusCode;

use crate::{https::NoAnswer, secret::Secret};

/// How much of WeChat's own words is kept.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a call came to nothing. No text has a secret in it.
#[derive(Debug, thiserror::Error)]
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
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

impl ApiError {
    /// Keeps what WeChat said, made safe to show.
    pub(super) fn refused<'a>(code: i64, message: &str, secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let is_shown = |secret: &&Secret| !secret.expose().is_empty();
        let message = secrets
            .filter(is_shown)
            .fold(message.to_owned(), |message, secret| message.replace(secret.expose(), "[redacted]"));
        let message = message.chars().map(|char| if char.is_control() { ' ' } else { char });
        Self::Refused { code, message: message.take(MESSAGE_CHARS_MAX).collect() }
    }

    /// Returns what the operator can do, if that is known.
    /// Codes: <https://developers.weixin.qq.com/doc/service/guide/dev/error_code.html>
    pub fn advice(&self) -> Option<String> {
        let Self::Refused { code, message } = self else { return None };
        let advice = match code {
            -1 => "WeChat is busy; try again in a minute",
            40001 => "`app_secret` is not this account's AppSecret, or the access_token is not good any more",
            40014 | 42001 => "the access_token is not good any more; try again",
            40013 | 41002 => {
                "`app_id` is not this account's AppID; copy it again from the account's page at 微信开发者平台"
            }
            40125 | 41004 => {
                "`app_secret` is not this account's AppSecret, or was reset since; only the console's administrator can \
                 reset it, and see it once"
            }
            40164 => return Some(whitelist(message)),
            40201 => "no URL is set for this account; fill WeChat's 服务器配置 form first",
            40243 => "the AppSecret is frozen (已冻结); unfreeze it on the account's page at 微信开发者平台",
            45009 | 45011 => "too many calls; WeChat takes them again later",
            48001 | 50004 => "this account has no right to this call",
            50007 => "WeChat has frozen this account; its console says why",
            89501 | 89503 => {
                "the account's administrator has to confirm this machine's IP address, in the message that WeChat sent them"
            }
            89506 | 89507 => {
                "the account's administrator refused this machine's IP address; ask them, and try again later"
            }
            _ => return None,
        };
        Some(advice.to_owned())
    }
}

/// WeChat says which address it saw, which no machine behind a router knows of itself.
fn whitelist(message: &str) -> String {
    let ip = message.split([' ', ',']).find_map(|word| word.parse::<IpAddr>().ok());
    let ip = ip.map_or_else(|| "this machine's address".to_owned(), |ip| ip.to_string());
    format!("add {ip} to the IP whitelist (IP白名单), on the account's page at 微信开发者平台")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(code: i64, message: &str) -> Option<String> {
        ApiError::refused(code, message, std::iter::empty()).advice()
    }

    #[test]
    fn the_address_to_allow_is_the_one_that_wechat_saw() {
        for (message, ip) in [
            ("invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: 6-7", "1.2.3.4"),
            ("invalid ip 2001:db8::1 ipv6 2001:db8::1, not in whitelist", "2001:db8::1"),
            ("not in whitelist", "this machine's address"),
        ] {
            let advice = advice(40164, message).unwrap();
            assert!(advice.starts_with(&format!("add {ip} to the IP whitelist")), "{advice}");
        }
    }

    #[test]
    fn a_mistake_of_the_operators_comes_with_its_way_out() {
        assert!(advice(40013, "invalid appid").unwrap().contains("`app_id`"));
        assert!(advice(40125, "invalid appsecret").unwrap().contains("`app_secret`"));
        assert!(advice(40243, "AppSecret已被冻结").unwrap().contains("unfreeze"));
        assert!(advice(89503, "此次调用需要管理员确认").unwrap().contains("administrator"));
        assert!(advice(-1, "system error").unwrap().contains("busy"));
        assert_eq!(advice(12345, "something new"), None);
    }

    #[test]
    fn what_wechat_says_is_shown_without_secrets_and_without_end() {
        let secret = Secret::from("hidden7");
        let error = ApiError::refused(40125, "bad secret hidden7\u{1b}[2J", [&secret].into_iter());
        assert_eq!(error.to_string(), "WeChat refused: 40125 bad secret [redacted] [2J");
        let long = ApiError::refused(1, &"微".repeat(9_999), std::iter::empty()).to_string();
        assert_eq!(long.chars().count(), "WeChat refused: 1 ".len() + MESSAGE_CHARS_MAX);
    }
}
