//! What must hold of every error, because it goes into the log.

/// More than any error needs, less than a message would take.
const CHARS_MAX: usize = 200;

/// Asserts that a text can neither forge a line of the log nor fill it.
pub fn assert_printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.chars().count() <= CHARS_MAX, "{text:?}");
}
