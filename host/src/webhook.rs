//! Steps 1 to 8 of a message's life: what WeChat calls, from the request to the answer.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use aviary_wechat::envelope;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use tracing::info;

use crate::{
    app::{App, Serving},
    config::Account,
    deadline::before,
    dedupe::{Claim, Key},
    exchange::Answer,
    foreign::quoted,
    late::{self, Call},
    message::{self, Push},
    plugin::question::Question,
    query::Query,
    refusal::Refusal,
    reply,
    verify::{self, Form, Worthy},
};

/// The body that says "received, nothing to say". WeChat wants it as it is in every mode.
/// <https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/passive-reply>
pub const SUCCESS: &str = "success";

/// What a person sees who opens the URL in a browser.
const NOT_FOR_BROWSERS: &str = "这是公众号接口地址，只有微信服务器能使用；能看到这行字，说明网络已经通了。\n\
    This URL is for WeChat's servers only; that you can read this line shows that the network works.\n";

/// Answers a request on the public listener.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let arrived = Instant::now();
    match answer(&app, request, arrived).await {
        Ok(response) => response,
        Err(refusal) => {
            app.refusals.tell(&refusal, arrived);
            refused(&refusal)
        }
    }
}

async fn answer(app: &Arc<App>, request: Request, arrived: Instant) -> Result<Response, Refusal> {
    let live = app.live();
    let (head, body) = request.into_parts();
    let serving = live.account(head.uri.path()).ok_or_else(|| Refusal::Path(quoted(head.uri.path())))?;
    let query = Query::parse(head.uri.query().unwrap_or_default());
    match head.method {
        Method::GET => url_check(app, &serving.account, &query),
        Method::POST => {
            let worthy = verify::before_body(&serving.account, &query)?;
            // Past its window nobody reads the answer any more.
            let window = serving.account.late.window;
            let read = read(body, live.config.listener.body_bytes_max);
            let body = before(arrived + window, read).await.map_err(|_| Refusal::SlowBody { window })??;
            push(app, serving, worthy, &body, arrived).await
        }
        method => Err(Refusal::Method(quoted(method.as_str()))),
    }
}

/// WeChat's check of the URL, made when the operator saves the form: it wants its `echostr` back.
fn url_check(app: &App, account: &Account, query: &Query<'_>) -> Result<Response, Refusal> {
    if !query.names_any(&["signature", "timestamp", "nonce", "echostr"]) {
        return Err(Refusal::NotWeChat);
    }
    let previous = verify::url_check(account, query, now_s())?;
    app.tell_previous(account, previous);
    if !query.names_any(&["echostr"]) {
        return Err(Refusal::NoEchostr);
    }
    let echostr = query.one("echostr")?;
    info!(account = %account.name, "WeChat checked the URL of account `{}`: it fits", account.name);
    Ok(text(echostr.to_owned()))
}

/// A message or event. After this, the only refusal left is that of a replayed signature.
async fn push(
    app: &Arc<App>,
    serving: &Arc<Serving>,
    worthy: Worthy<'_>,
    body: &Bytes,
    arrived: Instant,
) -> Result<Response, Refusal> {
    let account = &serving.account;
    let opened = verify::push(worthy, body, now_s())?;
    app.tell_previous(account, opened.previous);
    let question = match message::parse(&account.name, &opened.root)? {
        Push::Message(message) => {
            Question { is_sealed: matches!(opened.form, Form::Sealed { .. }), ..Question::new(*message, opened.xml) }
        }
        Push::Unanswerable(why) => {
            info!(account = %account.name, "Answered `success` to a push for nobody: {why}");
            return Ok(text(SUCCESS));
        }
    };
    let key = Key::of(&question.message, &opened.root);
    let outcome = match app.dedupe.claim(key, opened.signature, arrived, opened.ahead) {
        Claim::First(slot, tried) => {
            let call = Call::new(app, serving, question.clone(), slot, tried.exchange().clone());
            late::first_try(app, serving, &tried, call).await
        }
        Claim::Again(tried) => {
            serving.chain.count_retry();
            Box::pin(late::next_try(app, serving, &question, &tried)).await
        }
        Claim::Over(reply) => {
            serving.chain.count_retry();
            reply.map(|reply| Arc::new(Answer::of(reply)))
        }
        Claim::Replayed => return Err(Refusal::Replayed { account: account.name.clone() }),
    };
    app.dedupe.settle(&key);
    let to_xml = |answer: &Answer| reply::to_xml(&answer.shown(), &reply::Address::back_to(&question.message), now_s());
    Ok(match outcome.as_deref().and_then(to_xml) {
        Some(xml) => xml_body(seal(xml, account, &opened.form)),
        None => text(SUCCESS),
    })
}

/// Encrypts a reply if the push came encrypted.
fn seal(xml: String, account: &Account, form: &Form<'_>) -> String {
    match form {
        Form::Plain => xml,
        Form::Sealed { token, key } => {
            let (random, nonce) = (random(), u64::from_le_bytes(random()));
            envelope::seal(key, verify::app_id(account), token.expose(), now_s(), &nonce.to_string(), random, &xml)
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's random numbers are always there once it has booted");
    bytes
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal::TooLarge { bytes_max }),
        Err(error) => Err(Refusal::Body(error.to_string())),
    }
}

/// Seconds since 1970 by our clock.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `text/plain`, also for `echostr`: as HTML it would let a caller put a script on the operator's domain.
fn text(body: impl Into<Body>) -> Response {
    with_type("text/plain; charset=utf-8", body.into())
}

fn xml_body(xml: String) -> Response {
    with_type("text/xml; charset=utf-8", xml.into())
}

fn with_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn refused(refusal: &Refusal) -> Response {
    let mut response = match refusal {
        Refusal::NotWeChat => (refusal.status(), text(NOT_FOR_BROWSERS)).into_response(),
        Refusal::Method(_) => (refusal.status(), [(header::ALLOW, "GET, POST")]).into_response(),
        _ => refusal.status().into_response(),
    };
    // Whoever is no WeChat holds no connection until the next request.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
