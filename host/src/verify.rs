//! Steps 2 and 3: whether a request is WeChat's, and what it says once decrypted.
//!
//! The signature of the query covers time and nonce, not the body. In the encrypted modes `msg_signature` covers the
//! ciphertext as well, so there it alone counts; in plain mode a signature is good for one message (see `dedupe`).

use std::time::Duration;

use aviary_wechat::{
    crypt::{self, AesKey, DecryptError},
    envelope, signature,
    xml::{self, Element},
};

use bytes::Bytes;

use crate::{
    config::{Account, Mode},
    query::Query,
    refusal::Refusal,
    secret::Secret,
};

/// A push that WeChat sent.
#[derive(Debug)]
pub struct Opened<'a> {
    /// What it says.
    pub root: Element,
    /// The same as it was written, decrypted.
    pub xml: Bytes,
    /// How its reply has to look: encrypted in, encrypted out.
    pub form: Form<'a>,
    /// How far in the future it was signed: our clock is slow by about as much, and so long it stays acceptable.
    pub ahead: Duration,
    /// In plain form, the signature that must not come with another message.
    pub signature: Option<&'a str>,
    /// Which of the account's previous secrets were needed: the console's change has not reached all of WeChat.
    pub previous: Previous,
}

/// The form of a push and of its reply.
#[derive(Debug)]
pub enum Form<'a> {
    Plain,
    Sealed { token: &'a Secret, key: &'a AesKey },
}

/// The account's secrets before the last change, as far as they were needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    pub token: bool,
    pub encoding_aes_key: bool,
}

/// WeChat's nonces are 9 or 10 digits; other consoles and simulators send up to 32 characters.
const NONCE_BYTES_MAX: usize = 64;

/// What every request of WeChat's has in its query.
struct Signed<'a> {
    timestamp: &'a str,
    nonce: &'a str,
}

impl<'a> Signed<'a> {
    fn of(query: &'a Query<'_>) -> Result<Self, Refusal> {
        let signed = Self { timestamp: query.one("timestamp")?, nonce: query.one("nonce")? };
        // The signature joins its parts without a separator: only digits keep one part from reaching into the next.
        if !is_number(signed.timestamp) {
            return Err(Refusal::Timestamp);
        }
        if signed.nonce.len() > NONCE_BYTES_MAX {
            return Err(Refusal::Nonce);
        }
        Ok(signed)
    }
}

/// Checks WeChat's check of the URL: a signed query without a body, in every mode.
pub fn url_check(account: &Account, query: &Query<'_>, now_s: u64) -> Result<Previous, Refusal> {
    let token = signer(account, query)?;
    check_age(account, query, now_s)?;
    Ok(Previous { token: is_previous(account, token), encoding_aes_key: false })
}

/// A query to an account whose body is worth reading, and the token that it is signed with, if that is known without the body.
#[derive(Clone, Copy, Debug)]
pub struct Worthy<'a> {
    account: &'a Account,
    query: &'a Query<'a>,
    signer: Option<&'a Secret>,
}

/// Whether the body is worth reading: in plain mode the query alone tells.
pub fn before_body<'a>(account: &'a Account, query: &'a Query<'a>) -> Result<Worthy<'a>, Refusal> {
    let signer = match account.mode {
        Mode::Plain => Some(signer(account, query)?),
        Mode::Compatible | Mode::Safe => Signed::of(query).map(|_| None)?,
    };
    Ok(Worthy { account, query, signer })
}

/// Opens a push, whichever form it has, if the account's mode allows that form.
pub fn push<'a>(worthy: Worthy<'a>, body: &Bytes, now_s: u64) -> Result<Opened<'a>, Refusal> {
    let Worthy { account, query, .. } = worthy;
    let outer = match xml::parse(body) {
        Ok(outer) => outer,
        // Whoever has no signature learns nothing about the body.
        Err(error) => return Err(signer(account, query).map_or_else(|refusal| refusal, |_| error.into())),
    };
    match (account.mode, envelope::ciphertext(&outer)) {
        (Mode::Plain, Some(_)) if outer.child("MsgType").is_none() => {
            signer(account, query)?;
            Err(Refusal::Encrypted { account: account.name.clone() })
        }
        (Mode::Safe, None) => {
            signer(account, query)?;
            Err(Refusal::NotEncrypted { account: account.name.clone() })
        }
        (Mode::Plain, _) | (Mode::Compatible, None) => plain(worthy, outer, body, now_s),
        (Mode::Compatible | Mode::Safe, Some(encrypt)) => sealed(account, query, encrypt, now_s),
    }
}

fn plain<'a>(
    Worthy { account, query, signer: known }: Worthy<'a>,
    root: Element,
    xml: &Bytes,
    now_s: u64,
) -> Result<Opened<'a>, Refusal> {
    let token = known.map_or_else(|| signer(account, query), Ok)?;
    let ahead = check_age(account, query, now_s)?;
    let previous = Previous { token: is_previous(account, token), encoding_aes_key: false };
    let signature = Some(query.one("signature")?);
    Ok(Opened { root, xml: xml.clone(), form: Form::Plain, ahead, signature, previous })
}

/// The order is WeChat's own and must stay: signature, base64, cipher, padding, length, app id, XML.
fn sealed<'a>(account: &'a Account, query: &'a Query<'_>, encrypt: &str, now_s: u64) -> Result<Opened<'a>, Refusal> {
    let Signed { timestamp, nonce } = Signed::of(query)?;
    let msg_signature = query.one("msg_signature")?;
    let token = tokens(account)
        .find(|token| signature::verify_message(token.expose(), timestamp, nonce, encrypt, msg_signature))
        .ok_or_else(|| Refusal::MsgSignature { account: account.name.clone() })?;
    let ahead = check_age(account, query, now_s)?;
    let (xml, key) = decrypt(account, encrypt)?;
    let is_current_key = account.encoding_aes_key.as_ref().is_some_and(|current| std::ptr::eq(current, key));
    let previous = Previous { token: is_previous(account, token), encoding_aes_key: !is_current_key };
    let (root, form) = (xml::parse(&xml)?, Form::Sealed { token, key });
    Ok(Opened { root, xml: xml.into(), form, ahead, signature: None, previous })
}

/// Decrypts with the account's key, or with the one before it.
fn decrypt<'a>(account: &'a Account, encrypt: &str) -> Result<(Vec<u8>, &'a AesKey), Refusal> {
    let mut failure = None;
    let keys = account.encoding_aes_key.iter().chain(&account.previous_encoding_aes_key);
    for key in keys {
        match crypt::decrypt(key, encrypt, app_id(account)) {
            Ok(xml) => return Ok((xml, key)),
            // A wrong key looks like wrong padding; what the current key says of it is what helps the operator.
            Err(error) => _ = failure.get_or_insert(error),
        }
    }
    let account = account.name.clone();
    Err(match failure {
        Some(error @ DecryptError::AppId { .. }) => Refusal::AppId { account, error },
        Some(error) => Refusal::Decrypt { account, error },
        // `Config` gives no account an encrypted mode without a key.
        None => Refusal::Encrypted { account },
    })
}

/// `Config` gives no account an encrypted mode without an app id; an empty one fits no message.
pub fn app_id(account: &Account) -> &str {
    account.app_id.as_deref().unwrap_or_default()
}

/// Finds the token that the query's `signature` was made with.
fn signer<'a>(account: &'a Account, query: &Query<'_>) -> Result<&'a Secret, Refusal> {
    let Signed { timestamp, nonce } = Signed::of(query)?;
    let given = query.one("signature")?;
    tokens(account)
        .find(|token| signature::verify(token.expose(), timestamp, nonce, given))
        .ok_or_else(|| Refusal::Signature { account: account.name.clone() })
}

fn tokens(account: &Account) -> impl Iterator<Item = &Secret> {
    std::iter::once(&account.token).chain(&account.previous_token)
}

fn is_previous(account: &Account, token: &Secret) -> bool {
    !std::ptr::eq(&account.token, token)
}

/// Refuses what was signed too long ago, or as far in the future: clocks are off by seconds, not by minutes.
fn check_age(account: &Account, query: &Query<'_>, now_s: u64) -> Result<Duration, Refusal> {
    let max_age_s = account.signature_max_age.as_secs();
    if max_age_s == 0 {
        return Ok(Duration::ZERO);
    }
    let timestamp: u64 = query.one("timestamp")?.parse().map_err(|_| Refusal::Timestamp)?;
    let age_s = i128::from(now_s) - i128::from(timestamp);
    if age_s.unsigned_abs() > u128::from(max_age_s) {
        return Err(Refusal::Age { account: account.name.clone(), age_s, max_age_s });
    }
    Ok(Duration::from_secs(timestamp.saturating_sub(now_s)))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
