//! What WeChat sees of the URL in its 服务器配置 form: the addresses of its host, and whether they answer a ping.
//! <https://developers.weixin.qq.com/doc/service/api/base/api_callbackcheck>

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Api, ApiError, exchange::Request};

/// What WeChat saw.
#[derive(Clone, Debug, Deserialize)]
pub struct CallbackCheck {
    /// The addresses that it found for the URL's host.
    #[serde(default)]
    pub dns: Vec<Resolved>,
    /// One ping to each of them.
    #[serde(default)]
    pub ping: Vec<Ping>,
}

/// An address of the URL's host.
#[derive(Clone, Debug, Deserialize)]
pub struct Resolved {
    pub ip: String,
    /// Whose network it is in: CHINANET, UNICOM, CAP, …
    #[serde(default)]
    pub real_operator: String,
}

/// One ping.
#[derive(Clone, Debug, Deserialize)]
pub struct Ping {
    pub ip: String,
    /// From whose network it went out.
    #[serde(default)]
    pub from_operator: String,
    /// `0%` or `100%`.
    #[serde(default)]
    pub package_loss: String,
    /// Such as `23.079ms`.
    #[serde(default)]
    pub time: String,
}

#[derive(Serialize)]
struct Body<'a> {
    action: &'a str,
    check_operator: &'a str,
}

impl Api {
    /// Lets WeChat look for the URL that is filled into its form.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn check_callback(&self, deadline: Instant) -> Result<CallbackCheck, ApiError> {
        let body = Body { action: "all", check_operator: "DEFAULT" };
        self.request(&Request::post_json("/cgi-bin/callback/check", &body), deadline).await?.parsed()
    }
}
