//! Where a login leads in the end: to the account's own domains and nowhere else.

use url::Url;

/// The longest address that a login leads to, written out. It travels inside another one.
const BYTES_MAX: usize = 2_048;

/// Reads an address as a browser would that is at `domain`, and returns it written out; nothing if it leads out of `domains`,
/// or back into a login.
///
/// What is returned is what was checked: no second reader can take it for something else. Read once more, it is the same.
pub fn parse(text: &str, domain: &str, domains: &[String]) -> Option<Url> {
    let url = within(text, &format!("https://{domain}/"), domains)?;
    (!is_login(url.path()) && url.as_str().len() <= BYTES_MAX).then_some(url)
}

/// Reads an address as a browser would that is at the address `at`; nothing if it leads out of `domains`.
pub fn within(text: &str, at: &str, domains: &[String]) -> Option<Url> {
    let url = Url::parse(at).ok()?.join(text).ok()?;
    is_ours(&url, domains).then_some(url)
}

fn is_ours(url: &Url, domains: &[String]) -> bool {
    url.scheme() == "https"
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.host_str().is_some_and(|host| domains.iter().any(|domain| domain == host))
}

fn is_login(path: &str) -> bool {
    path.split('/').find(|part| !part.is_empty()) == Some("oauth")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_here(text: &str) -> Option<String> {
        parse(text, "shop.example.com", &["shop.example.com".to_owned(), "m.example.com".to_owned()]).map(String::from)
    }

    #[test]
    fn a_path_and_an_address_of_ours_are_written_out() {
        assert_eq!(read_here("/me/main").as_deref(), Some("https://shop.example.com/me/main"));
        assert_eq!(read_here("/a?b=微&c#d").as_deref(), Some("https://shop.example.com/a?b=%E5%BE%AE&c#d"));
        assert_eq!(read_here("https://m.example.com/x").as_deref(), Some("https://m.example.com/x"));
        assert_eq!(read_here("HTTPS://M.EXAMPLE.COM:443/x/../y").as_deref(), Some("https://m.example.com/y"));
    }

    #[test]
    fn nothing_leads_out() {
        for text in [
            "https://evil.example/",
            "//evil.example/",
            "/\\evil.example/",
            "\\\\evil.example",
            "/\t/evil.example/",
            "\u{1}//evil.example",
            "https:evil.example",
            "https:///evil.example",
            "https://shop.example.com@evil.example/",
            "https://user:word@shop.example.com/",
            "https://shop.example.com.evil.example/",
            "https://evil.example#.shop.example.com",
            "https://evil.example\\.shop.example.com/",
            "https://shop.example.com:8443/",
            "https://a.shop.example.com/",
            "https://example.com/",
            "http://shop.example.com/",
            "javascript:alert(1)",
            "data:text/html,x",
            "weixin://dl/business",
        ] {
            let read = read_here(text);
            assert!(read.as_ref().is_none_or(|url| url.starts_with("https://shop.example.com/")), "{text}: {read:?}");
        }
    }

    #[test]
    fn no_login_leads_into_a_login() {
        for text in ["/oauth/main/login", "/oauth", "//shop.example.com//oauth/main/callback", "/a/../oauth/main/login"]
        {
            assert_eq!(read_here(text), None, "{text}");
        }
        assert!(read_here("/oauthor").is_some());
    }

    #[test]
    fn an_address_has_an_end_and_what_begins_a_login_ends_it() {
        let at = |length: usize| format!("/{}", "a".repeat(length - "https://shop.example.com/".len()));
        assert_eq!(read_here(&at(BYTES_MAX + 1)), None);
        for text in [at(BYTES_MAX), format!("/?q={}", "微".repeat(200))] {
            let written = read_here(&text).expect("it is short enough");
            assert_eq!(read_here(&written), Some(written.clone()));
        }
        // Written out, each of these takes nine bytes.
        assert_eq!(read_here(&format!("/?q={}", "微".repeat(300))), None);
    }
}
