//! What Excel calls just “CSV” on a Chinese system: GBK, of which GB18030 is the whole.
//!
//! No byte of a text says that it is GBK, and nearly any two bytes are some character of it. A text in another old encoding comes
//! out as characters that nobody writes; by those it is known.

use std::borrow::Cow;

use encoding_rs::GB18030;

/// Reads a text in GBK; nothing if it is none, or hardly one.
///
/// Of the encodings beside it, Korean's alone looks the same.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let text = GB18030.decode_without_bom_handling_and_without_replacement(bytes)?;
    is_mostly_common(bytes).then(|| Cow::into_owned(text))
}

/// Whether at least two in three characters beyond ASCII are punctuation or among the 3,755 common ones, which GB 2312 keeps
/// together. Of Chinese as it is written nearly all are; in a short table a rare name weighs more.
fn is_mostly_common(bytes: &[u8]) -> bool {
    let (mut common, mut all, mut left) = (0_usize, 0_usize, bytes);
    loop {
        left = match left {
            [] => return 3 * common >= 2 * all,
            [..=0x7f, rest @ ..] => rest,
            [0xa1..=0xa3 | 0xb0..=0xd7, 0xa1..=0xfe, rest @ ..] => {
                (common, all) = (common + 1, all + 1);
                rest
            }
            // Four bytes, two, or one: the euro sign.
            [0x81..=0xfe, 0x30..=0x39, _, _, rest @ ..] | [0x81..=0xfe, _, rest @ ..] | [_, rest @ ..] => {
                all += 1;
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use encoding_rs::{BIG5, Encoding, SHIFT_JIS, WINDOWS_1251, WINDOWS_1252};

    use super::*;

    fn decoded(encoding: &'static Encoding, text: &str) -> Option<String> {
        let (bytes, _, has_unmappable) = encoding.encode(text);
        assert!(!has_unmappable, "{text}");
        decode(&bytes)
    }

    #[test]
    fn chinese_is_read_with_its_punctuation_and_rare_names() {
        for text in [
            "关键词,回复\n价格,“99 元”，包邮！\n",
            "keyword,reply\n张喆,手机 138…\n",
            "price,€ 5 元\n",
            "keyword,reply\n价格,1;𠮷\n",
        ] {
            assert_eq!(decoded(GB18030, text).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_another_encoding_means_is_not_taken_for_chinese() {
        for (encoding, text) in [
            (WINDOWS_1252, "keyword,reply\ncrème,brûler\n"),
            (WINDOWS_1251, "keyword,reply\nцена,девяносто девять\n"),
            (BIG5, "keyword,reply\n價格,九十九元，免運費\n地址,人民路一號\n"),
            (SHIFT_JIS, "keyword,reply\n値段,九十九円です。送料無料\n"),
        ] {
            assert_eq!(decoded(encoding, text), None, "{}", encoding.name());
        }
    }

    #[test]
    fn half_a_character_is_none() {
        assert_eq!(decode(b"\xbc\xdb\xb8"), None);
    }
}
