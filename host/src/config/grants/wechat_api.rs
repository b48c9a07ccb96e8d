//! `grants.wechat_api`: the calls of WeChat's API that a plugin may make.

use super::{super::document::Value, Section};
use crate::api::{Method, check_path};

/// How many calls one plugin may be granted: each call is compared with all of them.
const GRANTS_MAX: usize = 1_000;

/// What begins the paths of other people's tokens: those of third-party platforms and of web users.
const NEVER_BELOW: [&str; 2] = ["/sns/", "/cgi-bin/component/"];

/// What stands in the paths that give out tokens and tickets: `stable_token`, `ticket/getticket`.
const NEVER_WORDS: [&str; 2] = ["token", "ticket"];

/// Calls of one method: one path, or all that begin with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WechatApiGrant {
    pub method: Method,
    /// The path, or its beginning.
    pub path: String,
    /// Whether the path is a beginning: `*` stood at its end.
    pub is_beginning: bool,
}

impl WechatApiGrant {
    /// Whether one of these grants allows a call. A path that gives out tokens is allowed by none.
    pub fn allow(grants: &[Self], method: Method, path: &str) -> bool {
        !gives_secrets(path) && grants.iter().any(|grant| grant.fits(method, path))
    }

    fn fits(&self, method: Method, path: &str) -> bool {
        self.method == method
            && match self.is_beginning {
                true => path.len() > self.path.len() && path.starts_with(&self.path),
                false => path == self.path,
            }
    }

    /// Reads `GET /cgi-bin/user/info` or `POST /cgi-bin/material/*`. A failure is the sentence's end.
    fn parse(text: &str) -> Result<Self, String> {
        const USAGE: &str = "must be a method and a path: \"GET /cgi-bin/user/info\" or \"POST /cgi-bin/material/*\"";
        let (method, path) = text.split_once(' ').ok_or(USAGE)?;
        let method = Method::parse(method).ok_or("must begin with GET or POST")?;
        let (path, is_beginning) = match path.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (path, false),
        };
        // A beginning ends where a part of the path does, so that it grants nothing that is only called alike.
        let whole = match is_beginning {
            true => path
                .strip_suffix('/')
                .filter(|whole| !whole.is_empty())
                .ok_or("may have `*` only after a whole part of the path: \"/cgi-bin/material/*\"")?,
            false => path,
        };
        check_path(whole).map_err(|reason| format!("names a path that {reason}"))?;
        match gives_secrets(path) {
            true => Err("names a path that gives out tokens or tickets; no plugin is granted those".to_owned()),
            false => Ok(Self { method, path: path.to_owned(), is_beginning }),
        }
    }
}

/// Whether a path gives out access_tokens, tickets or a user's session.
pub fn gives_secrets(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    NEVER_BELOW.iter().any(|beginning| path.starts_with(beginning))
        || NEVER_WORDS.iter().any(|word| path.contains(word))
}

/// Reads `wechat_api`; `None` if the table has none.
pub(super) fn read(section: &Section<'_>) -> Option<Vec<WechatApiGrant>> {
    let found = section.given("wechat_api")?;
    let Value::Array(items) = &found.node.value else {
        let text = format!("`{}` is {}; it must be a list: [\"GET /cgi-bin/user/info\"]", found.key, found.node.value);
        section.problems.add(&found.node.place, text);
        return None;
    };
    if items.len() > GRANTS_MAX {
        let text = format!("`{}` has {} calls; it may have {GRANTS_MAX}", found.key, items.len());
        section.problems.add(&found.node.place, text);
        return None;
    }
    let mut grants = Vec::new();
    for (text, node) in section.texts("wechat_api") {
        match WechatApiGrant::parse(text) {
            Ok(grant) => grants.push(grant),
            Err(reason) => section.problems.add(&node.place, format!("`{}` has {text:?}; it {reason}", found.key)),
        }
    }
    Some(grants)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{error, load};

    const ACCOUNT: &str = "[accounts.main]\ntoken = \"abc\"\n";

    fn allows(grants: &str, call: &str) -> bool {
        let config = load(&format!("{ACCOUNT}[plugins.a.grants]\nwechat_api = {grants}\n"));
        let grants = config.plugin(&config.accounts[0], "a", false).grants.wechat_api;
        let (method, path) = call.split_once(' ').unwrap();
        WechatApiGrant::allow(&grants, Method::parse(method).unwrap(), path)
    }

    #[test]
    fn a_grant_is_about_one_method_and_one_path_or_what_is_below_it() {
        let grants = "[\"GET /cgi-bin/user/info\", \"POST /cgi-bin/material/*\"]";
        for (call, allowed) in [
            ("GET /cgi-bin/user/info", true),
            ("POST /cgi-bin/user/info", false),
            ("GET /cgi-bin/user/info/updateremark", false),
            ("GET /cgi-bin/user/inf", false),
            ("GET /CGI-BIN/user/info", false),
            ("POST /cgi-bin/material/add_material", true),
            ("POST /cgi-bin/material/a/b", true),
            ("POST /cgi-bin/material/", false),
            ("POST /cgi-bin/materials/x", false),
            ("GET /cgi-bin/material/x", false),
        ] {
            assert_eq!(allows(grants, call), allowed, "{call}");
        }
        assert!(!allows("[]", "GET /cgi-bin/user/info"));
    }

    #[test]
    fn tokens_and_tickets_are_granted_to_nobody_however_wide_the_grant() {
        let grants = "[\"GET /cgi-bin/*\", \"POST /cgi-bin/*\"]";
        assert!(allows(grants, "GET /cgi-bin/user/info"));
        for call in [
            "GET /cgi-bin/token",
            "POST /cgi-bin/stable_token",
            "POST /cgi-bin/Stable_TOKEN",
            "GET /cgi-bin/ticket/getticket",
            "POST /cgi-bin/component/api_query_auth",
        ] {
            assert!(!allows(grants, call), "{call}");
        }
        for path in ["/cgi-bin/token", "/cgi-bin/ticket/*", "/sns/userinfo", "/sns/*", "/cgi-bin/component/*"] {
            let error = error(&format!("{ACCOUNT}[plugins.a.grants]\nwechat_api = [\"GET {path}\"]\n"));
            assert!(error.ends_with("no plugin is granted those"), "{error}");
        }
    }

    #[test]
    fn a_path_that_could_be_read_in_two_ways_is_refused() {
        for path in [
            "cgi-bin/x",
            "/cgi-bin/../x",
            "/cgi-bin/%78",
            "/cgi-bin//x",
            "/x?a=b",
            "/x#y",
            "/cgi-bin/*/x",
            "/cgi-bin/us*",
            "/*",
            "*",
            "",
            "/a b",
            "https://evil/x",
        ] {
            let error = error(&format!("{ACCOUNT}[plugins.a.grants]\nwechat_api = [\"GET {path}\"]\n"));
            assert!(error.starts_with("aviary.toml:4: `plugins.a.grants.wechat_api` has \"GET "), "{path}: {error}");
        }
        let of = |value: &str| error(&format!("{ACCOUNT}[plugins.a.grants]\nwechat_api = {value}\n"));
        assert!(of("true").ends_with("it must be a list: [\"GET /cgi-bin/user/info\"]"));
        assert!(of("[\"/cgi-bin/x\"]").contains("it must be a method and a path"));
        assert!(of("[\"DELETE /cgi-bin/x\"]").ends_with("it must begin with GET or POST"));
    }
}
