//! Makes connections: looks a name up once, checks every address, and connects to one of those it checked.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{client::conn::http1, header::HeaderValue};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::{either::Either, task::AbortOnDropHandle};

use super::{
    NoAnswer,
    address::Reach,
    client::{Outgoing, root_cause},
    gates::Turn,
    pool::Connection,
    target::{Host, Target},
};
use crate::{
    config::{Http, HttpGrant, Proxy},
    https::tls_config,
};

/// How many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 8;

/// How long one address may take while there are others to try.
const ADDRESS_PATIENCE: Duration = Duration::from_millis(500);

/// The largest header of a proxy's answer.
const PROXY_HEADER_BYTES_MAX: usize = 8_192;

/// Names that lead to this machine or its network, whoever looks them up.
const LOCAL_ENDINGS: [&str; 6] = [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet"];

pub(super) struct Connector {
    tls: TlsConnector,
    http: Http,
    look_up: Arc<LookUp>,
}

/// Asks for the addresses of a name, with a port, for as long as that takes.
type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Which way a request goes.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// To an address that the operator wrote down.
    Address(SocketAddr),
    /// To an address of this name, private ones included or not.
    Name { name: String, port: u16, private: bool },
    /// Through a proxy, which looks the name up.
    Proxy(Proxy),
}

impl Connector {
    /// A connector that asks `look_up` for each name, once for a connection.
    pub(super) fn new(
        http: &Http,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let tls = TlsConnector::from(Arc::new(tls_config(&http.authorities)));
        Self { tls, http: http.clone(), look_up: Arc::new(look_up) }
    }

    /// Finds the way to a target that a grant allows.
    ///
    /// # Errors
    ///
    /// [`NoAnswer::Denied`] for a name of the own network that would be left to a proxy.
    pub(super) fn route(&self, grant: &HttpGrant, target: &Target) -> Result<Route, NoAnswer> {
        let port = target.port;
        let name = match &target.host {
            // Only a grant by this very address fits it.
            Host::Address(address) => match &self.http.proxy {
                Some(proxy) if Reach::of(*address) == Reach::Public => return Ok(Route::Proxy(proxy.clone())),
                _ => return Ok(Route::Address(SocketAddr::new(*address, port))),
            },
            Host::Name(name) => name,
        };
        if let Some((address, own_port)) = self.http.resolve.get(name) {
            return Ok(Route::Address(SocketAddr::new(*address, own_port.unwrap_or(port))));
        }
        match &self.http.proxy {
            Some(proxy) if !grant.private => match is_local(name) {
                true => Err(leads(Reach::Private, target)),
                false => Ok(Route::Proxy(proxy.clone())),
            },
            _ => Ok(Route::Name { name: name.clone(), port, private: grant.private }),
        }
    }

    /// Makes a connection that is ready for a request. `lookup` waits until a name may be looked up.
    pub(super) async fn connect(
        &self,
        target: &Target,
        route: &Route,
        lookup: impl Future<Output = Turn>,
    ) -> Result<Connection, NoAnswer> {
        let unreachable = |error: io::Error| {
            let reason = root_cause(&error);
            NoAnswer::Unreachable(format!("cannot reach {}: {reason}", target.origin()))
        };
        let stream = match route {
            Route::Address(address) => first_of(&[*address]).await.map_err(unreachable)?,
            Route::Name { name, port, private } => {
                let addresses = self.looked_up(name, *port, lookup.await).await.map_err(unreachable)?;
                check(&addresses, *private, target)?;
                first_of(&addresses).await.map_err(unreachable)?
            }
            Route::Proxy(proxy) => self.through(proxy, target, lookup).await.map_err(unreachable)?,
        };
        let stream = match target.secure {
            true => {
                let name = server_name(target).map_err(unreachable)?;
                Either::Left(self.tls.connect(name, stream).await.map_err(unreachable)?)
            }
            false => Either::Right(stream),
        };
        let broken = |error: hyper::Error| unreachable(io::Error::other(error));
        let mut http1 = http1::Builder::new();
        // The buffer holds a header: this bounds it.
        http1.max_buf_size(self.http.header_bytes_max);
        let (sender, driver) = http1.handshake::<_, Outgoing>(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(async move {
            // What goes wrong is told to whoever waits for the answer.
            let _ = driver.await;
        });
        Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Looks a name up on a thread of its own. The turn goes with it: a name server that does not answer holds the thread
    /// longer than the guest waits.
    async fn looked_up(&self, name: &str, port: u16, turn: Turn) -> io::Result<Vec<SocketAddr>> {
        let (look_up, name) = (self.look_up.clone(), name.to_owned());
        let looked_up = spawn_blocking(move || {
            let _turn = turn;
            look_up(&name, port)
        });
        let addresses = looked_up.await.map_err(io::Error::other)??;
        match addresses.is_empty() {
            true => Err(io::Error::other("the name has no address")),
            false => Ok(addresses),
        }
    }

    /// Connects to a proxy, and with TLS lets it make a tunnel to the target.
    async fn through(
        &self,
        proxy: &Proxy,
        target: &Target,
        lookup: impl Future<Output = Turn>,
    ) -> io::Result<TcpStream> {
        let of_proxy = |error: io::Error| io::Error::other(format!("the proxy (`http.proxy`): {}", root_cause(&error)));
        let addresses = match &proxy.host {
            Host::Address(address) => vec![SocketAddr::new(*address, proxy.port)],
            Host::Name(name) => self.looked_up(name, proxy.port, lookup.await).await.map_err(of_proxy)?,
        };
        let mut stream = first_of(&addresses).await.map_err(of_proxy)?;
        if target.secure {
            tunnel(&mut stream, proxy, target).await.map_err(of_proxy)?;
        }
        Ok(stream)
    }
}

impl Proxy {
    /// The header `Proxy-Authorization`, if the proxy asks for a user.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let encoded = BASE64_STANDARD.encode(self.user.as_ref()?.expose());
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is ASCII");
        value.set_sensitive(true);
        Some(value)
    }
}

/// Asks the system for the addresses of a name.
pub(super) fn look_up(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.take(ADDRESSES_MAX).collect())
}

/// Refuses a name if one of its addresses is not what the grant is about: the next lookup could give that one alone.
fn check(addresses: &[SocketAddr], private: bool, target: &Target) -> Result<(), NoAnswer> {
    let reaches = addresses.iter().map(|address| Reach::of(address.ip()));
    let allowed = |reach: &Reach| *reach == Reach::Public || (private && *reach == Reach::Private);
    match reaches.into_iter().find(|reach| !allowed(reach)) {
        None => Ok(()),
        Some(reach) => Err(leads(reach, target)),
    }
}

/// What to say of a name that leads where the grant does not.
fn leads(reach: Reach, target: &Target) -> NoAnswer {
    let (host, origin) = (&target.host, target.origin());
    NoAnswer::Denied(match reach {
        Reach::Public | Reach::Private => format!(
            "may not reach `{origin}`: the name leads to a private address; if that is meant, grant it as \
             {{ url = \"{origin}\", private = true }}"
        ),
        Reach::Metadata => format!(
            "may not reach `{origin}`: the name leads to a link-local address or one where a cloud keeps credentials; only \
             a URL with the address itself can be granted"
        ),
        Reach::Nowhere => format!("may not reach `{origin}`: `{host}` leads to an address that no host has"),
    })
}

/// Whether a name leads to this machine or its network, whoever looks it up.
pub(super) fn is_local(name: &str) -> bool {
    !name.contains('.') || LOCAL_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Connects to the first address that answers.
async fn first_of(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut error = io::Error::other("the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let is_last = index + 1 == addresses.len();
        // The last one has what is left of the time for connecting.
        let patience = if is_last { Duration::MAX } else { ADDRESS_PATIENCE };
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(reason)) => error = reason,
            Err(_) => error = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(error)
}

/// Asks a proxy for a tunnel, and reads its answer up to the first byte of the tunnel.
async fn tunnel(stream: &mut TcpStream, proxy: &Proxy, target: &Target) -> io::Result<()> {
    let to = format!("{}:{}", target.host, target.port);
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    if let Some(authorization) = proxy.authorization() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;

    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        if header.len() == PROXY_HEADER_BYTES_MAX {
            return Err(io::Error::other("its answer has a header without end"));
        }
        header.push(stream.read_u8().await?);
    }
    let status = header.split(|byte| *byte == b' ').nth(1).map(String::from_utf8_lossy).unwrap_or_default();
    match &*status {
        "200" => Ok(()),
        "407" => Err(io::Error::other("it asks for another user or password (407)")),
        status => Err(io::Error::other(format!("it answered {:?} to CONNECT", status.get(..3).unwrap_or_default()))),
    }
}

fn server_name(target: &Target) -> io::Result<ServerName<'static>> {
    match &target.host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| io::Error::other("no certificate has such a name"))
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connector").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::egress::gates::Gates;

    fn target(url: &str) -> Target {
        Target::parse(url).unwrap()
    }

    fn grant(url: &str, private: bool) -> HttpGrant {
        let Target { secure, host, port, .. } = target(url);
        let host = crate::config::HostPattern::Exact(host);
        HttpGrant { written: url.into(), secure, host, port, path: String::new(), private, headers: Vec::new() }
    }

    /// Which way a request goes: `address`, `name`, `proxy` or `denied`.
    fn way(http: &Http, url: &str, private: bool) -> String {
        match Connector::new(http, look_up).route(&grant(url, private), &target(url)) {
            Ok(Route::Address(address)) => address.to_string(),
            Ok(Route::Name { name, port, private }) => format!("{name}:{port} {private}"),
            Ok(Route::Proxy(_)) => "proxy".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_name_is_allowed_if_all_of_its_addresses_are() {
        for (addresses, public, private) in [
            ("1.1.1.1 2606:4700::1111", true, true),
            ("127.0.0.1", false, true),
            ("::1 127.0.0.1 10.0.0.1", false, true),
            ("1.1.1.1 10.0.0.1", false, true),
            ("1.1.1.1 169.254.169.254", false, false),
            ("10.0.0.1 fd00:ec2::254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("100.100.100.200", false, false),
            ("0.0.0.0", false, false),
            ("1.1.1.1 224.0.0.1", false, false),
        ] {
            let all: Vec<_> = addresses.split(' ').map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect();
            let target = target("http://a/");
            assert_eq!(check(&all, false, &target).is_ok(), public, "{addresses}");
            assert_eq!(check(&all, true, &target).is_ok(), private, "{addresses} private");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_the_address_that_was_checked_is_connected_to() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [checked, turned] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let lookups = Arc::new(AtomicUsize::new(0));
        // Its owner answers each time with another address.
        let look_up = {
            let lookups = lookups.clone();
            move |_: &str, _| Ok(vec![[checked, turned][lookups.fetch_add(1, Ordering::SeqCst) % 2]])
        };
        let http = Http { header_bytes_max: 65_536, ..Http::default() };
        let (connector, target) = (Connector::new(&http, look_up), target("http://shop.example/"));
        let grant = grant("http://shop.example", true);
        let route = connector.route(&grant, &target).unwrap();
        let lookup = Gates::new(&http).lookup(None, &grant).await;
        connector.connect(&target, &route, async { lookup }).await.unwrap();
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
        let is_connected = listeners.map(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept().is_ok()
        });
        assert_eq!(is_connected, [true, false]);
    }

    #[test]
    fn what_the_operator_wrote_down_is_not_looked_up_and_not_left_to_a_proxy() {
        let resolve = [
            ("a.com".to_owned(), ([127, 0, 0, 1].into(), Some(1))),
            ("b.com".to_owned(), ([10, 0, 0, 1].into(), None)),
        ];
        let direct = Http { resolve: resolve.into(), ..Http::default() };
        let proxy = Proxy { host: Host::Name("proxy".into()), port: 3128, user: None };
        let proxied = Http { proxy: Some(proxy), ..direct.clone() };
        for (url, private, directly, by_proxy) in [
            ("https://a.com", false, "127.0.0.1:1", "127.0.0.1:1"),
            ("https://b.com", false, "10.0.0.1:443", "10.0.0.1:443"),
            ("https://c.com", false, "c.com:443 false", "proxy"),
            ("http://c.com:8080", true, "c.com:8080 true", "c.com:8080 true"),
            ("http://10.0.0.2", false, "10.0.0.2:80", "10.0.0.2:80"),
            ("http://169.254.169.254", false, "169.254.169.254:80", "169.254.169.254:80"),
            ("http://1.1.1.1", false, "1.1.1.1:80", "proxy"),
            ("http://llm", true, "llm:80 true", "llm:80 true"),
        ] {
            assert_eq!(way(&direct, url, private), directly, "{url}");
            assert_eq!(way(&proxied, url, private), by_proxy, "{url}");
        }
        for local in [
            "http://llm",
            "http://localhost",
            "http://a.localhost",
            "http://metadata.google.internal",
            "http://nas.local",
        ] {
            assert!(way(&proxied, local, false).contains("leads to a private address"), "{local}");
        }
    }
}
