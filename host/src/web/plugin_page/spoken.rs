//! What a plugin may say of its page: a short list of headers, under a policy of the host's.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::{
    config::PagesGrant,
    plugin::page::{NoPage, Page},
    web::{html, return_url},
};

/// What a plugin may say of its answer. Cookies are not among it: they would be those of the whole domain.
const ALLOWED: [HeaderName; 11] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::RETRY_AFTER,
    header::VARY,
];

/// What a page was asked for.
#[derive(Debug)]
pub struct Asked {
    /// Which of the account's domains the visitor sees.
    pub domain: String,
    pub domains: Vec<String>,
    pub method: Method,
    /// The path of the request.
    pub path: String,
    /// Where the plugin's own pages begin: a path that ends in a slash.
    pub base: String,
    pub grant: PagesGrant,
}

/// Holds a page to what it may say. Its headers are then those that the visitor gets.
pub fn checked(page: Page, asked: &Asked) -> Result<Page, NoPage> {
    let status = page.status;
    // What is below 200 would not be the end of the answer.
    if !(200..600).contains(&status.as_u16()) {
        return Err(NoPage::Status(status.as_u16()));
    }
    let mut headers = HeaderMap::new();
    for name in ALLOWED {
        page.headers.get_all(&name).iter().for_each(|value| _ = headers.append(name.clone(), value.clone()));
    }
    for name in [header::CONTENT_TYPE, header::LOCATION] {
        // Of two, one reader takes the first, and another the last.
        if headers.get_all(&name).iter().count() > 1 {
            return Err(NoPage::Twice(name));
        }
    }
    if let Some(location) = headers.get(header::LOCATION) {
        let location = led(location, status, asked).ok_or(NoPage::LeadsAway)?;
        headers.insert(header::LOCATION, location);
    }
    // Beside a policy of the plugin's own, which can only be narrower: a browser keeps to both.
    headers.append(header::CONTENT_SECURITY_POLICY, policy(&asked.domain, &asked.base, asked.grant));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    html::guard(&mut headers);
    Ok(Page { headers, ..page })
}

/// Where a page leads, written out: to the account's domains. A browser that repeats what a visitor sent goes to the plugin's own
/// pages only, for others would take it for their own form: the policy does not reach behind a redirect.
fn led(location: &HeaderValue, status: StatusCode, asked: &Asked) -> Option<HeaderValue> {
    let at = format!("https://{}{}", asked.domain, asked.path);
    let url = return_url::within(location.to_str().ok()?, &at, &asked.domains)?;
    let is_own = url.host_str() == Some(&asked.domain) && url.path().starts_with(&asked.base);
    match is_own || !is_repeated(status, &asked.method) {
        true => HeaderValue::try_from(String::from(url)).ok(),
        false => None,
    }
}

/// Whether a browser sends a request that changes something once more, as it was.
fn is_repeated(status: StatusCode, method: &Method) -> bool {
    match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => !method.is_safe(),
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => !method.is_safe() && method != Method::POST,
        _ => false,
    }
}

/// What a plugin's page may do: show what is the plugin's own, WeChat's pictures, and send forms to the
/// plugin. A picture from anywhere would tell anybody who the visitor is.
fn policy(domain: &str, base: &str, PagesGrant { scripts }: PagesGrant) -> HeaderValue {
    let own = format!("https://{domain}{base}");
    let scripts = match scripts {
        true => format!(
            "script-src {own} 'unsafe-inline' https://res.wx.qq.com https://res2.wx.qq.com; connect-src {own} \
             https://{domain}/jssdk/; "
        ),
        false => String::new(),
    };
    let policy = format!(
        "default-src 'none'; {scripts}style-src {own} 'unsafe-inline'; img-src {own} data: https://*.qlogo.cn https://mmbiz.qpic.cn; font-src {own}; media-src {own}; \
          form-action {own}; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::try_from(policy).expect("domains and paths are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method) -> Asked {
        Asked {
            domain: "a.example".into(),
            domains: vec!["a.example".into(), "b.example".into()],
            method,
            path: "/pages/main/shop/cart".into(),
            base: "/pages/main/shop/".into(),
            grant: PagesGrant { scripts: false },
        }
    }

    fn said(status: u16, headers: &[(HeaderName, &str)], method: Method) -> Result<Page, NoPage> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        checked(Page { status, headers, body: bytes::Bytes::new() }, &asked(method))
    }

    fn leads(status: u16, to: &str, method: Method) -> Option<String> {
        let page = said(status, &[(header::LOCATION, to)], method).ok()?;
        Some(page.headers[header::LOCATION].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_page_leads_to_the_accounts_domains_and_what_was_checked_is_sent() {
        assert_eq!(leads(303, "pay?a=b", Method::POST).as_deref(), Some("https://a.example/pages/main/shop/pay?a=b"));
        assert_eq!(leads(302, "https://B.example/x", Method::GET).as_deref(), Some("https://b.example/x"));
        assert_eq!(leads(302, "/oauth/main/login", Method::GET).as_deref(), Some("https://a.example/oauth/main/login"));
        for to in
            ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "http://a.example/"]
        {
            assert_eq!(leads(303, to, Method::GET), None, "{to}");
        }
    }

    #[test]
    fn what_a_visitor_sent_is_repeated_to_the_plugins_own_pages_only() {
        for (status, method) in [(307, Method::POST), (308, Method::POST), (307, Method::PUT), (302, Method::DELETE)] {
            assert!(leads(status, "/pages/main/shop/x", method.clone()).is_some(), "{status} {method}");
            for to in
                ["/pages/main/bank/transfer", "/me/main/sign-out", "../bank/", "https://b.example/pages/main/shop/"]
            {
                assert_eq!(leads(status, to, method.clone()), None, "{status} {method} {to}");
            }
        }
        for (status, method) in [(303, Method::POST), (302, Method::POST), (307, Method::GET)] {
            assert!(leads(status, "/pages/main/bank/", method.clone()).is_some(), "{status} {method}");
        }
    }

    #[test]
    fn what_means_different_things_to_different_readers_is_not_said() {
        let two = |name: HeaderName| said(303, &[(name.clone(), "/a"), (name, "https://evil.example/")], Method::GET);
        assert!(matches!(two(header::LOCATION), Err(NoPage::Twice(_))));
        assert!(matches!(two(header::CONTENT_TYPE), Err(NoPage::Twice(_))));
        for status in [100, 101, 199, 600, 999] {
            assert!(matches!(said(status, &[], Method::GET), Err(NoPage::Status(_))), "{status}");
        }
    }

    #[test]
    fn a_page_says_what_is_on_the_list_and_keeps_to_the_hosts_policy_beside_its_own() {
        let headers = [
            (header::SET_COOKIE, "__Host-session-main=x"),
            (header::REFRESH, "0;url=https://evil.example/"),
            (header::CONTENT_SECURITY_POLICY, "script-src *"),
            (header::CACHE_CONTROL, "max-age=60"),
        ];
        let page = said(200, &headers, Method::GET).unwrap();
        assert!(!page.headers.contains_key(header::SET_COOKIE) && !page.headers.contains_key(header::REFRESH));
        assert_eq!(page.headers[header::CACHE_CONTROL], "max-age=60");
        let policies: Vec<_> = page.headers.get_all(header::CONTENT_SECURITY_POLICY).iter().collect();
        assert_eq!(policies[0], "script-src *");
        assert!(policies[1].to_str().unwrap().contains("default-src 'none'"));
        assert_eq!(said(200, &[], Method::GET).unwrap().headers[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn a_page_has_no_scripts_unless_they_are_granted_and_sends_forms_to_its_own_plugin() {
        let of = |scripts| {
            let policy = policy("a.example", "/pages/main/shop/", PagesGrant { scripts });
            policy.to_str().unwrap().to_owned()
        };
        assert!(!of(false).contains("script-src") && of(false).contains("default-src 'none'"));
        assert!(of(false).contains("form-action https://a.example/pages/main/shop/;"));
        assert!(!of(false).contains(" https: "));
        assert!(
            of(true).contains("script-src https://a.example/pages/main/shop/ 'unsafe-inline' https://res.wx.qq.com")
        );
    }
}
