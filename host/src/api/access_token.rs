//! The token that every other call needs.
//!
//! Only `stable_token` is used: each call of the older `token` makes the token before it invalid, so that two programs
//! that share an account put each other out of order.
//! <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Api, ApiError};
use crate::secret::Secret;

/// An access_token, and how long it is good.
#[derive(Clone, Debug)]
pub struct AccessToken {
    pub token: Secret,
    /// What is left of its two hours: WeChat gives everybody the same one until shortly before its end.
    pub expires_in: Duration,
}

#[derive(Serialize)]
struct Request<'a> {
    grant_type: &'a str,
    appid: &'a str,
    secret: &'a str,
    /// True makes a new one, at most 20 times a day.
    force_refresh: bool,
}

#[derive(Deserialize)]
struct Response {
    access_token: String,
    expires_in: u64,
}

impl Api {
    /// Fetches the account's token.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: here a refusal is about AppID, AppSecret or this machine's IP address.
    pub async fn stable_token(&self) -> Result<AccessToken, ApiError> {
        let request = Request {
            grant_type: "client_credential",
            appid: &self.app_id,
            secret: self.app_secret.expose(),
            force_refresh: false,
        };
        let response: Response = self.post_untokened("/cgi-bin/stable_token", &request).await?;
        Ok(AccessToken {
            token: Secret::from(response.access_token),
            expires_in: Duration::from_secs(response.expires_in),
        })
    }
}
