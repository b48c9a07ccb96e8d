//! The compile cache: machine code that our own child wrote, checked before it is run, and what could not be compiled.
//!
//! An entry is named by the plugin's hash and the engine's fingerprint. Its code ends in a checksum over that name and the
//! code, so that neither a spoiled file nor one under another's name is run. A file that the compiler refused leaves a
//! verdict instead, which holds as long as the compiler's limits do. A plugin that held the conversation beside it is not made to
//! hold it again at every start.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{Content, Hash};
use crate::{
    config,
    private_dir::{Entry, Partial, PrivateDir},
};

/// How the entries with machine code end.
const CODE: &str = "cwasm";

/// How the entries about what did not compile end.
const VERDICT: &str = "refused";

/// How the entries about conversations that were held end.
const HELD: &str = "held";

/// The checksum at the end of an entry.
const CHECKSUM_BYTES: u64 = 32;

/// How much of an entry is read at once.
const READ_BYTES: usize = 256 << 10;

/// The longest verdict that is read.
const VERDICT_BYTES_MAX: u64 = 16 << 10;

/// Machine code and verdicts, by the content of plugin files.
#[derive(Debug)]
pub struct Cache {
    dir: PrivateDir,
    /// The engine whose code it is; see [`super::engine::Engine::fingerprint`].
    fingerprint: u64,
}

/// Code on its way into the cache, part by part: all of it never has to be in memory.
#[derive(Debug)]
pub struct Keeping {
    file: Partial,
    sum: Sha256,
    content: Content,
    /// How many bytes of code it has so far.
    pub bytes: u64,
}

/// Why an entry is not run.
#[derive(Debug, thiserror::Error)]
pub enum Spoiled {
    #[error("it does not match its checksum")]
    Checksum,
    #[error("{0}")]
    Foreign(io::Error),
    /// It may be read later.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What was thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    pub files: usize,
    pub bytes: u64,
}

impl Cache {
    /// Opens the cache in a directory that is made for us alone.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to or is open to somebody else.
    pub fn open(dir: PathBuf, fingerprint: u64) -> anyhow::Result<Self> {
        Ok(Self { dir: PrivateDir::open(dir)?, fingerprint })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether there is code for a plugin; it is not checked yet.
    pub fn has(&self, content: Content) -> bool {
        self.dir.file(&self.name(content, CODE)).exists()
    }

    /// Returns the file with a plugin's code, checked and marked as used; nothing if there is none. Reads all of it.
    pub fn code(&self, content: Content) -> Result<Option<PathBuf>, Spoiled> {
        let name = self.name(content, CODE);
        let Some(file) = self.dir.open_file(&name).map_err(Spoiled::of_open)? else { return Ok(None) };
        if !is_whole(&file, &name)? {
            return Err(Spoiled::Checksum);
        }
        // Only for `tidy`: a cache that cannot be written is still good to read.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(self.dir.file(&name)))
    }

    /// Begins to keep a plugin's code.
    pub fn begin(&self, content: Content) -> io::Result<Keeping> {
        let name = self.name(content, CODE);
        let (file, sum) = (self.dir.begin(&name)?, Sha256::new().chain_update(&name));
        Ok(Keeping { file, sum, content, bytes: 0 })
    }

    /// Keeps a plugin's code that is complete. Returns its path.
    pub fn keep(&self, keeping: Keeping) -> io::Result<PathBuf> {
        let Keeping { mut file, sum, content, .. } = keeping;
        file.write(&sum.finalize())?;
        let path = file.finish()?;
        self.pardon(content)?;
        Ok(path)
    }

    /// Removes a plugin's code.
    pub fn forget(&self, content: Content) -> io::Result<()> {
        self.dir.remove(&self.name(content, CODE))
    }

    /// Returns why a plugin did not compile under the same limits.
    pub fn verdict(&self, content: Content, limits: &config::Compile) -> Option<String> {
        let file = self.dir.open_file(&self.name(content, VERDICT)).ok()??;
        let mut text = String::new();
        file.take(VERDICT_BYTES_MAX).read_to_string(&mut text).ok()?;
        let (tried_under, why) = text.split_once('\n')?;
        (tried_under == terms(limits)).then(|| why.to_owned())
    }

    /// Remembers that a plugin does not compile under these limits.
    pub fn condemn(&self, content: Content, limits: &config::Compile, why: &str) -> io::Result<()> {
        let text = format!("{}\n{why}", terms(limits));
        self.dir.write(&self.name(content, VERDICT), &[text.as_bytes()]).map(drop)
    }

    /// Forgets what a plugin was found to do: that it does not compile, or that it held its conversation.
    pub fn pardon(&self, content: Content) -> io::Result<()> {
        self.dir.remove(&self.name(content, VERDICT))?;
        self.dir.remove(&self.name(content, HELD))
    }

    /// Returns how many replies a plugin's conversation expects, if the plugin held it before; `terms` name the conversation
    /// and what it was held under.
    pub fn held(&self, content: Content, terms: &Hash) -> Option<usize> {
        let file = self.dir.open_file(&self.name(content, HELD)).ok()??;
        let mut text = String::new();
        file.take(VERDICT_BYTES_MAX).read_to_string(&mut text).ok()?;
        let (held_under, count) = text.split_once('\n')?;
        count.parse().ok().filter(|_| held_under == terms.to_string())
    }

    /// Remembers that a plugin held its conversation.
    pub fn hold(&self, content: Content, terms: &Hash, count: usize) -> io::Result<()> {
        self.dir.write(&self.name(content, HELD), &[format!("{terms}\n{count}").as_bytes()]).map(drop)
    }

    /// Throws away what no plugin in use needs: what was not used for `age_max`, then the oldest until `bytes_max` holds it
    /// all. What is in use stays in any case.
    pub fn tidy(&self, in_use: &HashSet<Hash>, bytes_max: u64, age_max: Duration) -> io::Result<Tidied> {
        let entries = self.dir.entries()?;
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let needed: HashSet<String> = in_use.iter().map(|hash| self.stem(hash)).collect();
        let is_needed = |entry: &Entry| entry.name.rsplit_once('-').is_some_and(|(stem, _)| needed.contains(stem));
        let mut idle: Vec<Entry> =
            entries.into_iter().filter(|entry| is_one(&entry.name) && !is_needed(entry)).collect();
        idle.sort_by_key(|entry| entry.used);
        let now = SystemTime::now();
        let mut tidied = Tidied::default();
        for entry in idle {
            let is_old = now.duration_since(entry.used).is_ok_and(|age| age > age_max);
            if is_old || bytes > bytes_max {
                self.dir.remove(&entry.name)?;
                bytes -= entry.bytes;
                tidied.files += 1;
                tidied.bytes += entry.bytes;
            }
        }
        Ok(tidied)
    }

    fn name(&self, content: Content, kind: &str) -> String {
        format!("{}-{}.{kind}", self.stem(&content.hash), content.class().name())
    }

    /// How the names of all entries of a plugin begin that this host can use.
    fn stem(&self, hash: &Hash) -> String {
        format!("{hash}-{:016x}", self.fingerprint)
    }
}

impl Keeping {
    /// Adds a part of the code.
    pub fn add(&mut self, part: &[u8]) -> io::Result<()> {
        self.sum.update(part);
        self.bytes += part.len() as u64;
        self.file.write(part)
    }
}

impl Spoiled {
    /// Tells what we cannot have written (a link, a file that is closed to us or open to others) from trouble that passes.
    fn of_open(error: io::Error) -> Self {
        let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        match is_link || error.kind() == io::ErrorKind::PermissionDenied {
            true => Self::Foreign(error),
            false => Self::Io(error),
        }
    }
}

/// Whether a file is an entry by its name.
fn is_one(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, kind)| [CODE, VERDICT, HELD].contains(&kind))
}

/// The limits that a verdict depends on.
fn terms(limits: &config::Compile) -> String {
    let config::Compile { file_mib_max: _, memory_mib, cpu_s, timeout_s } = limits;
    format!("memory_mib = {memory_mib}, cpu_s = {cpu_s}, timeout_s = {timeout_s}")
}

/// Whether a file ends in the checksum of its name and the rest.
fn is_whole(file: &File, name: &str) -> io::Result<bool> {
    let bytes = file.metadata()?.len();
    let Some(code_bytes) = bytes.checked_sub(CHECKSUM_BYTES) else { return Ok(false) };
    let mut sum = Sha256::new().chain_update(name);
    let mut code = file.take(code_bytes);
    let mut part = vec![0; READ_BYTES];
    loop {
        match code.read(&mut part)? {
            0 => break,
            read => sum.update(&part[..read]),
        }
    }
    let mut checksum = Vec::new();
    code.into_inner().read_to_end(&mut checksum)?;
    Ok(*sum.finalize() == *checksum)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let parent = tempfile::tempdir().unwrap();
        let cache = Cache::open(parent.path().join("cache"), 7).unwrap();
        (parent, cache)
    }

    fn keep(cache: &Cache, content: Content, parts: &[&[u8]]) -> PathBuf {
        let mut keeping = cache.begin(content).unwrap();
        parts.iter().for_each(|part| keeping.add(part).unwrap());
        cache.keep(keeping).unwrap()
    }

    fn limits(cpu_s: u64) -> config::Compile {
        config::Compile { file_mib_max: 1, memory_mib: 256, cpu_s, timeout_s: 9 }
    }

    #[test]
    fn code_is_returned_only_as_it_was_kept() {
        let (_parent, cache) = cache();
        let (a, b) = (Content::of(b"a"), Content::of(b"b"));
        assert!(cache.code(a).unwrap().is_none());
        let path = keep(&cache, a, &[b"machine ", b"code"]);
        assert_eq!(cache.code(a).unwrap(), Some(path.clone()));

        // Under another plugin's name.
        fs::copy(&path, cache.dir().join(cache.name(b, CODE))).unwrap();
        assert!(matches!(cache.code(b), Err(Spoiled::Checksum)));
        // One bit.
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(cache.code(a), Err(Spoiled::Checksum)));
        // Cut short.
        fs::write(&path, "x").unwrap();
        assert!(matches!(cache.code(a), Err(Spoiled::Checksum)));
        cache.forget(a).unwrap();
        assert!(cache.code(a).unwrap().is_none());
    }

    #[test]
    fn code_that_cannot_be_opened_is_not_taken_for_spoiled() {
        let out_of_files = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert!(matches!(Spoiled::of_open(out_of_files), Spoiled::Io(_)));
        let link = io::Error::from_raw_os_error(Errno::LOOP.raw_os_error());
        assert!(matches!(Spoiled::of_open(link), Spoiled::Foreign(_)));
    }

    #[test]
    fn a_conversation_was_held_under_the_terms_it_was_held_under() {
        let (_parent, cache) = cache();
        let (bot, terms) = (Content::of(b"bot"), Hash::of(b"terms"));
        assert_eq!(cache.held(bot, &terms), None);
        cache.hold(bot, &terms, 3).unwrap();
        assert_eq!(cache.held(bot, &terms), Some(3));
        assert_eq!(cache.held(bot, &Hash::of(b"others")), None);
        assert_eq!(cache.held(Content::of(b"other"), &terms), None);
    }

    #[test]
    fn a_verdict_holds_for_the_limits_it_was_found_under() {
        let (_parent, cache) = cache();
        let bomb = Content::of(b"bomb");
        cache.condemn(bomb, &limits(5), "it took\ntoo long").unwrap();
        assert_eq!(cache.verdict(bomb, &limits(5)).as_deref(), Some("it took\ntoo long"));
        assert_eq!(cache.verdict(bomb, &limits(6)), None);
        assert_eq!(cache.verdict(Content::of(b"other"), &limits(5)), None);
        cache.pardon(bomb).unwrap();
        assert_eq!(cache.verdict(bomb, &limits(5)), None);
    }

    #[test]
    fn what_is_idle_goes_by_age_and_then_by_size_and_what_is_in_use_stays() {
        let (_parent, cache) = cache();
        let files = [b"a", b"b", b"c", b"d"].map(|text| Content::of(text));
        let now = SystemTime::now();
        for (file, days) in files.into_iter().zip([40, 3, 2, 50]) {
            let path = keep(&cache, file, &[&[0; 1_000]]);
            let used = now - Duration::from_secs(days * 86_400);
            File::open(path).unwrap().set_modified(used).unwrap();
        }
        let in_use = HashSet::from([files[3].hash]);
        let month = Duration::from_secs(30 * 86_400);
        assert_eq!(cache.tidy(&in_use, 1 << 20, month).unwrap().files, 1);
        assert_eq!(files.map(|file| cache.has(file)), [false, true, true, true]);
        assert_eq!(cache.tidy(&in_use, 2_500, month).unwrap().files, 1);
        assert_eq!(files.map(|file| cache.has(file)), [false, false, true, true]);
        assert_eq!(cache.tidy(&in_use, 0, month).unwrap().files, 1);
        assert_eq!(files.map(|file| cache.has(file)), [false, false, false, true]);
    }
}
