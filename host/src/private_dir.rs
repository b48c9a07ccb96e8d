//! A directory that is ours alone: what is read there was written by us, whole.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, ensure};
use rustix::fs::{FlockOperation, OFlags, flock};
use tempfile::NamedTempFile;

/// How a file is named while it is written.
const PARTIAL: &str = "partial";

/// A directory of mode 0700 that belongs to us, with files of mode 0600.
#[derive(Clone, Debug)]
pub struct PrivateDir {
    path: PathBuf,
}

/// A file that is being written, and removed unless it is finished.
#[derive(Debug)]
pub struct Partial {
    /// Mode 0600, under a name of its own.
    file: NamedTempFile,
    dir: PathBuf,
    path: PathBuf,
}

/// A file in it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub bytes: u64,
    /// When it was written, or marked as used.
    pub used: SystemTime,
}

impl PrivateDir {
    /// Opens the directory, making it if need be, and removes what a writer that was killed left behind.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to or is open to somebody else.
    pub fn open(path: PathBuf) -> anyhow::Result<Self> {
        create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let metadata = fs::metadata(&path)?;
        ensure!(
            is_ours(&metadata),
            "{} must belong to this user and to no one else (mode 0700): what is in it is trusted",
            path.display()
        );
        let dir = Self { path };
        dir.remove_leftovers();
        Ok(dir)
    }

    /// Where a file of this name is, or would be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file so that it is there whole or not at all. What it holds comes in parts.
    pub fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<PathBuf> {
        let mut partial = self.begin(name)?;
        for part in parts {
            partial.write(part)?;
        }
        partial.finish()
    }

    /// Begins to write a file that has its name only once it is finished.
    pub fn begin(&self, name: &str) -> io::Result<Partial> {
        create(&self.path)?;
        let file = tempfile::Builder::new().suffix(&format!(".{PARTIAL}")).tempfile_in(&self.path)?;
        // The lock ends with the process: what is not locked is a leftover.
        flock(file.as_file(), FlockOperation::NonBlockingLockExclusive)?;
        Ok(Partial { file, dir: self.path.clone(), path: self.file(name) })
    }

    /// Opens a file that we wrote; nothing if there is none.
    ///
    /// # Errors
    /// When it is a link, no file, or belongs to or is open to somebody else.
    pub fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(self.file(name));
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        match metadata.is_file() && is_ours(&metadata) {
            true => Ok(Some(file)),
            false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a file of this user's alone")),
        }
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The files that are there and can be named.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // One that was removed meanwhile is not there.
            let (Ok(metadata), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
            if metadata.is_file() {
                entries.push(Entry { name, bytes: metadata.len(), used: metadata.modified()? });
            }
        }
        Ok(entries)
    }

    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let is_partial = path.extension() == Some(OsStr::new(PARTIAL));
            if is_partial && path.is_file() && !is_being_written(&path) {
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

impl Partial {
    /// Adds a part to it.
    pub fn write(&mut self, part: &[u8]) -> io::Result<()> {
        self.file.write_all(part)
    }

    /// Gives it its name, whole and on the disk. Returns its path.
    pub fn finish(self) -> io::Result<PathBuf> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path)?;
        // The name survives a crash only when the directory is written, too.
        File::open(&self.dir)?.sync_all()?;
        Ok(self.path)
    }
}

/// Makes a directory that is ours alone, unless it is there.
fn create(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn is_ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0
}

fn is_being_written(partial: &Path) -> bool {
    File::open(partial).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn directory() -> (tempfile::TempDir, PrivateDir) {
        let parent = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open(parent.path().join("ours")).unwrap();
        (parent, dir)
    }

    #[test]
    fn what_is_written_is_ours_alone_and_whole() {
        let (_parent, dir) = directory();
        let path = dir.write("a", &[b"one ", b"two"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(dir.open_file("a").unwrap().is_some());
        assert!(dir.open_file("b").unwrap().is_none());
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let (_parent, dir) = directory();
        let mut partial = dir.begin("a").unwrap();
        partial.write(b"half").unwrap();
        assert!(dir.open_file("a").unwrap().is_none());
        drop(partial);
        assert!(dir.entries().unwrap().is_empty());
    }

    #[test]
    fn a_link_and_a_file_that_others_may_write_are_not_opened() {
        let (_parent, dir) = directory();
        let path = dir.write("a", &[b"x"]).unwrap();
        symlink(&path, dir.file("link")).unwrap();
        assert!(dir.open_file("link").is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(dir.open_file("a").is_err());
    }

    #[test]
    fn a_directory_that_is_open_to_others_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = PrivateDir::open(parent.path().to_owned()).unwrap_err().to_string();
        assert!(error.contains("mode 0700"), "{error}");
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not() {
        let (_parent, dir) = directory();
        fs::write(dir.file("left.partial"), "half").unwrap();
        let written = File::create(dir.file("now.partial")).unwrap();
        flock(&written, FlockOperation::LockExclusive).unwrap();
        PrivateDir::open(dir.path().to_owned()).unwrap();
        let names: Vec<_> = dir.entries().unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["now.partial"]);
    }
}
