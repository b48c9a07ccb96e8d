//! A visitor's browser, as far as the wire shows it: it keeps cookies, and sends what browsers send.

use std::collections::BTreeMap;

use crate::http::{Connection, Response};

/// The account's domain.
pub const DOMAIN: &str = "shop.example.com";

/// A browser with cookies of its own.
#[derive(Debug, Default)]
pub struct Visitor {
    origin: String,
    pub cookies: BTreeMap<String, String>,
    /// All that it ever got: what must stay in the host is not in it.
    pub seen: String,
}

impl Visitor {
    /// A browser without cookies that reaches the host at `http://127.0.0.1:PORT`, as the server in front of it does.
    pub fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), ..Self::default() }
    }

    /// Follows a link.
    pub async fn get(&mut self, target: &str) -> Response {
        self.send("GET", target, &[], "").await
    }

    /// Sends a form of this page's own.
    pub async fn post(&mut self, target: &str, body: &str) -> Response {
        let origin = format!("https://{DOMAIN}");
        let form = "application/x-www-form-urlencoded";
        self.send("POST", target, &[("Origin", &origin), ("Content-Type", form)], body).await
    }

    /// Sends a request with headers of its own; a `Host` replaces the usual one.
    pub async fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {DOMAIN}\r\n");
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            head += &format!("Cookie: {}\r\n", pairs.join("; "));
        }
        head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        let mut connection = Connection::open(&self.origin).await;
        connection.send(format!("{head}\r\n{body}")).await;
        let response = connection.answer().await;
        self.keep(&response);
        response
    }

    fn keep(&mut self, response: &Response) {
        self.seen += &format!("{:?}{}", response.headers, String::from_utf8_lossy(&response.body));
        let Some((pair, attributes)) = response.header("set-cookie").split_once(';') else { return };
        assert!(attributes.contains("HttpOnly; Secure; SameSite=Lax"), "{attributes}");
        let (name, value) = pair.split_once('=').expect("a cookie has a name");
        assert!(name.starts_with("__Host-") && attributes.contains("Path=/;") && !attributes.contains("Domain"));
        match value {
            "" => self.cookies.remove(name),
            value => self.cookies.insert(name.to_owned(), value.to_owned()),
        };
    }
}
