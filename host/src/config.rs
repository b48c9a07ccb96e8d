//! What the operator decided: `aviary.toml` and the files it includes, read, checked and typed.
//!
//! Nothing behind this module reads a setting's text again, or checks a bound. A file becomes a tree with lines (`document`) with
//! every `${…}` filled in (`expand`), the included files join it (`sources`), and each table is read against `defaults.toml`
//! (`section`) into its struct.

mod account;
mod defaults;
mod document;
mod error;
mod expand;
mod host;
mod limits;
mod matches;
mod plugin;
mod restart;
mod section;
mod sources;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use account::{Account, Mode};
pub use defaults::DEFAULTS;
pub use error::ConfigError;
pub use host::{Compile, Dedupe, Engine, Late, Listener, Log, LogFormat, LogUser, Watch};
pub use limits::{Limits, MEMORY_MIB_MAX, TABLE_ELEMENTS_MAX, WASM_STACK_BYTES};
pub use matches::MatchRule;
pub use plugin::PluginSettings;
pub use restart::needs_restart;

use document::{Node, Table, Value};
use error::Problems;
use limits::OwnLimits;
use plugin::PluginTable;
use section::Section;
use sources::Sources;

/// All settings. Every path is absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// The main file.
    pub file: PathBuf,
    /// Where WeChat's pushes arrive. Default `127.0.0.1:8000`.
    pub listen: SocketAddr,
    /// The shared plugins. Default `plugins` beside the main file.
    pub plugins_dir: PathBuf,
    /// What the host keeps. Default `data` beside the main file.
    pub data_dir: PathBuf,
    /// `[listener]`.
    pub listener: Listener,
    /// `[late]`, for what belongs to no account; an account's own is in the account.
    pub late: Late,
    /// `[dedupe]`.
    pub dedupe: Dedupe,
    /// `[log]`.
    pub log: Log,
    /// `[watch]`.
    pub watch: Watch,
    /// `[engine]`.
    pub engine: Engine,
    /// `[compile]`.
    pub compile: Compile,
    /// `[limits]`, for a plugin of which nothing is said.
    pub limits: Limits,
    /// The accounts in the order of their names; at least one.
    pub accounts: Vec<Arc<Account>>,
    /// What was wrong with included files, which were left out. One line each.
    pub problems: Vec<String>,
    /// What is allowed but hardly meant. One line each.
    pub notes: Vec<String>,
    /// `[plugins.NAME]`.
    plugins: BTreeMap<String, PluginTable>,
    watched: Vec<PathBuf>,
}

impl Config {
    /// Reads the main file and what it includes.
    ///
    /// An included file with a mistake in it is left out as a whole, and [`problems`](Self::problems) says why.
    ///
    /// # Errors
    ///
    /// Tells every mistake in the main file, or that there is no account.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let mut sources = Sources::of(file);
        let mut all = sources.read(&sources.main.clone())?;
        let mut config = Self::read(&all, &sources)?;

        let (includes, mut problems) = config.includes(&all, &mut sources);
        for include in &includes {
            match config.part(&all, include, &mut sources) {
                Ok((table, part)) => {
                    sources::join(&mut all, table);
                    config.accounts.extend(part.accounts);
                }
                Err(error) => problems.extend(error.into_problems()),
            }
        }
        // Once more, now that every account is under every shared table.
        config = Self::read(&all, &sources)?;
        if config.accounts.is_empty() {
            let text = "no account; add a table [accounts.main] with its `token`, or let `aviary init` write one";
            problems.push(format!("{}: {text}", sources.place(&sources.main)));
            return Err(problems.into());
        }
        Ok(Self { problems, watched: sources.into_watched(), ..config })
    }

    /// Returns the files to include, and what is wrong with `include` itself.
    fn includes(&self, main: &Table, sources: &mut Sources) -> (Vec<PathBuf>, Vec<String>) {
        let problems = Problems::default();
        let place = sources.place(&sources.main);
        let patterns = Section::top(main, &place, &problems).texts("include");
        let patterns: Vec<_> = patterns.into_iter().map(|(pattern, node)| (pattern, &node.place)).collect();
        let includes = sources.includes(&patterns, &problems);
        (includes, problems.into_lines())
    }

    /// Reads an included file, and checks it beside what is there already.
    fn part(&self, all: &Table, include: &Path, sources: &mut Sources) -> Result<(Table, Self), ConfigError> {
        let table = sources.read(include)?;
        sources::check_join(all, &table)?;
        // A file of accounts and plugins is checked without those of other files: thousands of files stay quick.
        let is_independent = table.keys().all(|key| INDEPENDENT.contains(&key.as_str()));
        let mut beside = all.clone();
        beside.retain(|key, _| !is_independent || !INDEPENDENT.contains(&key.as_str()));
        sources::join(&mut beside, table.clone());
        let part = Self::read(&beside, sources)?;

        let problems = Problems::default();
        let is_new = |account: &&Account| accounts_of(&table).any(|name| *name == account.name);
        let (known, new) = (self.accounts.iter().map(Arc::as_ref), part.accounts.iter().map(Arc::as_ref));
        Account::refuse_shared_paths(known, new.filter(is_new), &problems);
        problems.or(Some((table, part)))
    }

    /// Returns what is set for a plugin in an account.
    ///
    /// A plugin from the shared directory has `[plugins.NAME]` with the account's table over it. One from the account's own
    /// directory has the account's table alone, so that a file inherits nothing by choosing a name.
    pub fn plugin(&self, account: &Account, name: &str, own_directory: bool) -> PluginSettings {
        let shared = self.plugins.get(name).filter(|_| !own_directory);
        PluginSettings::of([account.plugin_tables.get(name), shared], &self.limits)
    }

    /// Returns everything whose change may change the settings: the main file, `.env`, the included files, those of `${file:…}`,
    /// and the directories where `include` looks. Some may not exist yet.
    pub fn watched(&self) -> Vec<PathBuf> {
        self.watched.clone()
    }

    /// Reads the tree of one or more files; the includes are not looked at.
    fn read(all: &Table, sources: &Sources) -> Result<Self, ConfigError> {
        let problems = Problems::default();
        let place = sources.place(&sources.main);
        let config = Self::of(&Section::top(all, &place, &problems), sources);
        problems.or(config)
    }

    fn of(top: &Section<'_>, sources: &Sources) -> Option<Self> {
        let table = |key| top.table(key).without_unknown_keys();
        let listen = top.parsed("listen", listen);
        let log = Log::read(&table("log"));
        let limits = Limits::default().with(&OwnLimits::read(&table("limits")));
        let plugins = PluginTable::read_all(top);
        let plugins_dir = sources::absolute(&sources.directory, &top.text("plugins_dir"));
        let accounts = accounts(top, &sources.directory);
        Some(Self {
            file: sources.main.clone(),
            data_dir: sources::absolute(&sources.directory, &top.text("data_dir")),
            listener: Listener::read(&table("listener")),
            late: Late::read(&table("late")),
            dedupe: Dedupe::read(&table("dedupe")),
            watch: Watch::read(&table("watch")),
            compile: Compile::read(&table("compile")),
            notes: accounts.iter().filter_map(|account| account.note()).collect(),
            listen: listen?,
            log: log?,
            engine: Engine::read(&table("engine")),
            limits,
            plugins,
            plugins_dir,
            accounts,
            problems: Vec::new(),
            watched: Vec::new(),
        })
    }
}

/// The tables whose entries have nothing to do with each other.
const INDEPENDENT: [&str; 2] = ["accounts", "plugins"];

fn accounts(top: &Section<'_>, directory: &Path) -> Vec<Arc<Account>> {
    let tables = top.named("accounts", defaults::account());
    let accounts: Vec<_> =
        tables.iter().filter_map(|(name, section)| Account::read(name, section, top, directory)).collect();
    Account::refuse_shared_paths([], &accounts, top.problems);
    accounts.into_iter().map(Arc::new).collect()
}

/// Returns the names of the accounts in a file.
fn accounts_of(table: &Table) -> impl Iterator<Item = &String> {
    let accounts = match table.get("accounts") {
        Some(Node { value: Value::Table(accounts), .. }) => Some(accounts.keys()),
        _ => None,
    };
    accounts.into_iter().flatten()
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address and a port, such as \"127.0.0.1:8000\"".to_owned())
}
