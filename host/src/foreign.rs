//! Text of strangers (a guest, a plugin's file, an error that quotes either), made fit for a log and a terminal.

/// Replaces what would begin a line, drive a terminal, or change how the rest is read or shown.
pub(crate) fn fit(text: &str) -> String {
    text.replace(is_unfit, " ")
}

/// Makes one line of a text, with single spaces in it.
pub(crate) fn on_one_line(text: &str) -> String {
    fit(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How much is told of a request of a stranger's, in characters.
const STRANGER_CHARS_MAX: usize = 200;

/// What of a stranger's request the log may quote: one line, and not a long one.
pub(crate) fn quoted(text: &str) -> String {
    on_one_line(&text.chars().take(STRANGER_CHARS_MAX).collect::<String>())
}

/// The longest openid, in bytes: WeChat's have 28.
const OPENID_BYTES_MAX: usize = 128;

/// Where a text of more than `bytes_max` is cut, so that half an openid stays in neither part: where the log masks openids, it
/// does not know halves. The word before the cut goes with what follows, but no more of it than an openid may have.
pub(crate) fn end_of_words(text: &[u8], bytes_max: usize) -> usize {
    let is_openid = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let halved = text[..bytes_max].iter().rev().take(OPENID_BYTES_MAX).take_while(is_openid);
    bytes_max - halved.count()
}

/// At most so many characters of a text, and no half openid in the end.
pub(crate) fn shortened(text: &str, chars_max: usize) -> &str {
    let end = text.char_indices().nth(chars_max).map(|(end, _)| end_of_words(text.as_bytes(), end));
    &text[..end.unwrap_or(text.len())]
}

fn is_unfit(char: char) -> bool {
    let turns = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || turns || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_neither_begins_a_line_nor_drives_a_terminal() {
        assert_eq!(fit("a\n  b\u{1b}[31m\u{202e}c"), "a   b [31m c");
        assert_eq!(quoted(&format!("/\n{}", "x".repeat(999))), format!("/ {}", "x".repeat(198)));
        assert_eq!(on_one_line(" a\r\n  b\u{9b}2J\u{2028}c\u{2066}d "), "a b 2J c d");
    }

    #[test]
    fn a_text_is_cut_before_an_openid_and_not_in_it() {
        let openid = "oABCdefghijklmnopqrstuvwxy12";
        let text = format!("微信 no session for {openid}: gone");
        let chars = text.chars().count();
        assert_eq!(shortened(&text, chars), text);
        assert_eq!(shortened(&text, chars - 6), "微信 no session for ");
        assert_eq!(shortened(&text, 22), "微信 no session for ");
        assert_eq!(shortened(&text, chars - 5), text.strip_suffix(" gone").unwrap());
        let glued = format!("{}{openid}", "x".repeat(480));
        assert_eq!(shortened(&glued, 500), "x".repeat(500 - OPENID_BYTES_MAX));
        assert_eq!(shortened(&format!("{openid}{openid}"), 20), "");
    }
}
