//! A guest's own words, made fit for the log: no user can be found in them, and no line looks like one of ours.

use std::sync::LazyLock;

use regex::Regex;

use crate::foreign::fit;

/// How many of a guest's last lines come with its failure.
const LAST_LINES_MAX: usize = 20;

/// How many bytes they may have together.
const LAST_BYTES_MAX: usize = 4 << 10;

/// How many characters of one of them are shown: the end of a traceback matters more than one long line.
const LINE_CHARS_MAX: usize = 400;

/// What stands between two of them.
const SEPARATOR: &str = " | ";

/// WeChat's openids and unionids: `o` and 27 more. What follows without a break goes with them.
static OPENID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("o[A-Za-z0-9_-]{27,}").expect("the tests compile this constant"));

/// Words of a guest without the user's openid, or whatever looks like another's: an error likes to quote what it was
/// about.
pub fn masked(text: &str, openid: &str) -> String {
    let text = fit(text);
    let text = match openid {
        "" => text,
        openid => text.replace(openid, "[openid]"),
    };
    OPENID.replace_all(&text, "[openid]").into_owned()
}

/// The last lines of what a guest wrote, masked, as one line of the log; nothing if it wrote nothing.
pub fn last_lines(output: &[String], openid: &str) -> Option<String> {
    let told = output.iter().rev().filter(|line| !line.trim().is_empty());
    let newest = told.take(LAST_LINES_MAX).map(|line| shortened(masked(line, openid)));
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for line in newest {
        bytes += line.len() + SEPARATOR.len();
        if bytes > LAST_BYTES_MAX {
            break;
        }
        lines.push(line);
    }
    lines.reverse();
    (!lines.is_empty()).then(|| lines.join(SEPARATOR))
}

fn shortened(mut line: String) -> String {
    if let Some((end, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENID: &str = "oABCdefghijklmnopqrstuvwxy12";

    fn last(output: &[String]) -> String {
        last_lines(output, "o1").unwrap()
    }

    #[test]
    fn no_openid_and_no_line_break_of_a_guest_gets_into_the_log() {
        assert_eq!(masked("no session\nfor o1", "o1"), "no session for [openid]");
        let another = format!("state_{OPENID}:1 {{\"openid\":\"{OPENID}\"}}");
        let masked = masked(&another, "o1");
        assert!(!masked.contains(&OPENID[8..]), "{masked}");
        assert!(masked.ends_with(":1 {\"openid\":\"[openid]\"}"), "{masked}");
        assert_eq!(super::masked("a\u{1b}[31mb\u{202e}c\r", ""), "a [31mb c ");
    }

    #[test]
    fn the_last_20_lines_are_told_in_the_order_written() {
        let mut output: Vec<String> = (1..=25).map(|n| format!("line {n}")).collect();
        output.insert(10, "  ".into());
        let expected: Vec<String> = (6..=25).map(|n| format!("line {n}")).collect();
        assert_eq!(last(&output), expected.join(" | "));
        assert_eq!(last_lines(&[], "o1"), None);
    }

    #[test]
    fn long_lines_are_cut_and_the_newest_are_kept() {
        let output: Vec<String> = (1..=20).map(|n| format!("{n} {}", "微".repeat(1_000))).collect();
        let told = last(&output);
        assert!(told.len() <= LAST_BYTES_MAX, "{}", told.len());
        assert!(told.contains(" | 20 微") && !told.contains("1 微微"), "{told}");
    }
}
