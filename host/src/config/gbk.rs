//! What Excel calls just “CSV” on a Chinese system: GBK, of which GB18030 is the whole.
//!
//! No byte of a text says that it is GBK, and nearly any two bytes are some character of it. A text in another old encoding comes
//! out as characters that nobody writes; by those it is known. Where that is not sure, its author is asked for UTF-8: better than
//! to answer people with what nobody wrote.

use encoding_rs::GB18030;

/// What the bundled keywords' tables call their first column. A text in another encoding does not begin with it.
const NAME: &str = "关键词";

/// Characters that are less than this say nothing: one or two may be anything.
const CHARS_MIN: usize = 3;

/// In a text with fewer characters than this, each has to be common.
const CHARS_MANY: usize = 8;

/// Reads a text in GBK; nothing if it is none, or may be none.
///
/// What still looks the same: Japanese without its syllables, and words in Greek or Cyrillic capitals whose letters come in pairs.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let text = GB18030.decode_without_bom_handling_and_without_replacement(bytes)?;
    let is_named = text.lines().next().is_some_and(|header| header.contains(NAME));
    (is_named || (!text.contains(is_private) && Tally::of(bytes).is_chinese())).then(|| text.into_owned())
}

/// Whether nobody has agreed with anybody on what a character is. Big5 read as GBK has many of these.
fn is_private(char: char) -> bool {
    ('\u{e000}'..='\u{f8ff}').contains(&char)
}

/// The characters of a text beyond ASCII.
#[derive(Debug, Default)]
struct Tally {
    /// Punctuation, and the 3,755 common characters that GB 2312 keeps together. Of Chinese as it is written nearly all are; in a
    /// short table a rare name weighs more.
    common: usize,
    /// Those of the common ones that Korean's syllables, which have the places of the others, do not reach.
    beyond_korean: usize,
    /// Japan's syllables, which have the same place in its own encoding.
    japanese: usize,
    rare: usize,
}

impl Tally {
    fn of(bytes: &[u8]) -> Self {
        let (mut tally, mut left) = (Self::default(), bytes);
        loop {
            left = match left {
                [] => return tally,
                [..=0x7f, rest @ ..] => rest,
                [first @ (0xa1..=0xa5 | 0xb0..=0xd7), 0xa1..=0xfe, rest @ ..] => {
                    match first {
                        0xa4 | 0xa5 => tally.japanese += 1,
                        _ => tally.common += 1,
                    }
                    tally.beyond_korean += usize::from(*first >= 0xc9);
                    rest
                }
                // Four bytes, two, or one: the euro sign.
                [0x81..=0xfe, 0x30..=0x39, _, _, rest @ ..] | [0x81..=0xfe, _, rest @ ..] | [_, rest @ ..] => {
                    tally.rare += 1;
                    rest
                }
            };
        }
    }

    fn is_chinese(&self) -> bool {
        let Self { common, beyond_korean, japanese, rare } = *self;
        let is_common = match common + rare {
            ..CHARS_MIN => false,
            CHARS_MIN..CHARS_MANY => rare == 0,
            all => 3 * common >= 2 * all,
        };
        is_common && beyond_korean > 0 && japanese == 0
    }
}

#[cfg(test)]
mod tests {
    use encoding_rs::{BIG5, EUC_JP, EUC_KR, Encoding, SHIFT_JIS, WINDOWS_1251, WINDOWS_1252, WINDOWS_1253};

    use super::*;

    fn decoded(encoding: &'static Encoding, text: &str) -> Option<String> {
        let (bytes, _, has_unmappable) = encoding.encode(text);
        assert!(!has_unmappable, "{text}");
        decode(&bytes)
    }

    #[test]
    fn chinese_is_read_with_its_punctuation_and_rare_names() {
        for text in [
            "keyword,reply\n价格,88元\n",
            "keyword,reply\n营业时间,“周一至周五” 9:00，节假日休息。张喆,手机 138…\n",
            "keyword,reply\n價格,九十九元，免運費\n",
        ] {
            assert_eq!(decoded(GB18030, text).as_deref(), Some(text));
        }
    }

    #[test]
    fn under_the_name_of_a_column_every_character_is_read() {
        for text in ["关键词,回复\n電話,請來電\n", "回复;关键词\n€ 5;喆\n", "关键词,回复\n优の良品,1;𠮷\n"]
        {
            assert_eq!(decoded(GB18030, text).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_another_encoding_means_is_not_taken_for_chinese() {
        for (encoding, text) in [
            (WINDOWS_1252, "keyword,reply\ncrème,brûler\n"),
            (WINDOWS_1252, "keyword,reply\nheat,25°°\n"),
            (WINDOWS_1251, "keyword,reply\nцена,девяносто девять\n"),
            (WINDOWS_1253, "keyword,reply\nΤΙΜΗ,99\n"),
            (BIG5, "keyword,reply\n價格,九十九元，免運費\n地址,人民路一號\n"),
            (BIG5, "keyword,reply\n菜單,請看\n"),
            (BIG5, "keyword,reply\n電話,請來電\n"),
            (SHIFT_JIS, "keyword,reply\n値段,九十九円です。送料無料\n"),
            (EUC_JP, "keyword,reply\n値段,九十九円です。送料無料\n"),
            (EUC_KR, "keyword,reply\n가격,만원\n"),
            (EUC_KR, "키워드,답장\n가격,구십구원입니다 감사합니다\n"),
        ] {
            assert_eq!(decoded(encoding, text), None, "{}: {text}", encoding.name());
        }
    }

    #[test]
    fn a_few_rare_characters_may_be_anything() {
        for text in ["keyword,reply\n張,喆\n", "price,€ 5 元\n", "keyword,reply\n电話,請来电\n"] {
            assert_eq!(decoded(GB18030, text), None, "{text}");
        }
    }

    #[test]
    fn half_a_character_is_none() {
        assert_eq!(decode(b"\xbc\xdb\xb8"), None);
    }
}
