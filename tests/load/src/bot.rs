//! Bot directories to measure the host with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{
    account::{APP_ID, ENCODING_AES_KEY, Mode, TOKEN},
    server_process::ServerProcess,
};

/// Which of the bundled plugins a bot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugins {
    /// `20-echo.wasm` alone.
    Echo,
    /// As `aviary init` leaves them: `welcome` is asked first and passes.
    Bundled,
}

/// A directory that `aviary serve` serves; removed when dropped.
#[derive(Debug)]
pub struct Bot {
    dir: tempfile::TempDir,
    host: PathBuf,
}

impl Bot {
    /// Writes a bot with the plugins that `host` bundles.
    pub fn new(host: &Path, plugins: Plugins, mode: Mode, log_level: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("aviary-load-").tempdir()?;
        let bot = Self { dir, host: host.into() };
        let init = Command::new(host).args(["init", "--sandbox"]).arg(bot.home()).output();
        let init = init.with_context(|| format!("{} does not run", host.display()))?;
        ensure!(init.status.success(), "`aviary init` failed: {}", String::from_utf8_lossy(&init.stderr));
        fs::write(bot.config_file(), config(mode, log_level)).context("`aviary init` made no directory")?;
        if plugins == Plugins::Echo {
            bot.keep_only("20-echo.wasm")?;
        }
        Ok(bot)
    }

    /// Removes all plugins but one, with whatever lies beside them.
    fn keep_only(&self, file: &str) -> anyhow::Result<()> {
        let plugins = self.home().join("plugins");
        ensure!(plugins.join(file).is_file(), "`aviary init` wrote no {file}");
        for entry in fs::read_dir(&plugins)? {
            let entry = entry?;
            if entry.file_name() != file {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Adds a plugin's file, or replaces one.
    pub fn with_plugin(self, file: &str, bytes: &[u8]) -> anyhow::Result<Self> {
        let path = self.home().join("plugins").join(file);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(self)
    }

    /// Adds keys to its account.
    pub fn with_account(self, keys: &str) -> anyhow::Result<Self> {
        let table = "[accounts.main]\n";
        let settings = fs::read_to_string(self.config_file())?;
        fs::write(self.config_file(), settings.replace(table, &format!("{table}{keys}")))?;
        Ok(self)
    }

    /// Adds tables to its settings.
    pub fn with_settings(self, tables: &str) -> anyhow::Result<Self> {
        let settings = fs::read_to_string(self.config_file())?;
        fs::write(self.config_file(), settings + "\n" + tables)?;
        Ok(self)
    }

    /// Compiles its plugins into its cache, as an operator would before a restart.
    pub fn warm_up(&self) -> anyhow::Result<()> {
        let check = Command::new(&self.host).arg("check").arg(self.home()).output()?;
        ensure!(check.status.success(), "`aviary check` failed: {}", String::from_utf8_lossy(&check.stderr));
        Ok(())
    }

    /// Serves it with the host's own settings otherwise.
    pub fn serve(&self) -> anyhow::Result<ServerProcess> {
        let mut command = Command::new(&self.host);
        command.arg("serve").arg(self.home());
        // Not into the bot's directory: the host watches that.
        ServerProcess::start(command, &self.log_file())
    }

    /// What the host has logged so far.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.log_file())?)
    }

    /// The echo's file.
    pub fn echo(&self) -> PathBuf {
        self.home().join("plugins/20-echo.wasm")
    }

    /// A path for a file that is not the bot's yet, on the same file system.
    pub fn beside(&self) -> PathBuf {
        self.dir.path().join("next.wasm")
    }

    /// Its settings.
    pub fn config_file(&self) -> PathBuf {
        self.home().join("aviary.toml")
    }

    /// The host that serves it.
    pub fn host(&self) -> &Path {
        &self.host
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("bot")
    }
}

fn config(mode: Mode, log_level: &str) -> String {
    let safe = match mode {
        Mode::Plain => String::new(),
        Mode::Safe => format!("encoding_aes_key = \"{ENCODING_AES_KEY}\"\napp_id = \"{APP_ID}\"\n"),
    };
    // Whatever the level, the line that tells the port is needed.
    format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"\"\n\n[accounts.main]\ntoken = \"{TOKEN}\"\n{safe}\n\
         [log]\nlevel = \"{log_level},aviary_host::cli::serve=info\"\n"
    )
}
