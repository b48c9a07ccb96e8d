//! Cookies: two, which scripts cannot read, and which only this host name can set (`__Host-`).

use axum::http::{HeaderMap, HeaderValue, header};

/// The longest cookie of ours; what is longer is not.
const VALUE_BYTES_MAX: usize = 256;

/// Which browser a login began in.
pub const BROWSER: &str = "__Host-browser";

/// The session of a visitor in an account.
pub fn session_name(account: &str) -> String {
    format!("__Host-session-{account}")
}

/// Returns the value of a cookie; nothing if there is none or more than one.
pub fn read<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) if value.len() <= VALUE_BYTES_MAX => Some(value),
        _ => None,
    }
}

/// Writes a cookie that lives so long; 0 removes it. Browsers send it with links from WeChat's page (`Lax`), and with nothing
/// that another site posts.
pub fn write(name: &str, value: &str, max_age_s: u64) -> HeaderValue {
    let cookie = format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; Secure; SameSite=Lax");
    HeaderValue::try_from(cookie).expect("names and values are ours: letters, digits, `.`, `-` and `_`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, line.parse().unwrap())).collect()
    }

    #[test]
    fn a_cookie_has_one_value_or_none() {
        let headers = headers(&["a=1; __Host-browser=x=y;b=2", "c=3; b=4"]);
        assert_eq!(read(&headers, BROWSER), Some("x=y"));
        assert_eq!((read(&headers, "a"), read(&headers, "c")), (Some("1"), Some("3")));
        assert_eq!((read(&headers, "b"), read(&headers, "d")), (None, None));
        assert_eq!(read(&HeaderMap::new(), "a"), None);
    }

    #[test]
    fn a_cookie_is_for_https_this_name_and_no_script() {
        assert_eq!(
            write(&session_name("main"), "v", 60),
            "__Host-session-main=v; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"
        );
    }
}
