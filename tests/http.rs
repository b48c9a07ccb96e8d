//! HTTP as it goes over the socket: what WeChat, a browser or an attacker sends, and every byte of the answer.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use aviary_wechat::signature;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::bot::{PATIENCE, TOKEN};

/// An answer, byte for byte.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII");
        let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    /// The status and the body: all that most rows of the answer table fix.
    pub fn told(&self) -> (u16, &str) {
        (self.status, std::str::from_utf8(&self.body).expect("the host answers in UTF-8"))
    }

    /// A header; `""` if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A connection to the host.
pub struct Connection(TcpStream);

impl Connection {
    /// Connects to `http://127.0.0.1:PORT`.
    pub async fn open(origin: &str) -> Self {
        let address = origin.strip_prefix("http://").expect("tests speak plain HTTP");
        Self(TcpStream::connect(address).await.expect("the host listens"))
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the host reads");
    }

    /// Sends bytes, unless the host has hung up.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), ()> {
        self.0.write_all(bytes.as_ref()).await.map_err(drop)
    }

    /// Waits until the host says something.
    pub async fn listen(&mut self) {
        let peeked = timeout(PATIENCE, self.0.peek(&mut [0])).await;
        assert_eq!(peeked.expect("the host answers in time").expect("the connection is open"), 1, "the host closed");
    }

    /// Waits until the host closes, and returns what it said before.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        read.expect("the host closes in time").expect("the host closes in order");
        bytes
    }

    /// Waits for the one answer on this connection.
    pub async fn answer(mut self) -> Response {
        Response::parse(&self.rest().await)
    }

    /// Returns the answer that is here by now.
    pub fn answer_at_once(self) -> Response {
        let mut stream = self.0.into_std().expect("it is a socket");
        let mut bytes = Vec::new();
        // It does not block: without the end of the stream this is an error, and what is here was read.
        _ = stream.read_to_end(&mut bytes);
        Response::parse(&bytes)
    }
}

/// Sends one request without a body.
pub async fn ask(origin: &str, method: &str, target: &str) -> Response {
    let mut connection = Connection::open(origin).await;
    connection.send(format!("{method} {target} HTTP/1.1\r\nHost: bot\r\nConnection: close\r\n\r\n")).await;
    connection.answer().await
}

/// Sends one GET.
pub async fn get(origin: &str, target: &str) -> Response {
    ask(origin, "GET", target).await
}

/// Sends one POST.
pub async fn post(origin: &str, target: &str, body: &str) -> Response {
    let mut connection = Connection::open(origin).await;
    connection.send(posted(target, body)).await;
    connection.answer().await
}

/// The bytes of a POST.
pub fn posted(target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: bot\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

/// WeChat's parameters, signed now with [`TOKEN`].
pub fn signed() -> String {
    signed_at(now_s())
}

/// WeChat's parameters, signed at that second with [`TOKEN`].
pub fn signed_at(timestamp: u64) -> String {
    signed_with(TOKEN, timestamp)
}

/// WeChat's parameters, signed at that second with that token. No two have the same signature.
pub fn signed_with(token: &str, timestamp: u64) -> String {
    let (timestamp, nonce) = (timestamp.to_string(), new_nonce());
    let signature = signature::sign(token, &timestamp, &nonce);
    format!("signature={signature}&timestamp={timestamp}&nonce={nonce}")
}

/// WeChat's parameters of an encrypted push.
pub fn sealed_query(token: &str, timestamp: &str, nonce: &str, encrypt: &str) -> String {
    let signature = signature::sign(token, timestamp, nonce);
    let msg_signature = signature::sign_message(token, timestamp, nonce, encrypt);
    format!("signature={signature}&timestamp={timestamp}&nonce={nonce}&encrypt_type=aes&msg_signature={msg_signature}")
}

/// A nonce that no other request of these tests has.
pub fn new_nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(100_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// A value as it stands in a query.
pub fn encoded(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}
