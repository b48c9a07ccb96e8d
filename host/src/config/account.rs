//! One account: where WeChat calls for it, the secrets it shares with WeChat, and which plugins it asks.

mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use aviary_wechat::crypt::AesKey;
use hyper::Uri;

pub use self::value::app_id;
use self::value::{aes_key, api_base_url, app_secret, path, token_text};
pub(super) use self::value::{is_http_address, words_for_a_user};
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
use crate::secret::Secret;

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

    /// What WeChat's API needs and the account lacks, by its keys.
    pub fn missing_for_api(&self) -> Vec<&'static str> {
        let is_missing = [("app_id", self.app_id.is_none()), ("app_secret", self.app_secret.is_none())];
        is_missing.into_iter().filter(|(_, is_missing)| *is_missing).map(|(key, _)| key).collect()
    }

    /// Says what is allowed, but not what the operator can have meant.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let is_unused = self.mode == Mode::Plain && self.encoding_aes_key.is_some();
        let unused = is_unused.then_some("encoding_aes_key` is not used: `mode` is \"plain\"");
        let notes = unused.into_iter().chain(self.late.notes());
        let notes = notes.map(|note| format!("{}: `accounts.{}.{note}", self.place, self.name));
        notes.chain(self.plugin_tables.values().flat_map(|table| table.notes.iter().cloned()))
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

fn token(section: &Section<'_>) -> Option<Secret> {
    let token = section.secret("token", token_text)?;
    if token.is_none() {
        let text = "is missing: the Token of WeChat's 服务器配置 form, 3 to 32 letters and digits";
        section.problem(format!("`{}` {text}", section.name("token")));
    }
    token
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
    fn two_accounts_with_one_path_are_refused() {
        assert_eq!(
            error("[accounts.a]\npath = \"/wx\"\ntoken = \"abc\"\n[accounts.b]\npath = \"/wx/\"\ntoken = \"abc\"\n"),
            "aviary.toml:4: `accounts.b.path` is \"/wx\", like that of `accounts.a` (aviary.toml:1); \
             give each a path of its own"
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
    fn a_key_that_plain_mode_does_not_use_is_noted() {
        let lines = format!("[accounts.main]\ntoken = \"secret7\"\nmode = \"plain\"\n{KEY}");
        let note = "aviary.toml:1: `accounts.main.encoding_aes_key` is not used: `mode` is \"plain\"";
        assert_eq!(load(&lines).notes, [note]);
        assert_eq!(load("[accounts.main]\ntoken = \"secret7\"\n").notes, [""; 0]);
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
