//! The other end of the control socket: what the commands ask.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use super::{
    Address, Deed, Done, Order, Refusal, SOCKET,
    late::{Late, LetterDeed, LetterOrder, LettersDone},
    status::Status,
};

/// How long a status may take: while plugins are loaded, it comes when they have started.
const STATUS_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an order may take: a plugin that is switched on may have to be compiled, and to hold its conversation.
const ORDER_TIMEOUT: Duration = Duration::from_secs(1_200);

/// How large an answer may be: thousands of plugins with their versions.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A host that runs.
#[derive(Debug)]
pub struct Host {
    socket: PathBuf,
    stream: UnixStream,
}

/// Why the host does not do what it is asked. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("no host runs with {}", .0.display())]
    NotRunning(PathBuf),
    #[error("the host's socket {} belongs to another user; run this as that user", .0.display())]
    NotOurs(PathBuf),
    /// It was asked, and says why not.
    #[error("{0}")]
    Refused(String),
    #[error("the host did not answer on {}: {why}", .socket.display())]
    Lost { socket: PathBuf, why: String },
}

impl Host {
    /// Connects to the host of a data directory.
    pub async fn find(data_dir: &Path) -> Result<Self, NoAnswer> {
        let socket = data_dir.join(SOCKET);
        let connected = async { UnixStream::connect(&Address::of(data_dir)?.path).await };
        match connected.await {
            Ok(stream) => Ok(Self { socket, stream }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NoAnswer::NotRunning(data_dir.to_owned()),
                io::ErrorKind::PermissionDenied => NoAnswer::NotOurs(socket),
                _ => NoAnswer::Lost { socket, why: error.to_string() },
            }),
        }
    }

    /// Asks how it is.
    pub async fn status(self) -> Result<Status, NoAnswer> {
        self.ask(Method::GET, "/status", Bytes::new(), STATUS_TIMEOUT).await
    }

    /// Asks what is owed, and what could not be delivered.
    pub async fn late(self) -> Result<Late, NoAnswer> {
        self.ask(Method::GET, "/late", Bytes::new(), STATUS_TIMEOUT).await
    }

    /// Has it retry or drop dead letters.
    pub async fn letters(self, deed: LetterDeed, order: LetterOrder) -> Result<LettersDone, NoAnswer> {
        let path = match deed {
            LetterDeed::Retry => "/late/retry",
            LetterDeed::Drop => "/late/drop",
        };
        let body = match serde_json::to_vec(&order) {
            Ok(body) => body,
            Err(error) => return Err(NoAnswer::Lost { socket: self.socket, why: error.to_string() }),
        };
        self.ask(Method::POST, path, body.into(), ORDER_TIMEOUT).await
    }

    /// Gives it an order, and waits until it is carried out.
    pub async fn order(self, deed: Deed, order: &Order) -> Result<Done, NoAnswer> {
        let path = match deed {
            Deed::Disable => "/plugins/disable",
            Deed::Enable => "/plugins/enable",
            Deed::Rollback => "/plugins/rollback",
        };
        let body = match serde_json::to_vec(order) {
            Ok(body) => body,
            Err(error) => return Err(NoAnswer::Lost { socket: self.socket, why: error.to_string() }),
        };
        self.ask(Method::POST, path, body.into(), ORDER_TIMEOUT).await
    }

    async fn ask<T: DeserializeOwned>(
        self,
        method: Method,
        path: &str,
        body: Bytes,
        time: Duration,
    ) -> Result<T, NoAnswer> {
        let lost = |why| NoAnswer::Lost { socket: self.socket.clone(), why };
        let exchanged = timeout(time, exchange(self.stream, method, path, body)).await;
        let exchanged = exchanged.map_err(|_| lost(format!("nothing came within {} s", time.as_secs())))?;
        let (status, body) = exchanged.map_err(|error| lost(format!("{error:#}")))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| lost(format!("it is another version: {error}")));
        }
        match serde_json::from_slice(&body) {
            Ok(Refusal { error }) => Err(NoAnswer::Refused(error)),
            Err(_) => Err(lost(format!("HTTP {status}"))),
        }
    }
}

async fn exchange(stream: UnixStream, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the exchange: the sender is dropped.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "aviary")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok((status, body.map_err(anyhow::Error::from_boxed)?.to_bytes()))
}
