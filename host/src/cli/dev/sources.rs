//! What a project is built from: every file that no build makes. A change is another content, not another time, so that
//! what a build writes anew, and the same, does not have it start again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    plugin::Hash,
    stamp::{Stamp, open_file},
};

/// How many files a project may have. More are not a project but somebody's home.
const FILES_MAX: usize = 10_000;

/// Files that are larger are told by their stamps: nobody writes them by hand.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Where builds of every language put what they make, and what they install.
const MADE: [&str; 6] = ["target", "node_modules", "build", "dist", "vendor", "__pycache__"];

/// The files of a project, and what is in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    files: BTreeMap<PathBuf, Hash>,
    pub(super) directories: BTreeSet<PathBuf>,
}

impl Sources {
    /// Looks at a project. What lies in the `skipped` directories is not of it.
    pub(super) fn look(root: &Path, skipped: &[&Path]) -> io::Result<Self> {
        let (mut sources, mut left) = (Self::default(), vec![root.to_owned()]);
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let path = entry.path();
                let kind = entry.file_type()?;
                if kind.is_dir() && is_source(&path) && !skipped.contains(&path.as_path()) {
                    left.push(path);
                } else if kind.is_file()
                    && let Some(hash) = content(&path)
                {
                    sources.files.insert(path, hash);
                }
            }
            sources.directories.insert(directory);
            if sources.files.len() > FILES_MAX {
                let root = root.display();
                return Err(io::Error::other(format!(
                    "{root} has more than {FILES_MAX} files; is it a plugin's project?"
                )));
            }
        }
        Ok(sources)
    }
}

fn is_source(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !MADE.contains(&&*name)
}

/// Names what is in a file; nothing for one that cannot be read, which may be gone already.
fn content(path: &Path) -> Option<Hash> {
    let stamp = Stamp::of(path).ok()?;
    if stamp.bytes > READ_BYTES_MAX {
        return Some(Hash::of(format!("{stamp:?}").as_bytes()));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut open_file(path).ok()?, &mut bytes).ok()?;
    Some(Hash::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for made in ["src", "plugins", "node_modules"] {
            fs::create_dir(dir.path().join(made)).unwrap();
        }
        fs::write(dir.path().join("src/bot.js"), "one").unwrap();
        dir
    }

    fn look(dir: &tempfile::TempDir) -> Sources {
        Sources::look(dir.path(), &[&dir.path().join("plugins")]).unwrap()
    }

    #[test]
    fn another_content_and_another_file_are_changes() {
        let dir = project();
        let before = look(&dir);
        fs::write(dir.path().join("src/bot.js"), "two").unwrap();
        let changed = look(&dir);
        assert_ne!(changed, before);
        fs::write(dir.path().join("src/more.js"), "").unwrap();
        assert_ne!(look(&dir), changed);
    }

    #[test]
    fn what_a_build_makes_and_the_same_content_are_none() {
        let dir = project();
        let before = look(&dir);
        fs::write(dir.path().join("src/bot.js"), "one").unwrap();
        fs::write(dir.path().join("plugins/bot.wasm"), "made").unwrap();
        fs::write(dir.path().join("node_modules/a.js"), "installed").unwrap();
        assert_eq!(look(&dir), before);
    }
}
