//! Where a request goes: a URL, taken apart once. What is checked against the grants is what is connected to: nothing
//! behind this module reads a URL again.

use std::{fmt, net::IpAddr};

use url::Url;

/// The longest URL: what common servers accept.
pub const URL_BYTES_MAX: usize = 8_192;

/// A host in its one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Lower case, punycode, without a dot at the end.
    Name(String),
    Address(IpAddr),
}

/// A URL that can be asked for: `http` or `https`, without a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub secure: bool,
    pub host: Host,
    pub port: u16,
    /// What stands in the request line: path and query, percent-encoded, without `.` and `..`.
    pub path_and_query: String,
}

impl Target {
    /// Takes a URL apart. What two programs could read in two ways is refused, not repaired.
    ///
    /// # Errors
    ///
    /// The end of a sentence about the URL, without quoting it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written = written_authority(text)?;
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        let host = match url.host() {
            Some(url::Host::Domain(name)) => Host::Name(domain(name)?),
            Some(url::Host::Ipv4(address)) if written.split(':').next() != Some(&*address.to_string()) => {
                return Err(format!("writes an address in an unusual way; write {address}"));
            }
            Some(url::Host::Ipv4(address)) => Host::Address(address.into()),
            Some(url::Host::Ipv6(address)) => Host::Address(address.into()),
            None => return Err("names no host".into()),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("has port 0")?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path_and_query = format!("{}{query}", url.path());
        Ok(Self { secure: url.scheme() == "https", host, port, path_and_query })
    }

    /// The path alone.
    pub fn path(&self) -> &str {
        self.path_and_query.split_once('?').map_or(&*self.path_and_query, |(path, _)| path)
    }

    /// `host`, or `host:port` where the scheme does not say it: the header `Host`.
    pub fn authority(&self) -> String {
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Scheme, host and port: as much of a URL as a log may have.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.authority())
    }
}

/// As it stands in a URL.
impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(formatter, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
        }
    }
}

/// Returns host and port as written, of a URL in which they cannot be mistaken.
fn written_authority(text: &str) -> Result<&str, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("has more than {URL_BYTES_MAX} bytes"));
    }
    // Browsers drop some of these and read a backslash as a slash; other programs do not.
    if let Some(odd) = text.chars().find(|char| char.is_control() || char.is_whitespace() || *char == '\\') {
        return Err(format!("has the character {odd:?}; percent-encode it"));
    }
    let scheme = text.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    let Some(("http" | "https", rest)) = scheme.as_ref().map(|(scheme, rest)| (scheme.as_str(), *rest)) else {
        return Err("begins with neither `https://` nor `http://`".into());
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority {
        "" => Err("names no host".into()),
        user if user.contains('@') => Err("has a user before the host; send a header `authorization`".into()),
        encoded if encoded.contains('%') => Err("has a `%` in the host".into()),
        authority => Ok(authority),
    }
}

/// Brings a name that `url` has parsed into its one spelling.
fn domain(name: &str) -> Result<String, String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err("has a host name with an empty or too long part".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, String) {
        let target = Target::parse(url).unwrap_or_else(|error| panic!("{url} {error}"));
        (target.origin(), target.path_and_query)
    }

    #[test]
    fn a_url_is_brought_into_its_one_spelling() {
        for (url, origin, path) in [
            ("https://api.example.com", "https://api.example.com", "/"),
            ("HTTPS://API.Example.COM:443/V1", "https://api.example.com", "/V1"),
            ("https://api.example.com./", "https://api.example.com", "/"),
            ("http://llm:11434/v1?a=b#c", "http://llm:11434", "/v1?a=b"),
            ("http://a/x/../y/./z", "http://a", "/y/z"),
            ("http://a/x/%2e%2e/y", "http://a", "/y"),
            ("https://a?city=北京", "https://a", "/?city=%E5%8C%97%E4%BA%AC"),
            ("https://例子.中国/路", "https://xn--fsqu00a.xn--fiqs8s", "/%E8%B7%AF"),
            ("https://XN--FSQU00A.xn--fiqs8s/", "https://xn--fsqu00a.xn--fiqs8s", "/"),
            ("https://ａｐｉ.example.com/", "https://api.example.com", "/"),
            ("http://127.0.0.1:80/", "http://127.0.0.1", "/"),
            ("http://[0:0::1]:8080/", "http://[::1]:8080", "/"),
            ("http://[::ffff:127.0.0.1]/", "http://[::ffff:127.0.0.1]", "/"),
            ("https://a//b", "https://a", "//b"),
            ("https://a/b@c?d@e", "https://a", "/b@c?d@e"),
        ] {
            assert_eq!(parsed(url), (origin.to_owned(), path.to_owned()), "{url}");
        }
    }

    #[test]
    fn a_url_that_two_programs_could_read_in_two_ways_is_refused() {
        for url in [
            "http://allowed@evil/",
            "http://allowed:80@evil/",
            "http://@evil/",
            "http://allowed\\@evil/",
            "http:\\\\evil/",
            "http:/evil/",
            "http:evil",
            "http:///evil/",
            "//evil/",
            "evil",
            "",
            "ftp://a/",
            "file:///etc/passwd",
            "unix:///run/x",
            "http://a\tb/",
            "http://a/\n",
            " http://a/",
            "http://a/ b",
            "http://a/\u{a0}b",
            "http://a/\u{0}",
            "http://a%2eb/",
            "http://%61/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://１２７.0.0.1/",
            "http://[::1",
            "http://[fe80::1%25eth0]/",
            "http://a:0/",
            "http://a:65536/",
            "http://a..b/",
            "http://.a/",
            "http://a../",
            "http://a b/",
            "http://a<b/",
            "http://",
            "http://?",
        ] {
            assert!(Target::parse(url).is_err(), "{url:?} became {:?}", Target::parse(url));
        }
        assert!(Target::parse(&format!("http://a/{}", "x".repeat(URL_BYTES_MAX))).is_err());
        assert!(Target::parse(&format!("http://{}/", "x".repeat(64))).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told_without_quoting_it() {
        let wrong = |url| Target::parse(url).unwrap_err();
        assert_eq!(wrong("http://secret7@a/"), "has a user before the host; send a header `authorization`");
        assert_eq!(wrong("http://0x7f.1/?secret7"), "writes an address in an unusual way; write 127.0.0.1");
        assert_eq!(wrong("a/b"), "begins with neither `https://` nor `http://`");
    }
}
