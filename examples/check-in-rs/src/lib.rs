//! Check-in: a page with a button, and a bot that says how often it was pressed. Both are one component, and share its keys.
//!
//! It wants the grants `kv = true` and `pages = true`. The page is `/pages/ACCOUNT/check-in/`, by the plugin's name in the
//! plugins directory; the bot answers `签到`.

wit_bindgen::generate!({ path: "../../wit", world: "bot" });

use aviary::bot::kv::{self, Scope};
use aviary::bot::types::{Body, Message, Reply};
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam, StatusCode,
};

/// What a visitor reads when the keys cannot be reached.
const NO_COUNT: &str = "暂时无法签到，请稍后再试。";

/// Under which key there is a number: everybody's, and each user's own.
const KEY: &str = "count";

/// How much of a page the host takes at once.
const CHUNK_BYTES: usize = 4_096;

struct CheckIn;

impl exports::aviary::bot::handler::Guest for CheckIn {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        let Body::Text(text) = message.body else { return Ok(None) };
        if text.content != "签到" {
            return Ok(None);
        }
        let (mine, all) = counts().map_err(|error| format!("{error:?}"))?;
        Ok(Some(Reply::Text(format!("您签到 {mine} 次，大家一共 {all} 次。"))))
    }
}

export!(CheckIn);

impl wasip2::exports::http::incoming_handler::Guest for CheckIn {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let headers = request.headers();
        // The host says who the visitor is; nobody else can set these headers.
        let said = |name: &str| headers.get(name).first().map(|value| String::from_utf8_lossy(value).into_owned());
        let base = said("aviary-base").unwrap_or_default();
        match (said("aviary-openid"), request.method()) {
            (None, _) => {
                let account = said("aviary-account").unwrap_or_default();
                // Back to what was asked for, if it can be asked for again.
                let here = match request.method() {
                    Method::Get => request.path_with_query().unwrap_or(base),
                    _ => base,
                };
                redirect(answer, 302, &format!("/oauth/{account}/login?to={}", encoded(&here)));
            }
            (Some(_), Method::Post) => match count() {
                // The browser gets the page anew, so that reloading it counts nothing.
                Ok(_) => redirect(answer, 303, &base),
                Err(_) => say(answer, 503, NO_COUNT),
            },
            (Some(_), _) => match counts() {
                Ok((mine, all)) => say(answer, 200, &format!("<b>您签到 {mine} 次</b><br>大家一共 {all} 次")),
                Err(_) => say(answer, 503, NO_COUNT),
            },
        }
    }
}

wasip2::http::proxy::export!(CheckIn with_types_in wasip2);

/// Adds one to everybody's number and to the user's own: whoever reads that it failed was not counted, and may try again.
fn count() -> Result<(), kv::Error> {
    for scope in [Scope::Plugin, Scope::User] {
        kv::open(scope)?.increment(KEY, 1, None)?;
    }
    Ok(())
}

/// Returns the user's own number and everybody's.
fn counts() -> Result<(u64, u64), kv::Error> {
    let number = |scope| Ok(kv::open(scope)?.get(KEY)?.map_or(0, |digits| parsed(&digits)));
    Ok((number(Scope::User)?, number(Scope::Plugin)?))
}

/// What `increment` keeps: a number, in decimal digits.
fn parsed(digits: &[u8]) -> u64 {
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// A path as the value of a parameter, percent-encoded.
fn encoded(path: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    path.bytes().map(byte).collect()
}

fn redirect(answer: ResponseOutparam, status: StatusCode, to: &str) {
    send(answer, status, &[("location", to)], "");
}

fn say(answer: ResponseOutparam, status: StatusCode, words: &str) {
    let page = format!(
        "<!DOCTYPE html><html lang=\"zh-CN\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>签到</title>\
         <style>body {{ font: 20px/1.6 system-ui, sans-serif; text-align: center; padding: 3em 1em }} \
         button {{ font: inherit; margin-top: 1em; padding: .5em 2em; border: 0; border-radius: 8px; \
         background: #07803f; color: #fff }}</style>\
         <p id=\"count\">{words}</p><form method=\"post\"><button>签到</button></form></html>"
    );
    send(answer, status, &[("content-type", "text/html; charset=utf-8")], &page);
}

fn send(answer: ResponseOutparam, status: StatusCode, headers: &[(&str, &str)], content: &str) {
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let response = OutgoingResponse::new(Fields::from_list(&headers).expect("they are headers"));
    response.set_status_code(status).expect("it is a status");
    let body = response.body().expect("it is taken once");
    ResponseOutparam::set(answer, Ok(response));
    let stream = body.write().expect("it is taken once");
    for chunk in content.as_bytes().chunks(CHUNK_BYTES) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            // A visitor who is gone reads nothing.
            break;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
