//! Decryption a second time, written from WeChat's page byte by byte. It shares only AES and base64 with ours.
//! <https://developers.weixin.qq.com/doc/service/guide/dev/push/encryption.html>

use aes::Aes256;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};

/// At which step there is no message.
#[derive(Debug, PartialEq)]
pub enum Step {
    Base64,
    Blocks,
    Padding,
    Length,
    AppId,
}

/// Reads an EncodingAESKey: six bits for each character, of which the last two of 43 characters belong to no byte.
pub fn key_bytes(text: &str) -> Option<[u8; 32]> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let places: Option<Vec<usize>> = text.chars().map(|char| ALPHABET.find(char)).collect();
    let bits: Vec<u8> =
        places?.iter().flat_map(|place| (0..6).rev().map(move |bit| u8::from(place >> bit & 1 == 1))).collect();
    let bytes: Vec<u8> = bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect();
    bytes.try_into().ok()
}

/// Returns the message in the text of an `Encrypt` element.
pub fn decrypted(key: &[u8; 32], text: &str, app_id: &str) -> Result<Vec<u8>, Step> {
    let mut bytes = STANDARD.decode(text).map_err(|_| Step::Base64)?;
    if bytes.is_empty() || bytes.len() % 32 != 0 {
        return Err(Step::Blocks);
    }
    let mut cipher = cbc::Decryptor::<Aes256>::new_from_slices(key, &key[..16]).expect("the lengths are AES-256's");
    bytes.chunks_exact_mut(16).for_each(|block| cipher.decrypt_block(block.try_into().expect("it has 16 bytes")));
    let padding = bytes.pop().expect("there are blocks");
    for _ in 1..padding {
        if bytes.pop() != Some(padding) {
            return Err(Step::Padding);
        }
    }
    if !(1..=32).contains(&padding) {
        return Err(Step::Padding);
    }
    // Padding that takes the length field away is none of WeChat's.
    let Some((head, rest)) = bytes.split_at_checked(20) else { return Err(Step::Padding) };
    let length = head[16..].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    if length > rest.len() as u64 {
        return Err(Step::Length);
    }
    let mut message = rest.to_vec();
    let found = message.split_off(length as usize);
    if found == app_id.as_bytes() { Ok(message) } else { Err(Step::AppId) }
}
