//! WeChat's HTTP API, as the host calls it for one account. Each of its services is a file.
//!
//! An [`Api`] comes from the [`Apis`] of the whole host (`registry`). A call takes its turn (`turns`) and the account's token
//! (`access_token`), goes out by the way that `[http]` describes (`exchange`), and is repeated once with another token where
//! WeChat refuses the one it had, and some times where WeChat is busy (`busy`). An answer with an `errcode` other than 0 is a
//! refusal: [`ApiError`] says what to do about it (`advice`).

mod access_token;
mod advice;
mod busy;
pub mod callback_check;
pub mod customer_service;
mod error;
mod exchange;
mod form;
pub mod oauth;
mod registry;
mod turns;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing::warn;

pub use access_token::{AccessToken, NoToken};
pub(crate) use advice::is_about_account;
pub use callback_check::CallbackCheck;
pub use error::ApiError;
pub use exchange::Answer;
pub use form::{Field, Form, content_type};
pub use oauth::{Authorization, Profile};
pub use registry::Apis;

use self::{
    access_token::{ManagedToken, Source},
    busy::BackOff,
    exchange::{Endpoint, Request},
    turns::Turns,
};
use crate::{egress::Egress, metrics::ApiMetrics, refusal::OnceAMinute};

/// WeChat's API for one account. Cheap to clone: all clones share the token and the turns.
#[derive(Clone, Debug)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    /// Nothing where exchanges are played: nobody has a token there.
    token: Option<(Source, Arc<ManagedToken>)>,
    turns: Option<Turns>,
    metrics: Option<ApiMetrics>,
    /// Which codes were told of lately.
    told: OnceAMinute<i64>,
}

/// The methods that WeChat's API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

impl Method {
    /// Reads a method in capitals.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "GET" => Some(Self::Get),
            "POST" => Some(Self::Post),
            _ => None,
        }
    }

    /// The method as it goes over the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// The longest path; WeChat's have 60 characters.
const PATH_BYTES_MAX: usize = 256;

/// Holds a path to the few characters that WeChat's have: no two servers can read it in two ways.
///
/// # Errors
///
/// The end of a sentence about the path.
pub fn check_path(path: &str) -> Result<(), String> {
    let is_part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    match path.strip_prefix('/') {
        None => Err("must begin with `/`".to_owned()),
        Some(_) if path.len() > PATH_BYTES_MAX => Err(format!("has more than {PATH_BYTES_MAX} bytes")),
        Some(parts) if parts.split('/').all(is_part) => Ok(()),
        Some(_) => Err("may have letters, digits, `_` and `-` between single slashes".to_owned()),
    }
}

impl Api {
    /// An API whose exchanges a conversation file plays: no token, and nothing reaches WeChat.
    pub fn played(egress: Egress) -> Self {
        Self(Arc::new(Inner {
            endpoint: Endpoint::played(egress),
            token: None,
            turns: None,
            metrics: None,
            told: OnceAMinute::default(),
        }))
    }

    fn network(source: Source, token: Arc<ManagedToken>, turns: Turns) -> Self {
        let (endpoint, metrics) = (source.endpoint.clone(), source.metrics.clone());
        Self(Arc::new(Inner {
            endpoint,
            token: Some((source, token)),
            turns: Some(turns),
            metrics,
            told: OnceAMinute::default(),
        }))
    }

    /// Calls the API and waits for its JSON, as WeChat wrote it. `path` has passed [`check_path`]; `body` is JSON.
    ///
    /// # Errors
    ///
    /// [`ApiError`], as of every call.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
        body: Option<String>,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        self.request(&request(method, path, query, body), deadline).await?.json()
    }

    /// Calls the API and waits for whatever it answers.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn fetch(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
        body: Option<String>,
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        self.request(&request(method, path, query, body), deadline).await
    }

    /// Sends a form with files, and waits for the API's JSON.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn upload(
        &self,
        path: &str,
        query: &[(String, String)],
        form: Form,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        let (content_type, body) = form.written();
        self.request(&Request::post(path, query, &content_type, body), deadline).await?.json()
    }

    /// The account's access_token, fetched if it has to be.
    ///
    /// # Errors
    ///
    /// [`ApiError`]: here a refusal is about AppID, AppSecret or this machine's IP address.
    pub async fn access_token(&self, deadline: Instant) -> Result<AccessToken, ApiError> {
        let no_token = || ApiError::Invalid("where exchanges are played, nobody has an access_token".to_owned());
        let (source, token) = self.0.token.as_ref().ok_or_else(no_token)?;
        token.current(source, deadline).await
    }

    /// Why there is no access_token, if none could be fetched the last time.
    pub fn no_token(&self) -> Option<NoToken> {
        self.0.token.as_ref().and_then(|(_, token)| token.missing(Instant::now()))
    }

    /// Sends a request under the account's token.
    async fn request(&self, request: &Request, deadline: Instant) -> Result<Answer, ApiError> {
        let started = Instant::now();
        let outcome = self.tried(request, deadline).await;
        if let Some(metrics) = &self.0.metrics {
            metrics.call(outcome.as_ref().err().map(ApiError::outcome).unwrap_or_default(), started.elapsed());
        }
        outcome
    }

    /// Tries a request until it is answered, refused for good, or out of time.
    async fn tried(&self, request: &Request, deadline: Instant) -> Result<Answer, ApiError> {
        let Some((source, managed)) = &self.0.token else {
            return self.0.endpoint.send(request, None, &[], deadline).await;
        };
        let mut token = managed.current(source, deadline).await.map_err(ApiError::of_token)?;
        let (mut back_off, mut is_renewed) = (BackOff::default(), false);
        loop {
            match self.under(&token, request, deadline).await {
                Err(refusal) if refusal.is_about_token() && !is_renewed => {
                    is_renewed = true;
                    token = managed.instead_of(token, &refusal, source, deadline).await.map_err(ApiError::of_token)?;
                }
                Err(refusal) if refusal.is_busy() => match back_off.pause(deadline) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(refusal),
                },
                outcome => return outcome,
            }
        }
    }

    async fn under(&self, token: &AccessToken, request: &Request, deadline: Instant) -> Result<Answer, ApiError> {
        let _turn = match &self.0.turns {
            Some(turns) => Some(turns.take(deadline).await?),
            None => None,
        };
        let secret = self.0.token.as_ref().map(|(source, _)| &source.app_secret);
        self.0.endpoint.send(request, Some(&token.token), secret.as_slice(), deadline).await
    }

    /// Tells the operator what WeChat refused a plugin, where only the operator can do something about it: once a minute for
    /// each code.
    pub fn tell_refused(&self, plugin: &str, error: &ApiError) {
        let Some(code) = error.code().filter(|code| advice::is_about_account(*code)) else { return };
        if self.0.told.turn(code, Instant::now()).is_some() {
            warn!(plugin.name = plugin, "A call of plugin `{plugin}`: {}", error.advised());
        }
    }

    /// How long one exchange may take.
    pub fn timeout(&self) -> Duration {
        self.0.endpoint.timeout()
    }
}

/// Writes JSON as WeChat takes it. It refuses `\u` escapes (40033), which the libraries of many languages write; what has none
/// stays as it is.
///
/// # Errors
///
/// It is no JSON.
pub fn in_raw_utf8(json: String) -> Result<String, serde_json::Error> {
    if json.contains("\\u") {
        return Ok(serde_json::from_str::<serde_json::Value>(&json)?.to_string());
    }
    serde_json::from_str::<serde::de::IgnoredAny>(&json)?;
    Ok(json)
}

fn request(method: Method, path: &str, query: &[(String, String)], body: Option<String>) -> Request {
    match method {
        Method::Get => Request::get(path, query),
        Method::Post => Request::post(path, query, "application/json", body.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_only_what_wechats_paths_have() {
        for path in ["/cgi-bin/user/info", "/datacube/getusersummary", "/cgi-bin/stable_token", "/a"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for path in [
            "",
            "/",
            "cgi-bin/x",
            "//x",
            "/x/",
            "/x//y",
            "/./x",
            "/x/..",
            "/x%2fy",
            "/x?y",
            "/x#y",
            "/x y",
            "/x\\y",
            "/x;y",
            "/x:y",
            "/@x",
            "/微信",
            "/x\r\ny",
            "https://evil/",
            "/*",
            &"/x".repeat(129),
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }
}
