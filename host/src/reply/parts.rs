//! A text that is longer than one message of WeChat's, in parts that are not.

use super::TEXT_BYTES_MAX;
use crate::plugin::bindings::Reply;

/// Splits a reply into what goes out one after the other: a text of over [`TEXT_BYTES_MAX`] bytes into several, any other
/// into itself. Behind each part but the last there is room for `closing_bytes`, at most half of a message.
pub fn split(reply: Reply, closing_bytes: usize) -> (Reply, Vec<Reply>) {
    match reply {
        Reply::Text(text) if text.len() > TEXT_BYTES_MAX => {
            // Blanks at the end, as language models write them, would be a part that WeChat refuses.
            let mut parts = texts(text.trim_end(), TEXT_BYTES_MAX - closing_bytes.min(TEXT_BYTES_MAX / 2));
            let first = parts.next().unwrap_or_default();
            (Reply::Text(first.to_owned()), parts.map(|part| Reply::Text(part.to_owned())).collect())
        }
        reply => (reply, Vec::new()),
    }
}

/// Adds the words that close a part behind which others follow. They can also stand alone.
pub fn closed(part: Reply, closing: &str) -> Reply {
    match part {
        Reply::Text(text) => Reply::Text(text + closing),
        Reply::Nothing => Reply::Text(closing.to_owned()),
        part => part,
    }
}

/// Parts of a text, none empty, each as long as it may be; between characters, and at the end of a line where one is near.
fn texts(text: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, behind) = rest.split_at(end_of_part(rest, bytes_max));
        rest = behind;
        Some(part)
    })
}

fn end_of_part(text: &str, bytes_max: usize) -> usize {
    if text.len() <= bytes_max {
        return text.len();
    }
    let end = text.floor_char_boundary(bytes_max);
    // Within the last quarter a line's end looks better than a word's middle.
    match text[..end].rfind('\n') {
        Some(line_end) if line_end >= end / 4 * 3 => line_end + 1,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_text(text: &str, closing_bytes: usize) -> Vec<String> {
        let (first, rest) = split(Reply::Text(text.to_owned()), closing_bytes);
        let text = |reply| match reply {
            Reply::Text(text) => text,
            other => panic!("{other:?}"),
        };
        std::iter::once(first).chain(rest).map(text).collect()
    }

    #[test]
    fn what_fits_stays_whole() {
        assert_eq!(split_text(&"a".repeat(TEXT_BYTES_MAX), 512).len(), 1);
        assert_eq!(split(Reply::Image("m".into()), 512), (Reply::Image("m".into()), vec![]));
    }

    #[test]
    fn a_long_text_is_split_between_characters_and_nothing_is_lost() {
        for text in ["鸟".repeat(3_000), "🦜a鸟é".repeat(1_000), "x".repeat(TEXT_BYTES_MAX + 1)] {
            let parts = split_text(&text, 40);
            assert!(parts.len() > 1 && parts.iter().all(|part| !part.is_empty()));
            assert!(parts.iter().all(|part| part.len() + 40 <= TEXT_BYTES_MAX));
            assert_eq!(parts.concat(), text);
        }
    }

    #[test]
    fn blanks_at_the_end_make_no_part_of_their_own() {
        assert_eq!(split_text(&format!("{} \n", "a".repeat(TEXT_BYTES_MAX)), 0), ["a".repeat(TEXT_BYTES_MAX)]);
    }

    #[test]
    fn a_part_ends_with_a_line_where_one_ends_near() {
        let (near, far) = ("a".repeat(1_900), "b".repeat(100));
        let parts = split_text(&format!("{near}\n{far}{far}{far}"), 0);
        assert_eq!(parts[0], format!("{near}\n"));
        let parts = split_text(&format!("{far}\n{near}{near}"), 0);
        assert_eq!(parts[0].len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn the_words_that_close_a_part_never_take_more_than_half_of_it() {
        let parts = split_text(&"x".repeat(TEXT_BYTES_MAX * 2), TEXT_BYTES_MAX);
        assert_eq!(parts.len(), 4);
    }
}
