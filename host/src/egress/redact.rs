//! Takes a grant's headers out of what comes back: an API that echoes a request must not hand the key to the guest.
//!
//! This holds against echoes and error messages, not against the granted host itself: it knows the key and can send it
//! in any disguise.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::{HeaderName, HeaderValue};

use crate::secret::Secret;

/// What stands in a secret's place.
const REDACTED: &[u8] = b"[redacted]";

/// Shorter ones are no secrets: they would be found everywhere.
const SECRET_BYTES_MIN: usize = 8;

/// Headers that an operator adds for other reasons than to be let in. Their values are no secrets.
const NO_SECRETS: [&str; 5] = ["accept", "accept-language", "content-type", "user-agent", "origin"];

/// Finds secrets in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor {
    /// The longest first.
    secrets: Arc<[Vec<u8>]>,
}

impl Redactor {
    /// Looks for the values of these headers, whole and in their parts (`Bearer KEY`), and as URLs, JSON and `Basic`
    /// write them.
    pub(super) fn of(headers: &[(HeaderName, Secret)]) -> Self {
        let secret = headers.iter().filter(|(name, _)| !NO_SECRETS.contains(&name.as_str()));
        Self::of_secrets(secret.map(|(_, value)| value))
    }

    /// Looks for these, in the same ways.
    pub(crate) fn of_secrets<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut secrets: Vec<Vec<u8>> = secrets.flat_map(|secret| forms(secret.expose())).collect();
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        secrets.dedup();
        Self { secrets: secrets.into() }
    }

    /// Whether there is anything to look for.
    pub(super) fn is_needed(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Redacts bytes that are complete.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut rest = bytes.to_vec();
        self.split_off(&mut rest, true)
    }

    /// Redacts a text of ours that quotes the other side.
    pub(super) fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// Redacts a header's value.
    pub(super) fn header(&self, value: HeaderValue) -> HeaderValue {
        match self.is_needed() {
            true => HeaderValue::from_bytes(&self.bytes(value.as_bytes())).unwrap_or(HeaderValue::from_static("")),
            false => value,
        }
    }

    /// Takes from `waiting` what can be handed on: all of it at the `end`, else what cannot be the beginning of a secret.
    pub(super) fn split_off(&self, waiting: &mut Vec<u8>, end: bool) -> Vec<u8> {
        let mut clean = Vec::with_capacity(waiting.len());
        let mut index = 0;
        while index < waiting.len() {
            let rest = &waiting[index..];
            if !end && self.secrets.iter().any(|secret| secret.len() > rest.len() && secret.starts_with(rest)) {
                break;
            }
            match self.secrets.iter().find(|secret| rest.starts_with(secret)) {
                Some(secret) => {
                    clean.extend_from_slice(REDACTED);
                    index += secret.len();
                }
                None => {
                    clean.push(rest[0]);
                    index += 1;
                }
            }
        }
        waiting.drain(..index);
        clean
    }
}

/// The ways in which a value may come back.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let parts = || value.split_whitespace().chain([value]);
    let basic = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let basic = basic.and_then(|(_, credentials)| BASE64_STANDARD.decode(credentials.trim()).ok());
    let basic = basic.map(|credentials| String::from_utf8_lossy(&credentials).into_owned()).unwrap_or_default();
    let password = basic.split_once(':').map_or("", |(_, password)| password);
    let written = |part: &str| {
        let in_url: String = form_urlencoded::byte_serialize(part.as_bytes()).collect();
        let in_json = part.replace('\\', "\\\\").replace('"', "\\\"");
        [part.to_owned(), in_url.replace('+', "%20"), in_url, in_json.replace('/', "\\/"), in_json]
    };
    let all = parts().chain([&*basic, password]);
    all.flat_map(written).map(String::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(name: &'static str, value: &str) -> Redactor {
        Redactor::of(&[(HeaderName::from_static(name), value.into())])
    }

    #[test]
    fn a_key_is_removed_however_an_echo_writes_it() {
        let redactor = redactor("authorization", "Bearer sk/secret+7=");
        for echo in [
            "Bearer sk/secret+7=",
            "sk/secret+7=",
            "{\"auth\":\"Bearer sk\\/secret+7=\"}",
            "key=sk%2Fsecret%2B7%3D&a",
            "Bearer%20sk%2Fsecret%2B7%3D",
            "sk/sk/secret+7=7=",
        ] {
            let redacted = redactor.text(echo);
            assert!(redacted.contains("[redacted]") && !redacted.contains("secret"), "{redacted}");
        }
        assert_eq!(redactor.text("Bearer of news"), "Bearer of news");
    }

    #[test]
    fn a_basic_password_is_removed_decoded_too() {
        let redactor = redactor("authorization", "Basic dXNlcjpwYXNzd29yZDc=");
        assert_eq!(redactor.text("dXNlcjpwYXNzd29yZDc= user:password7 password7"), "[redacted] [redacted] [redacted]");
    }

    #[test]
    fn a_key_that_comes_in_parts_is_removed() {
        let redactor = redactor("x-api-key", "secret7secret8");
        let text = b"a secret7secret8 b secret7secret7secret8 secret7";
        for size in 1..text.len() {
            let (mut waiting, mut clean) = (Vec::new(), Vec::new());
            for part in text.chunks(size) {
                waiting.extend_from_slice(part);
                clean.extend(redactor.split_off(&mut waiting, false));
                assert!(waiting.len() < 14);
            }
            clean.extend(redactor.split_off(&mut waiting, true));
            assert_eq!(String::from_utf8(clean).unwrap(), "a [redacted] b secret7[redacted] secret7", "{size}");
        }
    }

    #[test]
    fn short_values_and_those_that_let_nobody_in_are_kept() {
        assert!(!redactor("x-version", "2").is_needed());
        assert!(!redactor("accept", "application/json").is_needed());
        assert_eq!(redactor("x-version", "2").header(HeaderValue::from_static("12")), "12");
    }
}
