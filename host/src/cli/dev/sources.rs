//! What a project is built from: every file that no build makes and no editor keeps for itself. A change is another content,
//! not another time, so that what a build writes anew, and the same, does not have it start again.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    plugin::{Hash, directory::is_passing},
    stamp::{Stamp, open_file},
};

/// How many files a project may have. More are not a project but somebody's home.
const FILES_MAX: usize = 10_000;

/// Files that are larger are told by their stamps: nobody writes them by hand.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Where builds of every language put what they make, and what they install.
const MADE: [&str; 7] = ["target", "node_modules", "build", "dist", "vendor", "venv", "__pycache__"];

/// What says to people, in a project's own directory, how it is built. Elsewhere such a file may be a bot's text.
const FOR_PEOPLE: &str = "README.md";

/// What builds write of what they found: a dependency that was added to a package.json is in its lock file after the build.
const LOCKS: [&str; 8] = [
    "Cargo.lock",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "go.sum",
    "uv.lock",
    "poetry.lock",
];

/// Hidden files that builds read. All others are an editor's or a system's own, or of the settings.
const READ_HIDDEN: [&str; 1] = [".npmrc"];

/// The files of a project, what is in them, and whether they can be run.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: BTreeMap<PathBuf, (Hash, bool)>,
    pub(super) directories: BTreeSet<PathBuf>,
}

impl Sources {
    /// Looks at a project. What lies in the `skipped` directories is not of it.
    ///
    /// A directory that is gone or closed is left out: no build reads it either. Only without `root` is there no project.
    pub(super) fn look(root: &Path, skipped: &[&Path]) -> io::Result<Self> {
        let (mut sources, mut left) = (Self::default(), vec![root.to_owned()]);
        while let Some(directory) = left.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if directory == root => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", root.display())));
                }
                Err(_) => continue,
            };
            for (path, kind) in entries.filter_map(|entry| named(entry.ok()?)) {
                if kind.is_dir() && is_source_directory(&path) && !skipped.contains(&path.as_path()) {
                    left.push(path);
                } else if kind.is_file()
                    && is_source_file(&path)
                    && path != root.join(FOR_PEOPLE)
                    && let Some(hash) = content(&path)
                {
                    let is_executable = is_executable(&path);
                    sources.files.insert(path, (hash, is_executable));
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

    /// Returns the files that were changed, made or removed since an earlier look.
    pub(super) fn changed_since(&self, before: &Self) -> BTreeSet<PathBuf> {
        let is_other = |path: &&PathBuf| self.files.get(*path) != before.files.get(*path);
        self.files.keys().chain(before.files.keys()).filter(is_other).cloned().collect()
    }

    /// Takes over the lock files that a build has written since, so that they do not start the next one.
    pub(super) fn take_locks(&mut self, after: &Self) {
        let locks = after.files.iter().filter(|(path, _)| LOCKS.contains(&&*file_name(path)));
        self.files.extend(locks.map(|(path, content)| (path.clone(), *content)));
    }
}

/// Follows a link to a file. One to a directory is none: it may lead back here.
fn named(entry: fs::DirEntry) -> Option<(PathBuf, fs::FileType)> {
    let (path, kind) = (entry.path(), entry.file_type().ok()?);
    if !kind.is_symlink() {
        return Some((path, kind));
    }
    let kind = fs::metadata(&path).ok()?.file_type();
    kind.is_file().then_some((path, kind))
}

fn is_source_directory(directory: &Path) -> bool {
    let name = file_name(directory);
    !name.starts_with('.') && !MADE.contains(&&*name)
}

/// Whether a build may read a file. Backups, swap files, locks and autosaves lie beside what is being typed, and change with it:
/// `.bot.js.swp`, `bot.js~`, an empty `4913` (vim), `#bot.js#` (Emacs), `bot.js___jb_tmp___` (JetBrains), `.DS_Store`.
/// A `.log` is written to by whatever runs here, and where that is this command, a build would bring on the next.
fn is_source_file(file: &Path) -> bool {
    let name = file_name(file);
    let is_hidden = name.starts_with('.') && !READ_HIDDEN.contains(&&*name);
    let is_editors = name.starts_with('#') || name.contains("___jb_") || name.ends_with(".bak");
    let is_log = name.ends_with(".log");
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let is_probe = is_number && fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0);
    !(is_hidden || is_editors || is_log || is_probe || is_passing(&name))
}

/// A `build.sh` that came without is mended by that alone.
fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

fn file_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Names what is in a file; nothing for one that cannot be read, which may be gone already.
pub(super) fn content(path: &Path) -> Option<Hash> {
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
    use std::os::unix::fs::symlink;

    use rustix::fs::{Mode, OFlags};

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

    fn changed(dir: &tempfile::TempDir, before: &Sources) -> Vec<String> {
        let changed = look(dir).changed_since(before);
        changed.iter().map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
    }

    #[test]
    fn another_content_another_file_and_one_that_is_gone_are_changes() {
        let dir = project();
        let before = look(&dir);
        fs::write(dir.path().join("src/bot.js"), "two").unwrap();
        assert_eq!(changed(&dir, &before), ["src/bot.js"]);
        let before = look(&dir);
        fs::write(dir.path().join(".npmrc"), "audit=false").unwrap();
        fs::remove_file(dir.path().join("src/bot.js")).unwrap();
        assert_eq!(changed(&dir, &before), [".npmrc", "src/bot.js"]);
        let before = look(&dir);
        fs::set_permissions(dir.path().join(".npmrc"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(changed(&dir, &before), [".npmrc"]);
    }

    #[test]
    fn what_a_build_makes_and_the_same_content_are_none() {
        let dir = project();
        let before = look(&dir);
        fs::write(dir.path().join("src/bot.js"), "one").unwrap();
        fs::write(dir.path().join("plugins/bot.wasm"), "made").unwrap();
        fs::write(dir.path().join("node_modules/a.js"), "installed").unwrap();
        assert_eq!(changed(&dir, &before), [""; 0]);
    }

    #[test]
    fn a_lock_file_that_the_build_wrote_is_none_and_one_that_is_updated_later_is() {
        let dir = project();
        let mut sources = look(&dir);
        fs::write(dir.path().join("package-lock.json"), "{}").unwrap();
        fs::write(dir.path().join("src/bot.js"), "typed while it was built").unwrap();
        sources.take_locks(&look(&dir));
        assert_eq!(changed(&dir, &sources), ["src/bot.js"]);
        fs::write(dir.path().join("package-lock.json"), "{ }").unwrap();
        assert_eq!(changed(&dir, &sources), ["package-lock.json", "src/bot.js"]);
    }

    #[test]
    fn what_an_editor_keeps_beside_a_file_what_people_read_and_what_commands_write_are_none() {
        let dir = project();
        let before = look(&dir);
        for kept in [
            ".bot.js.swp",
            ".bot.js.un~",
            "bot.js~",
            "4913",
            "#bot.js#",
            ".#bot.js",
            "bot.js___jb_tmp___",
            "bot.js.bak",
        ] {
            let typed = if kept == "4913" { "" } else { "typed" };
            fs::write(dir.path().join("src").join(kept), typed).unwrap();
        }
        fs::write(dir.path().join(".DS_Store"), "looked at").unwrap();
        fs::write(dir.path().join("README.md"), "read").unwrap();
        fs::write(dir.path().join("dev.log"), "$ ./build.sh").unwrap();
        assert_eq!(changed(&dir, &before), [""; 0]);
    }

    #[test]
    fn whatever_a_build_may_read_is_one_behind_a_link_too() {
        let dir = project();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("shared.js"), "one").unwrap();
        symlink(elsewhere.path().join("shared.js"), dir.path().join("src/shared.js")).unwrap();
        symlink(dir.path(), dir.path().join("src/here")).unwrap();
        symlink("nowhere", dir.path().join("src/nothing.js")).unwrap();
        let before = look(&dir);
        for read in [".npmrc", "2024", "build.sh", "requirements.txt", "src/README.md", "src/README.txt"] {
            fs::write(dir.path().join(read), "read").unwrap();
        }
        fs::write(elsewhere.path().join("shared.js"), "two").unwrap();
        assert_eq!(
            changed(&dir, &before),
            [".npmrc", "2024", "build.sh", "requirements.txt", "src/README.md", "src/README.txt", "src/shared.js"]
        );
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_left_out() {
        let dir = project();
        // Nobody, root included, reads the last of these: the path to it is too long for the system.
        let open = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut parent = rustix::fs::open(dir.path(), open, Mode::empty()).unwrap();
        let name = "a".repeat(250);
        for _ in 0..20 {
            rustix::fs::mkdirat(&parent, &name, Mode::RWXU).unwrap();
            parent = rustix::fs::openat(&parent, &name, open, Mode::empty()).unwrap();
        }
        assert_eq!(look(&dir).files.len(), 1);
    }

    #[test]
    fn without_its_directory_there_is_no_project() {
        let missing = Sources::look(Path::new("/nowhere/hello"), &[]).unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere/hello: No such file or directory"), "{missing}");
    }
}
