//! A web server on loopback that plugins reach, or should not: what it answers is in the test, byte for byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::bot::PATIENCE;

/// What is answered to a request.
pub enum Answer {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, then the last of them again and again, until the other side hangs up.
    Drip(Vec<u8>),
    /// These bytes, and nothing more, until the other side hangs up.
    Stop(Vec<u8>),
    /// These bytes, then the end of the connection.
    Close(Vec<u8>),
    /// As a proxy: a tunnel to this address.
    Tunnel(SocketAddr),
}

/// A server with its own authority.
pub struct Upstream {
    pub address: SocketAddr,
    /// The certificate that a client has to trust.
    pub ca_pem: String,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

/// An answer with a body and these further header lines.
pub fn ok(headers: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Answer::Bytes(bytes)
}

impl Upstream {
    /// Serves `http`. The script is given each request, header and body, and says what is answered.
    pub async fn plain(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        Self::on(listener, script)
    }

    /// Serves `http` where this listens.
    pub fn on(listener: TcpListener, script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(listener, None, String::new(), script)
    }

    /// Serves `https` with a certificate for this name.
    pub async fn tls(name: &str, script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let (acceptor, certificate) = self_signed(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        Self::start(listener, Some(acceptor), certificate, script)
    }

    fn start(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        ca_pem: String,
        script: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let (open, requests) = (watch::Sender::new(0), Mutex::default());
        let seen = Arc::new(Seen { connections: AtomicUsize::new(0), requests, open });
        let script = Arc::new(script);
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    seen.open.send_modify(|open| *open += 1);
                    let (tls, seen, script) = (tls.clone(), seen.clone(), script.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => serve(stream, &seen, &*script).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => serve(stream, &seen, &*script).await,
                                Err(_) => None,
                            },
                        };
                        seen.open.send_modify(|open| *open -= 1);
                    });
                }
            }
        });
        Self { address, ca_pem, seen, task }
    }

    /// `http://127.0.0.1:PORT`
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The requests that came, header and body.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().expect("nobody panics with it").clone()
    }

    /// Waits until every connection to it is closed.
    pub async fn all_closed(&self) {
        let mut open = self.seen.open.subscribe();
        let closed = timeout(PATIENCE, open.wait_for(|open| *open == 0)).await;
        closed.expect("the host closes in time").expect("the server is there");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Seen,
    script: &(impl Fn(&str) -> Answer + Send + Sync),
) -> Option<()> {
    while let Some(request) = read_request(&mut stream).await {
        seen.requests.lock().expect("nobody panics with it").push(request.clone());
        match script(&request) {
            Answer::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
            Answer::Drip(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                let drop = *bytes.last().expect("there is something to drip");
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    stream.write_all(&[drop]).await.ok()?;
                }
            }
            Answer::Stop(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                // Ends when the other side hangs up.
                while stream.read(&mut [0; 1_024]).await.ok()? > 0 {}
                return None;
            }
            Answer::Close(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                stream.shutdown().await.ok()?;
                return None;
            }
            Answer::Tunnel(to) => {
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
                let mut to = TcpStream::connect(to).await.ok()?;
                copy_bidirectional(&mut stream, &mut to).await.ok()?;
                return None;
            }
        }
    }
    None
}

/// Reads one request: its header, and the body of its `content-length` or up to the last chunk.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let header = String::from_utf8(bytes.clone()).ok()?.to_ascii_lowercase();
    let length = header.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    bytes.extend(body);
    if header.contains("transfer-encoding: chunked") {
        while !bytes.ends_with(b"0\r\n\r\n") {
            bytes.push(stream.read_u8().await.ok()?);
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Takes connections with a certificate for this name, which is given in PEM.
pub fn self_signed(name: &str) -> (TlsAcceptor, String) {
    let own = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate can be made");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("the key belongs to the certificate");
    (TlsAcceptor::from(Arc::new(config)), own.cert.pem())
}
