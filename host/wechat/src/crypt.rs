//! Steps 3 and 8: ciphertext into XML, and back.
//!
//! The plaintext is `random (16 bytes) ‖ length (4 bytes, big-endian) ‖ message ‖ app id`, padded to a
//! multiple of 32 bytes and encrypted with AES-256 in CBC mode. See
//! <https://developers.weixin.qq.com/doc/service/guide/dev/push/encryption.html>.
//!
//! Decryption proves nothing about the sender: check `msg_signature` first, with
//! [`signature::verify_message`](crate::signature::verify_message).

use std::fmt;

use aes::Aes256;
use base64::{
    Engine,
    engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD},
};
use cbc::cipher::{Array, Block, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};

use crate::excerpt;

/// How many characters an EncodingAESKey has.
const KEY_CHARS: usize = 43;

/// Padding fills blocks of 32 bytes, not of AES's 16: half of all messages have more than 16 bytes of it.
const PADDING_BLOCK_BYTES: usize = 32;

const RANDOM_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = RANDOM_BYTES + LENGTH_BYTES;

/// 43 characters are 258 bits, two more than the key has. WeChat sets these two at random, and a strict
/// decoder would refuse three keys in four.
const KEY_ENCODING: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true));

/// The key that an EncodingAESKey stands for.
#[derive(Clone)]
pub struct AesKey([u8; 32]);

/// Why an EncodingAESKey is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It was cut off, or copied with something around it.
    #[error("has {found} characters, WeChat's EncodingAESKey has {KEY_CHARS}")]
    Length {
        /// How many characters it has.
        found: usize,
    },
    /// It has a character that base64 does not have.
    #[error("has a character that is no letter or digit; copy it again from WeChat's console")]
    Alphabet,
}

/// At which step a decryption failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The text is not base64.
    #[error("`Encrypt` is not base64")]
    Base64,
    /// The ciphertext is empty, cut off, or padded as only other software pads.
    #[error("the ciphertext has {bytes} bytes, which is no multiple of {PADDING_BLOCK_BYTES}")]
    Blocks {
        /// How many bytes it has.
        bytes: usize,
    },
    /// What came out is noise.
    #[error("the padding is wrong; most likely the EncodingAESKey is not the one in WeChat's console")]
    Padding,
    /// The message would be longer than what there is.
    #[error("the message is said to have {claimed} bytes, but {available} are there")]
    Length {
        /// The length field.
        claimed: u32,
        /// How many bytes there are for message and app id.
        available: usize,
    },
    /// The message is for another account.
    #[error("the message is for app id `{found}`; set `app_id` to the one in WeChat's console")]
    AppId {
        /// The app id in the message, shortened.
        found: String,
    },
}

impl AesKey {
    /// Decodes the EncodingAESKey that WeChat's console shows.
    ///
    /// # Errors
    ///
    /// If it is not 43 characters of base64; which ones, the error does not tell, for it will be logged.
    ///
    /// ```
    /// use aviary_wechat::crypt::AesKey;
    ///
    /// assert!(AesKey::parse("jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C").is_ok());
    /// let error = AesKey::parse("jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2").unwrap_err();
    /// assert_eq!(error.to_string(), "has 42 characters, WeChat's EncodingAESKey has 43");
    /// ```
    pub fn parse(encoding_aes_key: &str) -> Result<AesKey, KeyError> {
        let found = encoding_aes_key.chars().count();
        if found != KEY_CHARS {
            return Err(KeyError::Length { found });
        }
        let mut key = [0; 32];
        match KEY_ENCODING.decode_slice(encoding_aes_key, &mut key) {
            Ok(_) => Ok(AesKey(key)),
            Err(_) => Err(KeyError::Alphabet),
        }
    }

    /// Starts a cipher. WeChat's initialisation vector is the first half of the key itself.
    fn start<C: KeyIvInit>(&self) -> C {
        C::new_from_slices(&self.0, &self.0[..16]).expect("AES-256 has a key of 32 and blocks of 16")
    }
}

impl fmt::Debug for AesKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Encrypts a message into the text of an `Encrypt` element.
///
/// `random` must be new for every message: with the fixed initialisation vector, it alone keeps equal
/// messages from having equal ciphertexts.
///
/// # Panics
///
/// If the message has 4 GiB or more, which its length field cannot express.
pub fn encrypt(key: &AesKey, random: [u8; 16], message: &[u8], app_id: &str) -> String {
    let length = u32::try_from(message.len()).expect("no message has 4 GiB");
    let bytes = HEAD_BYTES + message.len() + app_id.len();
    // A full block when nothing is missing: there is always padding, so that it can be removed.
    let padding = PADDING_BLOCK_BYTES - bytes % PADDING_BLOCK_BYTES;
    let mut buffer = Vec::with_capacity(bytes + padding);
    buffer.extend_from_slice(&random);
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(message);
    buffer.extend_from_slice(app_id.as_bytes());
    let padding_byte = u8::try_from(padding).expect("it is at most 32");
    buffer.resize(bytes + padding, padding_byte);

    let mut cipher: cbc::Encryptor<Aes256> = key.start();
    cipher.encrypt_blocks(blocks(&mut buffer));
    STANDARD.encode(&buffer)
}

/// Decrypts the text of an `Encrypt` element into the message.
///
/// # Errors
///
/// If a step fails, in this order: base64, whole blocks, padding, length, app id.
///
/// ```
/// use aviary_wechat::crypt::{AesKey, decrypt, encrypt};
///
/// let key = AesKey::parse("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")?;
/// let ciphertext = encrypt(&key, *b"aaaabbbbccccdddd", b"<xml></xml>", "wxb11529c136998cb6");
/// assert_eq!(decrypt(&key, &ciphertext, "wxb11529c136998cb6")?, b"<xml></xml>");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decrypt(key: &AesKey, encrypt: &str, app_id: &str) -> Result<Vec<u8>, DecryptError> {
    let mut buffer = STANDARD.decode(encrypt).map_err(|_| DecryptError::Base64)?;
    let bytes = buffer.len();
    if bytes == 0 || bytes % PADDING_BLOCK_BYTES != 0 {
        return Err(DecryptError::Blocks { bytes });
    }
    let mut cipher: cbc::Decryptor<Aes256> = key.start();
    cipher.decrypt_blocks(blocks(&mut buffer));

    let unpadded = unpad(&buffer).ok_or(DecryptError::Padding)?;
    let (message, found) = split(unpadded)?;
    if found != app_id.as_bytes() {
        let found = excerpt(&String::from_utf8_lossy(found));
        return Err(DecryptError::AppId { found });
    }
    let end = HEAD_BYTES + message.len();
    buffer.truncate(end);
    buffer.drain(..HEAD_BYTES);
    Ok(buffer)
}

/// Sees a buffer, whose length is a multiple of AES's block, as these blocks.
fn blocks(buffer: &mut [u8]) -> &mut [Block<Aes256>] {
    let (blocks, rest) = Array::slice_as_chunks_mut(buffer);
    debug_assert!(rest.is_empty());
    blocks
}

fn unpad(buffer: &[u8]) -> Option<&[u8]> {
    let padding = usize::from(*buffer.last()?);
    if !(1..=PADDING_BLOCK_BYTES).contains(&padding) {
        return None;
    }
    let (rest, tail) = buffer.split_at_checked(buffer.len().checked_sub(padding)?)?;
    tail.iter().all(|&byte| usize::from(byte) == padding).then_some(rest)
}

/// Splits what is left without padding into message and app id.
fn split(unpadded: &[u8]) -> Result<(&[u8], &[u8]), DecryptError> {
    // Too short for a length field: the padding took it, which ours or WeChat's never does.
    let (head, rest) = unpadded.split_first_chunk::<HEAD_BYTES>().ok_or(DecryptError::Padding)?;
    let [.., a, b, c, d] = *head;
    let claimed = u32::from_be_bytes([a, b, c, d]);
    // The sender chose this length.
    usize::try_from(claimed)
        .ok()
        .and_then(|claimed| rest.split_at_checked(claimed))
        .ok_or(DecryptError::Length { claimed, available: rest.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP_ID: &str = "wxb11529c136998cb6";

    fn key() -> AesKey {
        AesKey::parse("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG").unwrap()
    }

    /// Encrypts any plaintext of whole blocks, also one that [`encrypt`] would never write.
    fn encrypt_raw(plaintext: &[u8]) -> String {
        let mut buffer = plaintext.to_vec();
        let mut cipher: cbc::Encryptor<Aes256> = key().start();
        cipher.encrypt_blocks(blocks(&mut buffer));
        STANDARD.encode(&buffer)
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", key()), "[redacted]");
        assert_eq!(format!("{:?}", Some(key())), "Some([redacted])");
    }

    #[test]
    fn all_four_endings_of_a_key_are_one_key() {
        // `E`, `F`, `G` and `H` differ in the two bits that the key does not have.
        let ciphertexts = ["E", "F", "G", "H"].map(|last| {
            let key = format!("abcdefghijklmnopqrstuvwxyz0123456789ABCDEF{last}");
            encrypt(&AesKey::parse(&key).unwrap(), [7; 16], b"hi", APP_ID)
        });
        assert!(ciphertexts.iter().all(|text| *text == ciphertexts[0]));
    }

    #[test]
    fn a_key_of_another_length_says_how_long_it_is() {
        for found in [0, 1, 42, 44, 86] {
            let error = AesKey::parse(&"a".repeat(found)).unwrap_err();
            assert_eq!(error, KeyError::Length { found });
        }
    }

    #[test]
    fn a_key_with_other_characters_is_refused_without_repeating_it() {
        for odd in ["=", " ", "-", "密"] {
            let key = format!("abcdefghijklmnopqrstuvwxyz0123456789ABCDEF{odd}");
            let error = AesKey::parse(&key).unwrap_err();
            assert_eq!(error, KeyError::Alphabet);
            assert!(!error.to_string().contains("abcdef"));
        }
    }

    #[test]
    fn the_random_block_changes_all_of_the_ciphertext() {
        let one = encrypt(&key(), [1; 16], b"hi", APP_ID);
        let other = encrypt(&key(), [2; 16], b"hi", APP_ID);
        assert_ne!(one[..20], other[..20]);
        assert_ne!(one[one.len() - 20..], other[other.len() - 20..]);
    }

    #[test]
    fn every_length_of_padding_comes_back_the_same() {
        for length in 0..=2 * PADDING_BLOCK_BYTES {
            let message = vec![b'x'; length];
            let ciphertext = encrypt(&key(), [0; 16], &message, APP_ID);
            assert_eq!(decrypt(&key(), &ciphertext, APP_ID).unwrap(), message);
        }
    }

    #[test]
    fn the_length_counts_bytes_not_characters() {
        let ciphertext = encrypt(&key(), [0; 16], "你好😀".as_bytes(), APP_ID);
        assert_eq!(decrypt(&key(), &ciphertext, APP_ID).unwrap(), "你好😀".as_bytes());
    }

    #[test]
    fn base64_is_read_strictly() {
        let good = encrypt(&key(), [0; 16], b"hi", APP_ID);
        let bad =
            ["@@@".to_owned(), format!(" {good}"), format!("{good}\n"), good.replace('=', ""), good[1..].to_owned()];
        for bad in bad {
            let error = decrypt(&key(), &bad, APP_ID).unwrap_err();
            assert_eq!(error, DecryptError::Base64, "{bad:?}");
        }
    }

    #[test]
    fn a_ciphertext_of_broken_blocks_says_how_long_it_is() {
        for bytes in [0, 1, 15, 16, 31, 33, 48] {
            let error = decrypt(&key(), &STANDARD.encode(vec![0; bytes]), APP_ID).unwrap_err();
            assert_eq!(error, DecryptError::Blocks { bytes });
        }
    }

    #[test]
    fn another_key_is_noticed_by_the_padding() {
        let other = AesKey::parse(&"A".repeat(43)).unwrap();
        let ciphertext = encrypt(&other, [0; 16], b"hi", APP_ID);
        assert_eq!(decrypt(&key(), &ciphertext, APP_ID), Err(DecryptError::Padding));
    }

    #[test]
    fn every_byte_of_the_padding_must_be_its_length() {
        let mut plaintext = [0; 64];
        for (padding, spoiled) in [(0, None), (33, None), (255, None), (2, Some(62)), (32, Some(32))] {
            plaintext[64 - usize::from(padding).min(64)..].fill(padding);
            plaintext[63] = padding;
            if let Some(spoiled) = spoiled {
                plaintext[spoiled] = 0;
            }
            let error = decrypt(&key(), &encrypt_raw(&plaintext), APP_ID).unwrap_err();
            assert_eq!(error, DecryptError::Padding, "{padding}");
        }
    }

    #[test]
    fn padding_that_leaves_no_room_for_a_length_is_wrong() {
        let error = decrypt(&key(), &encrypt_raw(&[32; 32]), APP_ID).unwrap_err();
        assert_eq!(error, DecryptError::Padding);
    }

    #[test]
    fn a_length_beyond_the_message_is_an_error() {
        for claimed in [13, 44, u32::from(u16::MAX), u32::MAX] {
            let mut plaintext = [1; 32];
            plaintext[16..20].copy_from_slice(&claimed.to_be_bytes());
            let error = decrypt(&key(), &encrypt_raw(&plaintext), APP_ID).unwrap_err();
            let available = 11;
            assert_eq!(error, DecryptError::Length { claimed, available });
        }
    }

    #[test]
    fn another_app_id_is_named() {
        let ciphertext = encrypt(&key(), [0; 16], b"hi", "wxother");
        let error = decrypt(&key(), &ciphertext, APP_ID).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the message is for app id `wxother`; set `app_id` to the one in WeChat's console"
        );
    }

    #[test]
    fn a_foreign_app_id_is_shortened_and_made_printable() {
        let ciphertext = encrypt(&key(), [0; 16], b"hi", &"a\n".repeat(1000));
        let error = decrypt(&key(), &ciphertext, APP_ID).unwrap_err();
        let found = "a\u{fffd}".repeat(20);
        assert_eq!(error, DecryptError::AppId { found });
    }

    #[test]
    fn an_app_id_that_only_begins_alike_is_another() {
        for app_id in ["", "wx", "wxb11529c136998cb6x"] {
            let ciphertext = encrypt(&key(), [0; 16], b"hi", app_id);
            let error = decrypt(&key(), &ciphertext, APP_ID).unwrap_err();
            let found = app_id.to_owned();
            assert_eq!(error, DecryptError::AppId { found });
        }
    }
}
