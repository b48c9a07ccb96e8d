//! The outside world of a plugin that waits: an HTTP server that takes its time for every answer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

/// The largest request. A plugin's has some hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// What it says: `pong`.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\npong";

/// A server on the loopback interface, in this runtime; dropped, it hangs up.
#[derive(Debug)]
pub struct SlowServer {
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

impl SlowServer {
    /// Answers every request after `delay`.
    pub async fn start(delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            // Bounded by the host: it has a connection for each guest that waits, and some that it keeps.
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, delay));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _serving: serving })
    }
}

/// Answers one request after another, until the other side hangs up or says something else than a request without a body.
async fn serve(mut stream: TcpStream, delay: Duration) {
    let mut request = [0; REQUEST_BYTES_MAX];
    loop {
        let mut filled = 0;
        while !request[..filled].ends_with(b"\r\n\r\n") {
            match stream.read(&mut request[filled..]).await {
                Ok(read) if read > 0 => filled += read,
                _ => return,
            }
        }
        sleep(delay).await;
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::http::Connection;

    #[tokio::test]
    async fn every_request_waits_for_its_answer() {
        let delay = Duration::from_millis(20);
        let server = SlowServer::start(delay).await.unwrap();
        let mut connection = Connection::open(server.address).await.unwrap();
        for _ in 0..2 {
            let asked = Instant::now();
            let response = connection.exchange("GET / HTTP/1.1\r\nhost: slow\r\n\r\n").await.unwrap();
            assert_eq!((response.status, response.body), (200, &b"pong"[..]));
            assert!(asked.elapsed() >= delay);
        }
    }
}
