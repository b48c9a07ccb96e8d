//! One exchange with WeChat's API: a request goes out under an access_token, and what comes back is an answer or a refusal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ApiError;
use crate::{
    config::{HttpGrant, WechatApi},
    egress::{self, Egress, Redactor, Waits, request, target::Target},
    plugin::aside,
    secret::Secret,
};

/// Up to how many bytes an answer that should be a file is looked at for a refusal: those have a few hundred.
const REFUSAL_BYTES_MAX: usize = 65_536;

/// From how many bytes on secrets are looked for on a thread that no message needs.
const ASIDE_BYTES_MIN: usize = 65_536;

/// How long a played exchange may take: as long as a conversation file can say.
const PLAYED_TIMEOUT: Duration = Duration::from_secs(600);

/// Where the API is, and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    egress: Egress,
    /// The one address that requests go to.
    grant: Arc<[HttpGrant]>,
    /// Without a slash at its end: every path begins with one.
    base_url: Arc<str>,
    /// How long one exchange may take.
    timeout: Duration,
}

/// A request, ready to go out under any token.
#[derive(Clone)]
pub(super) struct Request {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

/// What came back, and is no refusal as far as can be seen from outside.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `application/json`, `image/jpeg`, …; empty if WeChat does not say.
    pub content_type: String,
    /// The name that WeChat gives a file.
    pub file_name: Option<String>,
    pub body: Vec<u8>,
}

impl Request {
    pub(super) fn get(path: &str, query: &[(String, String)]) -> Self {
        Self { method: Method::GET, path: path.into(), query: query.into(), content_type: None, body: Bytes::new() }
    }

    pub(super) fn post(path: &str, query: &[(String, String)], content_type: &str, body: impl Into<Bytes>) -> Self {
        // Ours, or a form's with a boundary of ours.
        let content_type = HeaderValue::from_str(content_type).ok();
        Self { method: Method::POST, path: path.into(), query: query.into(), content_type, body: body.into() }
    }

    /// Posts JSON. WeChat takes raw UTF-8 only, which is what serde_json writes.
    pub(super) fn post_json(path: &str, body: &impl serde::Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("what is sent has only texts for keys");
        Self::post(path, &[], "application/json", body)
    }

    fn headers(&self) -> HeaderMap {
        let content_type = self.content_type.clone().map(|content_type| (CONTENT_TYPE, content_type));
        content_type.into_iter().collect()
    }
}

impl Endpoint {
    /// The API at an address that was checked with the settings.
    pub(super) fn new(egress: Egress, base_url: &str, http: &crate::config::Http, settings: &WechatApi) -> Self {
        let target = Target::parse(base_url).expect("it was tried when the settings were read");
        let grant = HttpGrant::of_operator(base_url, &target, http);
        Self {
            egress,
            grant: [grant].into(),
            base_url: base_url.trim_end_matches('/').into(),
            timeout: settings.timeout,
        }
    }

    /// WeChat's own address, where a conversation file plays it.
    pub(super) fn played(egress: Egress) -> Self {
        Self { egress, grant: [].into(), base_url: "https://api.weixin.qq.com".into(), timeout: PLAYED_TIMEOUT }
    }

    /// How long one exchange may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request, under a token if there is one, and waits for the whole answer. What is in `secrets` comes back in no
    /// answer and no error.
    pub(super) async fn send(
        &self,
        request: &Request,
        token: Option<&Secret>,
        secrets: &[&Secret],
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        let now = Instant::now();
        let limit = self.timeout.min(deadline.saturating_duration_since(now));
        let waits = Waits { deadline: now + limit, connect: None, first_byte: None, between_bytes: None };
        let failed = |error: egress::NoAnswer| ApiError::of(error, limit);
        let (body, url) = (request::of_bytes(request.body.clone()), self.url(request, token));
        let outgoing = egress::Request::new(request.method.as_str(), &url, request.headers(), body).map_err(failed)?;
        let answer = self.egress.send(None, &self.grant, outgoing, waits).await.map_err(failed)?;
        let (status, headers) = (answer.status, answer.headers);
        let body = answer.body.whole().await.map_err(failed)?.bytes;
        let secrets: Vec<&Secret> = secrets.iter().copied().chain(token).collect();
        let answer = Answer::new(&headers, body).without(&secrets).await;
        answer.refusal(&secrets)?;
        if status.is_success() { Ok(answer) } else { Err(ApiError::Status(status)) }
    }

    /// The address of a request. It may hold a token: it belongs into no text.
    fn url(&self, request: &Request, token: Option<&Secret>) -> String {
        let own = request.query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let token = token.map(|token| ("access_token", token.expose()));
        let pairs: Vec<String> =
            token.into_iter().chain(own).map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let mark = if pairs.is_empty() { "" } else { "?" };
        format!("{}{}{mark}{}", self.base_url, request.path, pairs.join("&"))
    }
}

impl Answer {
    fn new(headers: &HeaderMap, body: Vec<u8>) -> Self {
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let content_type = text(CONTENT_TYPE).unwrap_or_default();
        let file_name = text(CONTENT_DISPOSITION).as_deref().and_then(file_name);
        Self { content_type, file_name, body }
    }

    /// Takes secrets out of the body. A picture has none to tell.
    async fn without(mut self, secrets: &[&Secret]) -> Self {
        let redactor = Redactor::of_secrets(secrets.iter().copied());
        self.body = match self.body {
            body if is_media(&self.content_type) => body,
            body if body.len() < ASIDE_BYTES_MIN => redactor.bytes(&body),
            body => aside(move || redactor.bytes(&body)).await,
        };
        self
    }

    /// Reads the answer as what a call gives.
    pub(super) fn parsed<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let json: Value = serde_json::from_slice(&self.body).map_err(|_| ApiError::NotJson)?;
        serde_json::from_value(json).map_err(|_| ApiError::Unexpected)
    }

    /// Reads the answer as JSON, and returns it as it was written.
    pub(super) fn json(self) -> Result<String, ApiError> {
        serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).map_err(|_| ApiError::NotJson)?;
        String::from_utf8(self.body).map_err(|_| ApiError::NotJson)
    }

    /// Finds an `errcode`: WeChat answers so whatever was asked for, and with whatever type.
    fn refusal(&self, secrets: &[&Secret]) -> Result<(), ApiError> {
        if is_media(&self.content_type) || self.body.len() > REFUSAL_BYTES_MAX {
            return Ok(());
        }
        let Ok(json) = serde_json::from_slice::<Value>(&self.body) else { return Ok(()) };
        match json["errcode"].as_i64() {
            None | Some(0) => Ok(()),
            Some(code) => {
                let message = json["errmsg"].as_str().unwrap_or_default();
                Err(ApiError::refused(code, message, secrets.iter().copied()))
            }
        }
    }
}

fn is_media(content_type: &str) -> bool {
    ["image/", "audio/", "video/", "voice/"].iter().any(|kind| content_type.starts_with(kind))
}

/// The name in `attachment; filename="a.jpg"`, without any directory.
fn file_name(disposition: &str) -> Option<String> {
    let (_, name) = disposition.split_once("filename=")?;
    let name = name.split(';').next()?.trim().trim_matches('"');
    let name = name.rsplit(['/', '\\']).next().filter(|name| !name.is_empty())?;
    Some(name.to_owned())
}

/// Percent-encodes as every server decodes: a blank is `%20`, not `+`.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base_url: &str, query: &[(&str, &str)], token: Option<&str>) -> String {
        let endpoint = Endpoint {
            base_url: base_url.trim_end_matches('/').into(),
            ..Endpoint::played(Egress::played(Vec::new()))
        };
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        endpoint.url(&Request::get("/cgi-bin/x", &query), token.map(Secret::from).as_ref())
    }

    #[test]
    fn a_calls_address_is_the_base_with_its_path_token_and_query() {
        assert_eq!(url("https://api.weixin.qq.com", &[], None), "https://api.weixin.qq.com/cgi-bin/x");
        assert_eq!(
            url("http://127.0.0.1:1/wechat", &[], Some("a_-b")),
            "http://127.0.0.1:1/wechat/cgi-bin/x?access_token=a_-b"
        );
        assert_eq!(
            url("https://a/", &[("lang", "zh CN&access_token=x")], Some("a b&c")),
            "https://a/cgi-bin/x?access_token=a%20b%26c&lang=zh%20CN%26access_token%3Dx"
        );
    }

    #[test]
    fn a_files_name_has_no_directory() {
        for (disposition, name) in [
            ("attachment; filename=\"MEDIA_ID.jpg\"", Some("MEDIA_ID.jpg")),
            ("attachment; filename=../../etc/passwd; size=1", Some("passwd")),
            ("attachment; filename=\"..\\evil.exe\"", Some("evil.exe")),
            ("attachment; filename=\"\"", None),
            ("inline", None),
        ] {
            assert_eq!(file_name(disposition).as_deref(), name, "{disposition}");
        }
    }

    fn answer(content_type: &'static str, body: &str) -> Answer {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Answer::new(&headers, body.into())
    }

    #[test]
    fn a_refusal_is_recognised_whatever_its_type_says() {
        let refusal = "{\"errcode\":40007,\"errmsg\":\"invalid media_id\"}";
        for content_type in ["application/json", "text/plain", "application/octet-stream"] {
            assert_eq!(answer(content_type, refusal).refusal(&[]).unwrap_err().code(), Some(40007), "{content_type}");
        }
        for body in ["{\"errcode\":0}", "{\"ip_list\":[]}", "[1]", "amr bytes", ""] {
            assert!(answer("text/plain", body).refusal(&[]).is_ok(), "{body}");
        }
        assert!(answer("image/jpeg", refusal).refusal(&[]).is_ok());
    }

    #[tokio::test]
    async fn an_answer_that_repeats_the_token_does_not_give_it_away() {
        for length in [0, 2 * ASIDE_BYTES_MIN] {
            let filler = "x".repeat(length);
            let answer = answer("text/plain", &format!("{filler}{{\"a\":\"hidden_token7\"}}"));
            let answer = answer.without(&[&"hidden_token7".into()]).await;
            assert_eq!(String::from_utf8(answer.body).unwrap(), format!("{filler}{{\"a\":\"[redacted]\"}}"));
        }
    }
}
