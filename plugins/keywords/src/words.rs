//! How words are compared: as people mean them, not as their keyboards wrote them.

/// Returns a text as it is compared: without white space around it, without capitals, and with the wide letters, digits and
/// signs of Chinese keyboards (`ＡＢＣ１２３？`) as the narrow ones.
pub(crate) fn folded(text: &str) -> String {
    text.trim().chars().map(narrow).flat_map(char::to_lowercase).collect()
}

fn narrow(char: char) -> char {
    /// From `！` to `～` they stand in the order of ASCII, so far above it.
    const DISTANCE: u32 = '！' as u32 - '!' as u32;
    match char {
        '！'..='～' => char::from_u32(u32::from(char) - DISTANCE).unwrap_or(char),
        '\u{3000}' => ' ',
        _ => char,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_width_and_blanks_around_do_not_count() {
        assert_eq!(folded(" ＷｉＦｉ　密码？\n"), "wifi 密码?");
        assert_eq!(folded("wifi 密码?"), "wifi 密码?");
    }

    #[test]
    fn everything_else_does() {
        assert_ne!(folded("价 格"), folded("价格"));
        assert_eq!(folded("「价格」。"), "「价格」。");
    }
}
