//! One account: where WeChat calls for it, the secrets it shares with WeChat, and which plugins it asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use aviary_wechat::crypt::AesKey;
use hyper::Uri;

use super::{
    document::Value,
    error::{Place, Problems},
    forward,
    host::AccountCalls,
    late::{Deliver, Late},
    oauth::AccountPages,
    plugin::PluginTable,
    section::Section,
    sources,
    wechat_api::TokenKind,
};
use crate::{egress::target::Target, reply::TEXT_BYTES_MAX, secret::Secret};

/// Paths of the host's own on the public listener.
const RESERVED: [&str; 4] = ["/oauth", "/me", "/pages", "/jssdk"];

/// One `[accounts.NAME]`.
#[derive(Clone, Debug)]
pub struct Account {
    /// The table's name: lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// The path that WeChat calls: begins with `/`, ends with none (but for `/` itself); no two accounts share it.
    /// Default `/`.
    pub path: String,
    /// The signing token.
    pub token: Secret,
    /// The key of the encrypted modes; always there in them. Default none.
    pub encoding_aes_key: Option<AesKey>,
    /// How messages are encrypted. Default safe with a key, plain without.
    pub mode: Mode,
    /// The AppID; always there in the encrypted modes. Default none.
    pub app_id: Option<String>,
    /// The AppSecret, for WeChat's API. Default none.
    pub app_secret: Option<Secret>,
    /// Where WeChat's API is: `http` or `https`, without parameters; its path ends with no slash but for `/` itself.
    /// Default `https://api.weixin.qq.com`.
    pub api_base_url: Uri,
    /// `access_token_from`: which of WeChat's two kinds is used. Default the stable one.
    pub token_kind: TokenKind,
    /// The token before the last change, accepted as well. Default none.
    pub previous_token: Option<Secret>,
    /// The key before the last change, accepted as well. Default none.
    pub previous_encoding_aes_key: Option<AesKey>,
    /// `signature_max_age_s`: how long ago a push may have been signed. Default 600 s; 0 is any age.
    pub signature_max_age: Duration,
    /// A directory of the account's own plugins, absolute. Default none.
    pub plugins_dir: Option<PathBuf>,
    /// `chain`: which plugins are asked, by name, in this order. Default empty: all, in the order of their file names.
    pub plugins: Vec<String>,
    /// `calls_max` and `calls_waiting_max`.
    pub calls: AccountCalls,
    /// What the user reads when every plugin asked failed; a text that WeChat takes. Default none.
    pub apology_text: Option<String>,
    /// The webhook that is asked when no plugin answered. Default none.
    pub forward: Option<Uri>,
    /// `forward_calls_max`: how many messages it may have to answer at once. Default 256.
    pub forward_calls_max: usize,
    /// `[accounts.NAME.oauth]`.
    pub pages: AccountPages,
    /// `[accounts.NAME.late]` over `[late]`.
    pub late: Late,
    /// `[accounts.NAME.plugins.PLUGIN]`.
    pub(super) plugin_tables: BTreeMap<String, PluginTable>,
    /// Where the table begins, for errors about two accounts.
    pub(super) place: Place,
}

/// How WeChat encrypts what it pushes to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 明文模式: not at all.
    Plain,
    /// 兼容模式: each push carries both forms.
    Compatible,
    /// 安全模式: only the encrypted form.
    Safe,
}

impl Account {
    pub(super) fn read(name: &str, section: &Section<'_>, shared: &Section<'_>, directory: &Path) -> Option<Self> {
        let name = checked_name(name, section);
        let path = section.parsed("path", path);
        let token = token(section);
        let previous_token = section.secret("previous_token", token_text);
        let encoding_aes_key = section.secret("encoding_aes_key", aes_key);
        let previous_encoding_aes_key = section.secret("previous_encoding_aes_key", aes_key);
        let app_id = section.parsed("app_id", app_id);
        let app_secret = section.secret("app_secret", app_secret);
        let api_base_url = section.parsed("api_base_url", api_base_url);
        let token_kind = section.choice("access_token_from", &TokenKind::WORDS);
        let mode = mode(section, &encoding_aes_key, &app_id);
        let pages = pages(section, directory, &app_id, &app_secret);
        let plugins_dir = section.text("plugins_dir");
        let apology_text = section.parsed("apology_text", words_for_a_user);
        let forward = section.secret("forward", forward::url);
        let late = Late::read(&section.table("late").over(&shared.table("late")));
        refuse_without_api(section, &late, &app_id, &app_secret);
        Some(Self {
            late,
            calls: AccountCalls::read(section),
            plugins: chain(section),
            plugin_tables: match is_list(section, "plugins") {
                true => BTreeMap::new(),
                false => PluginTable::read_all(section),
            },
            plugins_dir: (!plugins_dir.is_empty()).then(|| sources::absolute(directory, &plugins_dir)),
            forward_calls_max: section.count("forward_calls_max", 1..=10_000),
            signature_max_age: Duration::from_secs(section.number("signature_max_age_s", 0..=86_400)),
            place: section.place()?.clone(),
            name: name?,
            path: path?,
            token: token?,
            previous_token: previous_token?,
            encoding_aes_key: encoding_aes_key?,
            previous_encoding_aes_key: previous_encoding_aes_key?,
            app_id: app_id?,
            app_secret: app_secret?,
            api_base_url: api_base_url?,
            token_kind: token_kind?,
            apology_text: apology_text?,
            forward: forward?,
            mode: mode?,
            pages: pages?,
        })
    }

    /// Reports every path that two accounts share: of the new ones among themselves, and with those already known.
    pub(super) fn refuse_shared_paths<'a>(
        known: impl IntoIterator<Item = &'a Self>,
        new: impl IntoIterator<Item = &'a Self>,
        problems: &Problems,
    ) {
        let mut owners: BTreeMap<&str, &Self> = known.into_iter().map(|account| (&*account.path, account)).collect();
        for account in new {
            if let Some(owner) = owners.insert(&account.path, account) {
                let owner = format!("`accounts.{}` ({})", owner.name, owner.place);
                let text = format!("`accounts.{}.path` is {:?}, like that of {owner}", account.name, account.path);
                problems.add(&account.place, format!("{text}; give each a path of its own"));
            }
        }
    }

    /// Says what is allowed, but not what the operator can have meant.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let is_unused = self.mode == Mode::Plain && self.encoding_aes_key.is_some();
        let unused = is_unused.then_some("encoding_aes_key` is not used: `mode` is \"plain\"");
        let notes = unused.into_iter().chain(self.late.notes());
        notes.map(|note| format!("{}: `accounts.{}.{note}", self.place, self.name))
    }
}

fn checked_name(name: &str, section: &Section<'_>) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if name.is_empty() || !name.bytes().all(allowed) {
        section.problem(format!(
            "`{}`: an account's name is made of lower-case letters, digits, `_` and `-`",
            section.path()
        ));
        return None;
    }
    Some(name.to_owned())
}

/// Accepts a path and takes the slash off its end.
fn path(text: &str) -> Result<String, String> {
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

fn token(section: &Section<'_>) -> Option<Secret> {
    let token = section.secret("token", token_text)?;
    if token.is_none() {
        let text = "is missing: the Token of WeChat's 服务器配置 form, 3 to 32 letters and digits";
        section.problem(format!("`{}` {text}", section.name("token")));
    }
    token
}

/// Holds a token to [WeChat's rule](https://developers.weixin.qq.com/doc/service/guide/dev/push/): 3 to 32 letters and
/// digits.
fn token_text(text: &str) -> Result<Secret, String> {
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

fn aes_key(text: &str) -> Result<AesKey, String> {
    AesKey::parse(text).map_err(|error| error.to_string())
}

fn app_id(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        _ if text.starts_with("gh_") => Err("must be the AppID, `wx…`; this is the account's original id".to_owned()),
        _ if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Ok(Some(text.to_owned())),
        _ => Err("must be the AppID, `wx…`: letters and digits".to_owned()),
    }
}

/// How long an AppSecret may be; WeChat's have 32 characters today.
const APP_SECRET_CHARS_MAX: usize = 128;

fn app_secret(text: &str) -> Result<Secret, String> {
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
fn api_base_url(text: &str) -> Result<Uri, String> {
    let uri: Option<Uri> = text.strip_suffix('/').unwrap_or(text).parse().ok();
    let is_base = |uri: &Uri| is_http_address(uri) && uri.query().is_none();
    let is_target = |_: &Uri| Target::parse(text).is_ok();
    let uri = uri.filter(is_base).filter(|_| text.len() <= API_BASE_URL_BYTES_MAX && !text.contains('#'));
    let uri = uri.filter(is_target);
    uri.ok_or_else(|| "must be an address such as \"https://api.weixin.qq.com\", without parameters".to_owned())
}

/// Tells whether requests can be sent there, and nothing in it would be left out.
pub(super) fn is_http_address(uri: &Uri) -> bool {
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    matches!(uri.scheme_str(), Some("http" | "https")) && has_host && !has_user
}

/// Accepts a text that WeChat shows whole, or none.
pub(super) fn words_for_a_user(text: &str) -> Result<Option<String>, String> {
    let has_control = text.chars().any(|char| char.is_control() && !matches!(char, '\n' | '\t'));
    match text.len() {
        0 => Ok(None),
        _ if text.trim().is_empty() => Err("must say something, or be \"\" for no words".to_owned()),
        _ if has_control => Err("must not have control characters other than line breaks".to_owned()),
        1..=TEXT_BYTES_MAX => Ok(Some(text.to_owned())),
        bytes => Err(format!("must have {TEXT_BYTES_MAX} bytes at most, and has {bytes}: WeChat would cut it")),
    }
}

/// Reports an account whose late replies have no way out. What could not be read was reported as that.
fn refuse_without_api(
    section: &Section<'_>,
    late: &Late,
    app_id: &Option<Option<String>>,
    app_secret: &Option<Option<Secret>>,
) {
    let missing = match (app_id, app_secret) {
        (_, Some(None)) => "app_secret",
        (Some(None), _) => "app_id",
        _ => return,
    };
    if late.deliver == Deliver::CustomerService {
        let other = if missing == "app_id" { "app_secret" } else { "app_id" };
        section.problem(format!(
            "`{}` is missing, and `late.deliver` \"customer-service\" needs it and `{other}`, for WeChat's API",
            section.name(missing)
        ));
    }
}

/// Works out the mode, and reports what it needs and lacks. What could not be read was reported as that.
fn mode(section: &Section<'_>, key: &Option<Option<AesKey>>, app_id: &Option<Option<String>>) -> Option<Mode> {
    let modes =
        [("", None), ("plain", Some(Mode::Plain)), ("compatible", Some(Mode::Compatible)), ("safe", Some(Mode::Safe))];
    let given = section.choice("mode", &modes)?;
    let mode = given.unwrap_or(if matches!(key, Some(None)) { Mode::Plain } else { Mode::Safe });
    let word = if mode == Mode::Safe { "safe" } else { "compatible" };
    if mode != Mode::Plain && matches!(key, Some(None)) {
        let text = format!("is missing, and mode \"{word}\" needs it: the EncodingAESKey of WeChat's 服务器配置 form");
        section.problem(format!("`{}` {text}", section.name("encoding_aes_key")));
    }
    if mode != Mode::Plain && matches!(app_id, Some(None)) {
        let (name, because) = (section.name("app_id"), if given.is_none() { " (there is a key)" } else { "" });
        section.problem(format!("`{name}` is missing, and mode \"{word}\"{because} needs it: the AppID, `wx…`"));
    }
    Some(mode)
}

/// Reads what the account has of pages, and reports what they need and the account lacks.
fn pages(
    section: &Section<'_>,
    directory: &Path,
    app_id: &Option<Option<String>>,
    app_secret: &Option<Option<Secret>>,
) -> Option<AccountPages> {
    let pages = AccountPages::read(&section.table("oauth").without_unknown_keys(), directory)?;
    let lacks = [("app_id", matches!(app_id, Some(None))), ("app_secret", matches!(app_secret, Some(None)))];
    for (key, _) in lacks.into_iter().filter(|(_, is_missing)| *is_missing && pages.are_on()) {
        let (name, domains) = (section.name(key), section.table("oauth").name("domains"));
        section.problem(format!("`{name}` is missing, and `{domains}` needs it"));
    }
    Some(pages)
}

fn is_list(section: &Section<'_>, key: &str) -> bool {
    section.given(key).is_some_and(|found| matches!(found.node.value, Value::Array(_)))
}

/// Reads the list of plugins, by either of its names.
fn chain(section: &Section<'_>) -> Vec<String> {
    let key = if is_list(section, "plugins") { "plugins" } else { "chain" };
    if key == "plugins" && section.given("chain").is_some() {
        section.problem(format!(
            "`{}` and `{}` are the same list; keep one",
            section.name("chain"),
            section.name("plugins")
        ));
    }
    let mut names = BTreeSet::new();
    for (name, node) in section.texts(key) {
        if !names.insert(name) {
            section.problems.add(&node.place, format!("`{}` names `{name}` twice", section.name(key)));
        }
    }
    section.texts(key).into_iter().map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{account, account_error, error, load};
    use super::*;

    const KEY: &str = "encoding_aes_key = \"jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C\"\n";

    #[test]
    fn a_token_is_all_that_an_account_needs() {
        let account = account("");
        assert_eq!(account.name, "main");
        assert_eq!(account.path, "/");
        assert_eq!(account.token.expose(), "secret7");
        assert_eq!(account.mode, Mode::Plain);
        assert_eq!(account.app_id, None);
        assert!(account.app_secret.is_none());
        assert_eq!(account.api_base_url, "https://api.weixin.qq.com/");
        assert_eq!(account.token_kind, TokenKind::Stable);
        assert!(account.encoding_aes_key.is_none());
        assert!(account.previous_token.is_none() && account.previous_encoding_aes_key.is_none());
        assert_eq!(account.signature_max_age, Duration::from_secs(600));
        assert_eq!(account.plugins_dir, None);
        assert_eq!(account.plugins, [""; 0]);
        assert_eq!(account.apology_text, None);
        assert_eq!((account.forward, account.forward_calls_max), (None, 256));
        assert_eq!(account.late.window, Duration::from_millis(4500));
    }

    #[test]
    fn everything_an_account_has_is_read() {
        let lines = "path = \"/wx\"\napp_id = \"wx1\"\napp_secret = \"deep7\"\n\
                     access_token_from = \"token\"\napi_base_url = \"http://127.0.0.1:8080/wechat/\"\nprevious_token = \"older7\"\nsignature_max_age_s = 0\n\
                     previous_encoding_aes_key = \"kWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C\"\n\
                     chain = [\"welcome\", \"echo\"]\n\
                     late = { window_ms = 3000 }\n";
        let account = account(&format!("{KEY}{lines}"));
        assert_eq!(account.path, "/wx");
        assert_eq!(account.app_id.as_deref(), Some("wx1"));
        assert_eq!(account.app_secret.unwrap().expose(), "deep7");
        assert_eq!(account.api_base_url, "http://127.0.0.1:8080/wechat");
        assert_eq!(account.token_kind, TokenKind::Classic);
        assert_eq!(account.previous_token.unwrap().expose(), "older7");
        assert!(account.encoding_aes_key.is_some() && account.previous_encoding_aes_key.is_some());
        assert_eq!(account.signature_max_age, Duration::ZERO);
        assert_eq!(account.plugins, ["welcome", "echo"]);
        assert_eq!(account.late.window, Duration::from_secs(3));
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

    #[test]
    fn an_accounts_late_stands_over_the_shared_one() {
        let accounts = "[accounts.a]\npath = \"/a\"\ntoken = \"abc\"\n[accounts.b]\npath = \"/b\"\ntoken = \"abc\"\n";
        let config = load(&format!("{accounts}[accounts.b.late]\nwindow_ms = 2000\n[late]\nwindow_ms = 1000\n"));
        let windows: Vec<_> = config.accounts.iter().map(|account| account.late.window.as_millis()).collect();
        assert_eq!((config.late.window.as_millis(), windows), (1000, vec![1000, 2000]));
        assert_eq!(
            account_error("late = { windows = 1, window_ms = 50 }"),
            "aviary.toml:3: `accounts.main.late.window_ms` is 50; it must be a whole number, 100 to 5000\n\
             aviary.toml:3: unknown key `accounts.main.late.windows`; did you mean `window_ms`?"
        );
    }

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
    fn two_accounts_with_one_path_are_refused() {
        assert_eq!(
            error("[accounts.a]\npath = \"/wx\"\ntoken = \"abc\"\n[accounts.b]\npath = \"/wx/\"\ntoken = \"abc\"\n"),
            "aviary.toml:4: `accounts.b.path` is \"/wx\", like that of `accounts.a` (aviary.toml:1); \
             give each a path of its own"
        );
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
    fn the_mode_is_safe_with_a_key_and_plain_without() {
        assert_eq!(account(&format!("{KEY}app_id = \"wx1\"")).mode, Mode::Safe);
        assert_eq!(account("app_id = \"wx1\"").mode, Mode::Plain);
        assert_eq!(account(&format!("{KEY}app_id = \"wx1\"\nmode = \"compatible\"")).mode, Mode::Compatible);
        assert_eq!(account(&format!("{KEY}app_id = \"wx1\"\nmode = \"safe\"")).mode, Mode::Safe);
        assert_eq!(account("mode = \"plain\"").mode, Mode::Plain);
        assert_eq!(
            account_error("mode = \"aes\""),
            "aviary.toml:3: `accounts.main.mode` is \"aes\"; it may be \"\", \"plain\", \"compatible\" or \"safe\""
        );
    }

    #[test]
    fn a_mode_that_encrypts_needs_a_key_and_an_app_id() {
        let key_missing = |mode: &str| {
            let text = "the EncodingAESKey of WeChat's 服务器配置 form";
            format!(
                "aviary.toml:1: `accounts.main.encoding_aes_key` is missing, and mode \"{mode}\" \
             needs it: {text}"
            )
        };
        let id_missing = |mode: &str| {
            format!("aviary.toml:1: `accounts.main.app_id` is missing, and mode {mode} needs it: the AppID, `wx…`")
        };
        for mode in ["safe", "compatible"] {
            let line = format!("mode = \"{mode}\"\n");
            assert_eq!(account_error(&format!("{line}app_id = \"wx1\"")), key_missing(mode));
            assert_eq!(account_error(&format!("{line}{KEY}")), id_missing(&format!("\"{mode}\"")));
        }
        assert_eq!(account_error(KEY), id_missing("\"safe\" (there is a key)"));
    }

    #[test]
    fn a_key_that_is_not_one_is_refused_and_not_shown() {
        assert_eq!(
            account_error("encoding_aes_key = \"jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2\"\napp_id = \"wx1\""),
            "aviary.toml:3: `accounts.main.encoding_aes_key` has 42 characters, WeChat's EncodingAESKey has 43"
        );
    }

    #[test]
    fn a_key_that_plain_mode_does_not_use_is_noted() {
        let lines = format!("[accounts.main]\ntoken = \"secret7\"\nmode = \"plain\"\n{KEY}");
        let note = "aviary.toml:1: `accounts.main.encoding_aes_key` is not used: `mode` is \"plain\"";
        assert_eq!(load(&lines).notes, [note]);
        assert_eq!(load("[accounts.main]\ntoken = \"secret7\"\n").notes, [""; 0]);
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
    fn an_access_token_is_of_one_of_two_kinds() {
        assert_eq!(
            account_error("access_token_from = \"stable\""),
            "aviary.toml:3: `accounts.main.access_token_from` is \"stable\"; it may be \"stable_token\" or \"token\""
        );
    }

    #[test]
    fn an_accounts_name_is_lower_case_letters_digits_and_two_signs() {
        load("[accounts.a-1_b]\ntoken = \"abc\"\n");
        for (name, shown) in [("Main", "Main"), ("\"a b\"", "\"a b\""), ("\"微信\"", "\"微信\""), ("\"\"", "\"\"")]
        {
            assert_eq!(
                error(&format!("[accounts.{name}]\ntoken = \"abc\"\n")),
                format!(
                    "aviary.toml:1: `accounts.{shown}`: an account's name is made of lower-case \
                     letters, digits, `_` and `-`"
                )
            );
        }
    }

    #[test]
    fn an_account_without_a_name_is_explained_and_its_token_not_shown() {
        assert_eq!(
            error("[accounts]\ntoken = \"secret7\"\n"),
            "aviary.toml:2: `accounts.token` is a text; it must be a table"
        );
        assert_eq!(error("accounts = 5"), "aviary.toml:1: `accounts` is a number; it must be a table");
    }

    #[test]
    fn a_list_of_plugins_has_two_names_for_the_sake_of_toml() {
        assert_eq!(account("plugins = [\"echo\"]").plugins, ["echo"]);
        let account = account("chain = [\"echo\"]\n[accounts.main.plugins.echo]\nenv = { A = \"b\" }");
        assert_eq!((account.plugins, account.plugin_tables.len()), (vec!["echo".to_owned()], 1));
        assert_eq!(
            account_error("chain = [\"echo\"]\nplugins = [\"echo\"]"),
            "aviary.toml:1: `accounts.main.chain` and `accounts.main.plugins` are the same list; keep one"
        );
        assert_eq!(
            account_error("plugins = [\"echo\"]\n[accounts.main.plugins.echo]\nenv = { A = \"b\" }"),
            "aviary.toml:4: cannot extend value of type array with a dotted key; where an account has \
             tables `plugins.NAME`, its list of plugins is called `chain`"
        );
    }

    #[test]
    fn a_list_of_plugins_holds_each_name_once() {
        assert_eq!(
            account_error("chain = [\"echo\", \"echo\"]"),
            "aviary.toml:3: `accounts.main.chain` names `echo` twice"
        );
        assert_eq!(
            account_error("chain = [\"echo\", 5]"),
            "aviary.toml:3: `accounts.main.chain[1]` is 5; it must be a text in quotes"
        );
        assert_eq!(
            account_error("chain = \"echo\""),
            "aviary.toml:3: `accounts.main.chain` is \"echo\"; it must be a list of texts: [\"…\"]"
        );
    }

    #[test]
    fn debugging_shows_no_secret() {
        let account = account(&format!(
            "{KEY}app_id = \"wx1\"\napp_secret = \"deep7\"\nprevious_token = \"older7\"\nplugins.a.env.K = \"hidden7\""
        ));
        let shown = format!("{account:?}");
        assert!(
            !["secret7", "deep7", "older7", "jWmY", "hidden7"].iter().any(|secret| shown.contains(secret)),
            "{shown}"
        );
    }
}
