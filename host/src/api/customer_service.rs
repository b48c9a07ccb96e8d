//! Customer-service messages (客服消息): what an account says besides, or later than, its replies.
//!
//! - <https://developers.weixin.qq.com/doc/service/api/customer/message/api_sendcustommessage>
//! - <https://developers.weixin.qq.com/doc/service/api/customer/message/api_typing>

mod body;
mod from_reply;

use std::time::Instant;

use serde::Serialize;

use self::body::Body;
pub use self::from_reply::{Unsendable, content_of};
use super::{Api, ApiError, exchange::Request};
pub use crate::plugin::bindings::aviary::bot::customer_service::{Content, Menu, MiniprogramPage, Options};
use crate::reply::TEXT_BYTES_MAX;

/// Typing is shown already (45081), or it is too long since the user's last message to show it (45080): nobody misses
/// anything.
const TYPING_IN_VAIN: [i64; 2] = [45_080, 45_081];

#[derive(Serialize)]
struct Typing<'a> {
    touser: &'a str,
    command: &'a str,
}

impl Api {
    /// Sends a message to a user, in the account's own name.
    ///
    /// # Errors
    ///
    /// [`ApiError`]. 45015: the user said nothing for too long; 45047: they got as much as WeChat allows; 48001: the account
    /// may not send at all. [`ApiError::may_be_done`] tells whether it may have arrived all the same.
    pub async fn send(&self, openid: &str, content: &Content, deadline: Instant) -> Result<(), ApiError> {
        self.send_with(openid, content, &Options { kf_account: None, is_ai: false }, deadline).await
    }

    /// Sends a message to a user, with options.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_with(
        &self,
        openid: &str,
        content: &Content,
        options: &Options,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        complete(openid, content)?;
        let body = Body::of(openid, content, options)?;
        self.request(&Request::post_json("/cgi-bin/message/custom/send", &body), deadline).await?.json()?;
        Ok(())
    }

    /// Shows a user that the account is typing, for 15 s or until the next message; or stops it. Where it cannot be shown or
    /// is shown already, that is no error.
    ///
    /// # Errors
    ///
    /// [`ApiError`]. 48001: the account has no customer service at all.
    pub async fn typing(&self, openid: &str, typing: bool, deadline: Instant) -> Result<(), ApiError> {
        let body = Typing { touser: openid, command: if typing { "Typing" } else { "CancelTyping" } };
        let sent = self.request(&Request::post_json("/cgi-bin/message/custom/typing", &body), deadline).await;
        match sent.and_then(super::Answer::json) {
            Err(error) if error.code().is_some_and(|code| TYPING_IN_VAIN.contains(&code)) => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }
}

/// Refuses what WeChat would refuse for sure: a call costs part of the account's quota.
fn complete(openid: &str, content: &Content) -> Result<(), ApiError> {
    let invalid = |text: String| Err(ApiError::Invalid(text));
    match content {
        _ if openid.is_empty() => invalid("the openid is empty".into()),
        Content::Text(text) if text.trim().is_empty() => invalid("the text is empty".into()),
        Content::Text(text) if text.len() > TEXT_BYTES_MAX => {
            invalid(format!("the text has {} bytes, and WeChat takes {TEXT_BYTES_MAX}; send it in parts", text.len()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(openid: &str, text: &str) -> String {
        complete(openid, &Content::Text(text.into())).unwrap_err().to_string()
    }

    #[test]
    fn what_wechat_would_refuse_for_sure_is_not_sent() {
        assert_eq!(refusal("", "hi"), "the openid is empty");
        assert_eq!(refusal("o1", " \n"), "the text is empty");
        assert_eq!(
            refusal("o1", &"微".repeat(683)),
            "the text has 2049 bytes, and WeChat takes 2048; send it in parts"
        );
        assert!(complete("o1", &Content::Text("a".repeat(2_048))).is_ok());
    }
}
