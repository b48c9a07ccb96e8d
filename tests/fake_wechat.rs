//! A WeChat API on a free port: knows one account, and does as the real one does or as a test tells it.

mod answers;
mod tokens;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::{Router, extract::State};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

use self::tokens::Tokens;
use crate::bot::PATIENCE;

/// The account's AppID.
pub const APP_ID: &str = "wx0123456789abcdef";

/// Its AppSecret.
pub const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The stable access_token that it is given first.
pub const ACCESS_TOKEN: &str = "57_fake-access_token";

/// Where messages are sent to users.
pub const SEND: &str = "/cgi-bin/message/custom/send";

/// Where the typing indicator is.
pub const TYPING: &str = "/cgi-bin/message/custom/typing";

/// Where tokens come from.
pub const STABLE_TOKEN: &str = "/cgi-bin/stable_token";

/// The API. It ends with this value.
#[derive(Debug)]
pub struct FakeWechat {
    /// `http://127.0.0.1:PORT`, for `api_base_url`.
    pub base_url: String,
    wechat: Arc<Wechat>,
    server: JoinHandle<()>,
}

/// What the API knows, and what a test wants otherwise.
#[derive(Debug, Default)]
struct Wechat {
    state: Mutex<WechatState>,
    /// Told at each call that came, and at each that was answered.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct WechatState {
    told: HashMap<String, Told>,
    tokens: Tokens,
    calls: Vec<Call>,
    /// The messages that were accepted.
    sent: Vec<Value>,
    /// How many messages were accepted when users said something last.
    heard: HashMap<String, usize>,
    /// Since when users are shown that somebody types.
    typing: HashMap<String, Instant>,
    /// Files by their `media_id`: type, name, bytes.
    media: HashMap<String, (String, String, Vec<u8>)>,
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    /// Without the access_token.
    pub query: Vec<(String, String)>,
    pub access_token: Option<String>,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// What a test wants of a path: some answers first, then one for ever, or the usual.
#[derive(Debug, Default)]
struct Told {
    first: VecDeque<Saying>,
    always: Option<Saying>,
}

#[derive(Clone, Debug)]
enum Saying {
    Say(u16, String),
    /// Does as usual once this is true; the answer of what is held comes late.
    Held(watch::Receiver<bool>),
    /// Does as usual, and hangs up instead of saying so.
    Dropped,
    Nothing,
}

impl FakeWechat {
    /// Starts an API to which all is well.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let base_url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let wechat = Arc::<Wechat>::default();
        let router = Router::new()
            .fallback(
                |State(wechat): State<Arc<Wechat>>, request| async move { answers::answer(&wechat, request).await },
            )
            .with_state(wechat.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { base_url, wechat, server }
    }

    /// The keys of an account that uses it.
    pub fn account(&self) -> String {
        let url = &self.base_url;
        format!("app_id = \"{APP_ID}\"\napp_secret = \"{APP_SECRET}\"\napi_base_url = \"{url}\"\n")
    }

    /// Answers calls of this path with this JSON from now on.
    pub fn says(self, path: &str, json: Value) -> Self {
        self.always(path, Saying::Say(200, json.to_string()));
        self
    }

    /// Answers calls of this path as a proxy that is out of order does.
    pub fn breaks(self, path: &str, status: u16, body: &str) -> Self {
        self.always(path, Saying::Say(status, body.to_owned()));
        self
    }

    /// Takes calls of this path and never answers.
    pub fn hangs(self, path: &str) -> Self {
        self.always(path, Saying::Nothing);
        self
    }

    /// Refuses every call of this path from now on.
    pub fn refuses(&self, path: &str, code: i64, message: &str) {
        self.always(path, Saying::Say(200, refusal(code, message).to_string()));
    }

    /// Refuses the next calls of this path, then does as usual.
    pub fn refuses_times(&self, path: &str, times: usize, code: i64, message: &str) {
        let saying = Saying::Say(200, refusal(code, message).to_string());
        self.state().told.entry(path.to_owned()).or_default().first.extend(std::iter::repeat_n(saying, times));
    }

    /// Does what the next call of this path asks for, and hangs up instead of answering.
    pub fn drops_next(&self, path: &str) {
        self.state().told.entry(path.to_owned()).or_default().first.push_back(Saying::Dropped);
    }

    /// Holds calls of this path until the value that is returned says `true` or is dropped; then they are done as usual.
    pub fn holds(&self, path: &str) -> watch::Sender<bool> {
        let (release, held) = watch::channel(false);
        self.always(path, Saying::Held(held));
        release
    }

    /// Forgets what it was told about a path.
    pub fn allows(&self, path: &str) {
        self.state().told.remove(path);
    }

    /// Another program forces a new stable token: the one before it is good no more.
    pub fn forces_new_token(&self) {
        self.state().tokens.force();
    }

    /// Another program fetches a token by `token`: the classic one before it is good no more.
    pub fn fetches_classic_token(&self) {
        self.state().tokens.classic();
    }

    /// Every token that was given so far has come to its end (42001).
    pub fn ends_tokens(&self) {
        self.state().tokens.end_all();
    }

    /// A user says something: they may be sent more.
    pub fn hears(&self, openid: &str) {
        let mut state = self.state();
        let sent = state.sent.len();
        state.heard.insert(openid.to_owned(), sent);
    }

    /// Gives tokens of so many seconds from now on.
    pub fn gives_tokens_of(&self, expires_in_s: u64) {
        self.state().tokens.expires_in_s = expires_in_s;
    }

    /// Every call that came.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many calls of a path came.
    pub fn count(&self, path: &str) -> usize {
        self.state().calls.iter().filter(|call| call.path == path).count()
    }

    /// The messages that were accepted, in their order.
    pub fn sent(&self) -> Vec<Value> {
        self.state().sent.clone()
    }

    /// Waits until so many messages were accepted, and returns them all.
    pub async fn until_sent(&self, count: usize) -> Vec<Value> {
        self.until(|state| state.sent.len() >= count).await;
        self.sent()
    }

    /// Waits until so many calls of a path came.
    pub async fn until_called(&self, path: &str, count: usize) {
        self.until(|state| state.calls.iter().filter(|call| call.path == path).count() >= count).await;
    }

    async fn until(&self, wanted: impl Fn(&WechatState) -> bool) {
        let mut changed = self.wechat.changed.subscribe();
        let waited = timeout(PATIENCE, async {
            while !wanted(&self.state()) {
                changed.changed().await.expect("the API is there");
            }
        });
        if waited.await.is_err() {
            let state = self.state();
            let paths: Vec<_> = state.calls.iter().map(|call| &call.path).collect();
            panic!("it did not come; these calls did: {paths:?}; sent were {:?}", state.sent);
        }
    }

    fn always(&self, path: &str, saying: Saying) {
        self.state().told.entry(path.to_owned()).or_default().always = Some(saying);
    }

    fn state(&self) -> MutexGuard<'_, WechatState> {
        self.wechat.state()
    }
}

impl Wechat {
    fn state(&self) -> MutexGuard<'_, WechatState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeWechat {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An answer with an `errcode`.
pub fn refusal(code: i64, message: &str) -> Value {
    json!({ "errcode": code, "errmsg": message })
}
