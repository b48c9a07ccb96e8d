//! The one way from a file to a plugin's code: read whole, its pin compared, compiled or found in the cache, loaded, tried,
//! and held to the conversation beside it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::{self, Read},
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Content, Hash, aside,
    cache::{Cache, Spoiled, Tidied},
    canary::{self, Canary, CanaryError},
    code::{Code, LoadError},
    compile::{self, CompileError, Compiler, memory_bytes_needed},
    directory::canary_of,
    engine::Engine,
    file_name::name_of,
    services::Services,
    turns::Turns,
};
use crate::{
    config::{self, Account, Config, PluginSettings},
    machine::memory_bytes_left,
    stamp::{Stamp, open_file},
};

/// How long trying code, and waiting for the turn to, counts as brief. One that does not start takes seconds.
const TRIAL_BRIEF_MAX: Duration = Duration::from_millis(200);

/// Loads plugins' files. The same content is loaded once, however many files have it.
#[derive(Debug)]
pub struct Loader {
    engine: Engine,
    compiler: Compiler,
    /// What the plugins that serve reach.
    pub services: Arc<Services>,
    slots: Mutex<HashMap<Hash, Arc<Slot>>>,
    /// One plugin is tried at a time: the instance pools have one place beside those for calls.
    trial: tokio::sync::Mutex<()>,
}

/// The code of one content, as long as anybody has it. Who loads it holds the lock.
type Slot = tokio::sync::Mutex<Weak<Code>>;

/// What a plugin's file and the conversation beside it look like. Two looks differ when one of them was written or replaced
/// in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub wasm: Stamp,
    canary: Option<Stamp>,
}

/// What a file was found to hold.
#[derive(Clone, Debug)]
pub struct Source {
    pub content: Content,
    pub canary: Option<Canary>,
}

/// What names a plugin's content and its conversation together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub hash: Hash,
    pub canary: Option<Hash>,
}

/// The settings under which a file is tried: those of the first account that would ask it.
#[derive(Clone, Debug)]
pub struct Terms {
    name: String,
    settings: Arc<PluginSettings>,
    /// The hashes that its tables pin, of every account that would ask it: the file must have each of them, so that two that
    /// differ refuse any file. Empty: any will do.
    pins: Vec<Hash>,
    canary: canary::Terms,
    compile: config::Compile,
}

/// Code that may serve.
#[derive(Debug)]
pub struct Loaded {
    pub code: Arc<Code>,
    /// How long compiling took, unless it was done before.
    pub compiled: Option<Duration>,
    /// How many replies its conversation expects, all of which came; nothing if it has none.
    pub held: Option<usize>,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it changed while it was read")]
    Unsettled,
    #[error("the copy that was kept of it is not what served")]
    Spoiled,
    #[error("it has {bytes} bytes; `compile.file_mib_max` allows {bytes_max}")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error("its conversation {file} has {bytes} bytes, more than {}", canary::BYTES_MAX)]
    LongCanary { file: String, bytes: u64 },
    #[error("its conversation {file} is not in UTF-8")]
    NoText { file: String },
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Why a file that was read does not become a plugin.
#[derive(Debug, thiserror::Error)]
pub enum NotLoaded {
    #[error(
        "its SHA-256 is {found}, but its table says `sha256 = \"{pinned}\"`; put the first there if the file is right"
    )]
    Pinned { found: Hash, pinned: Hash },
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("it does not hold its conversation {file}: {error}")]
    Canary { file: String, error: CanaryError },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("its cached code cannot be removed: {0}")]
    Cache(io::Error),
}

impl NotLoaded {
    /// Whether it is about a file as it lies there: not one that went, or that is just being written.
    pub fn is_of_what_is_there(&self) -> bool {
        match self {
            Self::Read(ReadError::Unsettled) => false,
            Self::Read(ReadError::Io(error)) => error.kind() != io::ErrorKind::NotFound,
            _ => true,
        }
    }

    /// Whether the system ended the compiler.
    pub fn is_killed(&self) -> bool {
        matches!(self, Self::Compile(CompileError::Killed { .. }))
    }

    /// Whether the file is not at fault, so that it may load later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Compile(error) => error.passes(),
            Self::Load(error) => matches!(error, LoadError::Cache(_) | LoadError::NoPlace | LoadError::NoMemory),
            Self::Read(ReadError::Io(_) | ReadError::Unsettled) | Self::Cache(_) => true,
            Self::Pinned { .. } | Self::Canary { .. } | Self::Read(_) => false,
        }
    }
}

/// What is being done with a file, from the short to the long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Reading, checking, trying: milliseconds.
    Brief,
    /// Holding a conversation, or trying what does not start at once.
    Canary,
    /// Compiling, or waiting for the turn to.
    Compile,
}

/// How far a load is, for whoever waits for the short part of it only.
#[derive(Debug)]
pub struct Progress {
    phase: AtomicU8,
    /// Told of every new phase, and of the end.
    moved: watch::Sender<()>,
    /// The right to be brief, which ends when it takes longer.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Progress {
    /// Of a load that `moved` tells about.
    pub fn new(moved: watch::Sender<()>) -> Self {
        Self { phase: AtomicU8::new(Phase::Brief as u8), moved, permit: Mutex::new(None) }
    }

    /// Of a load that is waited for to its end.
    pub fn unwatched() -> Self {
        Self::new(watch::Sender::new(()))
    }

    /// Whether it is in this phase, or in one before.
    pub fn is_within(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) <= phase as u8
    }

    /// Takes the right to be brief along.
    pub fn hold(&self, permit: OwnedSemaphorePermit) {
        *unpoisoned(&self.permit) = Some(permit);
    }

    /// Ends it: somebody may take in what came of it.
    pub fn end(&self) {
        unpoisoned(&self.permit).take();
        self.moved.send_replace(());
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.end();
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Look {
    /// Looks at a plugin's file.
    pub fn at(file: &Path) -> io::Result<Self> {
        Ok(Self { wasm: Stamp::of(file)?, canary: Stamp::of(&canary_of(file)).ok() })
    }

    /// Looks away from the conversation beside it.
    pub fn without_canary(self) -> Self {
        Self { canary: None, ..self }
    }
}

impl Terms {
    /// The terms of a file in a bot's plugins directory.
    pub fn of(config: &Config, file: &Path) -> Self {
        let name = name_of(file).unwrap_or_default();
        let owners: Vec<&Arc<Account>> =
            config.accounts.iter().filter(|account| account.plugins_dir.as_deref() == file.parent()).collect();
        let is_own = !owners.is_empty();
        let accounts = if is_own { owners } else { config.accounts.iter().collect() };
        let settings: Vec<PluginSettings> =
            accounts.iter().map(|account| config.plugin(account, &name, is_own)).collect();
        let pins: BTreeSet<Hash> = settings.iter().filter_map(|settings| settings.sha256).collect();
        let compile = settings.iter().map(|settings| settings.compile.clone()).reduce(|all, own| all.largest(&own));
        let settings = settings.into_iter().next().unwrap_or_default();
        Self {
            compile: compile.unwrap_or_else(|| config.compile.clone()),
            settings: Arc::new(settings),
            pins: pins.into_iter().collect(),
            canary: canary::Terms {
                window: accounts.first().map_or(config.late.window, |account| account.late.window),
                timeout: config.canary.timeout,
            },
            name,
        }
    }

    /// The SHA-256 that a table demands, if this is another.
    pub(super) fn other_pin(&self, hash: Hash) -> Option<Hash> {
        self.pins.iter().copied().find(|pin| *pin != hash)
    }

    /// The terms of a file that belongs to no bot.
    pub fn of_no_bot(config: &Config, file: &Path) -> Self {
        Self {
            name: name_of(file).unwrap_or_default(),
            settings: Arc::default(),
            pins: Vec::new(),
            canary: canary::Terms { window: config.late.window, timeout: config.canary.timeout },
            compile: config.compile.clone(),
        }
    }
}

impl Source {
    /// Names it.
    pub fn identity(&self) -> Identity {
        Identity { hash: self.content.hash, canary: self.canary.as_ref().map(|canary| canary.hash) }
    }
}

impl Loader {
    /// Makes a loader of plugins that run in `engine`; `program` compiles them, and `cache_dir` keeps the results.
    ///
    /// # Errors
    /// When the cache directory cannot be made, or is not ours alone.
    pub fn new(engine: Engine, program: PathBuf, cache_dir: PathBuf, services: Services) -> anyhow::Result<Self> {
        let cache = Cache::open(cache_dir, engine.fingerprint())?;
        Ok(Self {
            compiler: Compiler::new(program, cache),
            engine,
            services: services.into(),
            slots: Mutex::default(),
            trial: tokio::sync::Mutex::default(),
        })
    }

    /// Reads a file and the conversation beside it, as they were when they were looked at.
    pub async fn read(&self, file: &Path, look: Look, terms: &Terms) -> Result<Source, ReadError> {
        let (file, bytes_max) = (file.to_owned(), terms.compile.file_bytes_max());
        aside(move || read(&file, look, bytes_max)).await
    }

    /// The turns of the engine in which its plugins run.
    pub fn turns(&self) -> &Turns {
        &self.engine.turns
    }

    /// Makes code of a file that was read.
    pub async fn load(
        &self,
        file: &Path,
        look: Look,
        read: &Source,
        terms: &Terms,
        progress: &Progress,
    ) -> Result<Loaded, NotLoaded> {
        let Source { content, canary } = read;
        if let Some(pinned) = terms.other_pin(content.hash) {
            return Err(NotLoaded::Pinned { found: content.hash, pinned });
        }
        let (code, compiled) = self.code(file, look, *content, terms, progress).await?;
        self.try_start(&code, terms, progress).await?;
        let held = match canary {
            None => None,
            Some(canary) => Some(self.hold(file, *content, canary, &code, terms, progress).await?),
        };
        Ok(Loaded { code, compiled, held })
    }

    /// Tries code. Where that takes long, or others are tried before it, nobody waits for it who only waits for what is brief.
    async fn try_start(&self, code: &Code, terms: &Terms, progress: &Progress) -> Result<(), LoadError> {
        let mut trying = pin!(async {
            let _trial = self.trial.lock().await;
            code.try_start(&terms.settings).await
        });
        match timeout(TRIAL_BRIEF_MAX, &mut trying).await {
            Ok(tried) => tried,
            Err(_) => {
                progress.enter(Phase::Canary);
                trying.await
            }
        }
    }

    /// Holds code to its conversation, unless it is known to hold it: a restart waits for no conversation, and takes no plugin
    /// away that served. Returns how many expected replies came.
    async fn hold(
        &self,
        file: &Path,
        content: Content,
        canary: &Canary,
        code: &Arc<Code>,
        terms: &Terms,
        progress: &Progress,
    ) -> Result<usize, NotLoaded> {
        let (limits, cache) = (&terms.settings.limits, self.compiler.cache.clone());
        let name = Hash::of(format!("{} {limits:?} {:?}", canary.hash, terms.canary).as_bytes());
        let known = cache.clone();
        if let Some(count) = aside(move || known.held(content, &name)).await {
            return Ok(count);
        }
        progress.enter(Phase::Canary);
        let held = canary::hold(code, file, &terms.name, canary, limits, &terms.canary).await;
        let count = held.map_err(|error| NotLoaded::Canary { file: canary::file_name(file), error })?;
        // What cannot be remembered is held again.
        let _ = aside(move || cache.hold(content, &name, count)).await;
        Ok(count)
    }

    /// Whether a content is still to be compiled.
    pub async fn is_new(&self, content: Content) -> bool {
        let cache = self.compiler.cache.clone();
        !aside(move || cache.has(content)).await
    }

    /// The same of a file of which the content's hash is known.
    pub async fn is_to_be_compiled(&self, file: &Path, hash: Hash) -> bool {
        let (cache, file) = (self.compiler.cache.clone(), file.to_owned());
        let is_there = move || {
            let bytes = usize::try_from(std::fs::metadata(file)?.len()).map_err(io::Error::other)?;
            Ok::<_, io::Error>(cache.has(Content { hash, bytes }))
        };
        !aside(is_there).await.unwrap_or(false)
    }

    /// Forgets what was found out about a content, so that it is tried again.
    pub async fn pardon(&self, content: Content) -> io::Result<()> {
        let cache = self.compiler.cache.clone();
        aside(move || cache.pardon(content)).await
    }

    /// Throws away the code that nobody uses any more; see [`Cache::tidy`].
    pub async fn tidy(&self, in_use: HashSet<Hash>, bounds: config::CompileCache) -> io::Result<Tidied> {
        let (bytes_max, age_max) = (bounds.bytes_max(), bounds.age_max());
        let cache = self.compiler.cache.clone();
        aside(move || cache.tidy(&in_use, bytes_max, age_max)).await
    }

    /// Returns the code of a content: what another file has loaded, or what the cache has, or what the compiler makes of it.
    async fn code(
        &self,
        file: &Path,
        look: Look,
        content: Content,
        terms: &Terms,
        progress: &Progress,
    ) -> Result<(Arc<Code>, Option<Duration>), NotLoaded> {
        let slot = self.slot(content.hash);
        let mut shared = match slot.try_lock() {
            Ok(shared) => shared,
            Err(_) => {
                // Another file of this content is being loaded, and may have to be compiled.
                progress.enter(Phase::Compile);
                slot.lock().await
            }
        };
        if let Some(code) = shared.upgrade() {
            return Ok((code, None));
        }
        let mut compiled = None;
        let code = match self.cached(file, content).await? {
            Some(code) => code,
            None => {
                progress.enter(Phase::Compile);
                compiled = self.compile(file, look, content, terms).await?;
                let made = self.cached(file, content).await?;
                made.ok_or_else(|| NotLoaded::Load(LoadError::Cache("it is gone already".into())))?
            }
        };
        *shared = Arc::downgrade(&code);
        Ok((code, compiled))
    }

    /// Where code of a hash is shared. Those that nobody uses are forgotten.
    fn slot(&self, hash: Hash) -> Arc<Slot> {
        let mut slots = unpoisoned(&self.slots);
        slots
            .retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|code| code.strong_count() > 0));
        slots.entry(hash).or_default().clone()
    }

    /// Loads what the cache has. Code that a full disk, a crash or a hand has spoiled is thrown away: the wasm is still there.
    /// Code that cannot be read just now stays.
    async fn cached(&self, file: &Path, content: Content) -> Result<Option<Arc<Code>>, NotLoaded> {
        let (cache, engine) = (self.compiler.cache.clone(), self.engine.clone());
        let found = aside(move || match cache.code(content) {
            Ok(None) => Ok(Ok(None)),
            Ok(Some(code)) => Code::load(&engine, &code, content).map(|code| Ok(Some(code))).map_err(NotLoaded::Load),
            // It may be read the next time.
            Err(Spoiled::Io(error)) => Err(NotLoaded::Load(LoadError::Cache(error.to_string()))),
            Err(spoiled) => cache.forget(content).map(|()| Err(spoiled)).map_err(NotLoaded::Cache),
        });
        found.await.map(|found| {
            found.unwrap_or_else(|spoiled| {
                let path = file.display();
                warn!(file = %path, "The cached code of {path} is not used: {spoiled}; it is removed, and compiled again");
                None
            })
        })
    }

    /// Has a file compiled, unless it is known not to compile. Returns how long it took; nothing if it was done meanwhile.
    async fn compile(
        &self,
        file: &Path,
        look: Look,
        content: Content,
        terms: &Terms,
    ) -> Result<Option<Duration>, NotLoaded> {
        let limits = compile::on_this_machine(&terms.compile);
        if let Some(known) = self.compiler.known(content, &limits).await {
            return Err(known.into());
        }
        let turn = self.compiler.turn().await;
        if !self.is_new(content).await {
            return Ok(None);
        }
        // Only now: files that wait for their turn are not kept in memory.
        let (path, bytes_max) = (file.to_owned(), terms.compile.file_bytes_max());
        let wasm = aside(move || -> Result<_, ReadError> {
            let wasm = read_wasm(&path, look.wasm, bytes_max)?;
            if Content::of(&wasm) == content { Ok(wasm) } else { Err(ReadError::Unsettled) }
        })
        .await?;
        tell_compile(file, content);
        let started = Instant::now();
        let compiled = turn.compile(wasm, content, &limits).await;
        let duration = started.elapsed();
        self.services.compiled(compiled.is_ok(), duration);
        compiled?;
        Ok(Some(duration))
    }
}

/// Tells that a file is compiled, and what that may take.
fn tell_compile(file: &Path, content: Content) {
    let (path, kib, needed) = (file.display(), content.bytes >> 10, memory_bytes_needed(content.bytes));
    let mib = needed >> 20;
    match memory_bytes_left().map(|left| left as u64).filter(|left| *left < needed) {
        // Not a reason to wait: it is an estimate, and should memory run out, the system ends the compiler and not the host.
        Some(left) => warn!(
            file = %path,
            "Compiling {path} ({kib} KiB) may take {mib} MiB of memory, but this machine, or its container, has {} MiB left",
            left >> 20
        ),
        None => info!(
            file = %path, "Compiling {path} ({kib} KiB), which may take {mib} MiB of memory; the result is kept"
        ),
    }
}

fn read(file: &Path, look: Look, bytes_max: u64) -> Result<Source, ReadError> {
    let content = Content::of(&read_wasm(file, look.wasm, bytes_max)?);
    let canary = look.canary.map(|stamp| read_canary(file, stamp)).transpose()?;
    Ok(Source { content, canary })
}

/// Reads a plugin's file as it was when it was stamped.
fn read_wasm(file: &Path, stamp: Stamp, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    if stamp.bytes > bytes_max {
        return Err(ReadError::TooLarge { bytes: stamp.bytes, bytes_max });
    }
    read_whole(file, stamp)
}

fn read_canary(file: &Path, stamp: Stamp) -> Result<Canary, ReadError> {
    if stamp.bytes > canary::BYTES_MAX {
        return Err(ReadError::LongCanary { file: canary::file_name(file), bytes: stamp.bytes });
    }
    let bytes = read_whole(&canary_of(file), stamp)?;
    let hash = Hash::of(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| ReadError::NoText { file: canary::file_name(file) })?;
    Ok(Canary { hash, text })
}

/// Reads a file as it was when it was stamped.
fn read_whole(path: &Path, stamp: Stamp) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    // It may have grown since it was stamped.
    open_file(path)?.take(stamp.bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != stamp.bytes || Stamp::of(path)? != stamp {
        return Err(ReadError::Unsettled);
    }
    Ok(bytes)
}
