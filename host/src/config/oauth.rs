//! Pages inside WeChat: `[oauth]` and `[pages]`, and of each account `[accounts.NAME.oauth]`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Host;

use super::{section::Section, sources};

/// The largest `MP_verify_….txt`; WeChat's have 16 bytes.
const VERIFY_FILE_BYTES_MAX: u64 = 1_024;

/// `[oauth]`: logins by WeChat's web authorisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth {
    /// `login_s`: how long a login may take, from its link to WeChat's answer. Default 600 s.
    pub login: Duration,
    /// How many of WeChat's answers are remembered so that none counts twice. Default 100,000.
    pub logins_max: usize,
    /// `session_s`: how long a visitor stays signed in. Default 604,800 s.
    pub session: Duration,
    /// How many visitors of one account may be signed in. Default 1,000,000.
    pub sessions_max: u64,
    /// `profile_s`: how old a profile may become before WeChat is asked again. Default 3,600 s.
    pub profile: Duration,
    /// `timeout_ms`: how long one call of WeChat's API may take while a visitor waits. Default 5 s.
    pub timeout: Duration,
}

/// `[pages]`: pages that plugins serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// The largest body of a request. Default 262,144 bytes.
    pub body_bytes_max: usize,
    /// The largest page. Default 1,048,576 bytes.
    pub answer_bytes_max: usize,
    /// `timeout_ms`: how long a plugin may take for one. Default 10 s.
    pub timeout: Duration,
    /// How many may be made or on their way at once. Default 256.
    pub answers_max: usize,
}

/// `[accounts.NAME.oauth]`: the account's pages.
#[derive(Clone, Debug, Default)]
pub struct AccountPages {
    /// The account's own domains, in lower case and Punycode. Default none: no pages.
    pub domains: Vec<String>,
    /// What a login asks for where its link does not say. Default `snsapi_base`.
    pub scope: Scope,
    /// What WeChat wants to find at the domains' root. Default none.
    pub verify_files: Vec<VerifyFile>,
}

/// What a login asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Who the visitor is. WeChat asks nobody.
    #[default]
    Base,
    /// The profile as well. WeChat asks the visitor.
    UserInfo,
}

/// A file that WeChat wants to find at a domain's root.
#[derive(Clone, Debug)]
pub struct VerifyFile {
    pub path: PathBuf,
    /// `MP_verify_….txt`.
    pub name: String,
    pub content: String,
}

impl Scope {
    /// Every scope by WeChat's word for it.
    pub const ALL: [(&'static str, Self); 2] = [("snsapi_base", Self::Base), ("snsapi_userinfo", Self::UserInfo)];

    /// WeChat's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Base => "snsapi_base",
            Self::UserInfo => "snsapi_userinfo",
        }
    }
}

impl OAuth {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let seconds = |key, bounds| Duration::from_secs(section.number(key, bounds));
        Self {
            login: seconds("login_s", 1..=3_600),
            logins_max: section.count("logins_max", 1_000..=10_000_000),
            session: seconds("session_s", 60..=2_592_000),
            sessions_max: section.number("sessions_max", 100..=100_000_000),
            profile: seconds("profile_s", 0..=2_592_000),
            timeout: section.millis("timeout_ms", 100..=30_000),
        }
    }
}

impl Pages {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            body_bytes_max: section.count("body_bytes_max", 0..=16_777_216),
            answer_bytes_max: section.count("answer_bytes_max", 1_024..=67_108_864),
            timeout: section.millis("timeout_ms", 100..=60_000),
            answers_max: section.count("answers_max", 1..=65_536),
        }
    }
}

impl AccountPages {
    pub(super) fn read(section: &Section<'_>, directory: &Path) -> Option<Self> {
        let domains = items(section, "domains", domain);
        let verify_files = items(section, "verify_files", |text| verify_file(&sources::absolute(directory, text)));
        Some(Self { scope: section.choice("scope", &Scope::ALL)?, domains, verify_files })
    }

    /// Whether the account has pages at all.
    pub fn are_on(&self) -> bool {
        !self.domains.is_empty()
    }
}

/// Reads each text of a list. A failure follows the text.
fn items<T>(section: &Section<'_>, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let item = |(text, node): (&str, &super::document::Node)| {
        let wrong = |reason| {
            section.problems.add(&node.place, format!("`{}` has {text:?}; it {reason}", section.name(key)));
        };
        read(text).map_err(wrong).ok()
    };
    section.texts(key).into_iter().filter_map(item).collect()
}

/// Accepts a domain as WeChat's console has it: a name alone.
fn domain(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    match Host::parse(text) {
        Ok(Host::Domain(domain)) if domain.contains('.') && !domain.ends_with('.') && domain.bytes().all(is_plain) => {
            Ok(domain)
        }
        _ => Err("must be a domain alone, such as \"shop.example.com\", without scheme, port and path".to_owned()),
    }
}

fn verify_file(path: &Path) -> Result<VerifyFile, String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match name.strip_suffix(".txt") {
        Some(stem) if !stem.is_empty() && stem.bytes().all(is_plain) => {}
        _ => return Err("must be a file such as \"MP_verify_aBc.txt\", under the name that WeChat gave it".to_owned()),
    }
    let mut content = String::new();
    let read = File::open(path).and_then(|file| file.take(VERIFY_FILE_BYTES_MAX + 1).read_to_string(&mut content));
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(bytes) if bytes as u64 > VERIFY_FILE_BYTES_MAX => {
            Err(format!("has more than {VERIFY_FILE_BYTES_MAX} bytes, so it is not from WeChat"))
        }
        Ok(_) => Ok(VerifyFile { path: path.to_owned(), name: name.to_owned(), content }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{Directory, account, account_error};

    const API: &str = "app_id = \"wx1\"\napp_secret = \"deep7\"\n";

    #[test]
    fn an_account_has_no_pages_unless_it_names_a_domain() {
        assert!(!account("").pages.are_on());
        let pages = account(&format!("{API}oauth = {{ domains = [\"Shop.Example.com\", \"微.cn\"] }}\n")).pages;
        assert_eq!(pages.domains, ["shop.example.com", "xn--g5t.cn"]);
        assert_eq!((pages.scope, pages.verify_files.len()), (Scope::Base, 0));
    }

    #[test]
    fn a_domain_is_a_name_alone() {
        for text in
            ["https://a.example", "a.example:443", "a.example/x", "10.0.0.1", "[::1]", "", "localhost", "a.", "*.a.cn"]
        {
            let error = account_error(&format!("{API}oauth.domains = [{text:?}]\n"));
            assert!(
                error.starts_with(&format!("aviary.toml:5: `accounts.main.oauth.domains` has {text:?}; it must be")),
                "{error}"
            );
        }
    }

    #[test]
    fn pages_need_appid_and_appsecret() {
        assert_eq!(
            account_error("oauth.domains = [\"a.example\"]\n"),
            "aviary.toml:1: `accounts.main.app_id` is missing, and `accounts.main.oauth.domains` needs it\n\
             aviary.toml:1: `accounts.main.app_secret` is missing, and `accounts.main.oauth.domains` needs it"
        );
    }

    #[test]
    fn a_verify_file_is_served_as_wechat_gave_it() {
        let main = "[accounts.main]\ntoken = \"abc\"\noauth.verify_files = [\"MP_verify_x1.txt\"]\n";
        let directory = Directory::with(main).and("MP_verify_x1.txt", "x1");
        let config = directory.load();
        let files = &config.accounts[0].pages.verify_files;
        assert_eq!((files[0].name.as_str(), files[0].content.as_str()), ("MP_verify_x1.txt", "x1"));
        assert!(config.watched().contains(&directory.path("MP_verify_x1.txt")));
    }

    #[test]
    fn a_verify_file_that_is_missing_or_something_else_is_told() {
        let error = account_error("oauth.verify_files = [\"MP_verify_x1.txt\"]\n");
        assert!(
            error.starts_with(
                "aviary.toml:3: `accounts.main.oauth.verify_files` has \"MP_verify_x1.txt\"; it cannot be read"
            ),
            "{error}"
        );
        let error = account_error("oauth.verify_files = [\"/etc/passwd\"]\n");
        assert!(error.contains("it must be a file such as"), "{error}");
    }
}
