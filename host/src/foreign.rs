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
}
