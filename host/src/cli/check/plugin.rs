//! The plugins: each file loaded as the host would, and the tables that are about no file.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::report::Report;
use crate::{
    config::{Account, Config, PluginSettings},
    plugin::{
        Hash,
        code::{Code, LoadError},
        compile::Compiler,
        engine::{Class, Engine},
        file_name::{file_name_order, name_of},
        set::directories,
    },
};

/// Our own interfaces; what else a plugin imports is its language's.
const OWN: &str = "aviary:bot/";

/// The interface that every plugin has, as it hears and says something.
const TYPES: &str = "aviary:bot/types@";

/// Our own interface that needs no grant.
const UNGRANTED: &str = "call-info";

/// How many slips of the pen may lie between a table's name and the plugin's.
const SLIPS_MAX: usize = 2;

/// What is needed to load a plugin.
pub(super) struct Examiner {
    pub(super) engine: Engine,
    pub(super) compiler: Compiler,
    /// The largest file.
    pub(super) bytes_max: u64,
}

/// A plugin's file, and what became of it.
pub(super) struct Examined {
    pub(super) file: PathBuf,
    /// Empty for one that is no plugin by its name.
    pub(super) name: String,
    /// Nothing if it could not be read.
    bytes: Option<u64>,
    pub(super) loaded: Result<Loaded, String>,
}

/// A plugin's code, and how long it took to compile, if it was not in the cache.
pub(super) struct Loaded {
    code: Arc<Code>,
    compiled: Option<Duration>,
}

/// Loads every plugin of a bot, in the order of the directories and of the names in them.
pub(super) async fn examine_all(examiner: &Examiner, config: &Config, report: &mut Report) -> Vec<Examined> {
    let mut examined = Vec::new();
    for dir in directories(config) {
        match list(dir) {
            Ok(files) => {
                for file in files {
                    examined.push(examiner.examine(&file, trial_settings(&file, config)).await);
                }
            }
            Err(error) => report.wrong(&format!("plugins directory {} cannot be read: {error}", dir.display())),
        }
    }
    examined
}

/// The settings under which the host tries a file: those of the account whose directory it is in, else the first one's.
fn trial_settings(file: &Path, config: &Config) -> PluginSettings {
    let name = name_of(file).unwrap_or_default();
    let own = config.accounts.iter().find(|account| account.plugins_dir.as_deref() == file.parent());
    let account = own.or(config.accounts.first());
    account.map(|account| config.plugin(account, &name, own.is_some())).unwrap_or_default()
}

/// The plugins in a directory, and what could be taken for one.
fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| super::is_plugin(file));
    files.sort_by(|a, b| file_name_order(a, b));
    Ok(files)
}

impl Examiner {
    /// Loads a file as the host would.
    pub(super) async fn examine(&self, file: &Path, settings: PluginSettings) -> Examined {
        let bytes = fs::metadata(file).map(|metadata| metadata.len());
        let loaded = match (name_of(file), &bytes) {
            (None, _) => Err("compiled code cannot be checked; put the `.wasm` file there".to_owned()),
            (_, Err(error)) => Err(format!("it cannot be read: {error}")),
            (_, Ok(bytes)) if *bytes > self.bytes_max => {
                Err(format!("it has {bytes} bytes; `compile.file_mib_max` allows {}", self.bytes_max))
            }
            _ => self.load(file, Arc::new(settings)).await,
        };
        Examined { file: file.into(), name: name_of(file).unwrap_or_default(), bytes: bytes.ok(), loaded }
    }

    async fn load(&self, file: &Path, settings: Arc<PluginSettings>) -> Result<Loaded, String> {
        let wasm = fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
        let (hash, class) = (Hash::of(&wasm), Class::of(wasm.len()));
        if !self.compiler.has(&hash, class) {
            eprintln!("Compiling {} …", file.display());
        }
        let loaded = match self.compile_and_load(wasm.clone(), &settings).await {
            // A full disk or a crash may have spoiled the cached code; the wasm is still there.
            Err(Trouble::Cache(_)) => {
                self.compiler.forget(&hash, class).map_err(|error| error.to_string())?;
                self.compile_and_load(wasm, &settings).await
            }
            loaded => loaded,
        };
        loaded.map_err(|trouble| match trouble {
            Trouble::Cache(why) | Trouble::Plugin(why) => why,
        })
    }

    async fn compile_and_load(&self, wasm: Vec<u8>, settings: &Arc<PluginSettings>) -> Result<Loaded, Trouble> {
        let (hash, class) = (Hash::of(&wasm), Class::of(wasm.len()));
        let is_cached = self.compiler.has(&hash, class);
        let started = Instant::now();
        let compiled = self.compiler.compile(wasm, &hash).await.map_err(|error| Trouble::Plugin(error.to_string()))?;
        let took = started.elapsed();
        let code = Code::load(&self.engine, class, &compiled, hash, settings).await.map_err(|error| match error {
            LoadError::Cache(_) => Trouble::Cache(error.to_string()),
            error => Trouble::Plugin(error.to_string()),
        })?;
        Ok(Loaded { code, compiled: (!is_cached).then_some(took) })
    }
}

/// Why there is no code.
enum Trouble {
    Cache(String),
    Plugin(String),
}

/// Prints a plugin, shown as a path; `accounts` are those that ask it.
pub(super) fn print(plugin: &Examined, shown: &Path, accounts: Option<&[&str]>, report: &mut Report) {
    let shown = shown.display();
    match plugin.name.as_str() {
        "" => report.heading(&format!("\nFile {shown}")),
        name => report.heading(&format!("\nPlugin `{name}`: {shown}")),
    }
    if let Some(bytes) = plugin.bytes {
        report.fact("size", &size(bytes));
    }
    let loaded = match &plugin.loaded {
        Ok(loaded) => loaded,
        Err(why) => return report.wrong(&format!("not loaded: {why}")),
    };
    // Types hold no functions: there is nothing to ask for.
    let imports: Vec<String> = loaded.code.imports().into_iter().filter(|import| !import.starts_with(TYPES)).collect();
    let compiled = loaded.compiled.map(|took| format!("compiled in {} ms", took.as_millis()));
    report.fact("contract", &loaded.code.handler);
    report.fact("imports", &if imports.is_empty() { "nothing".to_owned() } else { imports.join(", ") });
    report.fact("code", compiled.as_deref().unwrap_or("cached"));
    match accounts {
        Some([]) => report.note("no account asks it"),
        Some(accounts) => report.fact("asked by", &accounts.join(", ")),
        None => {}
    }
    let denied = denied(&imports);
    if !denied.is_empty() {
        report
            .note(&format!("this version grants {} to no plugin: every call is answered `denied`", denied.join(", ")));
    }
}

/// Which of our own interfaces are imported and answer nothing else than `denied`.
fn denied(imports: &[String]) -> Vec<&str> {
    let own = imports.iter().filter_map(|import| import.strip_prefix(OWN)?.split('@').next());
    own.filter(|name| *name != UNGRANTED).collect()
}

fn size(bytes: u64) -> String {
    match bytes {
        ..1_024 => format!("{bytes} bytes"),
        _ => format!("{} KiB", bytes >> 10),
    }
}

/// Reports every table of settings that is about no file, and so means nothing.
pub(super) fn check_tables(config: &Config, report: &mut Report) {
    let is_idle =
        |(account, name): &(Option<&Account>, &str)| !names(config, *account).iter().any(|known| known == name);
    let idle: Vec<_> = config.plugin_tables().into_iter().filter(is_idle).collect();
    if idle.is_empty() {
        return;
    }
    report.heading("\nTables");
    for (account, name) in idle {
        let table = account.map(|account| format!("accounts.{}.", account.name)).unwrap_or_default();
        let slips = |known: &String| strsim::damerau_levenshtein(known, name);
        let near = names(config, account).into_iter().min_by_key(slips).filter(|known| slips(known) <= SLIPS_MAX);
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        report.wrong(&format!("[{table}plugins.{name}] is about no plugin: no file has that name{near}"));
    }
}

/// The names of the plugins that a table can be about, also of those that are switched off or broken.
fn names(config: &Config, account: Option<&Account>) -> Vec<String> {
    let own = account.and_then(|account| account.plugins_dir.as_deref());
    let dirs = [Some(config.plugins_dir.as_path()), own].into_iter().flatten();
    let files =
        dirs.filter_map(|dir| fs::read_dir(dir).ok()).flatten().filter_map(Result::ok).map(|entry| entry.path());
    files.filter_map(|file| name_of(&enabled(file))).collect()
}

/// The name of a file that may be switched off, as if it were not.
fn enabled(file: PathBuf) -> PathBuf {
    if file.extension().is_some_and(|extension| extension == "off") { file.with_extension("") } else { file }
}
