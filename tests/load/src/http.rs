//! HTTP/1.1 as far as a load generator needs it: one request, one response, on a connection that stays.

use std::{net::SocketAddr, ops::Range};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The largest response. A sealed echo has about a thousand bytes.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; RESPONSE_BYTES_MAX] })
    }

    /// Sends a request and reads its response. After an error the connection is of no use.
    pub async fn exchange(&mut self, request: &str) -> anyhow::Result<Response<'_>> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        let (status, body) = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the server hung up after {filled} bytes of a response, or it has more than the buffer");
            filled += read;
            if let Some(response) = parse(&self.buffer[..filled])? {
                break response;
            }
        };
        // Requests are not pipelined: what follows a response belongs to nobody.
        ensure!(body.end == filled, "{} bytes follow a response", filled - body.end);
        Ok(Response { status, body: &self.buffer[body] })
    }
}

/// Finds status and body in a response, or nothing if it is not whole yet.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(u16, Range<usize>)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&bytes[..end]).context("a response's header is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let Some(status) = status else { bail!("a response does not begin with HTTP/1.1 and a status") };
    let length = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.parse::<usize>().ok());
    let Some(length) = length else { bail!("a response has no Content-Length") };
    let body = end + 4..(end + 4).saturating_add(length);
    Ok((body.end <= bytes.len()).then_some((status, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_when_its_body_is() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]).unwrap(), None, "{cut}");
        }
        let (status, body) = parse(whole).unwrap().unwrap();
        assert_eq!((status, &whole[body]), (200, &b"abc"[..]));
    }

    #[test]
    fn what_cannot_be_delimited_is_an_error() {
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(parse(chunked).unwrap_err().to_string().contains("Content-Length"));
        assert!(parse(b"SSH-2.0\r\n\r\n").unwrap_err().to_string().contains("status"));
    }
}
