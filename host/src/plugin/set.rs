//! The plugins directories: which files are there, what each one's code is, and the chain that an account makes of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    Hash, Plugin,
    code::{Code, LoadError},
    compile::{CompileError, Compiler},
    engine::{Class, Engine},
    file_name::{file_name_order, name_of},
    millis,
    services::Services,
};
use crate::{
    config::{Account, Config, PluginSettings},
    dispatch::Chain,
    stamp::{Stamp, open_file},
};

/// Every plugin file that was seen, with the code that serves.
#[derive(Debug)]
pub struct Set {
    engine: Engine,
    compiler: Compiler,
    services: Services,
    files: BTreeMap<PathBuf, Known>,
    /// What was refused in the directories, and in the chains.
    refused_files: Told,
    refused_plugins: Told,
    /// Files that did not load through no fault of theirs (a full disk, too little memory): when to try them again.
    troubled: HashMap<PathBuf, Troubled>,
}

/// What is known of one path.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    /// The code that serves: the newest that loaded.
    code: Option<Arc<Code>>,
    /// The content that did not load, so that it is told and tried once.
    broken: Option<Hash>,
}

/// A file that is to be tried again.
#[derive(Debug)]
struct Troubled {
    stamp: Stamp,
    tries: u32,
    until: Instant,
}

/// How long a file that keeps failing through no fault of its own waits for the next try, at most: each try may be a
/// whole compile.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Whether a look at the directories changed anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// A plugin came, went or was replaced.
    pub changed: bool,
    /// A file changed while it was read: look again soon.
    pub unsettled: bool,
    /// A file has to be compiled, which was not allowed.
    pub pending: bool,
}

impl Set {
    /// Makes an empty set.
    pub fn new(engine: Engine, compiler: Compiler, services: Services) -> Self {
        Self {
            engine,
            compiler,
            services,
            files: BTreeMap::new(),
            refused_files: Told::default(),
            refused_plugins: Told::default(),
            troubled: HashMap::new(),
        }
    }

    /// Whether any plugin is loaded.
    pub fn has_code(&self) -> bool {
        self.files.values().any(|known| known.code.is_some())
    }

    /// Looks at the directories again and loads what is new. A file that does not load keeps what it was before; a
    /// directory that cannot be read keeps all of its plugins.
    pub async fn scan(&mut self, config: &Config, effort: Effort) -> Scan {
        let mut scan = Scan::default();
        let found = self.list(config);
        self.troubled.retain(|path, _| found.contains(path));
        let gone: Vec<PathBuf> = self.files.keys().filter(|path| !found.contains(*path)).cloned().collect();
        for path in gone {
            let known = self.files.remove(&path);
            if known.is_some_and(|known| known.code.is_some()) {
                info!(file = %path.display(), "Plugin file {} is gone; its plugin is no longer asked", path.display());
                scan.changed = true;
            }
        }
        let changed: Vec<(PathBuf, Stamp)> = found
            .into_iter()
            .filter_map(|path| Stamp::of(&path).ok().map(|stamp| (path, stamp)))
            .filter(|(path, stamp)| self.files.get(path).is_none_or(|known| known.stamp != *stamp))
            .filter(|(path, stamp)| !self.waits(path, *stamp))
            .collect();
        for (index, (path, stamp)) in changed.iter().enumerate() {
            let progress = Progress { index: index + 1, count: changed.len() };
            match self.refresh(path, *stamp, config, effort, progress).await {
                Ok(refreshed) => {
                    scan.changed |= refreshed == Refreshed::Replaced;
                    scan.pending |= refreshed == Refreshed::Pending;
                }
                Err(Unsettled) => scan.unsettled = true,
            }
        }
        scan
    }

    /// Forgets which files were broken, because the settings they were tried under changed.
    pub fn forgive(&mut self) {
        self.files.retain(|_, known| known.code.is_some());
        self.troubled.clear();
    }

    /// Makes the chains of all accounts out of what is loaded, in the order of the accounts.
    pub fn chains(&mut self, config: &Config) -> Vec<Chain> {
        let chains = config.accounts.iter().map(|account| self.chain(config, account)).collect();
        self.refused_plugins.end_round();
        chains
    }

    fn chain(&mut self, config: &Config, account: &Account) -> Chain {
        let mut plugins: Vec<Plugin> = Vec::new();
        for (path, code, own) in self.serving(config, account) {
            let Some(name) = name_of(&path) else { continue };
            if let Some(first) = plugins.iter().find(|plugin| *plugin.name == *name) {
                let text = format!(
                    "account `{}`: {} is not asked, because {} is a plugin of the same name `{name}`; rename one of them",
                    account.name,
                    path.display(),
                    first.file.display()
                );
                self.refused_plugins.tell(text);
                continue;
            }
            let settings = Arc::new(config.plugin(account, &name, own));
            plugins.push(Plugin {
                name: name.into(),
                account: account.name.as_str().into(),
                file: path,
                code,
                settings,
                services: self.services.clone(),
            });
        }
        if !account.plugins.is_empty() {
            plugins = self.listed(account, plugins);
        }
        Chain { plugins: plugins.into_iter().map(Arc::new).collect() }
    }

    /// The plugins that the account lists, in its order.
    fn listed(&mut self, account: &Account, mut plugins: Vec<Plugin>) -> Vec<Plugin> {
        let mut listed = Vec::new();
        for name in &account.plugins {
            match plugins.iter().position(|plugin| *plugin.name == **name) {
                Some(index) => listed.push(plugins.remove(index)),
                None => self.refused_plugins.tell(format!(
                    "account `{}` lists plugin `{name}`, but no plugin of that name is loaded",
                    account.name
                )),
            }
        }
        listed
    }

    /// Files with code that the account can ask, in file-name order, each with whether it is from the account's own
    /// directory.
    fn serving(&self, config: &Config, account: &Account) -> Vec<(PathBuf, Arc<Code>, bool)> {
        let mut files: Vec<_> = self
            .files
            .iter()
            .filter_map(|(path, known)| {
                let dir = path.parent()?;
                let own = account.plugins_dir.as_deref() == Some(dir);
                let code = known.code.clone()?;
                (own || dir == config.plugins_dir).then(|| (path.clone(), code, own))
            })
            .collect();
        files.sort_by(|(a, ..), (b, ..)| file_name_order(a, b));
        files
    }

    /// The `.wasm` files that are there now.
    fn list(&mut self, config: &Config) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for dir in directories(config) {
            match list_directory(dir) {
                Ok(paths) => {
                    for path in paths {
                        match path.extension().and_then(|extension| extension.to_str()) {
                            Some("wasm") if name_of(&path).is_none() => self
                                .refused_files
                                .tell(format!("{} is not named in UTF-8, so it is no plugin", path.display())),
                            // A directory or a pipe of that name is not to be read: it might never end.
                            Some("wasm") if !path.is_file() => self
                                .refused_files
                                .tell(format!("{} is not a file that can be read, so it is no plugin", path.display())),
                            Some("wasm") => _ = found.insert(path),
                            Some("cwasm") => self.refused_files.tell(format!(
                                "{} is refused: compiled code cannot be checked; put the `.wasm` file there",
                                path.display()
                            )),
                            _ => {}
                        }
                    }
                }
                Err(error) => {
                    self.refused_files.tell(format!("plugins directory {} cannot be read: {error}", dir.display()));
                    // Not the same as empty: keep what serves until the directory tells otherwise.
                    if error.kind() != io::ErrorKind::NotFound {
                        found.extend(self.files.keys().filter(|path| path.parent() == Some(dir)).cloned());
                    }
                }
            }
        }
        self.refused_files.end_round();
        found
    }

    /// Whether a file that is troubled is not to be tried yet.
    fn waits(&self, path: &Path, stamp: Stamp) -> bool {
        self.troubled.get(path).is_some_and(|troubled| troubled.stamp == stamp && Instant::now() < troubled.until)
    }

    /// Tries a file again at the next look, then after 2 s, 4 s, … as long as nothing about it changes.
    fn retry_later(&mut self, path: &Path, stamp: Stamp) {
        let before = self.troubled.get(path).filter(|troubled| troubled.stamp == stamp).map_or(0, |known| known.tries);
        let wait =
            if before == 0 { Duration::ZERO } else { Duration::from_secs(1 << before.min(6)).min(RETRY_WAIT_MAX) };
        self.troubled.insert(path.into(), Troubled { stamp, tries: before + 1, until: Instant::now() + wait });
    }

    /// Reads a new or changed file and loads it.
    async fn refresh(
        &mut self,
        path: &Path,
        stamp: Stamp,
        config: &Config,
        effort: Effort,
        progress: Progress,
    ) -> Result<Refreshed, Unsettled> {
        let known = self.files.get(path);
        let (serving, broken) = known.map_or((None, None), |known| (known.code.clone(), known.broken));
        let started = Instant::now();
        let file_bytes_max = config.compile.file_bytes_max();
        let wasm = match read(path, stamp, file_bytes_max) {
            Ok(wasm) => wasm,
            Err(ReadError::Unsettled) => return Err(Unsettled),
            Err(error) => {
                not_loaded(path, &error.to_string(), serving.is_some());
                self.files.insert(path.into(), Known { stamp, code: serving, broken });
                return Ok(Refreshed::Same);
            }
        };
        let hash = Hash::of(&wasm);
        let is_serving = serving.as_ref().is_some_and(|code| code.hash == hash);
        if is_serving && broken.is_some() {
            info!(file = %path.display(), "Plugin file {} is again the one that serves", path.display());
        }
        if is_serving || broken == Some(hash) {
            let broken = broken.filter(|_| !is_serving);
            self.files.insert(path.into(), Known { stamp, code: serving, broken });
            return Ok(Refreshed::Same);
        }
        if effort == Effort::Cached && !self.compiler.has(&hash, Class::of(wasm.len())) {
            return Ok(Refreshed::Pending);
        }
        let settings = Arc::new(self.trial_settings(path, config));
        match self.load(path, wasm, hash, &settings, progress).await {
            Ok(code) => {
                let duration_ms = millis(started.elapsed());
                info!(
                    file = %path.display(), hash = %hash, duration_ms,
                    "Plugin file {} is loaded ({duration_ms} ms)", path.display()
                );
                self.files.insert(path.into(), Known { stamp, code: Some(code), broken: None });
                self.troubled.remove(path);
                Ok(Refreshed::Replaced)
            }
            Err(Trouble { why, passes: true }) => {
                not_loaded(path, &format!("{why}; it is tried again"), serving.is_some());
                self.retry_later(path, stamp);
                Ok(Refreshed::Same)
            }
            Err(Trouble { why, passes: false }) => {
                not_loaded(path, &why, serving.is_some());
                self.files.insert(path.into(), Known { stamp, code: serving, broken: Some(hash) });
                Ok(Refreshed::Same)
            }
        }
    }

    async fn load(
        &self,
        path: &Path,
        wasm: Vec<u8>,
        hash: Hash,
        settings: &Arc<PluginSettings>,
        progress: Progress,
    ) -> Result<Arc<Code>, Trouble> {
        let class = Class::of(wasm.len());
        let cached = self.compiler.has(&hash, class);
        if !cached {
            let Progress { index, count } = progress;
            info!(
                file = %path.display(),
                "Compiling {} ({} KiB, file {index} of {count}); the result is kept", path.display(), wasm.len() >> 10
            );
        }
        let retry = cached.then(|| wasm.clone());
        let file = self.compiler.compile(wasm, &hash).await?;
        match Code::load(&self.engine, class, &file, hash, settings).await {
            Err(LoadError::Cache(why)) if retry.is_some() => {
                // A full disk or a crash may have spoiled the cached code; the wasm is still there.
                warn!(file = %path.display(), "The cached code of {} does not load ({why}); compiling again", path.display());
                self.compiler.forget(&hash, class)?;
                let file = self.compiler.compile(retry.unwrap_or_default(), &hash).await?;
                Ok(Code::load(&self.engine, class, &file, hash, settings).await?)
            }
            loaded => Ok(loaded?),
        }
    }

    /// The settings under which a file is tried: those of the first account that would ask it.
    fn trial_settings(&self, path: &Path, config: &Config) -> PluginSettings {
        let name = name_of(path).unwrap_or_default();
        let dir = path.parent();
        let own = config.accounts.iter().find(|account| account.plugins_dir.as_deref() == dir);
        let account = own.or_else(|| config.accounts.first());
        let account = account.expect("`Config` refuses to be without an account");
        config.plugin(account, &name, own.is_some())
    }
}

/// Tells what is wrong when it begins to be so, not at every look.
#[derive(Debug, Default)]
struct Told {
    before: HashSet<String>,
    now: HashSet<String>,
}

impl Told {
    fn tell(&mut self, text: String) {
        if !self.before.contains(&text) {
            warn!("{text}");
        }
        self.now.insert(text);
    }

    /// What was not told in this round is over, and news if it comes back.
    fn end_round(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// How much a scan may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Only what was compiled before is loaded; the rest waits for the next scan.
    Cached,
    /// Everything is compiled.
    Compile,
}

/// What became of a new or changed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refreshed {
    /// What served before still does.
    Same,
    /// Other code serves now.
    Replaced,
    /// It has to be compiled, which was not allowed.
    Pending,
}

/// Why a file did not load.
struct Trouble {
    why: String,
    /// Whether the same file may load later.
    passes: bool,
}

impl From<CompileError> for Trouble {
    fn from(error: CompileError) -> Self {
        Self { passes: error.passes(), why: error.to_string() }
    }
}

impl From<LoadError> for Trouble {
    fn from(error: LoadError) -> Self {
        Self { passes: matches!(error, LoadError::Cache(_)), why: error.to_string() }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self { passes: true, why: error.to_string() }
    }
}

/// Which of several files is being loaded.
#[derive(Clone, Copy)]
struct Progress {
    index: usize,
    count: usize,
}

/// The file changed while it was read.
struct Unsettled;

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it changed while it was read")]
    Unsettled,
    #[error("it has {bytes} bytes; `compile.file_mib_max` allows {bytes_max}")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads a file whole, as it was when it was stamped.
fn read(path: &Path, stamp: Stamp, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    if stamp.bytes > bytes_max {
        return Err(ReadError::TooLarge { bytes: stamp.bytes, bytes_max });
    }
    let mut wasm = Vec::new();
    // It may have grown since it was stamped.
    open_file(path)?.take(stamp.bytes + 1).read_to_end(&mut wasm)?;
    if wasm.len() as u64 != stamp.bytes || Stamp::of(path)? != stamp {
        return Err(ReadError::Unsettled);
    }
    Ok(wasm)
}

fn not_loaded(path: &Path, why: &str, serving: bool) {
    let rest = if serving { "the version before it stays" } else { "its plugin is not asked" };
    warn!(file = %path.display(), "Plugin file {} is not loaded: {why}; {rest}", path.display());
}

/// The shared directory, and each account's own.
pub fn directories(config: &Config) -> BTreeSet<&Path> {
    let own = config.accounts.iter().filter_map(|account| account.plugins_dir.as_deref());
    own.chain([config.plugins_dir.as_path()]).collect()
}

fn list_directory(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}
