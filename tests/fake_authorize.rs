//! WeChat's side of a login: what `api.weixin.qq.com/sns/…` answers, and what the authorisation page does with its address.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

use crate::fake_wechat::{APP_ID, APP_SECRET, refusal};

/// What must never be seen outside of the host.
pub const HIDDEN: [&str; 4] = ["web-access-7", "web-access-8", "web-refresh-7", APP_SECRET];

/// The visitor who signs in.
pub const OPENID: &str = "oVisitor0123456789abcdefghij";

/// The API for visitors. It ends with this value.
pub struct FakeAuthorize {
    /// `http://127.0.0.1:PORT`, for `api_base_url`.
    pub base_url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    told: Mutex<HashMap<&'static str, Value>>,
    hanging: Mutex<HashSet<&'static str>>,
    codes: Mutex<HashSet<String>>,
    calls: Mutex<Vec<String>>,
    /// What hangs goes on.
    released: Notify,
}

impl FakeAuthorize {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let base_url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::<Shared>::default();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { base_url, shared, server }
    }

    /// Answers calls of this path with this JSON from now on.
    pub fn says(&self, path: &'static str, json: Value) {
        lock(&self.shared.told).insert(path, json);
    }

    /// Does as usual again.
    pub fn says_as_usual(&self, path: &'static str) {
        lock(&self.shared.told).remove(path);
    }

    /// Takes calls of this path and answers none before [`Self::release`].
    pub fn hangs(&self, path: &'static str) {
        lock(&self.shared.hanging).insert(path);
    }

    /// Answers what hangs.
    pub fn release(&self) {
        lock(&self.shared.hanging).clear();
        self.shared.released.notify_waiters();
    }

    /// The paths that were called, in order.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.shared.calls).clone()
    }
}

impl Drop for FakeAuthorize {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What WeChat's page reads in its address, if it is as it has to be.
#[derive(Debug)]
pub struct Asked {
    pub scope: String,
    pub state: String,
    pub redirect_uri: String,
}

impl Asked {
    /// Reads an address as WeChat's page does: the order of its parameters counts.
    pub fn read(location: &str) -> Self {
        let query =
            location.strip_prefix("https://open.weixin.qq.com/connect/oauth2/authorize?").expect("it is WeChat's page");
        let query = query.strip_suffix("#wechat_redirect").expect("the fragment belongs to it");
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["appid", "redirect_uri", "response_type", "scope", "state"]);
        assert_eq!((pairs[0].1.as_str(), pairs[2].1.as_str()), (APP_ID, "code"));
        let state = pairs[4].1.clone();
        assert!(state.len() <= 128 && state.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{state}");
        Self { scope: pairs[3].1.clone(), state, redirect_uri: pairs[1].1.clone() }
    }

    /// Where the visitor is sent who agreed: path and query.
    pub fn agreed(&self, code: &str) -> String {
        self.back(&format!("&code={code}&state={}", self.state))
    }

    /// Where the visitor is sent who did not.
    pub fn denied(&self) -> String {
        self.back(&format!("&state={}", self.state))
    }

    /// Path and query of the callback with other parameters.
    pub fn back(&self, parameters: &str) -> String {
        let (_, path) =
            self.redirect_uri.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("it is a URL");
        format!("/{path}{parameters}")
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    lock(&shared.calls).push(path.clone());
    let released = shared.released.notified();
    if lock(&shared.hanging).contains(path.as_str()) {
        released.await;
    }
    let told = lock(&shared.told).get(path.as_str()).cloned();
    let query = request.uri().query().unwrap_or_default();
    let query: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let json = told.unwrap_or_else(|| usual(&shared, &path, &query));
    Response::new(Body::from(json.to_string()))
}

fn usual(shared: &Shared, path: &str, query: &HashMap<String, String>) -> Value {
    let is = |name: &str, value: &str| query.get(name).is_some_and(|found| found == value);
    match path {
        "/sns/oauth2/access_token" if !is("appid", APP_ID) => refusal(40013, "invalid appid"),
        "/sns/oauth2/access_token" if !is("secret", APP_SECRET) => refusal(40125, "invalid appsecret"),
        "/sns/oauth2/access_token" => exchanged(shared, query.get("code").map(String::as_str)),
        "/sns/oauth2/refresh_token" if !is("refresh_token", "web-refresh-7") => refusal(40030, "invalid refresh_token"),
        "/sns/oauth2/refresh_token" => authorized("web-access-8", "snsapi_userinfo"),
        _ if !is("openid", OPENID) => refusal(40003, "invalid openid"),
        _ if !is("access_token", "web-access-7") && !is("access_token", "web-access-8") => {
            refusal(40001, "invalid credential web-access-7")
        }
        "/sns/auth" => json!({ "errcode": 0, "errmsg": "ok" }),
        "/sns/userinfo" => json!({
            "openid": OPENID, "nickname": "小<b>明</b>", "sex": 1, "province": "广东", "city": "广州", "country": "中国",
            "headimgurl": "https://thirdwx.qlogo.cn/mmopen/g3/46", "privilege": ["chinaunicom"], "unionid": "o6_union",
        }),
        _ => refusal(40066, "invalid url"),
    }
}

/// A code is good once; how it begins says for what.
fn exchanged(shared: &Shared, code: Option<&str>) -> Value {
    match code {
        None | Some("") => refusal(41008, "missing code"),
        Some(code) if !lock(&shared.codes).insert(code.to_owned()) => refusal(40163, &format!("code been used {code}")),
        Some(code) if code.starts_with("base") => authorized("web-access-7", "snsapi_base"),
        Some(code) if code.starts_with("user") => authorized("web-access-7", "snsapi_userinfo"),
        Some(code) if code.starts_with("snapshot") => {
            let mut json = authorized("web-access-7", "snsapi_userinfo");
            json["is_snapshotuser"] = json!(1);
            json
        }
        Some(code) => refusal(40029, &format!("invalid code {code}")),
    }
}

fn authorized(access_token: &str, scope: &str) -> Value {
    json!({
        "access_token": access_token, "expires_in": 7200, "refresh_token": "web-refresh-7", "openid": OPENID, "scope": scope,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
