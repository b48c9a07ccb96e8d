//! WeChat's HTTP API, as the host calls it for one account. Each of its services is a file.
//!
//! Every answer is JSON. One with an `errcode` other than 0 is a refusal: [`ApiError`] says what to do about it.

pub mod access_token;
pub mod callback_check;
mod error;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Uri,
    header::{CONTENT_TYPE, HeaderValue},
    http::uri::PathAndQuery,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use access_token::AccessToken;
pub use callback_check::CallbackCheck;
pub use error::ApiError;

use crate::{config::Account, https::Client, secret::Secret};

/// How long a call may take, unless told otherwise. WeChat's own answers take tens of milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// WeChat's API for one account.
#[derive(Clone, Debug)]
pub struct Api {
    /// How long a call may take. Default: 10 s.
    pub timeout: Duration,
    app_id: String,
    app_secret: Secret,
    base_url: Uri,
    client: Client,
}

impl Api {
    /// Takes an account's API; none for an account without AppID or AppSecret.
    pub fn of(account: &Account) -> Option<Self> {
        Some(Self {
            timeout: TIMEOUT,
            app_id: account.app_id.clone()?,
            app_secret: account.app_secret.clone()?,
            base_url: account.api_base_url.clone(),
            client: Client::default(),
        })
    }

    /// Posts a call that needs no token.
    async fn post_untokened<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ApiError> {
        self.exchange(path, body, None).await
    }

    /// Posts a call with a token.
    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &AccessToken,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.exchange(path, body, Some(&token.token)).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        token: Option<&Secret>,
    ) -> Result<T, ApiError> {
        // WeChat takes raw UTF-8 only, which is what serde_json writes.
        let body = serde_json::to_vec(body).expect("what is sent has only texts for keys");
        let mut request =
            Request::post(self.url(path, token)).body(Full::new(Bytes::from(body))).expect("it has a URL");
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.client.send(request, self.timeout).await?;
        if !answer.status.is_success() {
            return Err(ApiError::Status(answer.status));
        }
        let json: Value = serde_json::from_slice(&answer.body).map_err(|_| ApiError::NotJson)?;
        match json["errcode"].as_i64() {
            None | Some(0) => serde_json::from_value(json).map_err(|_| ApiError::Unexpected),
            Some(code) => {
                let secrets = [Some(&self.app_secret), token].into_iter().flatten();
                Err(ApiError::refused(code, json["errmsg"].as_str().unwrap_or_default(), secrets))
            }
        }
    }

    /// The address of a call. It may hold a token: it belongs into no text.
    fn url(&self, path: &str, token: Option<&Secret>) -> Uri {
        let mut parts = self.base_url.clone().into_parts();
        let base = self.base_url.path().trim_end_matches('/');
        let query = token.map(|token| format!("?access_token={}", percent_encoded(token.expose())));
        let path_and_query = PathAndQuery::try_from(format!("{base}{path}{}", query.unwrap_or_default()));
        parts.path_and_query = Some(path_and_query.expect("the base is an address, the rest ours or escaped"));
        Uri::from_parts(parts).expect("an address with another path is an address")
    }
}

fn percent_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(base_url: &str) -> Api {
        Api {
            timeout: TIMEOUT,
            app_id: "wx1".into(),
            app_secret: "hidden7".into(),
            base_url: base_url.parse().unwrap(),
            client: Client::default(),
        }
    }

    #[test]
    fn a_calls_address_is_the_base_with_its_path_and_token() {
        let url = |base_url: &str, token: Option<&str>| {
            api(base_url).url("/cgi-bin/x", token.map(Secret::from).as_ref()).to_string()
        };
        assert_eq!(url("https://api.weixin.qq.com", None), "https://api.weixin.qq.com/cgi-bin/x");
        assert_eq!(
            url("http://127.0.0.1:1/wechat", Some("a_-b")),
            "http://127.0.0.1:1/wechat/cgi-bin/x?access_token=a_-b"
        );
        assert_eq!(url("https://a/", Some("a b&c")), "https://a/cgi-bin/x?access_token=a+b%26c");
    }

    #[test]
    fn debugging_shows_no_secret() {
        assert!(!format!("{:?}", api("https://a/")).contains("hidden7"));
    }

    #[tokio::test]
    async fn an_api_that_is_down_is_named_without_its_token() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let token = AccessToken { token: "hidden8".into(), expires_in: TIMEOUT };
        let error = api(&format!("http://{address}")).check_callback(&token).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot reach http://{address}/cgi-bin/callback/check: ")), "{error}");
        assert!(!error.contains("hidden8"), "{error}");
    }
}
