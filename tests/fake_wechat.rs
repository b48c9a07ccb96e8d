//! A WeChat API on a free port: knows one account, and does as the real one does or as a test tells it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The account's AppID.
pub const APP_ID: &str = "wx0123456789abcdef";

/// Its AppSecret.
pub const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The access_token it is given.
pub const ACCESS_TOKEN: &str = "57_fake-access_token";

/// Far more than any call has.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The API. It ends with this value.
#[derive(Debug)]
pub struct FakeWechat {
    /// `http://127.0.0.1:PORT`, for `api_base_url`.
    pub base_url: String,
    answers: Arc<Answers>,
    server: JoinHandle<()>,
}

/// What a test wants otherwise, by path.
type Answers = Mutex<HashMap<&'static str, Told>>;

#[derive(Clone, Debug)]
enum Told {
    Say(u16, String),
    Nothing,
}

impl FakeWechat {
    /// Starts an API to which all is well.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let base_url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let answers = Arc::<Answers>::default();
        let router = Router::new().fallback(answer).with_state(answers.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { base_url, answers, server }
    }

    /// Answers calls of this path with this JSON from now on.
    pub fn says(self, path: &'static str, json: Value) -> Self {
        self.told(path, Told::Say(200, json.to_string()))
    }

    /// Answers calls of this path as a proxy that is out of order does.
    pub fn breaks(self, path: &'static str, status: u16, body: &str) -> Self {
        self.told(path, Told::Say(status, body.to_owned()))
    }

    /// Takes calls of this path and never answers.
    pub fn hangs(self, path: &'static str) -> Self {
        self.told(path, Told::Nothing)
    }

    fn told(self, path: &'static str, told: Told) -> Self {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(path, told);
        self
    }
}

impl Drop for FakeWechat {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(answers): State<Arc<Answers>>, request: Request) -> Response {
    let told = answers.lock().unwrap_or_else(PoisonError::into_inner).get(request.uri().path()).cloned();
    let (status, body) = match told {
        Some(Told::Say(status, body)) => (status, body),
        Some(Told::Nothing) => std::future::pending().await,
        None => (200, usual(request).await.to_string()),
    };
    Response::builder().status(status).body(Body::from(body)).expect("both are fit for an answer")
}

/// What WeChat answers.
async fn usual(request: Request) -> Value {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let query = head.uri.query().unwrap_or_default();
    let token = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "access_token");
    let is_known = token.is_some_and(|(_, token)| token == ACCESS_TOKEN);
    match (head.method.as_str(), head.uri.path()) {
        ("POST", "/cgi-bin/stable_token") => stable_token(&body),
        _ if !is_known => refusal(40001, "invalid credential, access_token is invalid or not latest"),
        ("POST", "/cgi-bin/callback/check") => callback_check(&body),
        _ => refusal(40066, "invalid url"),
    }
}

fn stable_token(body: &Value) -> Value {
    if body["grant_type"] != "client_credential" {
        return refusal(40002, "invalid grant_type");
    }
    if body["appid"] != APP_ID {
        return refusal(40013, "invalid appid rid: 1-2-3");
    }
    if body["secret"] != APP_SECRET {
        // The real one does not quote it, but a proxy might.
        return refusal(40125, &format!("invalid appsecret {}", body["secret"].as_str().unwrap_or_default()));
    }
    json!({ "access_token": ACCESS_TOKEN, "expires_in": 345 })
}

fn callback_check(body: &Value) -> Value {
    if body["action"] != "all" {
        return refusal(40202, "invalid action");
    }
    if body["check_operator"] != "DEFAULT" {
        return refusal(40203, "invalid check_operator");
    }
    json!({
        "dns": [{ "ip": "111.161.64.40", "real_operator": "UNICOM" }],
        "ping": [{ "ip": "111.161.64.40", "from_operator": "UNICOM", "package_loss": "0%", "time": "23.079ms" }],
    })
}

/// An answer with an `errcode`.
pub fn refusal(code: i64, message: &str) -> Value {
    json!({ "errcode": code, "errmsg": message })
}
