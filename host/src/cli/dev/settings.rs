//! The settings of a project: read again when there is something else in what they come from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::sources::content;
use crate::{
    config::{Config, ConfigError},
    plugin::Hash,
    stamp::Stamps,
};

/// What the settings were read from last, whether they could be used or not.
#[derive(Debug)]
pub(super) struct Settings {
    stamps: Stamps,
    /// Nothing is in a file that is not there, nor in a directory where `include` looks: what that has is here by itself.
    contents: BTreeMap<PathBuf, Option<Hash>>,
}

impl Settings {
    /// Remembers the files that were read with these stamps.
    pub(super) fn of(stamps: &Stamps) -> Self {
        let contents = stamps.paths().map(|path| (path.clone(), content(path))).collect();
        // An edit that came after they were read is still to be noticed.
        let contents = if stamps.now() == *stamps { contents } else { BTreeMap::new() };
        Self { stamps: stamps.clone(), contents }
    }

    /// Reads them again, if they may be others now.
    pub(super) fn read_changed(&mut self, file: &Path) -> Option<Result<Config, ConfigError>> {
        if self.stamps.now() == self.stamps {
            return None;
        }
        let read = Config::load(file);
        let now = Self::of(read.as_ref().map_or_else(ConfigError::stamps, Config::stamps));
        let is_other = now.contents != self.contents;
        *self = now;
        is_other.then_some(read)
    }

    /// Whether a file is one of theirs.
    pub(super) fn has(&self, file: &Path) -> bool {
        self.contents.contains_key(file)
    }

    /// The directories in which a change of theirs shows.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.stamps.directories()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MAIN: &str = "include = [\"conf.d/*.toml\"]\n[accounts.main]\ntoken = \"${file:.token}\"\n";

    /// A project whose settings want a file that is not there.
    fn project() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("aviary.toml");
        fs::write(&file, MAIN).unwrap();
        fs::create_dir(dir.path().join("conf.d")).unwrap();
        (dir, file)
    }

    #[test]
    fn what_settings_lack_is_waited_for_and_what_they_name_is_followed() {
        let (dir, file) = project();
        let mut settings = Settings::of(Config::load(&file).unwrap_err().stamps());
        assert!(settings.read_changed(&file).is_none());
        let edits = [(".token", "abc"), ("conf.d/a.toml", "[plugins.a]\n"), (".token", "def"), (".env", "")];
        for (changed, text) in edits {
            fs::write(dir.path().join(changed), text).unwrap();
            assert!(settings.read_changed(&file).expect(changed).is_ok(), "{changed}");
            assert!(settings.has(&dir.path().join(changed)), "{changed}");
        }
        fs::write(&file, "[").unwrap();
        assert!(settings.read_changed(&file).unwrap().is_err());
        fs::write(&file, MAIN).unwrap();
        assert!(settings.read_changed(&file).unwrap().is_ok());
    }

    #[test]
    fn the_same_content_and_what_lies_beside_included_files_are_no_other_settings() {
        let (dir, file) = project();
        fs::write(dir.path().join(".token"), "abc").unwrap();
        let mut settings = Settings::of(Config::load(&file).unwrap().stamps());
        fs::write(&file, MAIN).unwrap();
        fs::write(dir.path().join("conf.d/.a.toml.swp"), "typed").unwrap();
        assert!(settings.read_changed(&file).is_none());
        assert!(!settings.has(&dir.path().join("conf.d/.a.toml.swp")));
    }
}
