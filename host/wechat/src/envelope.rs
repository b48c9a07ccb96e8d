//! The XML around a ciphertext.
//!
//! A push in safe mode is `<xml><ToUserName/><Encrypt/></xml>`; in compatible mode `Encrypt` follows the
//! plaintext. The encrypted answer has `Encrypt`, `MsgSignature`, `TimeStamp` and `Nonce`. The word
//! `success` and the empty answer are never put in an envelope.
//!
//! [`ciphertext`] and [`seal`] are the server's side; [`push`] and [`open`] are WeChat's, for whoever
//! plays it.

use crate::{
    crypt::{self, AesKey, DecryptError},
    signature,
    xml::{self, Element, ParseError, Writer},
};

/// Returns the ciphertext of a push, if it has one.
pub fn ciphertext(push: &Element) -> Option<&str> {
    push.text_of("Encrypt")
}

/// Encrypts and signs a reply.
///
/// `timestamp` is our own clock's, in seconds: WeChat refuses milliseconds. `nonce` may be the
/// request's. `random` must be new for every reply.
pub fn seal(
    key: &AesKey,
    app_id: &str,
    token: &str,
    timestamp: u64,
    nonce: &str,
    random: [u8; 16],
    message: &str,
) -> String {
    let encrypt = crypt::encrypt(key, random, message.as_bytes(), app_id);
    let msg_signature = signature::sign_message(token, &timestamp.to_string(), nonce, &encrypt);
    let mut envelope = Writer::new();
    envelope
        .text("Encrypt", &encrypt)
        .text("MsgSignature", &msg_signature)
        .number("TimeStamp", timestamp)
        .text("Nonce", nonce);
    envelope.finish()
}

/// Writes the body of a push in safe mode, as WeChat does.
///
/// Its `msg_signature`, [`signature::sign_message`] of the same ciphertext, goes into the query.
pub fn push(to_user_name: &str, encrypt: &str) -> String {
    let mut envelope = Writer::new();
    envelope.text("ToUserName", to_user_name).text("Encrypt", encrypt);
    envelope.finish()
}

/// Why WeChat would not read an encrypted reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The envelope is no XML.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// One of the four elements is missing.
    #[error("the envelope has no `{0}`")]
    Missing(&'static str),
    /// `MsgSignature` is not the one of this ciphertext.
    #[error("`MsgSignature` is wrong; most likely the tokens differ")]
    Signature,
    /// The ciphertext could not be decrypted.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
}

/// Checks and decrypts a sealed reply, as WeChat does.
///
/// # Errors
///
/// If WeChat would show the user an error instead of this reply.
///
/// ```
/// use aviary_wechat::crypt::AesKey;
/// use aviary_wechat::envelope::{open, seal};
///
/// let key = AesKey::parse("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")?;
/// let reply = "<xml><MsgType><![CDATA[text]]></MsgType></xml>";
/// let sealed = seal(&key, "wx1", "token", 1411525903, "461056294", *b"1234567890123456", reply);
/// assert_eq!(open(&key, "wx1", "token", sealed.as_bytes())?, reply.as_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open(key: &AesKey, app_id: &str, token: &str, body: &[u8]) -> Result<Vec<u8>, OpenError> {
    let envelope = xml::parse(body)?;
    let encrypt = required(&envelope, "Encrypt")?;
    let msg_signature = required(&envelope, "MsgSignature")?;
    let timestamp = required(&envelope, "TimeStamp")?;
    let nonce = required(&envelope, "Nonce")?;
    if !signature::verify_message(token, timestamp, nonce, encrypt, msg_signature) {
        return Err(OpenError::Signature);
    }
    Ok(crypt::decrypt(key, encrypt, app_id)?)
}

fn required<'a>(envelope: &'a Element, name: &'static str) -> Result<&'a str, OpenError> {
    envelope.text_of(name).ok_or(OpenError::Missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = "<xml><Content><![CDATA[你好]]></Content></xml>";

    fn key() -> AesKey {
        AesKey::parse("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG").unwrap()
    }

    fn sealed() -> String {
        seal(&key(), "wx1", "token", 1411525903, "461056294", [9; 16], REPLY)
    }

    #[test]
    fn a_sealed_reply_has_the_official_shape() {
        let encrypt = crypt::encrypt(&key(), [9; 16], REPLY.as_bytes(), "wx1");
        let msg_signature = signature::sign_message("token", "1411525903", "461056294", &encrypt);
        assert_eq!(
            sealed(),
            format!(
                "<xml><Encrypt><![CDATA[{encrypt}]]></Encrypt>\
                 <MsgSignature><![CDATA[{msg_signature}]]></MsgSignature>\
                 <TimeStamp>1411525903</TimeStamp>\
                 <Nonce><![CDATA[461056294]]></Nonce></xml>"
            )
        );
    }

    #[test]
    fn a_sealed_reply_opens_with_what_sealed_it() {
        let opened = open(&key(), "wx1", "token", sealed().as_bytes());
        assert_eq!(opened.unwrap(), REPLY.as_bytes());
    }

    #[test]
    fn another_token_or_a_changed_part_is_a_wrong_signature() {
        let changed = sealed().replace("1411525903", "1411525904");
        for (token, body) in [("other", sealed()), ("token", changed)] {
            let opened = open(&key(), "wx1", token, body.as_bytes());
            assert_eq!(opened, Err(OpenError::Signature));
        }
    }

    #[test]
    fn another_app_id_is_noticed_after_the_signature() {
        let opened = open(&key(), "wx2", "token", sealed().as_bytes());
        let found = "wx1".to_owned();
        assert_eq!(opened, Err(DecryptError::AppId { found }.into()));
    }

    #[test]
    fn an_envelope_without_one_of_its_elements_says_which() {
        for name in ["Encrypt", "MsgSignature", "TimeStamp", "Nonce"] {
            let body = sealed().replace(name, "Other");
            let opened = open(&key(), "wx1", "token", body.as_bytes());
            assert_eq!(opened, Err(OpenError::Missing(name)));
        }
    }

    #[test]
    fn a_plain_reply_is_no_envelope() {
        let opened = open(&key(), "wx1", "token", REPLY.as_bytes());
        assert_eq!(opened, Err(OpenError::Missing("Encrypt")));
        assert!(matches!(open(&key(), "wx1", "token", b"success"), Err(OpenError::Parse(ParseError::NotXml))));
    }

    #[test]
    fn a_push_has_its_ciphertext_and_a_plain_one_has_none() {
        let body = push("gh_1", "abc=");
        assert_eq!(
            body,
            "<xml><ToUserName><![CDATA[gh_1]]></ToUserName>\
             <Encrypt><![CDATA[abc=]]></Encrypt></xml>"
        );
        assert_eq!(ciphertext(&xml::parse(body.as_bytes()).unwrap()), Some("abc="));
        assert_eq!(ciphertext(&xml::parse(REPLY.as_bytes()).unwrap()), None);
    }
}
