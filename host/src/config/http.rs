//! `[http]`: how guests' HTTP leaves the host.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    document::{Node, Value, dotted},
    section::Section,
    sources,
};
use crate::{
    egress::target::{Host, Target},
    secret::Secret,
};

/// The largest file of certificates: every authority that a system trusts is a quarter of it.
const CA_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// `[http]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http {
    /// What public hosts are reached through. Default none.
    pub proxy: Option<Proxy>,
    /// Where names lead without being looked up: an address, with a port or with the one of the URL. Default none.
    pub resolve: BTreeMap<String, (IpAddr, Option<u16>)>,
    /// `ca_file`, for following its changes. Default none.
    pub ca_file: Option<PathBuf>,
    /// The certificates in it: authorities that are trusted beside those that browsers trust.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The largest body of a request and of an answer, in MiB. Default 4.
    pub body_mib_max: usize,
    /// How much of answers is held at once until they are complete, in MiB; half of it for one plugin. Default 256.
    pub answers_mib_max: usize,
    /// The largest header of an answer. Default 65,536 bytes.
    pub header_bytes_max: usize,
    /// `connect_timeout_ms`: how long a connection may take to be made, TLS included. Default 3 s.
    pub connect_timeout: Duration,
    /// `idle_timeout_ms`: how long a connection that nobody uses is kept. Default 30 s.
    pub idle_timeout: Duration,
    /// How many connections nobody uses are kept at most. Default 256.
    pub idle_connections_max: usize,
    /// How many requests may be on their way at once; half of them one plugin's. Default 2,048.
    pub connections_max: usize,
    /// How many of them to the hosts of one grant; half of them one plugin's. Default 1,100.
    pub connections_per_host_max: usize,
}

/// An HTTP proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub host: Host,
    pub port: u16,
    /// `user:password`, percent-decoded.
    pub user: Option<Secret>,
}

/// Whether the settings still name the same proxy. Both sides are the operator's, so nobody learns anything from the time
/// that it takes.
impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        let user = |proxy: &Self| proxy.user.as_ref().map(|user| user.expose().to_owned());
        (&self.host, self.port, user(self)) == (&other.host, other.port, user(other))
    }
}

impl Http {
    /// Returns `body_mib_max` in bytes.
    pub fn body_bytes_max(&self) -> usize {
        self.body_mib_max << 20
    }

    pub(super) fn read(section: &Section<'_>, directory: &Path) -> Self {
        let (ca_file, authorities) = section
            .parsed("ca_file", |text| authorities(directory, text))
            .flatten()
            .map_or((None, Vec::new()), |(file, authorities)| (Some(file), authorities));
        Self {
            proxy: section.secret("proxy", proxy).flatten(),
            resolve: resolve(section),
            ca_file,
            authorities,
            body_mib_max: section.count("body_mib_max", 1..=64),
            answers_mib_max: section.count("answers_mib_max", 64..=65_536),
            header_bytes_max: section.count("header_bytes_max", 8_192..=1_048_576),
            connect_timeout: section.millis("connect_timeout_ms", 100..=60_000),
            idle_timeout: section.millis("idle_timeout_ms", 0..=600_000),
            idle_connections_max: section.count("idle_connections_max", 0..=65_536),
            connections_max: section.count("connections_max", 1..=65_536),
            connections_per_host_max: section.count("connections_per_host_max", 1..=65_536),
        }
    }
}

/// Reads `http://user:password@proxy:3128`. A failure follows the key's name, and shows nothing.
fn proxy(text: &str) -> Result<Proxy, String> {
    const USAGE: &str = "must be a URL such as \"http://user:password@proxy:3128\"";
    let Some(rest) = text.strip_prefix("http://") else { return Err(format!("{USAGE}; it begins with `http://`")) };
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, rest),
    };
    // A port that is missing is forgotten more often than it is 80.
    let has_port = host.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = Target::parse(&format!("http://{host}")).map_err(|reason| format!("{reason}; it {USAGE}"))?;
    if !has_port || target.path_and_query != "/" {
        return Err(format!("{USAGE}: with a port, and no path"));
    }
    let user = user.map(|user| Secret::from(crate::egress::request::percent_decoded(user)));
    Ok(Proxy { host: target.host, port: target.port, user })
}

/// Reads the certificates of a file in PEM; `None` for no file. A failure is the sentence's end.
fn authorities(directory: &Path, text: &str) -> Result<Option<(PathBuf, Vec<CertificateDer<'static>>)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let file = sources::absolute(directory, text);
    let pem = sources::read_text(&file, CA_FILE_BYTES_MAX).map_err(|reason| format!("cannot be read: {reason}"))?;
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
    let mut store = rustls::RootCertStore::empty();
    match authorities.is_empty() || authorities.iter().any(|authority| store.add(authority.clone()).is_err()) {
        true => Err("must hold certificates in PEM: `-----BEGIN CERTIFICATE-----` …".into()),
        false => Ok(Some((file, authorities))),
    }
}

fn resolve(section: &Section<'_>) -> BTreeMap<String, (IpAddr, Option<u16>)> {
    let Some(found) = section.given("resolve") else { return BTreeMap::new() };
    let Value::Table(table) = &found.node.value else {
        let text = format!("`{}` is {}; it must be a table: {{ \"NAME\" = \"ADDRESS\" }}", found.key, found.node.value);
        section.problems.add(&found.node.place, text);
        return BTreeMap::new();
    };
    let entry = |(name, node): (&String, &Node)| {
        let entry = resolved(name, &node.value);
        let problem = |reason| section.problems.add(&node.place, format!("`{}` {reason}", dotted(&found.key, name)));
        entry.map_err(problem).ok()
    };
    table.iter().filter_map(entry).collect()
}

fn resolved(name: &str, value: &Value) -> Result<(String, (IpAddr, Option<u16>)), String> {
    let host =
        Target::parse(&format!("https://{name}")).map(|target| (target.host, target.port, target.path_and_query));
    let Ok((Host::Name(host), 443, path)) = host else { return Err("is not a host's name".into()) };
    let address = match value {
        Value::Text { text, .. } if path == "/" && !name.contains(['/', ':']) => address(text),
        _ => None,
    };
    address
        .map(|address| (host, address))
        .ok_or_else(|| format!("is {value}; it must be an address, or one with a port: \"127.0.0.1:8443\""))
}

fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let with_port = text.parse().map(|address: SocketAddr| (address.ip(), Some(address.port())));
    with_port.or_else(|_| text.parse().map(|address| (address, None))).ok()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Directory, error, load};
    use super::*;

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n[http]\n";

    fn http(lines: &str) -> Http {
        load(&format!("{ACCOUNT}{lines}")).http
    }

    #[test]
    fn without_settings_hosts_are_reached_directly() {
        let http = load("[accounts.main]\ntoken = \"abc\"\n").http;
        assert!(http.proxy.is_none() && http.resolve.is_empty() && http.authorities.is_empty());
        assert_eq!((http.body_bytes_max(), http.header_bytes_max), (4 << 20, 65_536));
        assert_eq!((http.connect_timeout, http.idle_timeout), (Duration::from_secs(3), Duration::from_secs(30)));
        assert_eq!((http.connections_max, http.connections_per_host_max), (2_048, 1_100));
    }

    #[test]
    fn a_proxy_is_a_url_with_a_port_and_perhaps_a_user() {
        let proxy = http("proxy = \"http://proxy:3128\"").proxy.unwrap();
        assert_eq!((proxy.host, proxy.port), (Host::Name("proxy".into()), 3128));
        assert!(proxy.user.is_none());
        let proxy = http("proxy = \"http://us%40er:pass@word7@[::1]:80/\"").proxy.unwrap();
        assert_eq!(proxy.user.as_ref().unwrap().expose(), "us@er:pass@word7");
        assert!(!format!("{proxy:?}").contains("word7"));
        for wrong in ["https://u:secret7@proxy:3128", "proxy:3128", "http://u:secret7@proxy", "http://u:secret7@p:1/x"]
        {
            let error = error(&format!("{ACCOUNT}proxy = \"{wrong}\""));
            assert!(error.contains("`http.proxy` must be a URL") && !error.contains("secret7"), "{error}");
        }
    }

    #[test]
    fn names_lead_to_addresses_with_or_without_a_port() {
        let http = http("resolve = { \"API.example.com\" = \"127.0.0.1:8443\", llm = \"::1\", \"b.c\" = \"[::1]:1\" }");
        let localhost = "::1".parse::<IpAddr>().unwrap();
        assert_eq!(http.resolve["api.example.com"], ("127.0.0.1".parse().unwrap(), Some(8443)));
        assert_eq!((http.resolve["llm"], http.resolve["b.c"]), ((localhost, None), (localhost, Some(1))));
        assert_eq!(
            error(&format!("{ACCOUNT}resolve = {{ a = \"b\", \"c:1\" = \"::1\", \"1.1.1.1\" = \"::1\" }}")),
            "aviary.toml:4: `http.resolve.\"1.1.1.1\"` is not a host's name\n\
             aviary.toml:4: `http.resolve.\"c:1\"` is not a host's name\n\
             aviary.toml:4: `http.resolve.a` is \"b\"; it must be an address, or one with a port: \"127.0.0.1:8443\""
        );
    }

    #[test]
    fn a_file_of_authorities_is_read_and_watched() {
        let pem = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem();
        let directory = Directory::with(&format!("{ACCOUNT}ca_file = \"ca.pem\"")).and("ca.pem", format!("{pem}{pem}"));
        let config = directory.load();
        assert_eq!(config.http.authorities.len(), 2);
        assert!(config.watched().contains(&directory.path("ca.pem")));
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let directory = Directory::with(&format!("{ACCOUNT}ca_file = \"ca.pem\"")).and("ca.pem", "secret7");
        assert_eq!(
            directory.error(),
            "aviary.toml:4: `http.ca_file` is \"ca.pem\"; it must hold certificates in PEM: `-----BEGIN CERTIFICATE-----` …"
        );
        assert!(error(&format!("{ACCOUNT}ca_file = \"nowhere.pem\"")).contains("cannot be read"));
    }
}
