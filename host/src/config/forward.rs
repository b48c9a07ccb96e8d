//! The webhook behind an account: an address that WeChat's pushes can be sent on to, and not the host's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::Uri;

use super::{
    account::{Account, is_http_address},
    error::Problems,
};

/// How long its address may be, so that it stays one with WeChat's parameters added.
const URL_BYTES_MAX: usize = 2_048;

/// Accepts an address, with parameters of its own or without. A failure does not repeat it: a parameter may be a secret.
pub(super) fn url(text: &str) -> Result<Uri, String> {
    let uri: Option<Uri> = text.parse().ok();
    let uri = uri.filter(is_http_address).filter(|_| text.len() <= URL_BYTES_MAX && !text.contains('#'));
    uri.ok_or_else(|| {
        "must be the address of the webhook, such as \"http://127.0.0.1:5000/wx\", without user and password".to_owned()
    })
}

/// Reports every account that would send messages to the host itself, round and round.
pub(super) fn refuse_own_address<'a>(
    accounts: impl IntoIterator<Item = &'a Account>,
    listen: SocketAddr,
    problems: &Problems,
) {
    let is_own = |account: &&Account| account.forward.as_ref().is_some_and(|url| leads_to(url, listen));
    for account in accounts.into_iter().filter(is_own) {
        let text = format!(
            "`accounts.{}.forward` leads to `listen`, {listen}, which is this host itself; name the bot behind it",
            account.name
        );
        problems.add(&account.place, text);
    }
}

/// Whether an address is that of a listener. Names other than `localhost` are not looked up.
fn leads_to(url: &Uri, listen: SocketAddr) -> bool {
    let usual = if url.scheme_str() == Some("https") { 443 } else { 80 };
    if url.port_u16().unwrap_or(usual) != listen.port() {
        return false;
    }
    let host = url.host().unwrap_or_default();
    let is_localhost = host.eq_ignore_ascii_case("localhost");
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    match ip.or(is_localhost.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))) {
        // To connect to "any address" is to connect to this machine.
        Some(ip) if ip.is_unspecified() || is_localhost => listen.ip().is_loopback() || listen.ip().is_unspecified(),
        Some(ip) => ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{account, account_error, error, load};

    #[test]
    fn a_webhook_is_an_address_with_parameters_or_without() {
        assert_eq!(account("").forward, None);
        for url in ["http://127.0.0.1:5000/wx", "https://bot.example.com/index.php?m=wx&id=3", "http://bot:5000/"] {
            assert_eq!(account(&format!("forward = {url:?}")).forward.unwrap(), url);
        }
        for url in ["127.0.0.1:5000", "bot", "/wx", "ftp://a/", "http://", "http://a:hidden7@b/", "http://a/#b"] {
            assert_eq!(
                account_error(&format!("forward = {url:?}")),
                "aviary.toml:3: `accounts.main.forward` must be the address of the webhook, such as \
                 \"http://127.0.0.1:5000/wx\", without user and password"
            );
        }
        assert!(
            account_error(&format!("forward = \"http://a/{}\"", "a".repeat(2_048))).contains("must be the address")
        );
    }

    #[test]
    fn the_host_itself_is_no_webhook() {
        let told = |listen: &str, forward: &str| {
            format!("listen = {listen:?}\n[accounts.main]\ntoken = \"abc\"\nforward = {forward:?}\n")
        };
        for (listen, forward) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000/"),
            ("127.0.0.1:8000", "http://localhost:8000/wx"),
            ("127.0.0.1:80", "http://LOCALHOST/"),
            ("0.0.0.0:8000", "http://127.0.0.1:8000/"),
            ("0.0.0.0:8000", "http://0.0.0.0:8000/"),
            ("[::1]:8000", "http://[::1]:8000/"),
            ("[::]:443", "https://[::1]/"),
            ("10.0.0.7:8000", "http://10.0.0.7:8000/other"),
        ] {
            assert_eq!(
                error(&told(listen, forward)),
                format!(
                    "aviary.toml:2: `accounts.main.forward` leads to `listen`, {listen}, which is this host itself; \
                     name the bot behind it"
                )
            );
        }
        for (listen, forward) in [
            ("127.0.0.1:8000", "http://127.0.0.1:5000/"),
            ("127.0.0.1:8000", "http://127.0.0.1/"),
            ("10.0.0.7:8000", "http://127.0.0.1:8000/"),
            ("127.0.0.1:8000", "http://bot:8000/"),
        ] {
            load(&told(listen, forward));
        }
    }
}
