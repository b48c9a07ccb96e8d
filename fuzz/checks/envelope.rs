//! What must hold of keys, ciphertexts and envelopes, whatever is in them: what comes of them is what `decrypt` says.

use std::sync::LazyLock;

use aes::Aes256;
use aviary_wechat::{
    crypt::{self, AesKey, DecryptError, KeyError},
    envelope::{self, OpenError},
    signature,
    xml::{self, Writer, is_illegal},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeEncrypt, KeyIvInit};

use super::{
    decrypt::{Step, decrypted, key_bytes},
    printable::assert_printable,
};

/// The account of easywechat's vectors; the key's last character has bits that belong to no byte.
const ENCODING_AES_KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
const APP_ID: &str = "wxb11529c136998cb6";
const TOKEN: &str = "pamtest";

static KEY: LazyLock<AesKey> = LazyLock::new(|| AesKey::parse(ENCODING_AES_KEY).expect("WeChat gave it out"));
static KEY_BYTES: LazyLock<[u8; 32]> = LazyLock::new(|| key_bytes(ENCODING_AES_KEY).expect("WeChat gave it out"));

/// The first byte says what the others are.
pub fn check(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind {
        b'k' => key(&text),
        b'c' => ciphertext(&text),
        b'p' => ciphertext(&encrypted(rest)),
        b's' => ciphertext(&spoilt(rest)),
        b'r' => round_trip(&text),
        b'e' => envelope(rest),
        _ => signed_envelope(&text),
    }
}

fn key(text: &str) {
    let expected = match (text.chars().count(), key_bytes(text)) {
        (43, Some(_)) => Ok(()),
        (43, None) => Err(KeyError::Alphabet),
        (found, _) => Err(KeyError::Length { found }),
    };
    let key = AesKey::parse(text);
    assert_eq!(key.as_ref().map(|_| ()), expected.as_ref().copied(), "{text:?}");
    if let Ok(key) = key {
        let encrypt = crypt::encrypt(&key, [7; 16], text.as_bytes(), APP_ID);
        let key_bytes = key_bytes(text).expect("it is a key");
        assert_eq!(decrypted(&key_bytes, &encrypt, APP_ID), Ok(text.into()));
        assert_eq!(crypt::decrypt(&key, &encrypt, APP_ID), Ok(text.into()));
    }
}

fn ciphertext(text: &str) {
    let expected = decrypted(&KEY_BYTES, text, APP_ID);
    let found = crypt::decrypt(&KEY, text, APP_ID);
    if let Err(error) = &found {
        assert_printable(&error.to_string());
    }
    assert_eq!(found.map_err(step), expected, "{text}");
}

fn step(error: DecryptError) -> Step {
    match error {
        DecryptError::Base64 => Step::Base64,
        DecryptError::Blocks { .. } => Step::Blocks,
        DecryptError::Padding => Step::Padding,
        DecryptError::Length { .. } => Step::Length,
        DecryptError::AppId { .. } => Step::AppId,
    }
}

/// Encrypts bytes as they are if they are whole blocks, and with the right padding if not: what the harness chooses is
/// what comes out of the cipher.
fn encrypted(plaintext: &[u8]) -> String {
    let mut bytes = plaintext.to_vec();
    let missing = 32 - bytes.len() % 32;
    if missing < 32 || bytes.is_empty() {
        bytes.extend(std::iter::repeat_n(missing as u8, missing));
    }
    let key = &*KEY_BYTES;
    let mut cipher = cbc::Encryptor::<Aes256>::new_from_slices(key, &key[..16]).expect("the lengths are AES-256's");
    bytes.chunks_exact_mut(16).for_each(|block| cipher.encrypt_block(block.try_into().expect("it has 16 bytes")));
    STANDARD.encode(bytes)
}

/// A good ciphertext with bytes changed: each change is a place and what is flipped there.
fn spoilt(changes: &[u8]) -> String {
    let message = "<xml><Content><![CDATA[hi]]></Content></xml>";
    let encrypt = crypt::encrypt(&KEY, *b"aaaabbbbccccdddd", message.as_bytes(), APP_ID);
    let mut bytes = STANDARD.decode(encrypt).expect("it was just encoded");
    for change in changes.chunks_exact(2) {
        let place = usize::from(change[0]) % bytes.len();
        bytes[place] ^= change[1];
    }
    STANDARD.encode(bytes)
}

/// App id, nonce and message, a line each, the message to the end.
fn round_trip(text: &str) {
    let mut lines = text.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (app_id, nonce, message) = (next(), next().replace(is_illegal, ""), next());
    let timestamp = message.len() as u64;
    let sealed = envelope::seal(&KEY, app_id, TOKEN, timestamp, &nonce, [7; 16], message);
    let opened = |app_id: &str, token: &str| envelope::open(&KEY, app_id, token, sealed.as_bytes());
    assert_eq!(opened(app_id, TOKEN), Ok(message.into()));
    assert!(matches!(opened(&format!("{app_id}x"), TOKEN), Err(OpenError::Decrypt(DecryptError::AppId { .. }))));
    assert_eq!(opened(app_id, "other"), Err(OpenError::Signature));

    let push = envelope::push(app_id, &crypt::encrypt(&KEY, [7; 16], message.as_bytes(), app_id));
    let push = xml::parse(push.as_bytes()).expect("the writer writes XML");
    let encrypt = envelope::ciphertext(&push).expect("it is there");
    assert_eq!(decrypted(&KEY_BYTES, encrypt, app_id), Ok(message.into()));
}

/// Any bytes for an envelope: what opens was signed with the token.
fn envelope(bytes: &[u8]) {
    match envelope::open(&KEY, APP_ID, TOKEN, bytes) {
        Ok(message) => {
            let root = xml::parse(bytes).expect("it was read before");
            let [encrypt, msg_signature, timestamp, nonce] =
                ["Encrypt", "MsgSignature", "TimeStamp", "Nonce"].map(|name| root.text_of(name).expect("it opened"));
            assert_eq!(signature::sign_message(TOKEN, timestamp, nonce, encrypt), msg_signature);
            assert_eq!(decrypted(&KEY_BYTES, encrypt, APP_ID), Ok(message));
        }
        Err(error) => assert_printable(&error.to_string()),
    }
}

/// Any text for a ciphertext, rightly signed.
fn signed_envelope(text: &str) {
    let encrypt = text.replace(is_illegal, "");
    let mut writer = Writer::new();
    writer
        .text("Encrypt", &encrypt)
        .text("MsgSignature", &signature::sign_message(TOKEN, "1", "2", &encrypt))
        .number("TimeStamp", 1)
        .text("Nonce", "2");
    let opened = envelope::open(&KEY, APP_ID, TOKEN, writer.finish().as_bytes());
    let found = opened.map_err(|error| match error {
        OpenError::Decrypt(error) => step(error),
        error => panic!("{error}: {encrypt}"),
    });
    assert_eq!(found, decrypted(&KEY_BYTES, &encrypt, APP_ID));
}
