//! What is asked for: a method, a URL and headers that no server can take for anything else.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method,
    body::Body,
    header::{HeaderName, HeaderValue},
};

use super::{NoAnswer, target::Target};

/// The methods that guests may use. `CONNECT` would make a tunnel of the connection, and `TRACE` sends the keys back.
const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// The largest header that a guest makes, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

/// The headers that say where a message ends, where it goes or what becomes of the connection: the host's to write.
const HOSTS_OWN: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
];

/// A body on its way out. Its errors are the guest's own, or ours.
pub type OutgoingBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A request that is well-formed; whether it is granted is another question.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub target: Target,
    pub headers: HeaderMap,
    pub body: OutgoingBody,
    /// The body's length in bytes, if it is known; what differs from it breaks the exchange off.
    pub length: Option<u64>,
}

/// Whether a header is the host's to write.
pub fn is_hosts_own(name: &HeaderName) -> bool {
    HOSTS_OWN.contains(&name.as_str())
}

impl Request {
    /// Checks a method, a URL and headers.
    ///
    /// # Errors
    ///
    /// [`NoAnswer::Invalid`], with a text that quotes neither the URL nor a header's value.
    pub fn new(method: &str, url: &str, headers: HeaderMap, body: OutgoingBody) -> Result<Self, NoAnswer> {
        let method = METHODS.into_iter().find(|known| known == method).ok_or_else(|| {
            let known: Vec<_> = METHODS.iter().map(Method::as_str).collect();
            NoAnswer::Invalid(format!("the method is none of {}", known.join(", ")))
        })?;
        let target = Target::parse(url).map_err(|reason| NoAnswer::Invalid(format!("the URL {reason}")))?;
        match headers.keys().find(|name| is_hosts_own(name)) {
            None => Ok(Self { method, target, headers, length: body.size_hint().exact(), body }),
            Some(name) => Err(NoAnswer::Invalid(format!("the header `{name}` is the host's to write"))),
        }
    }
}

/// Reads headers that a guest gave as texts.
///
/// # Errors
///
/// [`NoAnswer::Invalid`] for what is no header, without its value, and for too much of it.
pub fn headers(given: Vec<(String, String)>) -> Result<HeaderMap, NoAnswer> {
    if given.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > HEADER_BYTES_MAX {
        return Err(NoAnswer::Invalid(format!("the headers have more than {HEADER_BYTES_MAX} bytes")));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let wrong = |what: &str| NoAnswer::Invalid(format!("the header {name:?} has {what}"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("no name that a header may have"))?;
        let value = HeaderValue::from_str(&value).map_err(|_| wrong("a character that no header may have"))?;
        let full = headers.try_append(name, value);
        full.map_err(|_| NoAnswer::Invalid("there are too many headers".into()))?;
    }
    Ok(headers)
}

/// A body that is all here.
pub fn whole(body: Option<Vec<u8>>) -> OutgoingBody {
    of_bytes(body.unwrap_or_default().into())
}

/// The same, of bytes that others may hold, too.
pub fn of_bytes(body: Bytes) -> OutgoingBody {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// Takes one layer of percent-encoding off a text; what is not UTF-8 behind it becomes `U+FFFD`.
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let hex = |at: usize| bytes.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(index + 1), hex(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high << 4 | low).unwrap_or_default());
                index += 3;
            }
            _ => {
                decoded.push(*byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, url: &str, given: &[(&str, &str)]) -> Result<Request, String> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = headers(given).and_then(|headers| Request::new(method, url, headers, whole(None)));
        request.map_err(|error| error.to_string())
    }

    #[test]
    fn a_method_is_one_of_a_few_in_capitals() {
        for method in METHODS {
            assert!(request(method.as_str(), "https://a/", &[]).is_ok());
        }
        for method in ["", "get", "CONNECT", "TRACE", "GET ", "GET / HTTP/1.1\r\nHost: evil\r\n\r\n", "PROPFIND", "取"]
        {
            let error = request(method, "https://a/", &[]).unwrap_err();
            assert_eq!(error, "the method is none of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS", "{method}");
        }
    }

    #[test]
    fn a_guest_cannot_write_what_frames_a_request_or_names_its_host() {
        for name in HOSTS_OWN {
            let error = request("GET", "https://a/", &[(&name.to_uppercase(), "secret7")]).unwrap_err();
            assert_eq!(error, format!("the header `{name}` is the host's to write"));
        }
    }

    #[test]
    fn a_header_cannot_break_out_of_its_line() {
        for (name, value) in
            [("a", "b\r\nhost: evil"), ("a", "b\0"), ("a\r\nb", "c"), ("a b", "c"), ("", "c"), ("a:", "c")]
        {
            let error = request("GET", "https://a/", &[(name, value)]).unwrap_err();
            assert!(error.starts_with("the header ") && !error.contains("evil"), "{error}");
        }
        let request = request("GET", "https://a/", &[("X-A", "1"), ("x-a", "2"), ("y", "tab\there")]).unwrap();
        assert_eq!(request.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn the_headers_of_a_request_are_bounded_all_together() {
        let half = "x".repeat(HEADER_BYTES_MAX / 2 - 1);
        assert!(request("GET", "https://a/", &[("a", &half), ("b", &half)]).is_ok());
        let error = request("GET", "https://a/", &[("a", &half), ("bc", &half)]).unwrap_err();
        assert_eq!(error, "the headers have more than 16384 bytes");
    }

    #[test]
    fn percent_encoding_is_taken_off_one_layer_at_a_time() {
        for (text, decoded) in
            [("a%2Fb", "a/b"), ("%252e", "%2e"), ("%", "%"), ("%2", "%2"), ("%zz", "%zz"), ("é", "é")]
        {
            assert_eq!(percent_decoded(text), decoded);
        }
    }
}
