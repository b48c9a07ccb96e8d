//! What a shell reads: lines for `sh`, and those that a person is told to type.

use std::{borrow::Cow, path::Path};

/// Writes a path as one word.
pub(crate) fn word(path: &Path) -> Cow<'_, str> {
    let path = path.to_string_lossy();
    let is_plain = |char: char| char.is_alphanumeric() || "/._-".contains(char);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_part_or_replace_is_quoted() {
        for (path, written) in [
            ("a/b-1.wasm", "a/b-1.wasm"),
            ("我的/插件", "我的/插件"),
            ("my bots", "'my bots'"),
            ("it's $x", r"'it'\''s $x'"),
        ] {
            assert_eq!(word(Path::new(path)), written);
        }
    }
}
