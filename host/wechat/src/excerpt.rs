//! What an error may repeat of a text that somebody else wrote: it will be in the log.

/// Enough to recognise a name or an app id, too little for a message.
const CHARS_MAX: usize = 40;

/// Returns the beginning of a text, without characters that could forge a line of a log.
pub fn excerpt(text: &str) -> String {
    let visible = |char: char| if char.is_control() { '\u{fffd}' } else { char };
    text.chars().take(CHARS_MAX).map(visible).collect()
}
