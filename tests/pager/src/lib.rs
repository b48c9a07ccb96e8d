//! Pager: the plugin that makes pages as the tests tell it. It is never shipped.
//!
//! The last part of a path is an order, the query its parameters.
//!
//! | order | what comes of it |
//! |---|---|
//! | `told` | a text: the method, the authority, and every header of the request, one a line |
//! | `say?status=…&NAME=VALUE&body=…` | a page with that status, those headers and that body |
//! | `hello` | the page that `aviary-load` asks for |
//! | `length` | how many bytes the request's body has |
//! | `large?bytes=…` | a page of so many bytes |
//! | `count?ms=…` | computes for so long, and counts the visitor |
//! | `trap` · `loop` · `silent` | no page |
//! | `half` | a page that breaks off |
//! | `refuse?text=…` | an error instead of a page |
//! | `send` | what became of a customer-service message to the visitor |
//! | `call` | what WeChat's API says of `GET /cgi-bin/user/info` |
//!
//! As a bot it says `计数 N` to `计数`, the number of `count`s of that user; any other text it says back.

wit_bindgen::generate!({ path: "../../wit", world: "bot" });

use aviary::bot::{
    kv::{self, Scope},
    types::{Body, Message, Reply},
};

/// What the host calls.
#[derive(Debug)]
pub struct Pager;

impl exports::aviary::bot::handler::Guest for Pager {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        let Body::Text(text) = message.body else { return Ok(None) };
        match text.content.as_str() {
            "计数" => Ok(Some(Reply::Text(format!("计数 {}", count(0)?)))),
            _ => Ok(Some(Reply::Text(text.content))),
        }
    }
}

/// Adds to the number of the user whom this call is about, and returns it.
fn count(more: i64) -> Result<i64, String> {
    let bucket = kv::open(Scope::User).map_err(|error| format!("{error:?}"))?;
    bucket.increment("count", more, None).map_err(|error| format!("{error:?}"))
}

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Pager;
    super::export!(Pager with_types_in super);
    wasip2::http::proxy::export!(Pager with_types_in wasip2);
}

#[cfg(target_arch = "wasm32")]
mod page {
    use std::time::{Duration, Instant};

    use wasip2::http::types::{ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

    use super::{
        Pager,
        aviary::bot::{
            customer_service::{self, Content, Options},
            wechat_api,
        },
        count,
    };

    /// A small page, as the native server of `aviary-load` has it, too.
    const HELLO: &str = include_str!("hello.html");

    /// How much of a page goes out at once.
    const CHUNK_BYTES: usize = 4_096;

    impl wasip2::exports::http::incoming_handler::Guest for Pager {
        fn handle(request: IncomingRequest, answer: ResponseOutparam) {
            let address = request.path_with_query().unwrap_or_default();
            let (path, query) = address.split_once('?').unwrap_or((&address, ""));
            let parameters: Vec<(String, String)> = query.split('&').filter_map(parameter).collect();
            let of = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            let number = |name: &str| of(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
            match path.rsplit('/').next().unwrap_or_default() {
                "told" => text(answer, &told(&request)),
                "say" => {
                    let own = ["status", "body"];
                    let headers = parameters.iter().filter(|(name, _)| !own.contains(&name.as_str()));
                    let headers: Vec<_> = headers.map(|(name, value)| (name.clone(), value.clone().into())).collect();
                    let status = u16::try_from(number("status")).unwrap_or_default();
                    send(answer, status, &headers, of("body").unwrap_or_default().as_bytes());
                }
                "hello" => {
                    let headers = [("content-type".to_owned(), b"text/html; charset=utf-8".to_vec())];
                    send(answer, 200, &headers, HELLO.as_bytes());
                }
                "length" => text(answer, &length(&request).to_string()),
                "large" => text(answer, &"x".repeat(usize::try_from(number("bytes")).unwrap_or_default())),
                "count" => {
                    let until = Instant::now() + Duration::from_millis(number("ms"));
                    while Instant::now() < until {}
                    text(answer, &format!("{:?}", count(1)));
                }
                "trap" => panic!("as told"),
                "loop" => loop {
                    std::hint::black_box(0);
                },
                "half" => {
                    let response = OutgoingResponse::new(Fields::new());
                    let body = response.body().expect("it is taken once");
                    ResponseOutparam::set(answer, Ok(response));
                    let stream = body.write().expect("it is taken once");
                    _ = stream.blocking_write_and_flush(b"half");
                    panic!("as told");
                }
                "refuse" => {
                    let text = of("text").map(str::to_owned);
                    ResponseOutparam::set(answer, Err(ErrorCode::InternalError(text)));
                }
                "send" => {
                    let openid = header(&request, "aviary-openid");
                    let options = Options { kf_account: None, is_ai: false };
                    let sent = customer_service::send(&openid, &Content::Text("你好".into()), &options);
                    text(answer, &format!("{sent:?}"));
                }
                "call" => {
                    let query = [("openid".to_owned(), header(&request, "aviary-openid"))];
                    let said = wechat_api::call("GET", "/cgi-bin/user/info", &query, None);
                    text(answer, &format!("{said:?}"));
                }
                // Without a word.
                _ => {}
            }
        }
    }

    fn parameter(pair: &str) -> Option<(String, String)> {
        let (name, value) = pair.split_once('=')?;
        Some((decoded(name), decoded(value)))
    }

    /// Reads `%XX`.
    fn decoded(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let digits: Vec<u8> = if byte == b'%' { rest.by_ref().take(2).collect() } else { Vec::new() };
            let digits = std::str::from_utf8(&digits).ok();
            bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(byte));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn header(request: &IncomingRequest, name: &str) -> String {
        request.headers().get(name).first().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    fn told(request: &IncomingRequest) -> String {
        let mut lines = vec![
            format!("method: {:?}", request.method()),
            format!("authority: {}", request.authority().unwrap_or_default()),
        ];
        let headers = request.headers().entries();
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))));
        lines.join("\n")
    }

    fn length(request: &IncomingRequest) -> usize {
        let body = request.consume().expect("it is taken once");
        let stream = body.stream().expect("it is taken once");
        let mut length = 0;
        while let Ok(bytes) = stream.blocking_read(CHUNK_BYTES as u64) {
            length += bytes.len();
        }
        length
    }

    fn text(answer: ResponseOutparam, text: &str) {
        send(answer, 200, &[("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec())], text.as_bytes());
    }

    fn send(answer: ResponseOutparam, status: u16, headers: &[(String, Vec<u8>)], content: &[u8]) {
        let response = OutgoingResponse::new(Fields::from_list(headers).expect("they are headers"));
        response.set_status_code(status).expect("it is a status");
        let body = response.body().expect("it is taken once");
        ResponseOutparam::set(answer, Ok(response));
        let stream = body.write().expect("it is taken once");
        for chunk in content.chunks(CHUNK_BYTES) {
            // A visitor who is gone reads nothing.
            if stream.blocking_write_and_flush(chunk).is_err() {
                return;
            }
        }
        drop(stream);
        _ = OutgoingBody::finish(body, None);
    }
}
