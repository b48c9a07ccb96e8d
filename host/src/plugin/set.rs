//! Every plugin file that is there, and what became of each. The chains that the accounts make of them are in `chains`.
//!
//! A look starts a load for each file that changed, and waits for the short part of it. What takes longer, compiling and
//! conversations, goes on by itself: no other file and no setting waits for it.

mod chains;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout_at,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use self::verdict::{Before, Verdict, Work, guarded};
use super::{
    Hash, aside,
    code::Code,
    directory::{self, Listing, directories},
    idle_tables::{Names, idle_tables},
    loader::{Identity, Loaded, Loader, Look, NotLoaded, Phase, Progress, ReadError, Terms},
    millis,
    versions::Versions,
};
use crate::config::Config;

/// Every plugin file that was seen, with the code that serves.
#[derive(Debug)]
pub struct Set {
    loader: Arc<Loader>,
    /// What served before; none where nothing is kept.
    versions: Option<Arc<Versions>>,
    has_looked: bool,
    files: BTreeMap<PathBuf, Known>,
    /// The loads that have not ended, by file.
    loads: HashMap<PathBuf, Load>,
    loads_started: u64,
    words: (mpsc::UnboundedSender<Word>, mpsc::UnboundedReceiver<Word>),
    /// Told when a load ends or begins to take long.
    moved: watch::Sender<()>,
    /// So many files are read and checked at once: each is in memory meanwhile.
    brief_turns: Arc<Semaphore>,
    /// What was refused in the directories, and in the chains.
    refused_files: Told,
    refused_plugins: Told,
    /// What lies in the directories, and which tables are about nothing there.
    names: Names,
    idle_tables: Told,
    /// Files that did not load through no fault of theirs (a full disk, too little memory): when to try them again.
    troubled: HashMap<PathBuf, Troubled>,
    /// Whether something was compiled, or may have been left over by the host before, since the cache was tidied.
    untidy: bool,
}

/// What is known of one path.
#[derive(Debug, Default)]
struct Known {
    /// What the file looked like when it was last examined; none: it is to be examined.
    look: Option<Look>,
    /// The code that serves: the newest that loaded, or a kept version.
    serving: Option<Serving>,
    /// Why what lies there now does not serve.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Serving {
    code: Arc<Code>,
    identity: Identity,
}

#[derive(Debug)]
struct Refused {
    /// What did not load, so that it is told and tried once; nothing if it could not be read.
    identity: Option<Identity>,
    why: String,
}

/// A plugin file that does not serve as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub file: PathBuf,
    pub why: String,
    /// Whether a version before it serves.
    pub serving: bool,
}

/// A file that is being loaded.
#[derive(Debug)]
struct Load {
    number: u64,
    look: Look,
    progress: Arc<Progress>,
    /// Whether the settings changed since it began.
    is_stale: bool,
    task: AbortOnDropHandle<()>,
}

/// How long a look waits for the loads that it starts, and for those from before.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// As long as they are brief; the others go on by themselves.
    Brief,
    /// Where nothing serves meanwhile, also as long as a conversation is held, but not longer than this.
    Start { until: Instant },
    /// To their ends.
    Whole,
}

/// What a load says.
#[derive(Debug)]
struct Word {
    file: PathBuf,
    number: u64,
    said: Said,
}

#[derive(Debug)]
enum Said {
    /// It takes a while; until then a kept version is to serve, as nothing else does.
    Meanwhile(Serving),
    /// It has ended.
    Verdict(Verdict),
}

/// A file that is to be tried again.
#[derive(Debug)]
struct Troubled {
    /// What it holds, unless it could not be read.
    identity: Option<Identity>,
    why: String,
    look: Look,
    tries: u32,
    until: Instant,
}

/// How long a file that keeps failing through no fault of its own waits for the next try, at most: each try may be a
/// whole compile.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a file is compiled whose compiler is killed: no memory comes free for it, and each try takes all that is left.
const KILLED_TRIES_MAX: u32 = 3;

/// What a look at the directories came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// A plugin came, went or was replaced.
    pub changed: bool,
    /// A file changed while it was read, or the settings while it was loaded: look again soon.
    pub unsettled: bool,
    /// Some file is still being loaded.
    pub pending: bool,
}

impl Scan {
    /// What two looks came to, this one and the one after it.
    pub fn then(self, next: Self) -> Self {
        let Self { changed, unsettled, pending } = next;
        Self { changed: self.changed || changed, unsettled: self.unsettled || unsettled, pending }
    }
}

impl Set {
    /// Makes an empty set.
    pub fn new(loader: Loader) -> Self {
        Self {
            loader: Arc::new(loader),
            versions: None,
            has_looked: false,
            files: BTreeMap::new(),
            loads: HashMap::new(),
            loads_started: 0,
            words: mpsc::unbounded_channel(),
            moved: watch::Sender::new(()),
            brief_turns: Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, usize::from))),
            refused_files: Told::default(),
            refused_plugins: Told::default(),
            names: Names::new(),
            idle_tables: Told::default(),
            troubled: HashMap::new(),
            untidy: true,
        }
    }

    /// Falls back to kept versions: a file that is there and does not load keeps the version before it over a restart, too.
    pub fn falling_back_to(self, versions: Arc<Versions>) -> Self {
        Self { versions: Some(versions), ..self }
    }

    /// Whether any plugin is loaded.
    pub fn has_code(&self) -> bool {
        self.files.values().any(|known| known.serving.is_some())
    }

    /// Told when a load ends, so that [`Self::collect`] finds something.
    pub fn moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// The files that do not serve as they are, in the order of their paths.
    pub fn faults(&self) -> Vec<Fault> {
        let refused = self.files.iter().filter_map(|(file, known)| Some((file, &known.refused.as_ref()?.why)));
        let troubled = self.troubled.iter().map(|(file, troubled)| (file, &troubled.why));
        let whys: BTreeMap<&PathBuf, &String> = refused.chain(troubled).collect();
        let fault = |(file, why): (&PathBuf, &String)| {
            let serving = self.files.get(file).is_some_and(|known| known.serving.is_some());
            Fault { file: file.clone(), why: why.clone(), serving }
        };
        whys.into_iter().map(fault).collect()
    }

    /// What is wrong with files that are no plugins, with chains and with tables, as it was told: one sentence each.
    pub fn complaints(&self) -> BTreeSet<&str> {
        let told = [&self.refused_files, &self.refused_plugins, &self.idle_tables];
        told.into_iter().flat_map(|told| &told.before).map(String::as_str).collect()
    }

    /// Which plugins lay in each directory at the last look.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Tells which tables are about no plugin that lay there at the last look.
    pub fn tell_idle_tables(&mut self, config: &Config) {
        idle_tables(config, &self.names).into_iter().for_each(|text| self.idle_tables.tell(text));
        self.idle_tables.end_round();
    }

    /// Whether a file is being loaded.
    pub fn is_loading(&self, file: &Path) -> bool {
        self.loads.contains_key(file)
    }

    /// Looks at the directories again and loads what is new. A file that does not load keeps what it was before; a directory that
    /// cannot be read keeps all of its plugins.
    pub async fn look(&mut self, config: &Config, patience: Patience) -> Scan {
        let mut scan = self.collect();
        let found = self.list(config).await;
        scan.changed |= self.drop_all_but(&found);
        for (file, look) in found {
            if let Some(look) = look.filter(|look| self.is_due(&file, *look)) {
                self.start(file, look, config);
            }
        }
        self.has_looked = true;
        let (mut patience, mut moved) = (patience, self.moved.subscribe());
        loop {
            moved.mark_unchanged();
            scan = scan.then(self.collect());
            if !self.waits(patience) {
                return scan;
            }
            match patience {
                Patience::Start { until } => match timeout_at(until.into(), moved.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return scan,
                    Err(_) => patience = Patience::Brief,
                },
                Patience::Brief | Patience::Whole if moved.changed().await.is_err() => return scan,
                Patience::Brief | Patience::Whole => {}
            }
        }
    }

    /// Whether a start would wait on: for a conversation, or for what does not start at once.
    pub fn is_held_up(&self) -> bool {
        self.waits(Patience::Start { until: Instant::now() })
    }

    /// Whether a load is to be waited for.
    fn waits(&self, patience: Patience) -> bool {
        let serves = |file| self.files.get(file).is_some_and(|known| known.serving.is_some());
        let longest = |file| match patience {
            Patience::Start { .. } if !serves(file) => Phase::Canary,
            Patience::Start { .. } | Patience::Brief => Phase::Brief,
            Patience::Whole => Phase::Compile,
        };
        self.loads.iter().any(|(file, load)| load.progress.is_within(longest(file)))
    }

    /// Takes what the loads came to that have ended.
    pub fn collect(&mut self) -> Scan {
        // Before the words are read: who is finished has said its own.
        let finished: Vec<u64> =
            self.loads.values().filter(|load| load.task.is_finished()).map(|load| load.number).collect();
        let mut scan = Scan::default();
        while let Ok(word) = self.words.1.try_recv() {
            scan = scan.then(self.hear(word));
        }
        // One that ended without a word has panicked; it is tried again at the next look.
        self.loads.retain(|_, load| !finished.contains(&load.number));
        scan.pending = !self.loads.is_empty();
        scan
    }

    /// Forgets which files did not load, because the settings they were tried under changed.
    pub fn forgive(&mut self) {
        for known in self.files.values_mut().filter(|known| known.refused.is_some()) {
            (known.look, known.refused) = (None, None);
        }
        self.loads.values_mut().for_each(|load| load.is_stale = true);
        self.troubled.clear();
    }

    /// Whether the compile cache may hold what nobody needs.
    pub fn is_untidy(&self) -> bool {
        // A file that is being loaded is not known to be in use.
        self.untidy && self.loads.is_empty()
    }

    /// Tidies the compile cache. `kept` are versions that can still be needed.
    pub async fn tidy(&mut self, config: &Config, kept: HashSet<Hash>) {
        self.untidy = false;
        let served = self.files.values().filter_map(|known| Some(known.serving.as_ref()?.identity.hash));
        let refused = self.files.values().filter_map(|known| Some(known.refused.as_ref()?.identity?.hash));
        let troubled = self.troubled.values().filter_map(|troubled| Some(troubled.identity?.hash));
        let in_use = served.chain(refused).chain(troubled).chain(kept).collect();
        match self.loader.tidy(in_use, config.compile_cache).await {
            Ok(tidied) if tidied.files > 0 => {
                info!(
                    "Removed {} files ({} MiB) that no plugin uses from the compile cache",
                    tidied.files,
                    tidied.bytes >> 20
                );
            }
            Ok(_) => {}
            Err(error) => warn!("The compile cache cannot be tidied: {error}"),
        }
    }

    /// The `.wasm` files that are there now, and what they look like; nothing for one that cannot be looked at, which is no
    /// reason to lose what serves.
    async fn list(&mut self, config: &Config) -> BTreeMap<PathBuf, Option<Look>> {
        let dirs: Vec<PathBuf> = directories(config).into_iter().map(Path::to_owned).collect();
        let files_max = config.plugin_files_max;
        let surveyed = aside(move || dirs.into_iter().map(|dir| survey(dir, files_max)).collect::<Vec<_>>()).await;
        let mut found = BTreeMap::new();
        self.names.clear();
        for Surveyed { dir, held } in surveyed {
            match held {
                Ok(Held { refused, plugins, names }) => {
                    self.names.insert(dir, names);
                    refused.into_iter().for_each(|text| self.refused_files.tell(text));
                    for (file, look) in plugins {
                        match look {
                            Ok(look) => _ = found.insert(file, Some(look)),
                            // It went since the directory was read.
                            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                            Err(error) => {
                                let path = file.display();
                                self.refused_files.tell(format!("plugin file {path} cannot be looked at: {error}"));
                                found.insert(file, None);
                            }
                        }
                    }
                }
                Err(error) => {
                    self.refused_files.tell(format!("plugins directory {} cannot be read: {error}", dir.display()));
                    // Not the same as empty: keep what serves until the directory tells otherwise.
                    if error.kind() != io::ErrorKind::NotFound {
                        let known = self.files.keys().chain(self.loads.keys()).chain(self.troubled.keys());
                        found
                            .extend(known.filter(|file| file.parent() == Some(&*dir)).map(|file| (file.clone(), None)));
                    }
                }
            }
        }
        self.refused_files.end_round();
        found
    }

    /// Forgets the files that are gone. Returns whether one of them served.
    fn drop_all_but(&mut self, found: &BTreeMap<PathBuf, Option<Look>>) -> bool {
        self.troubled.retain(|file, _| found.contains_key(file));
        // A compile of what is gone ends with its load.
        self.loads.retain(|file, _| found.contains_key(file));
        let gone: Vec<PathBuf> = self.files.keys().filter(|file| !found.contains_key(*file)).cloned().collect();
        let mut served = false;
        for file in gone {
            let known = self.files.remove(&file);
            if known.is_some_and(|known| known.serving.is_some()) {
                info!(file = %file.display(), "Plugin file {} is gone; its plugin is no longer asked", file.display());
                served = true;
            }
        }
        served
    }

    /// Whether a file changed since it was examined, and is to be tried now.
    fn is_due(&self, file: &Path, look: Look) -> bool {
        let is_examined = self.files.get(file).is_some_and(|known| known.look == Some(look));
        let is_loading = self.loads.get(file).is_some_and(|load| load.look == look);
        let waits = self.troubled.get(file).is_some_and(|known| known.look == look && Instant::now() < known.until);
        !is_examined && !is_loading && !waits
    }

    /// Starts to load a file. A load of what it was before ends.
    fn start(&mut self, file: PathBuf, look: Look, config: &Config) {
        self.loads_started += 1;
        let number = self.loads_started;
        let progress = Arc::new(Progress::new(self.moved.clone()));
        let known = self.files.get(&file);
        let before = Before {
            serving: known.and_then(|known| Some(known.serving.as_ref()?.identity)),
            refused: known.and_then(|known| known.refused.as_ref()?.identity),
        };
        let work = Work {
            loader: self.loader.clone(),
            // Where nothing is kept any more, what was kept once is of no use.
            versions: self.versions.clone().filter(|_| config.versions.count_max > 0),
            is_at_start: !self.has_looked,
            file: file.clone(),
            look,
            before,
            terms: Terms::of(config, &file),
            progress: progress.clone(),
        };
        let (turns, words) = (self.brief_turns.clone(), self.words.0.clone());
        let (path, shared) = (file.clone(), progress.clone());
        let task = tokio::spawn(async move {
            if let Ok(permit) = turns.acquire_owned().await {
                shared.hold(permit);
            }
            let (early, examined) = (words.clone(), path.clone());
            let meanwhile =
                move |kept| _ = early.send(Word { file: examined.clone(), number, said: Said::Meanwhile(kept) });
            let verdict = guarded(work.judge(meanwhile)).await;
            // Nobody listens when the host ends.
            let _ = words.send(Word { file: path, number, said: Said::Verdict(verdict) });
            shared.end();
        });
        let load = Load { number, look, progress, is_stale: false, task: AbortOnDropHandle::new(task) };
        self.loads.insert(file, load);
    }

    /// Takes in what a load says, unless another has taken its place.
    fn hear(&mut self, word: Word) -> Scan {
        let Word { file, number, said } = word;
        if self.loads.get(&file).is_none_or(|load| load.number != number) {
            return Scan::default();
        }
        match said {
            Said::Meanwhile(kept) => {
                let (path, hash) = (file.display(), kept.identity.hash);
                info!(file = %path, %hash, "Until {path} is loaded, the newest version of it that is kept serves: SHA-256 {hash}");
                self.files.entry(file).or_default().serving = Some(kept);
                Scan { changed: true, ..Scan::default() }
            }
            Said::Verdict(verdict) => self.end(file, verdict),
        }
    }

    /// Takes in what a load came to.
    fn end(&mut self, file: PathBuf, verdict: Verdict) -> Scan {
        let Some(Load { look, is_stale, .. }) = self.loads.remove(&file) else { return Scan::default() };
        if is_stale {
            // What was compiled is in the cache; under the new settings it may come to something else.
            return Scan { unsettled: true, ..Scan::default() };
        }
        // What is told below takes its place.
        let troubled = self.troubled.remove(&file);
        let known = self.files.entry(file.clone()).or_default();
        match verdict {
            Verdict::Same(identity) => {
                known.look = Some(look);
                let is_serving = known.serving.as_ref().is_some_and(|serving| serving.identity == identity);
                if is_serving && known.refused.take().is_some() {
                    info!(file = %file.display(), "Plugin file {} is again the one that serves", file.display());
                }
                Scan::default()
            }
            Verdict::Loaded(Loaded { code, compiled, held }, identity, duration) => {
                tell_loaded(&file, &code, held, duration);
                self.untidy |= compiled.is_some();
                let changed = known.serving.as_ref().is_none_or(|before| before.identity.hash != identity.hash);
                *known = Known { look: Some(look), serving: Some(Serving { code, identity }), refused: None };
                Scan { changed, ..Scan::default() }
            }
            Verdict::NotLoaded { error: NotLoaded::Read(ReadError::Unsettled), .. } => {
                Scan { unsettled: true, ..Scan::default() }
            }
            Verdict::NotLoaded { error, identity, kept } => {
                let (kept, of_kept) = match kept {
                    Ok(kept) => (kept, None),
                    Err(error) => (None, Some(error)),
                };
                let is_any = |is: fn(&NotLoaded) -> bool| is(&error) || of_kept.as_ref().is_some_and(is);
                let (passes, is_killed) = (is_any(NotLoaded::passes), is_any(NotLoaded::is_killed));
                let error = match of_kept {
                    Some(of_kept) => {
                        format!("{error}, and neither is the newest version of it that is kept: {of_kept}")
                    }
                    None => error.to_string(),
                };
                let scan = Scan { changed: kept.is_some(), ..Scan::default() };
                let rest = Rest::of(known.serving.as_ref(), kept.as_ref());
                known.serving = known.serving.take().or(kept);
                let troubled = troubled.filter(|troubled| troubled.look == look);
                let tries = troubled.as_ref().map_or(0, |troubled| troubled.tries);
                let is_hopeless = is_killed && tries + 1 >= KILLED_TRIES_MAX;
                if passes && !is_hopeless {
                    let why = format!("{error}; it is tried again");
                    self.retry_later(&file, look, identity, why, &rest, troubled);
                    return scan;
                }
                let why = match is_hopeless {
                    true => format!(
                        "{error}; after {KILLED_TRIES_MAX} tries it is not tried again until it or the settings change, or the \
                         host is started again"
                    ),
                    false => error,
                };
                self.untidy = true;
                not_loaded(&file, &why, &rest);
                known.look = Some(look);
                known.refused = Some(Refused { identity, why });
                scan
            }
            Verdict::Panicked(error) => {
                let why = format!("the host failed at it, which is a bug of Aviary's ({error}); it is tried again");
                let rest = Rest::of(known.serving.as_ref(), None);
                let troubled = troubled.filter(|troubled| troubled.look == look);
                self.retry_later(&file, look, None, why, &rest, troubled);
                Scan::default()
            }
        }
    }

    /// Tries a file again at the next look, then after 2 s, 4 s, … as long as nothing about it changes. What came of the try
    /// before is not told again.
    fn retry_later(
        &mut self,
        file: &Path,
        look: Look,
        identity: Option<Identity>,
        why: String,
        rest: &Rest,
        before: Option<Troubled>,
    ) {
        match &before {
            Some(before) if before.why == why && !matches!(rest, Rest::Kept(_)) => {
                debug!(file = %file.display(), "Plugin file {} is still not loaded: {why}", file.display());
            }
            _ => not_loaded(file, &why, rest),
        }
        let tries = before.map_or(0, |before| before.tries);
        let wait = if tries == 0 { Duration::ZERO } else { Duration::from_secs(1 << tries.min(6)).min(RETRY_WAIT_MAX) };
        let until = Instant::now() + wait;
        self.troubled.insert(file.into(), Troubled { why, look, identity, tries: tries + 1, until });
    }
}

/// What a directory was found to hold.
struct Surveyed {
    dir: PathBuf,
    held: io::Result<Held>,
}

/// What is no plugin, the plugins with what they look like, and the names of all that lie there.
struct Held {
    refused: Vec<String>,
    plugins: Vec<(PathBuf, io::Result<Look>)>,
    names: BTreeSet<String>,
}

/// Looks at a directory and at each plugin in it.
fn survey(dir: PathBuf, files_max: usize) -> Surveyed {
    let held = directory::list(&dir, files_max).map(|Listing { plugins, refused, names }| {
        let look = |file: PathBuf| (Look::at(&file), file);
        Held { refused, plugins: plugins.into_iter().map(look).map(|(look, file)| (file, look)).collect(), names }
    });
    Surveyed { dir, held }
}

fn tell_loaded(file: &Path, code: &Code, held: Option<usize>, duration: Duration) {
    let (path, hash, duration_ms) = (file.display(), code.hash, millis(duration));
    match held {
        None => info!(file = %path, %hash, duration_ms, "Plugin file {path} is loaded ({duration_ms} ms)"),
        Some(count) => info!(
            file = %path, %hash, duration_ms,
            "Plugin file {path} holds its conversation ({count} replies) and is loaded ({duration_ms} ms)"
        ),
    }
}

/// Who is asked instead of a file that does not load.
enum Rest {
    Nobody,
    VersionBefore,
    Kept(Hash),
}

impl Rest {
    fn of(serving: Option<&Serving>, kept: Option<&Serving>) -> Self {
        match (serving, kept) {
            (Some(_), _) => Self::VersionBefore,
            (None, Some(kept)) => Self::Kept(kept.identity.hash),
            (None, None) => Self::Nobody,
        }
    }
}

fn not_loaded(file: &Path, why: &str, rest: &Rest) {
    let rest = match rest {
        Rest::Nobody => "its plugin is not asked".to_owned(),
        Rest::VersionBefore => "the version before it stays".to_owned(),
        Rest::Kept(hash) => format!("the newest version of it that is kept serves: SHA-256 {hash}"),
    };
    warn!(file = %file.display(), "Plugin file {} is not loaded: {why}; {rest}", file.display());
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
