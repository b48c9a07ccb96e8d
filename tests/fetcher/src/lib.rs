//! Fetcher: the plugin that sends HTTP as the tests tell it, by `aviary:bot/http` or by `wasi:http`.
//!
//! A text message is an order: `ours METHOD URL` or `wasi METHOD URL`, further headers as `name=value`, `timeout=MS` for the
//! whole exchange (`wasi`: for the header and between two parts of the body), and after ` | ` the body. `xMB` is a body of
//! so many million bytes. It says the status, the length of the body and as much of it as a reply can hold, then the
//! headers in alphabetical order, one on a line. What went wrong is said in debug form.
//!
//! `hoard headers` makes a header of 20 kB, and `hoard N` makes N requests that are never sent, each with much of everything, and says how much of it the host took.
//!
//! It is built without a libc, whose own copy of `wasi:io` would have to agree with the few functions in `wit/`. It is never
//! shipped.

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "aviary:fetcher/fetcher",
    generate_all,
});

use aviary::bot::http;
use aviary::bot::types::{Body, Message, Reply};
use wasi::http::outgoing_handler::{self, RequestOptions};
use wasi::http::types::{
    ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme, http_error_code,
};
use wasi::io::streams::StreamError;

/// How much of a body is said.
const SAID_BYTES_MAX: usize = 1_000;

/// What the host calls.
#[derive(Debug)]
pub struct Fetcher;

impl exports::aviary::bot::handler::Guest for Fetcher {
    fn handle(message: Message) -> Result<Option<Reply>, String> {
        let Body::Text(text) = &message.body else { return Ok(None) };
        if text.content == "hoard headers" {
            _ = Fields::from_list(&[("x-long".to_owned(), vec![b'x'; 20_000])]);
        }
        if let Some(count) = text.content.strip_prefix("hoard ").and_then(|count| count.parse().ok()) {
            return Ok(Some(Reply::Text(hoard(count))));
        }
        let Some(order) = Order::parse(&text.content) else { return Ok(None) };
        let said = if order.by_wasi { fetch_by_wasi(&order) } else { fetch_by_ours(&order) };
        Ok(Some(Reply::Text(said.map_or_else(|error| error, |answer| answer.said()))))
    }
}

// The exported symbols are named for the component model, which a native linker does not take.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "generated: arguments arrive by pointer")]
mod exported {
    use super::Fetcher;
    super::export!(Fetcher with_types_in super);
}

/// A request to send.
struct Order {
    by_wasi: bool,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    timeout_ms: Option<u32>,
    body: Option<Vec<u8>>,
}

/// What came back.
struct Answer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        let (request, body) = match text.split_once(" | ") {
            Some((request, body)) => (request, Some(body)),
            None => (text, None),
        };
        let mut words = request.split(' ');
        let by_wasi = match words.next()? {
            "ours" => false,
            "wasi" => true,
            _ => return None,
        };
        let (method, url) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut headers, mut timeout_ms) = (Vec::new(), None);
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "timeout" => timeout_ms = value.parse().ok(),
                name => headers.push((name.to_owned(), value.to_owned())),
            }
        }
        let body = body.map(|body| match body.strip_suffix("MB").and_then(|count| count.parse::<usize>().ok()) {
            Some(count) => vec![b'x'; count * 1_000_000],
            None => body.as_bytes().to_vec(),
        });
        Some(Self { by_wasi, method, url, headers, timeout_ms, body })
    }
}

impl Answer {
    fn said(mut self) -> String {
        self.headers.sort();
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(SAID_BYTES_MAX)]);
        let headers = self.headers.iter().map(|(name, value)| format!("\n{name}: {}", String::from_utf8_lossy(value)));
        format!("{} {} {body}{}", self.status, self.body.len(), headers.collect::<String>())
    }
}

fn fetch_by_ours(order: &Order) -> Result<Answer, String> {
    let Order { method, url, headers, timeout_ms, body, .. } = order;
    let (method, url, headers) = (method.clone(), url.clone(), headers.clone());
    let request = http::Request { method, url, headers, body: body.clone(), timeout_ms: *timeout_ms };
    let response = http::send(&request).map_err(|error| format!("{error:?}"))?;
    let headers = response.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    Ok(Answer { status: response.status, headers, body: response.body })
}

fn fetch_by_wasi(order: &Order) -> Result<Answer, String> {
    let headers = order.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes()));
    let headers = Fields::from_list(&headers.collect::<Vec<_>>()).map_err(|error| format!("{error:?}"))?;
    let request = OutgoingRequest::new(headers);
    let (scheme, rest) = order.url.split_once("://").unwrap_or(("https", &order.url));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    // Taken apart as carelessly as any library might.
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    request.set_method(&method(&order.method)).map_err(|()| "the method is refused")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "the scheme is refused")?;
    request.set_authority(Some(authority)).map_err(|()| "the authority is refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "the path is refused")?;
    let options = RequestOptions::new();
    if let Some(ns) = order.timeout_ms.map(|ms| u64::from(ms) * 1_000_000) {
        options.set_first_byte_timeout(Some(ns)).map_err(|()| "the time is refused")?;
        options.set_between_bytes_timeout(Some(ns)).map_err(|()| "the time is refused")?;
    }
    let outgoing = order.body.as_ref().map(|_| request.body().map_err(|()| "there is no body")).transpose()?;
    let response = outgoing_handler::handle(request, Some(options)).map_err(|error| said(&error))?;
    if let Some((outgoing, body)) = outgoing.zip(order.body.as_ref()) {
        // What went wrong with the body is told with the answer.
        _ = write(&outgoing, body);
        _ = OutgoingBody::finish(outgoing, None);
    }
    response.subscribe().block();
    let response = response.get().and_then(Result::ok).ok_or("there is no answer")?;
    read(&response.map_err(|error| said(&error))?)
}

/// Gives the host as much to keep as it takes.
fn hoard(count: u32) -> String {
    let long = "x".repeat(300_000);
    let (method, path) = (Method::Other(long.clone()), format!("/{}", &long[..60_000]));
    let mut requests = Vec::new();
    let mut taken = 0;
    for _ in 0..count {
        let Ok(headers) = Fields::from_list(&[]) else { break };
        let request = OutgoingRequest::new(headers);
        taken += u32::from(request.set_method(&method).is_ok());
        taken += u32::from(request.set_authority(Some(&long)).is_ok());
        taken += u32::from(request.set_path_with_query(Some(&path)).is_ok());
        requests.push(request);
    }
    format!("{} requests took {taken}", requests.len())
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        other => Method::Other(other.to_owned()),
    }
}

fn write(outgoing: &OutgoingBody, body: &[u8]) -> Result<(), StreamError> {
    let stream = outgoing.write().map_err(|()| StreamError::Closed)?;
    body.chunks(4_096).try_for_each(|part| stream.blocking_write_and_flush(part))
}

fn read(response: &IncomingResponse) -> Result<Answer, String> {
    let incoming = response.consume().map_err(|()| "the body is taken")?;
    let stream = incoming.stream().map_err(|()| "the stream is taken")?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(65_536) {
            Ok(part) => body.extend(part),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(http_error_code(&error).map_or_else(|| error.to_debug_string(), |error| said(&error)));
            }
        }
    }
    Ok(Answer { status: response.status(), headers: response.headers().entries(), body })
}

fn said(error: &ErrorCode) -> String {
    format!("{error:?}")
}
