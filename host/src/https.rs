//! HTTP as a client: one exchange, with an end to every wait and size. WeChat's side of a conversation is played with it.

use std::{
    error::Error,
    io::{self, ErrorKind},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};

/// How much of an answer is read. A reply or an API's JSON has a few kilobytes; an error page of a proxy may have more.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Connects by `http` and `https`, and trusts the certificate authorities that browsers trust, and perhaps further ones.
///
/// Every exchange has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From the beginning of the connection to the end of the body.
    pub elapsed: Duration,
}

/// Why there was no answer. No text has a URL's parameters in it: a token may be one.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("no answer within {} ms", .limit.as_millis())]
    Timeout { limit: Duration },
    /// No connection could be made. `may_pass`: as it is with a server, or a network, that is being restarted.
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String, may_pass: bool },
    #[error("the connection broke off: {0}")]
    BrokenOff(String),
    #[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

impl Default for Client {
    fn default() -> Self {
        Self::trusting(&[])
    }
}

impl Client {
    /// Trusts further authorities, which can be trusted: they were tried when the settings were read.
    pub fn trusting(authorities: &[CertificateDer<'static>]) -> Self {
        let tls = tls_config(authorities);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // WeChat's tries are connections of their own, and a host that drains must not wait for ours.
        Self(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }

    /// Sends a request and reads the whole answer, within `limit`.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]. An answer of any status is one.
    pub async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, NoAnswer> {
        match tokio::time::timeout(limit, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer::Timeout { limit }),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let start = Instant::now();
        let url = without_parameters(request.uri());
        let response = self.0.request(request).await.map_err(|error| match error.is_connect() {
            true => NoAnswer::Unreachable { url, reason: root_cause(&error).to_string(), may_pass: may_pass(&error) },
            false => NoAnswer::BrokenOff(root_cause(&error).to_string()),
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => NoAnswer::TooLarge,
            false => NoAnswer::BrokenOff(root_cause(&*error).to_string()),
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), elapsed: start.elapsed() })
    }
}

/// How a server shows who it is: to the authorities that browsers trust, or to one of these, which were tried when the
/// settings were read.
pub(crate) fn tls_config(authorities: &[CertificateDer<'static>]) -> ClientConfig {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    for authority in authorities {
        roots.add(authority.clone()).expect("it was tried when the settings were read");
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Returns a URL without its user and its parameters, which may hold anything.
pub fn without_parameters(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", url.path())
}

/// What happened in the end, which is what a person can act on: "Connection refused".
fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Whether nobody was there. A certificate that does not fit, or a name that nobody has, needs a person.
fn may_pass(error: &(dyn Error + 'static)) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    let kind = root_cause(error).downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Gets an answer from a server that says this, and then holds on without a word.
    async fn get(said: Vec<u8>, limit: Duration) -> Result<Answer, NoAnswer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(&said).await;
            let _ = connection.read(&mut [0; 1]).await;
        });
        let answer = Client::default().send(Request::get(url).body(Full::default()).unwrap(), limit).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn an_answer_of_any_status_is_an_answer() {
        let answer = get(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nhi".to_vec(), LIMIT).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (502, &b"hi"[..]));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let mut said = b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n".to_vec();
        said.resize(said.len() + ANSWER_BYTES_MAX + 1, b'x');
        assert!(matches!(get(said, LIMIT).await, Err(NoAnswer::TooLarge)));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_ends_the_wait() {
        let said = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec();
        let error = get(said, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 50 ms");
    }

    #[tokio::test]
    async fn only_a_server_that_is_not_there_may_be_there_soon() {
        let may_pass = async |url: &str| {
            let request = Request::get(url).body(Full::default()).unwrap();
            match Client::default().send(request, LIMIT).await.unwrap_err() {
                NoAnswer::Unreachable { may_pass, .. } => may_pass,
                other => panic!("{url}: {other}"),
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        });
        assert!(!may_pass(&format!("https://{address}/")).await, "it speaks no TLS");
        server.await.unwrap();
        assert!(may_pass(&format!("http://{address}/")).await, "it is gone");
        assert!(!super::may_pass(&io::Error::other("failed to lookup address information")));
    }

    #[test]
    fn a_url_is_shown_without_user_and_parameters() {
        let url = "https://a:b@example.com:8443/cgi-bin/x?access_token=hidden".parse().unwrap();
        assert_eq!(without_parameters(&url), "https://example.com:8443/cgi-bin/x");
    }
}
