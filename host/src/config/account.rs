//! One account: where WeChat calls for it, the secrets it shares with WeChat, and which plugins it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aviary_wechat::crypt::AesKey;

use super::document::Value;
use super::error::{Place, Problems};
use super::host::Late;
use super::plugin::PluginTable;
use super::section::Section;
use super::sources;
use crate::secret::Secret;

/// Paths of the host's own on the public listener.
const RESERVED: [&str; 4] = ["/oauth", "/me", "/pages", "/jssdk"];

/// One `[accounts.NAME]`.
#[derive(Clone, Debug)]
pub struct Account {
    /// The table's name: lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// The path that WeChat calls: begins with `/`, ends with none (but for `/` itself); no two accounts share it. Default `/`.
    pub path: String,
    /// The signing token.
    pub token: Secret,
    /// The key of the encrypted modes; always there in them. Default none.
    pub encoding_aes_key: Option<AesKey>,
    /// How messages are encrypted. Default safe with a key, plain without.
    pub mode: Mode,
    /// The AppID; always there in the encrypted modes. Default none.
    pub app_id: Option<String>,
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
        let mode = mode(section, &encoding_aes_key, &app_id);
        let plugins_dir = section.text("plugins_dir");
        Some(Self {
            late: Late::read(&section.table("late").over(&shared.table("late"))),
            plugins: chain(section),
            plugin_tables: match is_list(section, "plugins") {
                true => BTreeMap::new(),
                false => PluginTable::read_all(section),
            },
            plugins_dir: (!plugins_dir.is_empty()).then(|| sources::absolute(directory, &plugins_dir)),
            signature_max_age: Duration::from_secs(section.number("signature_max_age_s", 0..=86_400)),
            place: section.place()?.clone(),
            name: name?,
            path: path?,
            token: token?,
            previous_token: previous_token?,
            encoding_aes_key: encoding_aes_key?,
            previous_encoding_aes_key: previous_encoding_aes_key?,
            app_id: app_id?,
            mode: mode?,
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
    pub(super) fn note(&self) -> Option<String> {
        let unused = self.mode == Mode::Plain && self.encoding_aes_key.is_some();
        unused.then(|| format!("{}: `accounts.{}.encoding_aes_key` is not used: `mode` is \"plain\"", self.place, self.name))
    }
}

fn checked_name(name: &str, section: &Section<'_>) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if name.is_empty() || !name.bytes().all(allowed) {
        section.problem(format!("`{}`: an account's name is made of lower-case letters, digits, `_` and `-`", section.path()));
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
    let reserved = |own: &&&str| path.strip_prefix(**own).is_some_and(|below| below.is_empty() || below.starts_with('/'));
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

/// Holds a token to [WeChat's rule](https://developers.weixin.qq.com/doc/service/guide/dev/push/): 3 to 32 letters and digits.
fn token_text(text: &str) -> Result<Secret, String> {
    let length = text.chars().count();
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("has a character that is no ASCII letter or digit; WeChat allows 3 to 32 letters and digits".to_owned());
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

fn is_list(section: &Section<'_>, key: &str) -> bool {
    section.given(key).is_some_and(|found| matches!(found.node.value, Value::Array(_)))
}

/// Reads the list of plugins, by either of its names.
fn chain(section: &Section<'_>) -> Vec<String> {
    let key = if is_list(section, "plugins") { "plugins" } else { "chain" };
    if key == "plugins" && section.given("chain").is_some() {
        section.problem(format!("`{}` and `{}` are the same list; keep one", section.name("chain"), section.name("plugins")));
    }
    let mut names = BTreeSet::new();
    for (name, node) in section.texts(key) {
        if !names.insert(name) {
            section.problems.add(&node.place, format!("`{}` names `{name}` twice", section.name(key)));
        }
    }
    section.texts(key).into_iter().map(|(name, _)| name.to_owned()).collect()
}
