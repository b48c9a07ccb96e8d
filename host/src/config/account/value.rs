//! What one value of an account may be: held to WeChat's rules, with the way out where it breaks one.

use aviary_wechat::crypt::AesKey;
use hyper::Uri;

use crate::{egress::target::Target, reply::TEXT_BYTES_MAX, secret::Secret};

/// Paths of the host's own on the public listener.
const RESERVED: [&str; 4] = ["/oauth", "/me", "/pages", "/jssdk"];

/// Accepts a path and takes the slash off its end.
pub(super) fn path(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        !matches!(part, "" | "." | "..") && part.bytes().all(allowed)
    };
    let reserved =
        |own: &&&str| path.strip_prefix(**own).is_some_and(|below| below.is_empty() || below.starts_with('/'));
    match path.strip_prefix('/') {
        _ if text == "/" => Ok("/".to_owned()),
        None => Err("must begin with `/`".to_owned()),
        Some(parts) if !parts.split('/').all(is_plain) => {
            Err("may hold letters, digits, `-`, `_`, `.` and `~` between single slashes".to_owned())
        }
        Some(_) => match RESERVED.iter().find(reserved) {
            Some(own) => Err(format!("must not be `{own}` or below: that is the host's own")),
            None => Ok(path.to_owned()),
        },
    }
}

/// Holds a token to [WeChat's rule](https://developers.weixin.qq.com/doc/service/guide/dev/push/): 3 to 32 letters and
/// digits.
pub(super) fn token_text(text: &str) -> Result<Secret, String> {
    let length = text.chars().count();
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(
            "has a character that is no ASCII letter or digit; WeChat allows 3 to 32 letters and digits".to_owned()
        );
    }
    match length {
        3..=32 => Ok(Secret::from(text)),
        _ => Err(format!("has {length} characters; WeChat allows 3 to 32 letters and digits")),
    }
}

pub(super) fn aes_key(text: &str) -> Result<AesKey, String> {
    AesKey::parse(text).map_err(|error| error.to_string())
}

/// Reads an AppID; an empty text is none.
///
/// # Errors
/// What it must be.
pub fn app_id(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        _ if text.starts_with("gh_") => Err("must be the AppID, `wx…`; this is the account's original id".to_owned()),
        _ if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Ok(Some(text.to_owned())),
        _ => Err("must be the AppID, `wx…`: letters and digits".to_owned()),
    }
}

/// How long an AppSecret may be; WeChat's have 32 characters today.
const APP_SECRET_CHARS_MAX: usize = 128;

pub(super) fn app_secret(text: &str) -> Result<Secret, String> {
    let length = text.chars().count();
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("has a character that is no letter or digit; copy it again from WeChat's console".to_owned());
    }
    match length {
        ..=APP_SECRET_CHARS_MAX => Ok(Secret::from(text)),
        _ => Err(format!("has {length} characters; WeChat's AppSecret has 32")),
    }
}

/// How long an address of WeChat's API may be, so that it stays one with a path and a token added.
const API_BASE_URL_BYTES_MAX: usize = 2_048;

/// Accepts an address to which paths can be added, and takes the slash off its end.
pub(super) fn api_base_url(text: &str) -> Result<Uri, String> {
    let uri: Option<Uri> = text.strip_suffix('/').unwrap_or(text).parse().ok();
    let is_base = |uri: &Uri| is_http_address(uri) && uri.query().is_none();
    let is_target = |_: &Uri| Target::parse(text).is_ok();
    let uri = uri.filter(is_base).filter(|_| text.len() <= API_BASE_URL_BYTES_MAX && !text.contains('#'));
    let uri = uri.filter(is_target);
    uri.ok_or_else(|| "must be an address such as \"https://api.weixin.qq.com\", without parameters".to_owned())
}

/// Tells whether requests can be sent there, and nothing in it would be left out.
pub(in crate::config) fn is_http_address(uri: &Uri) -> bool {
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    matches!(uri.scheme_str(), Some("http" | "https")) && has_host && !has_user
}

/// Accepts a text that WeChat shows whole, or none.
pub(in crate::config) fn words_for_a_user(text: &str) -> Result<Option<String>, String> {
    let has_control = text.chars().any(|char| char.is_control() && !matches!(char, '\n' | '\t'));
    match text.len() {
        0 => Ok(None),
        _ if text.trim().is_empty() => Err("must say something, or be \"\" for no words".to_owned()),
        _ if has_control => Err("must not have control characters other than line breaks".to_owned()),
        1..=TEXT_BYTES_MAX => Ok(Some(text.to_owned())),
        bytes => Err(format!("must have {TEXT_BYTES_MAX} bytes at most, and has {bytes}: WeChat would cut it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{account, account_error, error, load};

    #[test]
    fn a_path_loses_the_slash_at_its_end() {
        let of = |text: &str| path(text).unwrap();
        assert_eq!([of("/"), of("/wx"), of("/wx/"), of("/a/b.c/")], ["/", "/wx", "/wx", "/a/b.c"]);
        assert_eq!(of("/oauth2"), "/oauth2");
    }

    #[test]
    fn a_path_that_no_request_can_have_or_that_is_the_hosts_own_is_refused() {
        let refused = |path: &str| account_error(&format!("path = {path:?}"));
        assert_eq!(refused("wx"), "aviary.toml:3: `accounts.main.path` is \"wx\"; it must begin with `/`");
        assert_eq!(refused(""), "aviary.toml:3: `accounts.main.path` is \"\"; it must begin with `/`");
        let plain = "it may hold letters, digits, `-`, `_`, `.` and `~` between single slashes";
        for path in ["//", "/a//b", "/a/../b", "/a b", "/a?b", "/{a}", "/%41", "/微信"] {
            assert_eq!(refused(path), format!("aviary.toml:3: `accounts.main.path` is {path:?}; {plain}"));
        }
        for (path, own) in [("/oauth", "/oauth"), ("/me/", "/me"), ("/pages/a", "/pages"), ("/jssdk", "/jssdk")] {
            let text = format!("it must not be `{own}` or below: that is the host's own");
            assert_eq!(refused(path), format!("aviary.toml:3: `accounts.main.path` is {path:?}; {text}"));
        }
    }

    #[test]
    fn a_token_is_3_to_32_ascii_letters_and_digits_and_no_error_shows_it() {
        let refused = |token: &str| error(&format!("[accounts.main]\ntoken = {token}\n"));
        for token in ["abc", &"a".repeat(32)] {
            load(&format!("[accounts.main]\ntoken = \"{token}\"\n"));
        }
        let rule = "WeChat allows 3 to 32 letters and digits";
        assert_eq!(refused("\"ab\""), format!("aviary.toml:2: `accounts.main.token` has 2 characters; {rule}"));
        let long = format!("\"{}\"", "a".repeat(33));
        assert_eq!(refused(&long), format!("aviary.toml:2: `accounts.main.token` has 33 characters; {rule}"));
        for token in ["\"abc-def\"", "\"口令口令\"", "\"abc \""] {
            let text = "has a character that is no ASCII letter or digit";
            assert_eq!(refused(token), format!("aviary.toml:2: `accounts.main.token` {text}; {rule}"));
        }
        assert_eq!(refused("12345"), "aviary.toml:2: `accounts.main.token` is a number; it must be a text in quotes");
        assert_eq!(refused("[\"a\"]"), "aviary.toml:2: `accounts.main.token` is a list; it must be a text in quotes");
        let missing = "is missing: the Token of WeChat's 服务器配置 form, 3 to 32 letters and digits";
        assert_eq!(refused("\"\""), format!("aviary.toml:1: `accounts.main.token` {missing}"));
        assert_eq!(error("[accounts.main]\n"), format!("aviary.toml:1: `accounts.main.token` {missing}"));
        assert_eq!(
            account_error("previous_token = \"a b\""),
            format!(
                "aviary.toml:3: `accounts.main.previous_token` has a character that is no ASCII letter \
                 or digit; {rule}"
            )
        );
    }

    #[test]
    fn a_key_that_is_not_one_is_refused_and_not_shown() {
        assert_eq!(
            account_error("encoding_aes_key = \"jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2\"\napp_id = \"wx1\""),
            "aviary.toml:3: `accounts.main.encoding_aes_key` has 42 characters, WeChat's EncodingAESKey has 43"
        );
    }

    #[test]
    fn an_original_id_is_no_app_id() {
        assert_eq!(
            account_error("app_id = \"gh_1234\""),
            "aviary.toml:3: `accounts.main.app_id` is \"gh_1234\"; it must be the AppID, `wx…`; this is \
             the account's original id"
        );
        assert_eq!(
            account_error("app_id = \"wx 12\""),
            "aviary.toml:3: `accounts.main.app_id` is \"wx 12\"; it must be the AppID, `wx…`: letters and digits"
        );
    }

    #[test]
    fn an_app_secret_is_letters_and_digits_and_no_error_shows_it() {
        assert_eq!(
            account_error("app_secret = \"hidden-7\""),
            "aviary.toml:3: `accounts.main.app_secret` has a character that is no letter or digit; copy it again from \
             WeChat's console"
        );
        let long = format!("app_secret = \"{}\"", "a".repeat(129));
        assert_eq!(
            account_error(&long),
            "aviary.toml:3: `accounts.main.app_secret` has 129 characters; WeChat's AppSecret has 32"
        );
    }

    #[test]
    fn the_apis_address_takes_paths_and_nothing_else() {
        for url in ["", "api.weixin.qq.com", "ftp://a/", "https://", "https://a/?b=c", "https://a:b@c/", "https://a/#b"]
        {
            assert_eq!(
                account_error(&format!("api_base_url = {url:?}")),
                format!(
                    "aviary.toml:3: `accounts.main.api_base_url` is {url:?}; it must be an address such as \
                     \"https://api.weixin.qq.com\", without parameters"
                )
            );
        }
    }

    #[test]
    fn an_apology_is_a_text_that_wechat_shows_whole() {
        assert_eq!(account("apology_text = \"稍后再试\"").apology_text.as_deref(), Some("稍后再试"));
        let long = "微".repeat(700);
        assert!(
            account_error(&format!("apology_text = \"{long}\""))
                .ends_with("it must have 2048 bytes at most, and has 2100: WeChat would cut it")
        );
        assert_eq!(
            account_error("apology_text = \" \""),
            "aviary.toml:3: `accounts.main.apology_text` is \" \"; it must say something, or be \"\" for no words"
        );
        assert!(account_error("apology_text = \"a\\u0007\"").contains("must not have control characters"));
    }
}
