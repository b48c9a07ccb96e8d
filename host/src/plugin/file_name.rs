//! What a plugin's file name says: its name in the settings, and its place in the chain.

use std::{cmp::Ordering, path::Path};

/// Returns a plugin's name: the file's stem without the leading number and a trailing version
/// (`30-weather-1.2.0.wasm` is `weather`). None for a file that is not named `….wasm`, or whose name has control
/// characters, which would break the lines of a log.
pub fn name_of(path: &Path) -> Option<String> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".wasm")?;
    if stem.contains(char::is_control) {
        return None;
    }
    let name = match stem.split_once('-') {
        Some((number, rest)) if is_number(number) && !rest.is_empty() => rest,
        _ => stem,
    };
    let name = match name.rsplit_once('-') {
        Some((rest, version)) if is_version(version) && !rest.is_empty() => rest,
        _ => name,
    };
    Some(name.to_owned())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `1.2`, `1.2.0`, `v1.2.0`: a single number is part of the name.
fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    text.contains('.') && text.split('.').all(is_number)
}

/// The order in which plugins are asked: by file name, runs of digits compared as numbers (`9-a` before `10-b`).
pub fn file_name_order(a: &Path, b: &Path) -> Ordering {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    natural(name(a).as_bytes(), name(b).as_bytes()).then_with(|| a.cmp(b))
}

fn natural(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let (digits_a, digits_b) = (leading_digits(a), leading_digits(b));
        let order = if digits_a > 0 && digits_b > 0 {
            let (number_a, number_b) = (significant(&a[..digits_a]), significant(&b[..digits_b]));
            (a, b) = (&a[digits_a..], &b[digits_b..]);
            number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b))
        } else {
            match (a.split_first(), b.split_first()) {
                (None, None) => return Ordering::Equal,
                (first_a, first_b) => {
                    let order = first_a.map(|(byte, _)| byte).cmp(&first_b.map(|(byte, _)| byte));
                    (a, b) = (first_a.map_or(a, |(_, rest)| rest), first_b.map_or(b, |(_, rest)| rest));
                    order
                }
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn leading_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_a_line_is_none() {
        assert_eq!(name_of(Path::new("30-we\nather.wasm")), None);
    }

    #[test]
    fn a_plugin_is_named_by_its_file_without_number_and_version() {
        for (file, name) in [
            ("20-echo.wasm", "echo"),
            ("30-weather-1.2.0.wasm", "weather"),
            ("weather-v2.0.wasm", "weather"),
            ("echo.wasm", "echo"),
            ("5-bot-2.wasm", "bot-2"),
            ("42.wasm", "42"),
            ("1-.wasm", "1-"),
            ("7-1.2.wasm", "1.2"),
        ] {
            assert_eq!(name_of(Path::new(file)).as_deref(), Some(name), "{file}");
        }
        assert_eq!(name_of(Path::new("echo.wasm.off")), None);
    }

    #[test]
    fn numbers_in_file_names_are_compared_as_numbers() {
        let mut files = ["10-b.wasm", "9-a.wasm", "z.wasm", "010-a.wasm", "100-c.wasm", "a.wasm"].map(Path::new);
        files.sort_by(|a, b| file_name_order(a, b));
        assert_eq!(files, ["9-a.wasm", "010-a.wasm", "10-b.wasm", "100-c.wasm", "a.wasm", "z.wasm"].map(Path::new));
    }
}
