//! The versions of plugins that served, kept to go back to.
//!
//! They are copies: the plugins directory stays the truth, and going back writes an earlier file into it. Of each plugin, by
//! its directory and name, there is a directory with the files by their hashes, and a list of them in the order in which they
//! began to serve.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    Hash,
    directory::{Found, OrderError, canary_of, directories_of, exists, find, plugin_name, switched_off, unknown},
    loader::{Identity, Terms},
    millis,
};
use crate::{
    config::{self, Config},
    private_dir::PrivateDir,
    stamp::open_file,
};

/// The list of a plugin's versions.
const LIST: &str = "versions.json";

/// The largest list that is read: far more than a hundred versions need.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// The kept versions of all plugins.
#[derive(Debug)]
pub struct Versions {
    root: PathBuf,
    /// Which version of which plugin serves; the lock is that of the whole directory.
    serving: Mutex<HashMap<Key, Noted>>,
}

/// A version that serves, as it was seen last.
#[derive(Debug)]
struct Noted {
    identity: Identity,
    file: PathBuf,
    /// What is not was told once, and is tried again whenever the chains are made anew: the disk may have room by then.
    is_kept: bool,
}

/// A plugin: its directory and its name.
pub type Key = (PathBuf, String);

/// A plugin's file that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub file: PathBuf,
    pub name: String,
    /// Its content, and the conversation that it was held to.
    pub identity: Identity,
}

/// A version that served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub hash: Hash,
    /// The name of its file, without the directory.
    pub file_name: String,
    pub bytes: u64,
    /// When it first served, in seconds since 1970.
    pub first_served_s: u64,
    /// Whether it lies in the plugins directory now.
    pub is_present: bool,
    /// Whether somebody went back from it to an earlier one.
    pub is_left: bool,
}

/// A version that is kept, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub sha256: String,
    /// When it first served, in seconds since 1970.
    pub first_served_s: u64,
    /// Whether somebody went back from it to an earlier one.
    pub is_left: bool,
}

/// What going back did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The file that was written.
    pub file: PathBuf,
    pub hash: Hash,
    pub first_served_s: u64,
    /// What lay in its place, under the names that it has now: another conversation, or the plugin's file of another name.
    pub set_aside: Vec<PathBuf>,
}

/// A plugin's list as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct List {
    /// For whoever looks at the file.
    dir: PathBuf,
    name: String,
    /// In the order in which they began to serve.
    versions: Vec<Listed>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Listed {
    sha256: String,
    file: String,
    bytes: u64,
    /// The SHA-256 of the conversation that it was held to, which is kept beside it.
    #[serde(default)]
    canary: Option<String>,
    first_served_s: u64,
    /// When it last began to serve, in milliseconds since 1970.
    served_ms: u64,
    /// Somebody went back from it; it is gone to again only if it is named.
    #[serde(default)]
    left: bool,
}

impl Versions {
    /// Opens the kept versions of a host, in a directory that is made for us alone.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to or is open to somebody else.
    pub fn open(root: PathBuf) -> anyhow::Result<Self> {
        PrivateDir::open(root.clone())?;
        Ok(Self { root, serving: Mutex::default() })
    }

    /// Keeps what serves now, and lets go what is beyond the bounds. What was kept before costs nothing.
    pub fn keep(&self, served: &[Served], bounds: config::Versions) {
        if bounds.count_max == 0 {
            return;
        }
        let mut serving = self.lock();
        let mut is_new = false;
        for version in served {
            let Some(dir) = version.file.parent() else { continue };
            let key = (dir.to_owned(), version.name.clone());
            let Served { identity, file, .. } = version;
            let before = serving.get(&key).filter(|noted| noted.identity == *identity && noted.file == *file);
            if before.is_some_and(|noted| noted.is_kept) {
                continue;
            }
            let added = self.add(&key, version, bounds);
            if let (Err(error), None) = (&added, before) {
                let (name, root) = (&version.name, self.root.display());
                warn!(plugin.name = %name, "This version of plugin `{name}` is not kept in {root}: {error}");
            }
            serving.insert(key, Noted { identity: *identity, file: file.clone(), is_kept: added.is_ok() });
            is_new |= added.unwrap_or(false);
        }
        if is_new && let Err(error) = self.shrink(bounds) {
            warn!("The kept versions in {} cannot be reduced: {error}", self.root.display());
        }
    }

    /// The hashes of all kept versions.
    pub fn hashes(&self) -> HashSet<Hash> {
        let _lock = self.lock();
        let lists = self.lists().unwrap_or_default();
        lists
            .iter()
            .flat_map(|(_, list)| list.versions.iter().filter_map(|version| Hash::parse(&version.sha256)))
            .collect()
    }

    /// The copy of the version that served last from this very file, and what it is. Not of one that somebody went back from or
    /// switched off, nor where the plugin's last version had another file: that one is gone.
    pub fn last_served(&self, file: &Path) -> Option<(PathBuf, Identity)> {
        let _lock = self.lock();
        let (dir, name) = (file.parent()?, plugin_name(file)?);
        let list = self.read_list(dir, &name);
        let last = list.versions.iter().rev().find(|listed| !listed.left)?;
        let canary = match &last.canary {
            Some(sha256) => Some(Hash::parse(sha256)?),
            None => None,
        };
        let identity = Identity { hash: Hash::parse(&last.sha256)?, canary };
        if hash_of(&switched_off(file)) == Some(identity.hash) {
            return None;
        }
        let copy = self.dir_of(dir, &name).join(wasm_name(&last.sha256));
        (file.file_name()? == last.file.as_str()).then_some((copy, identity))
    }

    /// The kept versions of all plugins by their directory and name, the newest first.
    pub fn all(&self) -> HashMap<Key, Vec<Kept>> {
        let _lock = self.lock();
        let kept = |Listed { sha256, first_served_s, left, .. }| Kept { sha256, first_served_s, is_left: left };
        let of = |list: List| ((list.dir, list.name), list.versions.into_iter().rev().map(kept).collect());
        self.lists().unwrap_or_default().into_iter().map(|(_, list)| of(list)).collect()
    }

    /// The kept versions of a plugin, the newest first.
    ///
    /// # Errors
    /// A name that no plugin has, or several of different directories have.
    pub fn list(&self, config: &Config, account: Option<&str>, name: &str) -> Result<Vec<Version>, OrderError> {
        let _lock = self.lock();
        let Place { present, list, .. } = self.place(config, account, name)?;
        let present = present.and_then(|found| hash_of(&found.file));
        let version = |listed: &Listed| {
            let hash = Hash::parse(&listed.sha256)?;
            Some(Version {
                hash,
                file_name: listed.file.clone(),
                bytes: listed.bytes,
                first_served_s: listed.first_served_s,
                is_present: present == Some(hash),
                is_left: listed.left,
            })
        };
        Ok(list.versions.iter().rev().filter_map(version).collect())
    }

    /// Goes back to the version that served before the present file, or to one whose hash begins with `to`: writes it into
    /// the plugins directory with its conversation, where the host finds it. Another conversation, or a present file of another
    /// name, is switched off. What the plugin's table does not allow is passed over.
    ///
    /// # Errors
    /// A name that no plugin has, or several of different directories have; no such version, or none that the table allows; a
    /// disk that fails. Nothing was changed then, but by the disk.
    pub fn rollback(
        &self,
        config: &Config,
        account: Option<&str>,
        name: &str,
        to: Option<&str>,
    ) -> Result<RolledBack, OrderError> {
        let mut serving = self.lock();
        let Place { dir, name, present, mut list } = self.place(config, account, name)?;
        let present_hash = present.as_ref().and_then(|found| hash_of(&found.file)).map(|hash| hash.to_string());
        let candidates = list.candidates(present_hash.as_deref(), to)?;
        let judged = candidates.iter().filter_map(|listed| {
            let hash = Hash::parse(&listed.sha256)?;
            Some((*listed, hash, Terms::of(config, &dir.join(&listed.file)).other_pin(hash)))
        });
        let (chosen, hash) = match judged.clone().find(|(.., pin)| pin.is_none()).or(judged.clone().next()) {
            Some((chosen, hash, None)) => (chosen.clone(), hash),
            Some((_, hash, Some(pinned))) => return Err(OrderError::Pinned { name, hash, pinned }),
            None => return Err(OrderError::NoVersion { name }),
        };
        let (wasm, canary) = self.read(&dir, &name, &chosen)?;
        let file = dir.join(&chosen.file);
        let other = present.filter(|present| present.is_on && present.file != file).map(|present| present.file);
        let private = self.private(&dir, &name).map_err(|error| OrderError::Io { file: self.root.clone(), error })?;
        let keeps = |file: &Path| list.keeps(&private, file);
        let in_place = InPlace::of(&file, canary.as_deref(), other, keeps);

        // First, so that after a crash in between the version that is left is not gone back to.
        for listed in &mut list.versions {
            listed.left |= Some(&listed.sha256) == present_hash.as_ref();
            listed.left &= listed.sha256 != chosen.sha256;
        }
        self.write_list(&dir, &list).map_err(|error| OrderError::Io { file: self.root.clone(), error })?;
        serving.remove(&(dir.clone(), name.clone()));
        put_back(&file, &wasm, canary.as_deref(), &in_place)
            .map_err(|error| OrderError::Io { file: file.clone(), error })?;
        info!(plugin.name = %name, hash = %hash, "Plugin `{name}` goes back to {}", file.display());
        in_place.all().for_each(|cleared| cleared.tell(&name));
        let set_aside = in_place.all().filter_map(|cleared| cleared.to.clone()).collect();
        Ok(RolledBack { file, hash, first_served_s: chosen.first_served_s, set_aside })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Noted>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the one plugin that is meant, whether its file is there or not.
    fn place(&self, config: &Config, account: Option<&str>, name: &str) -> Result<Place, OrderError> {
        let found = match find(config, account, name) {
            Ok(found) => found,
            Err(OrderError::Unknown { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        // By the name of a file, its plugin's name is meant.
        let name = found.first().and_then(|found| plugin_name(&found.file)).unwrap_or_else(|| name.to_owned());
        let mut places = Vec::new();
        for dir in directories_of(config, account)? {
            let here = found.iter().filter(|found| found.file.parent() == Some(dir));
            let present = here.clone().find(|found| found.is_on).or(here.clone().next()).cloned();
            let list = self.read_list(dir, &name);
            if here.count() > 0 || !list.versions.is_empty() {
                places.push(Place { dir: dir.to_owned(), name: name.clone(), present, list });
            }
        }
        match (places.pop(), places.is_empty()) {
            (Some(place), true) => Ok(place),
            (None, _) => Err(unknown(config, account, &name)),
            (Some(last), false) => {
                let files = places.into_iter().chain([last]).map(|place| place.dir.join(&place.name)).collect();
                Err(OrderError::Ambiguous { name, files })
            }
        }
    }

    /// Writes down that a version serves. Returns whether it was not kept before.
    fn add(&self, (dir, name): &Key, served: &Served, bounds: config::Versions) -> io::Result<bool> {
        let mut list = self.read_list(dir, name);
        let Identity { hash, canary } = served.identity;
        let (sha256, canary) = (hash.to_string(), canary.map(|hash| hash.to_string()));
        let private = self.private(dir, name)?;
        let newest = list.versions.iter().rev().find(|listed| !listed.left);
        let file = served.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_kept = |newest: &Listed| newest.sha256 == sha256 && newest.canary == canary && newest.file == file;
        if newest.is_some_and(is_kept) && private.file(&wasm_name(&sha256)).exists() {
            return Ok(false);
        }
        // What is being replaced is not kept: what comes now will be when it serves.
        let Some(wasm) = unchanged(&served.file, hash)? else { return Ok(false) };
        if let Some(canary) = served.identity.canary {
            let Some(text) = unchanged(&canary_of(&served.file), canary)? else { return Ok(false) };
            private.write(&canary_name(&sha256), &[&text])?;
        }
        private.write(&wasm_name(&sha256), &[&wasm])?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = list.versions.iter().position(|listed| listed.sha256 == sha256).map(|at| list.versions.remove(at));
        list.versions.push(Listed {
            file,
            bytes: wasm.len() as u64,
            canary,
            first_served_s: before.map_or(now.as_secs(), |before| before.first_served_s),
            served_ms: millis(now),
            left: false,
            sha256,
        });
        let surplus = list.versions.len().saturating_sub(bounds.count_max);
        let gone: Vec<Listed> = list.versions.drain(..surplus).collect();
        self.write_list(dir, &list)?;
        gone.iter().try_for_each(|listed| remove(&private, listed))?;
        Ok(true)
    }

    /// Lets the oldest versions go until all fit into `versions.mib_max`; those that serve go last.
    fn shrink(&self, bounds: config::Versions) -> io::Result<()> {
        let mut lists = self.lists()?;
        let bytes: u64 = lists.iter().flat_map(|(_, list)| &list.versions).map(|listed| listed.bytes).sum();
        let mut surplus = bytes.saturating_sub(bounds.mib_max << 20);
        let mut order: Vec<(bool, u64, usize, String)> = Vec::new();
        for (index, (_, list)) in lists.iter().enumerate() {
            for (at, listed) in list.versions.iter().enumerate() {
                let is_newest = at + 1 == list.versions.len();
                order.push((is_newest, listed.served_ms, index, listed.sha256.clone()));
            }
        }
        order.sort();
        for (_, _, index, sha256) in order {
            if surplus == 0 {
                break;
            }
            let (dir, list) = &mut lists[index];
            let Some(at) = list.versions.iter().position(|listed| listed.sha256 == sha256) else { continue };
            let gone = list.versions.remove(at);
            dir.write(LIST, &[&serde_json::to_vec_pretty(&*list)?])?;
            remove(dir, &gone)?;
            surplus = surplus.saturating_sub(gone.bytes);
        }
        Ok(())
    }

    /// Reads a version and its conversation, as they were when it served. One that is not is removed.
    fn read(&self, dir: &Path, name: &str, listed: &Listed) -> Result<(Vec<u8>, Option<Vec<u8>>), OrderError> {
        let file = self.dir_of(dir, name).join(wasm_name(&listed.sha256));
        let io = |error| OrderError::Io { file: file.clone(), error };
        let private = self.private(dir, name).map_err(io)?;
        let wasm = read_kept(&private, &wasm_name(&listed.sha256), &listed.sha256).map_err(io)?;
        let canary = match &listed.canary {
            None => Some(None),
            Some(sha256) => read_kept(&private, &canary_name(&listed.sha256), sha256).map_err(io)?.map(Some),
        };
        if let (Some(wasm), Some(canary)) = (wasm, canary) {
            return Ok((wasm, canary));
        }
        let mut list = self.read_list(dir, name);
        list.versions.retain(|other| other.sha256 != listed.sha256);
        self.write_list(dir, &list).map_err(io)?;
        remove(&private, listed).map_err(io)?;
        Err(OrderError::Damaged { file })
    }

    fn dir_of(&self, dir: &Path, name: &str) -> PathBuf {
        // A name may be as long as a file's name can be; a hash always fits.
        let key = Hash::of(format!("{}\0{name}", dir.display()).as_bytes()).to_string();
        self.root.join(&key[..32])
    }

    fn private(&self, dir: &Path, name: &str) -> io::Result<PrivateDir> {
        PrivateDir::open(self.dir_of(dir, name)).map_err(io::Error::other)
    }

    /// Reads a plugin's list. One that cannot be read is as good as empty: the versions are copies.
    fn read_list(&self, dir: &Path, name: &str) -> List {
        let empty = || List { dir: dir.to_owned(), name: name.to_owned(), versions: Vec::new() };
        if !self.dir_of(dir, name).exists() {
            return empty();
        }
        let private = self.private(dir, name);
        private.ok().and_then(|private| read_list(&private)).unwrap_or_else(empty)
    }

    fn write_list(&self, dir: &Path, list: &List) -> io::Result<()> {
        self.private(dir, &list.name)?.write(LIST, &[&serde_json::to_vec_pretty(list)?]).map(drop)
    }

    fn lists(&self) -> io::Result<Vec<(PrivateDir, List)>> {
        let mut lists = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let Some(private) = path.is_dir().then(|| PrivateDir::open(path).ok()).flatten() else { continue };
            lists.extend(read_list(&private).map(|list| (private, list)));
        }
        Ok(lists)
    }
}

/// One plugin, as it is in its directory and in ours.
struct Place {
    dir: PathBuf,
    name: String,
    /// Its file, if there is one; rather one that is switched on.
    present: Option<Found>,
    list: List,
}

impl List {
    /// The versions that may be gone back to, the newest first: those of this hash, or those that are not there now and that nobody
    /// went back from. There is one at least.
    fn candidates(&self, present: Option<&str>, to: Option<&str>) -> Result<Vec<&Listed>, OrderError> {
        let name = || self.name.clone();
        let newest_first = self.versions.iter().rev();
        let (candidates, none): (Vec<&Listed>, OrderError) = match to {
            // It may be there, switched off or beside another conversation.
            Some(to) => (
                newest_first.filter(|listed| listed.sha256.starts_with(&to.to_ascii_lowercase())).collect(),
                OrderError::NoSuchVersion { name: name(), to: to.to_owned() },
            ),
            None => {
                let earlier = newest_first.filter(|listed| Some(&*listed.sha256) != present);
                let none = match earlier.clone().next() {
                    Some(_) => OrderError::AllLeft { name: name() },
                    None => OrderError::NoVersion { name: name() },
                };
                (earlier.filter(|listed| !listed.left).collect(), none)
            }
        };
        if candidates.is_empty() { Err(none) } else { Ok(candidates) }
    }

    /// Whether what a file holds is kept as well: a version, or the conversation of one.
    fn keeps(&self, private: &PrivateDir, file: &Path) -> bool {
        let Some(sha256) = hash_of(file).map(|hash| hash.to_string()) else { return false };
        let is_there = |copy: &str| matches!(read_kept(private, copy, &sha256), Ok(Some(_)));
        self.versions.iter().any(|listed| {
            (listed.sha256 == sha256 && is_there(&wasm_name(&sha256)))
                || (listed.canary.as_ref() == Some(&sha256) && is_there(&canary_name(&listed.sha256)))
        })
    }
}

/// What lies in the place of a version that is to be written, and what becomes of it.
#[derive(Debug)]
struct InPlace {
    /// Another conversation, cleared away before the version's is written.
    before: Vec<Cleared>,
    /// The plugin's file of another name, and what was switched off beside the version's: cleared away when it is written.
    after: Vec<Cleared>,
}

/// A file that is cleared away.
#[derive(Debug)]
struct Cleared {
    file: PathBuf,
    /// Its new name; none if it is removed, since it is kept as a version or with one.
    to: Option<PathBuf>,
}

impl InPlace {
    /// Looks at what is there. `other` is the plugin's file if it has another name.
    fn of(file: &Path, canary: Option<&[u8]>, other: Option<PathBuf>, keeps: impl Fn(&Path) -> bool) -> Self {
        let conversation = canary_of(file);
        // It came with another version, which it is there to judge.
        let is_another = exists(&conversation) && hash_of(&conversation) != canary.map(Hash::of);
        // Beside the version it could not be switched off again.
        let off = Some(switched_off(file)).filter(|off| keeps(off)).map(|file| Cleared { file, to: None });
        Self {
            before: is_another.then(|| Cleared::aside(conversation, &keeps)).into_iter().collect(),
            after: other.map(|other| Cleared::aside(other, &keeps)).into_iter().chain(off).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Cleared> {
        self.before.iter().chain(&self.after)
    }
}

impl Cleared {
    /// Switches a file off, or removes it if that name is taken and it is kept.
    fn aside(file: PathBuf, keeps: impl Fn(&Path) -> bool) -> Self {
        let off = switched_off(&file);
        let to = match exists(&off) {
            false => Some(off),
            true if keeps(&file) => None,
            true => (2..).map(|number| off.with_added_extension(number.to_string())).find(|free| !exists(free)),
        };
        Self { file, to }
    }

    fn carry_out(&self) -> io::Result<()> {
        match &self.to {
            Some(to) => fs::rename(&self.file, to),
            None => fs::remove_file(&self.file),
        }
    }

    fn tell(&self, plugin: &str) {
        let file = self.file.display();
        match &self.to {
            Some(to) => info!(plugin.name = %plugin, "{file} was in its place and is now {}", to.display()),
            None => info!(plugin.name = %plugin, "{file} was in its place and is kept among the versions"),
        }
    }
}

fn read_list(private: &PrivateDir) -> Option<List> {
    let mut text = String::new();
    private.open_file(LIST).ok()??.take(LIST_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn wasm_name(sha256: &str) -> String {
    format!("{sha256}.wasm")
}

fn canary_name(sha256: &str) -> String {
    format!("{sha256}.txt")
}

fn remove(private: &PrivateDir, listed: &Listed) -> io::Result<()> {
    private.remove(&wasm_name(&listed.sha256))?;
    private.remove(&canary_name(&listed.sha256))
}

/// Reads what was kept; nothing if it is not there as it was.
fn read_kept(private: &PrivateDir, name: &str, sha256: &str) -> io::Result<Option<Vec<u8>>> {
    let Some(mut file) = private.open_file(name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| Hash::of(bytes).to_string() == sha256))
}

/// Reads a file, if it still is what it was.
fn unchanged(file: &Path, hash: Hash) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    open_file(file)?.read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| Hash::of(bytes) == hash))
}

fn hash_of(file: &Path) -> Option<Hash> {
    let mut wasm = Vec::new();
    open_file(file).ok()?.read_to_end(&mut wasm).ok()?;
    Some(Hash::of(&wasm))
}

/// Writes a version back with its conversation, and clears away what lies there instead of it.
fn put_back(file: &Path, wasm: &[u8], canary: Option<&[u8]>, in_place: &InPlace) -> io::Result<()> {
    in_place.before.iter().try_for_each(Cleared::carry_out)?;
    if let Some(text) = canary {
        put(&canary_of(file), text)?;
    }
    put(file, wasm)?;
    in_place.after.iter().try_for_each(Cleared::carry_out)
}

/// Writes a plugin's file so that it appears whole. Until then its name is hidden, and no plugin's.
fn put(file: &Path, wasm: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut partial = tempfile::Builder::new().prefix(".rollback-").suffix(".partial").tempfile_in(dir)?;
    partial.write_all(wasm)?;
    // As others find what an operator copies there.
    partial.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    partial.as_file().sync_all()?;
    partial.persist(file)?;
    File::open(dir)?.sync_all()
}
