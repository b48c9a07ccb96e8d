//! What the API answers to each call.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use serde_json::{Value, json};

use super::{APP_ID, APP_SECRET, Call, SEND, STABLE_TOKEN, Saying, TYPING, Wechat, WechatState, refusal};

/// Far more than any call has.
const BODY_BYTES_MAX: usize = 20 << 20;

/// The longest text of a message, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// How many messages a user is sent who says nothing more.
const SENT_MAX: usize = 5;

/// How long a user is shown that somebody types; meanwhile nobody may say so again.
const TYPING_SHOWN: Duration = Duration::from_secs(15);

const MSG_TYPES: [&str; 11] = [
    "text",
    "image",
    "voice",
    "video",
    "music",
    "news",
    "mpnews",
    "mpnewsarticle",
    "msgmenu",
    "wxcard",
    "miniprogrampage",
];

pub(super) async fn answer(wechat: &Wechat, request: Request) -> Response {
    let call = read(request).await;
    let saying = {
        let mut state = wechat.state();
        state.calls.push(call.clone());
        let told = state.told.get_mut(&call.path);
        told.and_then(|told| told.first.pop_front().or_else(|| told.always.clone()))
    };
    wechat.changed.send_replace(());
    match saying {
        Some(Saying::Say(status, body)) => return respond(status, "application/json", body),
        Some(Saying::Nothing) => std::future::pending().await,
        Some(Saying::Held(mut held)) => _ = held.wait_for(|released| *released).await,
        Some(Saying::Dropped) => {
            _ = usual(wechat, &call);
            // Ends the task of the connection, and with it the connection; no message is printed.
            std::panic::resume_unwind(Box::new("the connection is dropped"));
        }
        None => {}
    }
    usual(wechat, &call)
}

async fn read(request: Request) -> Call {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default().to_vec();
    let query = head.uri.query().unwrap_or_default();
    let pairs = form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned()));
    let (tokens, query): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| name == "access_token");
    let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    Call {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query,
        access_token: tokens.into_iter().next().map(|(_, token)| token),
        content_type: content_type.to_owned(),
        body,
    }
}

fn respond(status: u16, content_type: &str, body: impl Into<Body>) -> Response {
    let response = Response::builder().status(status).header("content-type", content_type);
    response.body(body.into()).expect("both are fit for an answer")
}

/// What WeChat answers.
fn usual(wechat: &Wechat, call: &Call) -> Response {
    let json = {
        let mut state = wechat.state();
        let state = &mut *state;
        let refused = state.tokens.refusal_of(call.access_token.as_deref());
        match (call.method.as_str(), call.path.as_str(), refused) {
            ("POST", STABLE_TOKEN, _) => stable_token(state, call),
            ("GET", "/cgi-bin/token", _) => classic_token(state, call),
            (_, _, Some(refused)) => refused,
            ("POST", SEND, _) => send(state, call),
            ("POST", TYPING, _) => typing(state, call),
            ("POST", "/cgi-bin/callback/check", _) => callback_check(call),
            ("GET", "/cgi-bin/user/info", _) => user_info(call),
            ("POST", "/cgi-bin/media/upload", _) => upload(state, call),
            ("GET", "/cgi-bin/media/get", _) => match download(state, call) {
                Ok(file) => return file,
                Err(refused) => refused,
            },
            _ => refusal(40066, "invalid url"),
        }
    };
    wechat.changed.send_replace(());
    respond(200, "application/json; encoding=utf-8", json.to_string())
}

impl Call {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn stable_token(state: &mut WechatState, call: &Call) -> Value {
    let body = call.json();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    match known(&text("grant_type"), &text("appid"), &text("secret")) {
        Err(refused) => refused,
        Ok(()) if body["force_refresh"] == true => state.tokens.force(),
        Ok(()) => state.tokens.stable(),
    }
}

fn classic_token(state: &mut WechatState, call: &Call) -> Value {
    match known(call.parameter("grant_type"), call.parameter("appid"), call.parameter("secret")) {
        Err(refused) => refused,
        Ok(()) => state.tokens.classic(),
    }
}

fn known(grant_type: &str, app_id: &str, secret: &str) -> Result<(), Value> {
    match (grant_type, app_id, secret) {
        ("client_credential", APP_ID, APP_SECRET) => Ok(()),
        ("client_credential", APP_ID, _) => {
            // The real one does not quote it, but a proxy might.
            Err(refusal(40125, &format!("invalid appsecret {secret}")))
        }
        ("client_credential", ..) => Err(refusal(40013, "invalid appid rid: 1-2-3")),
        _ => Err(refusal(40002, "invalid grant_type")),
    }
}

/// A customer-service message: refused for what the real one refuses it for, else kept.
fn send(state: &mut WechatState, call: &Call) -> Value {
    let body = call.json();
    let msg_type = body["msgtype"].as_str().unwrap_or_default();
    let content = &body[msg_type];
    let text = content["content"].as_str().unwrap_or_default();
    let articles = content["articles"].as_array().map_or(0, Vec::len);
    let refused = match msg_type {
        _ if call.body.windows(2).any(|pair| pair == b"\\u") => Some((40033, "invalid charset")),
        _ if body["touser"].as_str().is_none_or(str::is_empty) => Some((40003, "invalid openid")),
        _ if sent_to(state, &body["touser"]) >= SENT_MAX => Some((45047, "out of response count limit")),
        _ if !MSG_TYPES.contains(&msg_type) => Some((40008, "invalid message type")),
        _ if !content.is_object() => Some((47001, "data format error")),
        "text" if text.is_empty() => Some((44004, "empty content")),
        "text" if text.len() > TEXT_BYTES_MAX => Some((45002, "content size out of limit")),
        "news" if articles != 1 => Some((45008, "article count out of limit")),
        _ => None,
    };
    match refused {
        Some((code, message)) => refusal(code, message),
        None => {
            // Whoever is sent something is shown no longer that somebody types.
            state.typing.remove(body["touser"].as_str().unwrap_or_default());
            state.sent.push(body);
            refusal(0, "ok")
        }
    }
}

/// How many messages a user was sent since they said something.
fn sent_to(state: &WechatState, user: &Value) -> usize {
    let since = state.heard.get(user.as_str().unwrap_or_default()).copied().unwrap_or_default();
    state.sent[since..].iter().filter(|message| message["touser"] == *user).count()
}

fn typing(state: &mut WechatState, call: &Call) -> Value {
    let body = call.json();
    let user = body["touser"].as_str().unwrap_or_default().to_owned();
    match body["command"].as_str() {
        Some("Typing") => {
            let since = state.typing.entry(user).or_insert_with(|| Instant::now() - TYPING_SHOWN);
            if since.elapsed() < TYPING_SHOWN {
                return refusal(45081, "typing already");
            }
            *since = Instant::now();
            refusal(0, "ok")
        }
        Some("CancelTyping") => {
            state.typing.remove(&user);
            refusal(0, "ok")
        }
        _ => refusal(45072, "invalid command"),
    }
}

fn callback_check(call: &Call) -> Value {
    let body = call.json();
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

fn user_info(call: &Call) -> Value {
    match call.parameter("openid") {
        "" => refusal(40003, "invalid openid"),
        openid => json!({ "subscribe": 1, "openid": openid, "language": call.parameter("lang") }),
    }
}

/// Takes the file of a form: its name and type, as the form gives them.
fn upload(state: &mut WechatState, call: &Call) -> Value {
    let Some((file_name, content_type, data)) = file_of_form(call) else { return refusal(41005, "media data missing") };
    let media_id = format!("MEDIA_{}", state.media.len() + 1);
    state.media.insert(media_id.clone(), (content_type, file_name, data));
    json!({ "type": call.parameter("type"), "media_id": media_id, "created_at": 1_700_000_000 })
}

fn file_of_form(call: &Call) -> Option<(String, String, Vec<u8>)> {
    let (_, boundary) = call.content_type.split_once("multipart/form-data; boundary=")?;
    let start = call.body.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let end_line = format!("\r\n--{boundary}");
    let length = call.body[start..].windows(end_line.len()).position(|part| part == end_line.as_bytes())?;
    let head = String::from_utf8(call.body[..start].to_vec()).ok()?;
    head.contains("name=\"media\"").then_some(())?;
    let file_name = head.split_once("filename=\"")?.1.split_once('"')?.0.to_owned();
    let content_type = head.split_once("Content-Type: ")?.1.lines().next()?.to_owned();
    Some((file_name, content_type, call.body[start..start + length].to_vec()))
}

fn download(state: &WechatState, call: &Call) -> Result<Response, Value> {
    let found = state.media.get(call.parameter("media_id"));
    let (content_type, file_name, data) = found.ok_or_else(|| refusal(40007, "invalid media_id"))?;
    let mut response = respond(200, content_type, data.clone());
    let disposition = format!("attachment; filename=\"{file_name}\"").parse().expect("a header may say that");
    response.headers_mut().insert("content-disposition", disposition);
    Ok(response)
}
