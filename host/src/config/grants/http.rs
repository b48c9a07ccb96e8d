//! `grants.http`: the hosts that a plugin may send requests to.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};

use super::super::{
    document::{Node, Value, dotted},
    section::Section,
};
use crate::{
    egress::{
        address::Reach,
        request,
        target::{Host, Target},
    },
    secret::Secret,
};

/// How many hosts one plugin may be granted: each request is compared with all of them.
const GRANTS_MAX: usize = 1_000;

/// The keys of a grant's table.
const KEYS: [&str; 4] = ["headers", "host", "private", "url"];

/// One host, and how it may be reached.
#[derive(Clone, Debug)]
pub struct HttpGrant {
    /// The host as the operator wrote it: a name or a URL.
    pub written: String,
    /// Whether `https` is spoken, else `http`.
    pub secure: bool,
    pub host: HostPattern,
    pub port: u16,
    /// What the path begins with, in whole parts; empty for every path.
    pub path: String,
    /// Whether the name may lead to addresses of the operator's own network. Default not.
    pub private: bool,
    /// What the host adds to each request, over what the plugin sent. Names in lower case. Default none.
    pub headers: Vec<(HeaderName, Secret)>,
}

/// Which hosts a grant is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(Host),
    /// `*.example.com`: every name below `example.com`, at any depth, and not `example.com` itself.
    Below(String),
}

impl HttpGrant {
    /// Returns the grant of these that a request falls under: the narrowest that fits.
    pub fn of<'a>(grants: &'a [Self], target: &Target) -> Option<&'a Self> {
        grants.iter().find(|grant| grant.fits(target))
    }

    fn fits(&self, target: &Target) -> bool {
        self.secure == target.secure
            && self.port == target.port
            && self.host.fits(&target.host)
            && fits_path(&self.path, target.path())
    }

    /// One name before names, a longer name before a shorter, a longer path before a shorter.
    fn narrowness(&self) -> (bool, usize, usize) {
        match &self.host {
            HostPattern::Exact(_) => (true, 0, self.path.len()),
            HostPattern::Below(name) => (false, name.len(), self.path.len()),
        }
    }
}

impl HostPattern {
    fn fits(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(own), host) => own == host,
            (Self::Below(below), Host::Name(name)) => {
                name.strip_suffix(&**below).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

/// Whether a path lies below another, however often the server behind it decodes it.
fn fits_path(prefix: &str, path: &str) -> bool {
    if prefix.is_empty() {
        return true;
    }
    let Some(rest) = path.strip_prefix(prefix) else { return false };
    (prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')) && !may_leave(rest)
}

/// Whether some server could find a way upwards in a path: `%2e%2e`, `..%2f`, `..;x`, `%252e`.
fn may_leave(path: &str) -> bool {
    let mut path = path.to_owned();
    // Each round takes one layer off, so that two are more than anybody encodes on purpose.
    for _ in 0..3 {
        let upwards = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
        if path.split(['/', '\\']).any(upwards) {
            return true;
        }
        let decoded = request::percent_decoded(&path);
        if decoded == path {
            return false;
        }
        path = decoded;
    }
    true
}

/// Reads `http`; `None` if the table has none.
pub(super) fn read(section: &Section<'_>) -> Option<Vec<HttpGrant>> {
    let found = section.given("http")?;
    let Value::Array(items) = &found.node.value else {
        let text = format!("`{}` is {}; it must be a list: [\"api.example.com\"]", found.key, found.node.value);
        section.problems.add(&found.node.place, text);
        return None;
    };
    if items.len() > GRANTS_MAX {
        let text = format!("`{}` has {} hosts; it may have {GRANTS_MAX}", found.key, items.len());
        section.problems.add(&found.node.place, text);
        return None;
    }
    let mut grants = Vec::new();
    for (index, node) in items.iter().enumerate() {
        let key = format!("{}[{index}]", found.key);
        match item(&key, node) {
            Ok(grant) => grants.push(grant),
            Err(text) => section.problems.add(&node.place, text),
        }
    }
    grants.sort_by_key(|grant| std::cmp::Reverse(grant.narrowness()));
    Some(grants)
}

/// Reads one host: a text, or a table. An error is a whole sentence, and shows no header's value.
fn item(key: &str, node: &Node) -> Result<HttpGrant, String> {
    match &node.value {
        Value::Text { text, .. } => {
            let grant = if text.contains("://") { url(text) } else { name(text, false) };
            grant.map_err(|reason| format!("`{key}` is {}; it {reason}", node.value))
        }
        Value::Table(table) => of_table(key, table),
        value => Err(format!("`{key}` is {value}; it must be a host's name, a URL, or a table: {{ host = \"…\" }}")),
    }
}

fn of_table(key: &str, table: &BTreeMap<String, Node>) -> Result<HttpGrant, String> {
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let valid = KEYS.map(|key| format!("`{key}`")).join(", ");
        return Err(format!("unknown key `{}`; there are {valid}", dotted(key, unknown)));
    }
    let private = match table.get("private").map(|node| &node.value) {
        None => false,
        Some(Value::Truth(private)) => *private,
        Some(value) => return Err(format!("`{key}.private` is {value}; it must be true or false")),
    };
    let (name_key, node, is_url) = match (table.get("host"), table.get("url")) {
        (Some(node), None) => ("host", node, false),
        (None, Some(node)) => ("url", node, true),
        _ => return Err(format!("`{key}` must have either a `host` or a `url`")),
    };
    let name_key = format!("{key}.{name_key}");
    let Value::Text { text, .. } = &node.value else {
        return Err(format!("`{name_key}` is {}; it must be a text in quotes", node.value));
    };
    let grant = if is_url { url(text) } else { name(text, private) };
    let grant = grant.map_err(|reason| format!("`{name_key}` is {}; it {reason}", node.value))?;
    let headers = table.get("headers").map(|node| headers(&format!("{key}.headers"), node)).transpose()?;
    Ok(HttpGrant { private, headers: headers.unwrap_or_default(), ..grant })
}

/// Reads a plain name: `https` on port 443. A failure is the sentence's end.
fn name(text: &str, private: bool) -> Result<HttpGrant, String> {
    const AS_URL: &str =
        "must be a host's name; anything else is written as a URL: \"https://api.example.com:8443/v1\"";
    if text.is_empty() || text.contains([':', '/', '?', '#', '@']) {
        return Err(AS_URL.into());
    }
    let grant = endpoint(text, &format!("https://{text}"))?;
    match &grant.host {
        HostPattern::Exact(Host::Address(address)) => {
            Err(format!("is an address; write it as a URL: \"https://{address}\""))
        }
        // What is below a name without a dot is half of the internet, or a network of the operator's own.
        HostPattern::Below(name) if !name.contains('.') && !private => {
            Err("must name more than one part after `*.`: \"*.example.com\"".into())
        }
        _ => Ok(grant),
    }
}

/// Reads a URL. A failure is the sentence's end.
fn url(text: &str) -> Result<HttpGrant, String> {
    if text.contains(['?', '#']) {
        return Err("must end with the path: a query cannot be granted".into());
    }
    let grant = endpoint(text, text)?;
    match &grant.host {
        HostPattern::Exact(Host::Address(address)) if Reach::of(*address) == Reach::Nowhere => {
            Err("must not be an address that no host has".into())
        }
        HostPattern::Below(name) if !name.contains('.') => {
            Err("must name more than one part after `*.`: \"https://*.example.com\"".into())
        }
        _ => Ok(grant),
    }
}

fn endpoint(written: &str, url: &str) -> Result<HttpGrant, String> {
    const STAR: &str = "may have `*` only as the whole first part of a name: \"*.example.com\"";
    let (below, plain) = match url.split_once("://*.") {
        Some((scheme, rest)) => (true, format!("{scheme}://{rest}")),
        None => (false, url.to_owned()),
    };
    if plain.contains('*') {
        return Err(STAR.into());
    }
    let target = Target::parse(&plain)?;
    let path = match target.path() {
        "/" => String::new(),
        path => path.to_owned(),
    };
    let host = match (below, target.host) {
        (false, host) => HostPattern::Exact(host),
        (true, Host::Name(name)) => HostPattern::Below(name),
        (true, Host::Address(_)) => return Err(STAR.into()),
    };
    let (secure, port) = (target.secure, target.port);
    Ok(HttpGrant { written: written.to_owned(), secure, host, port, path, private: false, headers: Vec::new() })
}

fn headers(key: &str, node: &Node) -> Result<Vec<(HeaderName, Secret)>, String> {
    let Value::Table(table) = &node.value else {
        return Err(format!("`{key}` is {}; it must be a table: {{ authorization = \"…\" }}", node.value.kind()));
    };
    table.iter().map(|(name, node)| header(&dotted(key, name), name, &node.value)).collect()
}

fn header(key: &str, name: &str, value: &Value) -> Result<(HeaderName, Secret), String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{key}` is no name for a header"))?;
    if request::is_hosts_own(&name) {
        return Err(format!("`{key}` cannot be set: the host writes this header itself"));
    }
    match value {
        Value::Text { text, .. } if HeaderValue::from_str(text).is_ok() => Ok((name, Secret::from(text.as_str()))),
        Value::Text { .. } => Err(format!("`{key}` has a line break or another character that no header may have")),
        value => Err(format!("`{key}` is {}; it must be a text in quotes", value.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{error, load};
    use super::*;

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n[plugins.a.grants]\n";

    fn grants(http: &str) -> Vec<HttpGrant> {
        let config = load(&format!("{ACCOUNT}http = {http}\n"));
        config.plugin(&config.accounts[0], "a", false).grants.http
    }

    /// The problem of line 4, without the line and what it is about.
    fn wrong(http: &str) -> String {
        error(&format!("{ACCOUNT}http = {http}\n")).replace("aviary.toml:4: `plugins.a.grants.http", "`http")
    }

    fn is_granted(http: &str, url: &str) -> bool {
        let target = Target::parse(url).unwrap_or_else(|error| panic!("{url} {error}"));
        HttpGrant::of(&grants(http), &target).is_some()
    }

    #[test]
    fn nothing_is_granted_by_default() {
        assert!(grants("[]").is_empty());
        let config = load("[accounts.main]\ntoken = \"abc\"\n");
        assert!(config.plugin(&config.accounts[0], "a", false).grants.http.is_empty());
    }

    #[test]
    fn a_grant_opens_its_scheme_host_port_and_path_and_nothing_else() {
        for (grant, granted, denied) in [
            (
                "\"api.example.com\"",
                "https://api.example.com https://API.example.com./x?y https://api.example.com:443/",
                "http://api.example.com https://api.example.com:8443 https://example.com https://x.api.example.com \
                 https://api.example.com.evil.com https://xapi.example.com",
            ),
            (
                "\"*.example.com\"",
                "https://a.example.com https://a.b.example.com",
                "https://example.com https://aexample.com https://a.example.com.evil.com http://a.example.com",
            ),
            ("\"例子.中国\"", "https://xn--fsqu00a.xn--fiqs8s https://例子.中国/a", "https://例子.公司"),
            ("\"http://llm:11434\"", "http://llm:11434/x", "http://llm https://llm:11434 http://llm:11435"),
            (
                "\"http://in:8080/v1\"",
                "http://in:8080/v1 http://in:8080/v1/ http://in:8080/v1/x?y=/../ http://in:8080/v1/a%2fb \
                 http://in:8080/v1/x/../y",
                "http://in:8080/ http://in:8080/v12 http://in:8080/v1/../admin http://in:8080/v1/%2e%2e/admin \
                 http://in:8080/v1/..%2fadmin http://in:8080/v1/%2e%2e%2fadmin http://in:8080/v1/..%5cadmin \
                 http://in:8080/v1/%252e%252e/admin http://in:8080/v1/..;a/admin http://in:8080/v1/%25252e%25252e/x",
            ),
            ("\"http://in/v1/\"", "http://in/v1/ http://in/v1/x", "http://in/v1 http://in/v1x"),
            ("\"https://*.example.com:8443/v1\"", "https://a.example.com:8443/v1/x", "https://a.example.com/v1/x"),
            ("\"http://127.0.0.1:1\"", "http://127.0.0.1:1/", "http://localhost:1/ http://[::ffff:127.0.0.1]:1/"),
            ("\"http://[::1]:1\"", "http://[0:0::1]:1/", "http://127.0.0.1:1/"),
            ("{ url = \"http://llm\", private = true }", "http://llm/", "https://llm/"),
        ] {
            let grant = format!("[{grant}]");
            granted.split_whitespace().for_each(|url| assert!(is_granted(&grant, url), "{grant} denies {url}"));
            denied.split_whitespace().for_each(|url| assert!(!is_granted(&grant, url), "{grant} grants {url}"));
        }
    }

    #[test]
    fn the_narrowest_grant_that_fits_counts() {
        let grants = grants(
            "[\"*.example.com\", { host = \"*.api.example.com\", private = true }, \"https://api.example.com/v1\", \
             { host = \"api.example.com\", headers = { X-Key = \"secret7\" } }]",
        );
        let of = |url| HttpGrant::of(&grants, &Target::parse(url).unwrap()).map(|grant| grant.written.as_str());
        assert_eq!(of("https://a.example.com"), Some("*.example.com"));
        assert_eq!(of("https://a.api.example.com"), Some("*.api.example.com"));
        assert_eq!(of("https://api.example.com/"), Some("api.example.com"));
        assert_eq!(of("https://api.example.com/v1/x"), Some("https://api.example.com/v1"));
    }

    #[test]
    fn headers_are_secrets_with_names_in_lower_case() {
        let grants = grants("[{ host = \"a.com\", headers = { Authorization = \"Bearer secret7\" } }]");
        assert_eq!(grants[0].headers[0].0, "authorization");
        assert_eq!(grants[0].headers[0].1.expose(), "Bearer secret7");
        assert!(!format!("{grants:?}").contains("secret7"));
    }

    #[test]
    fn an_accounts_table_replaces_the_list() {
        let config = load(
            "[accounts.main]\ntoken = \"abc\"\n[plugins.a.grants]\nhttp = [\"a.com\"]\n\
             [accounts.main.plugins.a.grants]\nhttp = []\n",
        );
        assert!(config.plugin(&config.accounts[0], "a", false).grants.http.is_empty());
    }

    #[test]
    fn a_grant_that_is_none_says_what_it_must_be() {
        for (grant, problem) in [
            ("\"a.com\"", "`http` is \"a.com\"; it must be a list: [\"api.example.com\"]"),
            ("[5]", "`http[0]` is 5; it must be a host's name, a URL, or a table: { host = \"…\" }"),
            (
                "[\"*\"]",
                "`http[0]` is \"*\"; it may have `*` only as the whole first part of a name: \"*.example.com\"",
            ),
            (
                "[\"a.*.com\"]",
                "`http[0]` is \"a.*.com\"; it may have `*` only as the whole first part of a name: \"*.example.com\"",
            ),
            ("[\"*.com\"]", "`http[0]` is \"*.com\"; it must name more than one part after `*.`: \"*.example.com\""),
            (
                "[\"a.com:8443\"]",
                "`http[0]` is \"a.com:8443\"; it must be a host's name; anything else is written as a URL: \
                 \"https://api.example.com:8443/v1\"",
            ),
            ("[\"10.0.0.1\"]", "`http[0]` is \"10.0.0.1\"; it is an address; write it as a URL: \"https://10.0.0.1\""),
            (
                "[\"http://0x7f.1\"]",
                "`http[0]` is \"http://0x7f.1\"; it writes an address in an unusual way; write 127.0.0.1",
            ),
            ("[\"http://0.0.0.0\"]", "`http[0]` is \"http://0.0.0.0\"; it must not be an address that no host has"),
            ("[\"http://a/?b\"]", "`http[0]` is \"http://a/?b\"; it must end with the path: a query cannot be granted"),
            ("[\"ftp://a\"]", "`http[0]` is \"ftp://a\"; it begins with neither `https://` nor `http://`"),
            ("[{ headers = {} }]", "`http[0]` must have either a `host` or a `url`"),
            ("[{ host = \"a\", url = \"http://a\" }]", "`http[0]` must have either a `host` or a `url`"),
            ("[{ host = 5 }]", "`http[0].host` is 5; it must be a text in quotes"),
            ("[{ host = \"a\", private = \"yes\" }]", "`http[0].private` is \"yes\"; it must be true or false"),
        ] {
            assert_eq!(wrong(grant), problem);
        }
        assert_eq!(
            error(&format!("{ACCOUNT}http = [{{ hots = \"a\" }}]")),
            "aviary.toml:4: unknown key `plugins.a.grants.http[0].hots`; there are `headers`, `host`, `private`, `url`"
        );
        assert!(error(&format!("{ACCOUNT}http = [{}]", "\"a.com\",".repeat(1_001))).contains("it may have 1000"));
    }

    #[test]
    fn no_mistake_in_a_header_shows_its_value() {
        for (headers, problem) in [
            ("\"secret7\"", "`http[0].headers` is a text; it must be a table: { authorization = \"…\" }"),
            ("{ key = 777 }", "`http[0].headers.key` is a number; it must be a text in quotes"),
            (
                "{ key = \"secret7\\n\" }",
                "`http[0].headers.key` has a line break or another character that no header may have",
            ),
            ("{ \"a b\" = \"secret7\" }", "`http[0].headers.\"a b\"` is no name for a header"),
            ("{ Host = \"secret7\" }", "`http[0].headers.Host` cannot be set: the host writes this header itself"),
        ] {
            assert_eq!(wrong(&format!("[{{ host = \"a\", headers = {headers} }}]")), problem);
        }
    }
}
