//! Takes a grant's headers out of what comes back: an API that echoes a request must not hand the key to the guest.
//!
//! This holds against echoes and error messages, not against the granted host itself: it knows the key and can send it
//! in any disguise.

use std::sync::{Arc, LazyLock};

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
    /// Looks for the values of these headers, whole and in their parts, and as URLs, JSON and HTML write them.
    pub(super) fn of(headers: &[(HeaderName, Secret)]) -> Self {
        let secret = headers.iter().filter(|(name, _)| !NO_SECRETS.contains(&name.as_str()));
        Self::of_secrets(secret.map(|(_, value)| value))
    }

    /// Looks for these, in the same ways.
    pub(crate) fn of_secrets<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut secrets: Vec<Vec<u8>> = secrets.flat_map(|secret| parts(secret.expose())).collect();
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
            let found = self.secrets.iter().map(|secret| spelled(secret, rest));
            let mut found = found.filter(|found| *found != Spelled::Not && (*found != Spelled::Beginning || !end));
            match found.next() {
                Some(Spelled::Whole(bytes)) => {
                    clean.extend_from_slice(REDACTED);
                    index += bytes;
                }
                Some(_) => break,
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

/// A value and its parts: words (`Bearer KEY`), what stands behind `=` (`session=KEY; theme=dark`), and what `Basic` packs.
fn parts(value: &str) -> Vec<Vec<u8>> {
    let words: Vec<_> = value.split(|char: char| char.is_whitespace() || matches!(char, ';' | ',')).collect();
    let values = words.iter().filter_map(|word| word.split_once('=')).map(|(_, value)| value.trim_matches('"'));
    let words: Vec<_> = values.chain(words.iter().copied()).collect();
    let unpadded = words.iter().map(|word| word.trim_end_matches('='));
    let basic = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let basic = basic.and_then(|(_, credentials)| BASE64_STANDARD.decode(credentials.trim()).ok()).unwrap_or_default();
    let password = basic.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default().to_vec();
    let texts = words.iter().copied().chain(unpadded).chain([value]);
    texts.map(|text| text.as_bytes().to_vec()).chain([password, basic]).collect()
}

/// How far a text spells a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelled {
    /// The whole of it, in so many bytes.
    Whole(usize),
    /// All that is here of the text could be its beginning.
    Beginning,
    Not,
}

/// How far a text begins with a secret, each of its bytes as it is, or escaped as URLs, JSON or HTML do.
fn spelled(secret: &[u8], text: &[u8]) -> Spelled {
    // Most texts end here. Letters and digits are escaped nowhere.
    let (Some(byte), Some(first)) = (secret.first(), text.first()) else { return Spelled::Not };
    if first != byte && (byte.is_ascii_alphanumeric() || !b"%\\&+".contains(first)) {
        return Spelled::Not;
    }
    // Where the bytes so far may end: at one place, unless the secret itself has `\\`, `%` or `&` in it.
    let (mut ends, mut next, mut is_cut) = (vec![0], Vec::new(), false);
    for byte in secret {
        for end in ends.drain(..) {
            for spelling in &SPELLINGS[usize::from(*byte)] {
                match begins(&text[end..], spelling, byte.is_ascii_alphanumeric()) {
                    Spelled::Whole(bytes) if !next.contains(&(end + bytes)) => next.push(end + bytes),
                    Spelled::Beginning => is_cut = true,
                    _ => (),
                }
            }
        }
        std::mem::swap(&mut ends, &mut next);
        if ends.is_empty() {
            break;
        }
    }
    match ends.into_iter().max() {
        Some(end) => Spelled::Whole(end),
        None if is_cut => Spelled::Beginning,
        None => Spelled::Not,
    }
}

/// How far a text begins with the spelling of a byte. The digits of an escape are in any case.
fn begins(text: &[u8], spelling: &[u8], is_exact: bool) -> Spelled {
    let bytes = text.len().min(spelling.len());
    let (text, beginning) = (&text[..bytes], &spelling[..bytes]);
    match if is_exact { text == beginning } else { text.eq_ignore_ascii_case(beginning) } {
        true if bytes == spelling.len() => Spelled::Whole(bytes),
        true => Spelled::Beginning,
        false => Spelled::Not,
    }
}

/// How each byte may be written.
static SPELLINGS: LazyLock<Vec<Vec<Vec<u8>>>> = LazyLock::new(|| (0..=u8::MAX).map(spellings).collect());

fn spellings(byte: u8) -> Vec<Vec<u8>> {
    let mut spellings = vec![vec![byte]];
    if byte.is_ascii_alphanumeric() {
        return spellings;
    }
    let escaped = [
        format!("%{byte:02x}"),
        format!("\\u{byte:04x}"),
        format!("\\x{byte:02x}"),
        format!("&#x{byte:x};"),
        format!("&#x{byte:02x};"),
        format!("&#{byte};"),
        format!("&#{byte:03};"),
    ];
    spellings.extend(escaped.map(String::into_bytes));
    let named = match byte {
        b'&' => "&amp;",
        b'<' => "&lt;",
        b'>' => "&gt;",
        b'"' => "&quot;",
        b'\'' => "&apos;",
        b' ' => "+",
        _ => "",
    };
    spellings.extend((!named.is_empty()).then(|| named.into()));
    spellings.extend(byte.is_ascii_punctuation().then(|| vec![b'\\', byte]));
    spellings
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
            // As others write it: in small letters, without its padding, for scripts and for pages.
            "key=sk%2fsecret%2b7%3d&a",
            "sk/secret+7 sk%2Fsecret+7%3d",
            "\"sk\\u002Fsecret\\u002b7\\u003d\"",
            "'sk\\x2fsecret\\x2b7='",
            "<b>sk&#x2F;secret&#43;7&#061;</b>",
        ] {
            let redacted = redactor.text(echo);
            assert!(redacted.contains("[redacted]") && !redacted.contains("secret"), "{redacted}");
        }
        assert_eq!(redactor.text("Bearer of news"), "Bearer of news");
    }

    #[test]
    fn a_key_among_others_is_removed_alone_too() {
        let redactor = redactor("cookie", "theme=dark; session=\"s&secret'7\",k2=secret\\\"8=");
        for echo in [
            "{\"session\":\"s&secret'7\"}",
            "{\"session\":\"s\\u0026secret\\u00277\"}",
            "<i>s&amp;secret&#39;7</i>",
            "<i>s&#38;secret&apos;7</i>",
            "secret\\\"8",
            "{\"k2\":\"secret\\\\\\\"8=\"}",
            "secret%5C%228",
        ] {
            let redacted = redactor.text(echo);
            assert!(redacted.contains("[redacted]") && !redacted.contains("secret"), "{redacted}");
        }
        assert_eq!(
            redactor.text("the theme is dark, the session's name is session"),
            "the theme is dark, the session's name is session"
        );
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
    fn an_escaped_key_that_comes_in_parts_is_removed() {
        let redactor = redactor("x-api-key", "\\\\secret/7&8");
        let text = br"a \\secret%2f7&amp;8 b \\\\secret\u002F7&#x26;8 c \\secret%2";
        for size in 1..text.len() {
            let (mut waiting, mut clean) = (Vec::new(), Vec::new());
            for part in text.chunks(size) {
                waiting.extend_from_slice(part);
                clean.extend(redactor.split_off(&mut waiting, false));
            }
            clean.extend(redactor.split_off(&mut waiting, true));
            assert_eq!(String::from_utf8(clean).unwrap(), r"a [redacted] b [redacted] c \\secret%2", "{size}");
        }
    }

    #[test]
    fn short_values_and_those_that_let_nobody_in_are_kept() {
        assert!(!redactor("x-version", "2").is_needed());
        assert!(!redactor("accept", "application/json").is_needed());
        assert_eq!(redactor("x-version", "2").header(HeaderValue::from_static("12")), "12");
    }
}
