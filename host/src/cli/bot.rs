//! A bot directory: `aviary.toml` with fresh secrets, and the bundled plugins beside it.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::bundled;

/// The main file of a bot directory.
pub const CONFIG_FILE: &str = "aviary.toml";

/// The table of the bundled `keywords`, beside [`CONFIG_FILE`].
const KEYWORDS_FILE: &str = "keywords.csv";

/// Names its columns and has no rows yet. Spreadsheet programs know by the mark at its beginning that it is UTF-8, and keep that
/// when they save it.
const KEYWORDS_TABLE: &str = "\u{feff}关键词,匹配,类型,回复,标题,链接,图片\r\n";

/// How long a token that we make is; WeChat allows 3 to 32 characters.
const TOKEN_CHARS: usize = 32;

/// How long an EncodingAESKey is.
const ENCODING_AES_KEY_CHARS: usize = 43;

/// What a new bot is given.
#[derive(Clone, Debug)]
pub struct Bot {
    pub token: String,
    pub encoding_aes_key: Option<String>,
    pub app_id: String,
    pub listen: String,
}

/// Where a bot listens, unless told otherwise.
pub const LISTEN: &str = "127.0.0.1:8000";

impl Bot {
    /// A bot to try out: a fresh token, no encryption.
    pub fn demo() -> anyhow::Result<Self> {
        Ok(Self { token: new_token()?, encoding_aes_key: None, app_id: String::new(), listen: LISTEN.into() })
    }

    /// Writes the directory and returns its main file. A directory that is a bot already is left alone.
    pub fn write(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let file = dir.join(CONFIG_FILE);
        if file.exists() {
            bail!("{} is there already; name another directory, or remove it first", file.display());
        }
        let plugins_dir = dir.join("plugins");
        bundled::write(&plugins_dir).with_context(|| format!("cannot write to {}", plugins_dir.display()))?;
        let keywords = dir.join(KEYWORDS_FILE);
        if !keywords.exists() {
            fs::write(&keywords, KEYWORDS_TABLE).with_context(|| format!("cannot write {}", keywords.display()))?;
        }
        // Nobody else may read the secrets in it.
        let mut config = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        config.write_all(self.config().as_bytes())?;
        Ok(file)
    }

    fn config(&self) -> String {
        let Self { token, app_id, listen, .. } = self;
        let account = match &self.encoding_aes_key {
            None => format!("token = \"{token}\"\n"),
            Some(key) => format!(
                "token = \"{token}\"\n\
                 encoding_aes_key = \"{key}\"\n\
                 app_id = \"{app_id}\"                      # 开发者ID (AppID), on the page with the form\n\
                 # app_secret = \"${{WECHAT_APP_SECRET}}\"  # 开发者密码: `aviary check --online` asks WeChat with it\n\
                 # mode = \"safe\"                   # 安全模式; \"compatible\" and \"plain\" are the others\n"
            ),
        };
        format!(
            "# An Aviary bot. Every setting that is not here has a default; changes count as soon as this file is saved.\n\
             # Plugins are the .wasm files in plugins/, asked in the order of their names until one replies.\n\n\
             listen = \"{listen}\"         # WeChat calls port 80 or 443 only: put nginx in front\n\n\
             [accounts.main]\n\
             path = \"/\"\n\
             {account}\n\
             # What a plugin may see and do, by its name, and which messages it is asked about: one that is not asked costs nothing.\n\
             [plugins.welcome]\n\
             match = [{{ event = \"subscribe\" }}]\n\
             # env = {{ TEXT = \"感谢您的关注!\" }}\n\n\
             # Words and what is said to them: a table for Excel or WPS, to be saved as CSV (UTF-8 or GBK). Mistakes in it\n\
             # are in the log.\n\
             [plugins.keywords]\n\
             match = [{{ type = \"text\" }}, {{ event = \"CLICK\" }}, {{ event = \"aviary_check\" }}]\n\
             env = {{ TABLE = \"${{file:{KEYWORDS_FILE}}}\" }}\n"
        )
    }
}

/// Makes a token that nobody can guess.
pub fn new_token() -> anyhow::Result<String> {
    letters_and_digits(TOKEN_CHARS)
}

/// Makes an EncodingAESKey as WeChat's console does: letters and digits.
pub fn new_encoding_aes_key() -> anyhow::Result<String> {
    letters_and_digits(ENCODING_AES_KEY_CHARS)
}

fn letters_and_digits(count: usize) -> anyhow::Result<String> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(count);
    while text.len() < count {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).context("the system gives no random numbers")?;
        // Only a multiple of the alphabet's length gives every character the same chance.
        let fair = bytes.iter().filter(|byte| usize::from(**byte) < 256 / ALPHABET.len() * ALPHABET.len());
        text.extend(
            fair.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).take(count - text.len()),
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Mode};

    fn bot() -> Bot {
        Bot {
            token: new_token().unwrap(),
            encoding_aes_key: Some(new_encoding_aes_key().unwrap()),
            app_id: "wx0123456789abcdef".into(),
            listen: "127.0.0.1:0".into(),
        }
    }

    #[test]
    fn a_new_bot_loads_in_safe_mode_and_belongs_to_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = bot().write(dir.path()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let config = Config::load(&file).unwrap();
        assert_eq!(config.accounts[0].mode, Mode::Safe);
        assert!(dir.path().join("plugins/20-echo.wasm").exists());
    }

    #[test]
    fn a_bot_that_is_there_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG_FILE), "mine").unwrap();
        assert!(bot().write(dir.path()).unwrap_err().to_string().contains("is there already"));
        assert_eq!(fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap(), "mine");
    }

    #[test]
    fn tokens_and_keys_are_letters_and_digits_and_never_the_same() {
        let (token, key) = (new_token().unwrap(), new_encoding_aes_key().unwrap());
        assert_eq!((token.len(), key.len()), (32, 43));
        assert!((token.clone() + &key).bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(token, new_token().unwrap());
    }
}
