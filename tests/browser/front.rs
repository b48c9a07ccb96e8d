//! What stands between a visitor's phone and the host: https under all names. The account's own lead to the host, as behind a
//! proxy; `open.weixin.qq.com` has WeChat's page that asks for consent; every other name is a stranger's site.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::{Request, State},
    http::header,
    response::{Html, IntoResponse, Redirect, Response},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{fake_authorize, upstream::self_signed, visitor::DOMAIN};

/// Where WeChat asks for consent.
const WECHAT: &str = "open.weixin.qq.com";

/// It ends with this value.
pub struct Front {
    pub port: u16,
    sites: Arc<Sites>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Sites {
    codes: Mutex<Vec<String>>,
    /// Requests to strangers' sites.
    strangers: Mutex<Vec<String>>,
}

impl Front {
    /// Stands before the host at `http://127.0.0.1:PORT`.
    pub async fn start(origin: &str) -> Self {
        let host = origin.strip_prefix("http://").expect("tests speak plain HTTP").to_owned();
        let (listener, port) = listen().await;
        let (others, others_port) = listen().await;
        let sites = Arc::<Sites>::default();
        let router = Router::new().fallback(site).with_state(sites.clone());
        let serving = tokio::spawn(async move { axum::serve(others, router).await.expect("it serves") });
        let accepting = tokio::spawn(async move {
            // One certificate for all names: the browser is told to take any.
            let (tls, _) = self_signed(DOMAIN);
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass_on(tls.clone(), stream, host.clone(), format!("127.0.0.1:{others_port}")));
            }
        });
        Self { port, sites, tasks: [serving, accepting] }
    }

    /// Lets WeChat's page give out these codes, one after another; the last again and again.
    pub fn gives(&self, codes: &[&str]) {
        *lock(&self.sites.codes) = codes.iter().rev().map(|code| (*code).to_owned()).collect();
    }

    /// What strangers' sites were asked for.
    pub fn strangers(&self) -> Vec<String> {
        lock(&self.sites.strangers).clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

/// Where a connection goes is said by the name that it is for.
async fn pass_on(tls: TlsAcceptor, stream: TcpStream, host: String, others: String) {
    // A browser opens connections that it does not use.
    let Ok(mut stream) = tls.accept(stream).await else { return };
    let is_ours = stream.get_ref().1.server_name().is_some_and(|name| name.ends_with("shop.example.com"));
    let mut upstream = TcpStream::connect(if is_ours { host } else { others }).await.expect("it listens");
    _ = copy_bidirectional(&mut stream, &mut upstream).await;
}

async fn site(State(sites): State<Arc<Sites>>, request: Request) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    if host != WECHAT {
        lock(&sites.strangers).push(format!("{host}{}", request.uri()));
        return Html("<p>a stranger's site</p>").into_response();
    }
    if request.uri().path() == "/favicon.ico" {
        return ().into_response();
    }
    // The fragment stays in the browser.
    let asked = fake_authorize::Asked::read(&format!("https://{WECHAT}{}#wechat_redirect", request.uri()));
    let code = next(&sites);
    let (agreed, denied) = (asked.agreed(&code), asked.denied());
    match asked.scope.as_str() {
        // Without a question.
        "snsapi_base" => Redirect::to(&format!("https://{DOMAIN}{agreed}")).into_response(),
        _ => Html(format!(
            "<meta name=\"viewport\" content=\"width=device-width\"><p>申请获取你的昵称、头像</p>\
             <a id=\"agree\" href=\"https://{DOMAIN}{}\">允许</a> <a id=\"deny\" href=\"https://{DOMAIN}{}\">拒绝</a>",
            agreed.replace('&', "&amp;"),
            denied.replace('&', "&amp;")
        ))
        .into_response(),
    }
}

fn next(sites: &Sites) -> String {
    let mut codes = lock(&sites.codes);
    let code = codes.last().cloned().expect("the test says which codes there are");
    if codes.len() > 1 {
        codes.pop();
    }
    code
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
