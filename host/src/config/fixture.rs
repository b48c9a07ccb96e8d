//! A bot directory for the tests: files written into a temporary directory, and loaded.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{Account, Config};

/// A bot directory.
#[derive(Debug)]
pub(super) struct Directory(TempDir);

impl Directory {
    /// Makes a directory whose main file has this text.
    pub(super) fn with(main: &str) -> Self {
        Self(TempDir::new().unwrap()).and("aviary.toml", main)
    }

    /// Adds a file.
    pub(super) fn and(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        self
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(super) fn load(&self) -> Config {
        Config::load(&self.path("aviary.toml")).unwrap()
    }

    /// Loads what cannot be loaded, and returns what the operator reads.
    pub(super) fn error(&self) -> String {
        Config::load(&self.path("aviary.toml")).unwrap_err().to_string()
    }
}

/// Loads a main file alone.
pub(crate) fn load(main: &str) -> Config {
    Directory::with(main).load()
}

/// Loads a main file that cannot be loaded, and returns what the operator reads.
pub(super) fn error(main: &str) -> String {
    Directory::with(main).error()
}

/// Loads an account with a token and these lines.
pub(super) fn account(lines: &str) -> Account {
    Account::clone(&load(&format!("[accounts.main]\ntoken = \"secret7\"\n{lines}")).accounts[0])
}

/// Loads an account with a token and these lines, of which the first is line 3, and returns what the operator reads.
pub(super) fn account_error(lines: &str) -> String {
    error(&format!("[accounts.main]\ntoken = \"secret7\"\n{lines}"))
}
