//! How a token is got from WeChat.
//!
//! - <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>
//! - <https://developers.weixin.qq.com/doc/service/api/base/api_getaccesstoken>

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::AccessToken;
use crate::{
    api::{
        ApiError,
        busy::BackOff,
        exchange::{Endpoint, Request},
    },
    config::TokenKind,
    metrics::ApiMetrics,
    secret::Secret,
};

/// What an account shows for its tokens, and where.
#[derive(Clone, Debug)]
pub(in crate::api) struct Source {
    /// The account's name, for the log.
    pub(in crate::api) account: Arc<str>,
    pub(in crate::api) app_id: String,
    pub(in crate::api) app_secret: Secret,
    pub(in crate::api) kind: TokenKind,
    /// Whether a new stable token may be asked for when the one there is was refused. Only who remembers how often may.
    pub(in crate::api) may_force: bool,
    pub(in crate::api) endpoint: Endpoint,
    /// Nothing for a command that nobody watches.
    pub(in crate::api) metrics: Option<ApiMetrics>,
}

#[derive(Serialize)]
struct StableRequest<'a> {
    grant_type: &'a str,
    appid: &'a str,
    secret: &'a str,
    /// True makes a new one, and the one before it invalid.
    force_refresh: bool,
}

#[derive(Deserialize)]
struct Response {
    access_token: String,
    expires_in: u64,
}

impl Source {
    /// Fetches the token that everybody gets; with `token`, a new one.
    pub(super) async fn fetch(&self) -> Result<AccessToken, ApiError> {
        match self.kind {
            TokenKind::Stable => self.send(&self.stable(false)).await,
            TokenKind::Classic => self.send(&self.classic()).await,
        }
    }

    /// Fetches a new stable token.
    pub(super) async fn fetch_new(&self) -> Result<AccessToken, ApiError> {
        self.send(&self.stable(true)).await
    }

    fn stable(&self, force_refresh: bool) -> Request {
        let (appid, secret) = (&*self.app_id, self.app_secret.expose());
        let body = StableRequest { grant_type: "client_credential", appid, secret, force_refresh };
        Request::post_json("/cgi-bin/stable_token", &body)
    }

    fn classic(&self) -> Request {
        let query =
            [("grant_type", "client_credential"), ("appid", &*self.app_id), ("secret", self.app_secret.expose())];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Request::get("/cgi-bin/token", &query)
    }

    async fn send(&self, request: &Request) -> Result<AccessToken, ApiError> {
        let mut back_off = BackOff::default();
        loop {
            // Counted from before the exchange: the life that WeChat names begins somewhere in it.
            let started = Instant::now();
            // The exchange ends by itself, and says more.
            let deadline = started + self.endpoint.timeout() * 2;
            let sent = self.endpoint.send(request, None, &[&self.app_secret], deadline).await;
            match sent {
                Err(error) if error.is_busy() => match back_off.pause(Instant::now() + self.endpoint.timeout()) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(error),
                },
                Err(error) => return Err(error),
                Ok(answer) => {
                    let response: Response = answer.parsed()?;
                    let life = Duration::from_secs(response.expires_in.min(LIFE_S_MAX));
                    return Ok(AccessToken::new(response.access_token.into(), started, life));
                }
            }
        }
    }
}

/// No token of WeChat's lives longer than two hours; a day is the most that an answer is believed.
const LIFE_S_MAX: u64 = 86_400;
