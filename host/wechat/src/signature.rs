//! Step 2: is this request WeChat's?
//!
//! Every request carries `signature`, which covers the token, the timestamp and the nonce, but never
//! the body. A push in an encrypted mode also carries `msg_signature`, which covers the ciphertext;
//! there it is the one to check. See
//! <https://developers.weixin.qq.com/doc/service/guide/dev/push/>.
//!
//! The parts are joined without a separator, so `("12", "3")` and `("1", "23")` have one signature.
//! That is WeChat's scheme; the caller narrows it by taking a timestamp only if it is a number.

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

/// A SHA-1 digest in lower-case hexadecimal, as WeChat writes it.
type HexDigest = [u8; 40];

/// Returns the `signature` of a request.
///
/// ```
/// use aviary_wechat::signature::sign;
///
/// assert_eq!(
///     sign("AAAAA", "1714036504", "1514711492"),
///     "f464b24fc39322e44b38aa78f5edd27bd1441696",
/// );
/// ```
pub fn sign(token: &str, timestamp: &str, nonce: &str) -> String {
    to_string(hash_sorted([token, timestamp, nonce]))
}

/// Tells whether `signature` is the one of this request, in constant time.
///
/// WeChat writes lower-case hexadecimal; anything else is not its signature.
///
/// ```
/// use aviary_wechat::signature::verify;
///
/// let signature = "f464b24fc39322e44b38aa78f5edd27bd1441696";
/// assert!(verify("AAAAA", "1714036504", "1514711492", signature));
/// assert!(!verify("BBBBB", "1714036504", "1514711492", signature));
/// ```
pub fn verify(token: &str, timestamp: &str, nonce: &str, signature: &str) -> bool {
    is_same(hash_sorted([token, timestamp, nonce]), signature)
}

/// Returns the `msg_signature` of an encrypted push or reply.
pub fn sign_message(token: &str, timestamp: &str, nonce: &str, encrypt: &str) -> String {
    to_string(hash_sorted([token, timestamp, nonce, encrypt]))
}

/// Tells whether `msg_signature` is the one of this ciphertext, in constant time.
pub fn verify_message(token: &str, timestamp: &str, nonce: &str, encrypt: &str, msg_signature: &str) -> bool {
    let digest = hash_sorted([token, timestamp, nonce, encrypt]);
    is_same(digest, msg_signature)
}

/// Returns the signature that `wx.config` of the JS-SDK wants for a page.
///
/// The fragment of `url` is not part of what is signed. See
/// <https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/JS-SDK.html>, appendix 1.
pub fn sign_jssdk(jsapi_ticket: &str, noncestr: &str, timestamp: &str, url: &str) -> String {
    let page = url.split_once('#').map_or(url, |(page, _fragment)| page);
    to_string(hash(["jsapi_ticket=", jsapi_ticket, "&noncestr=", noncestr, "&timestamp=", timestamp, "&url=", page]))
}

fn hash_sorted<const N: usize>(mut parts: [&str; N]) -> HexDigest {
    // `str` compares by bytes, which is WeChat's order.
    parts.sort_unstable();
    hash(parts)
}

fn hash<const N: usize>(parts: [&str; N]) -> HexDigest {
    let mut sha1 = Sha1::new();
    for part in parts {
        sha1.update(part);
    }
    hex(&sha1.finalize())
}

fn hex(digest: &[u8]) -> HexDigest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 40];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    hex
}

fn to_string(digest: HexDigest) -> String {
    digest.into_iter().map(char::from).collect()
}

fn is_same(digest: HexDigest, signature: &str) -> bool {
    digest.ct_eq(signature.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "f464b24fc39322e44b38aa78f5edd27bd1441696";

    #[test]
    fn every_part_is_covered() {
        assert!(verify("AAAAA", "1714036504", "1514711492", GOOD));
        assert!(!verify("AAAAB", "1714036504", "1514711492", GOOD));
        assert!(!verify("AAAAA", "1714036505", "1514711492", GOOD));
        assert!(!verify("AAAAA", "1714036504", "1514711493", GOOD));
    }

    #[test]
    fn a_signature_of_another_length_or_case_is_refused() {
        let upper = GOOD.to_uppercase();
        let longer = format!("{GOOD}0");
        for signature in ["", &GOOD[..39], &longer, &upper, "签名", "\0"] {
            assert!(!verify("AAAAA", "1714036504", "1514711492", signature), "{signature:?}");
        }
    }

    #[test]
    fn a_message_signature_covers_the_ciphertext() {
        let signature = sign_message("AAAAA", "1", "2", "abc=");
        assert!(verify_message("AAAAA", "1", "2", "abc=", &signature));
        assert!(!verify_message("AAAAA", "1", "2", "abd=", &signature));
    }

    #[test]
    fn a_request_signature_is_no_message_signature() {
        assert!(!verify_message("AAAAA", "1714036504", "1514711492", "x", GOOD));
    }

    #[test]
    fn the_parts_are_sorted_by_their_bytes() {
        // As characters of a locale, `a` would come before `B`.
        assert_eq!(sign("a", "B", "c"), sign("B", "a", "c"));
        assert_eq!(sign("c", "b", "a"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
