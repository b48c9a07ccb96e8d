//! Whether a file changed, told without reading it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// What the file system says of a file's content. Two stamps differ when the file was written or replaced in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub bytes: u64,
    inode: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
}

impl Stamp {
    /// Stamps the file, following links.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            bytes: metadata.len(),
            inode: metadata.ino(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The state of files when they were first looked at; one that is not there is a state, too.
///
/// A file is looked at before it is read: what is written while it is read differs from its stamp, and is noticed later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

impl Stamps {
    /// Stamps a path, unless that was done before.
    pub fn look(&mut self, path: &Path) {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), Stamp::of(path).ok());
        }
    }

    /// Adds what was looked at elsewhere.
    pub fn extend(&mut self, others: Self) {
        others.0.into_iter().for_each(|(path, stamp)| _ = self.0.entry(path).or_insert(stamp));
    }

    /// The same paths as they are now.
    pub fn now(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), Stamp::of(path).ok())).collect())
    }

    /// The directories in which a change of a path shows.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.paths().filter_map(|path| if path.is_dir() { Some(path.as_path()) } else { path.parent() })
    }

    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }
}

/// Opens a file that can be read to its end. Opening a pipe would wait for its writer, and a terminal never ends.
pub fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}
