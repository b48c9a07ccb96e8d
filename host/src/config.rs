//! What the operator decided: `aviary.toml` and the files it includes, read, checked and typed.
//!
//! Nothing behind this module reads a setting's text again, or checks a bound. A file becomes a tree with lines
//! (`document`) with every `${…}` filled in (`expand`), the included files join it (`sources`), and each table is read
//! against `defaults.toml` (`section`) into its struct.

mod account;
mod compile;
mod defaults;
mod dev;
mod document;
mod error;
mod expand;
#[cfg(test)]
pub(crate) mod fixture;
mod forward;
mod gbk;
mod grants;
mod host;
mod http;
mod late;
mod limits;
mod matches;
mod oauth;
mod plugin;
mod quarantine;
mod rate;
mod restart;
mod section;
mod sources;
mod wechat_api;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use account::{Account, Mode, app_id};
pub use compile::{Compile, CompileCache};
pub use dev::Dev;
pub use error::ConfigError;
pub use grants::{
    CustomerServiceGrant, Grants, HostPattern, HttpGrant, KvGrant, PagesGrant, WechatApiGrant, gives_secrets,
};
pub use host::{
    AccountCalls, Canary, Dedupe, Engine, GuestLog, Listener, Log, LogFormat, LogUser, Metrics, PerUser, Versions,
    Watch,
};
pub use http::{Http, Proxy};
pub use late::{Deliver, Late};
pub use limits::{CORE_INSTANCES_MAX, Limits, MEMORIES_MAX, MEMORY_MIB_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
pub use matches::MatchRule;
pub use oauth::{AccountPages, OAuth, Pages, Scope, VerifyFile};
pub use plugin::PluginSettings;
pub use quarantine::{Quarantine, USERS_MAX as QUARANTINE_USERS_MAX};
pub use rate::Rate;
pub use restart::needs_restart;
pub use wechat_api::{TokenKind, WechatApi};

use document::{Node, Table, Value};
use error::Problems;
use limits::OwnLimits;
use plugin::PluginTable;
use quarantine::OwnQuarantine;
use section::Section;
use sources::Sources;

use crate::stamp::Stamps;

/// All settings. Every path is absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// The main file.
    pub file: PathBuf,
    /// Where WeChat's pushes arrive. Default `127.0.0.1:8000`.
    pub listen: SocketAddr,
    /// Where metrics and health are. Default `127.0.0.1:8001`; none: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// The shared plugins. Default `plugins` beside the main file.
    pub plugins_dir: PathBuf,
    /// How many plugin files of one directory are loaded. Default 2,000.
    pub plugin_files_max: usize,
    /// What the host keeps. Default `data` beside the main file.
    pub data_dir: PathBuf,
    /// The machine code of plugins. Default `cache` in `data_dir`.
    pub cache_dir: PathBuf,
    /// `[listener]`.
    pub listener: Listener,
    /// `[late]`, for what belongs to no account; an account's own is in the account.
    pub late: Late,
    /// `[oauth]`.
    pub oauth: OAuth,
    /// `[pages]`.
    pub pages: Pages,
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
    pub compile_cache: CompileCache,
    /// `[versions]`.
    pub versions: Versions,
    /// `[canary]`.
    pub canary: Canary,
    /// `[http]`.
    pub http: Http,
    /// `[wechat_api]`.
    pub wechat_api: WechatApi,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[per_user]`.
    pub per_user: PerUser,
    /// `[dev]`.
    pub dev: Dev,
    /// `[limits]`, for a plugin of which nothing is said.
    pub limits: Limits,
    /// `[quarantine]`, for a plugin of which nothing is said.
    pub quarantine: Quarantine,
    /// The accounts in the order of their names; at least one.
    pub accounts: Vec<Arc<Account>>,
    /// What was wrong with included files, which were left out. One line each.
    pub problems: Vec<String>,
    /// What is allowed but hardly meant. One line each.
    pub notes: Vec<String>,
    /// `[plugins.NAME]`.
    plugins: BTreeMap<String, PluginTable>,
    watched: Stamps,
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
        let config = Self::load_from(&mut sources);
        let watched = sources.into_watched();
        match config {
            Ok(config) => Ok(Self { watched, ..config }),
            Err(error) => Err(error.watching(watched)),
        }
    }

    fn load_from(sources: &mut Sources) -> Result<Self, ConfigError> {
        let mut all = sources.read(&sources.main.clone())?;
        let mut config = Self::read(&all, sources)?;

        let (includes, mut problems) = config.includes(&all, sources);
        for include in &includes {
            match config.part(&all, include, sources) {
                Ok((table, part)) => {
                    sources::join(&mut all, table);
                    config.accounts.extend(part.accounts);
                }
                Err(error) => problems.extend(error.into_problems()),
            }
        }
        config.watch_files(sources);
        // Once more, now that every account is under every shared table.
        config = Self::read(&all, sources)?;
        if config.accounts.is_empty() {
            let text = "no account; add a table [accounts.main] with its `token`, or let `aviary init` write one";
            problems.push(format!("{}: {text}", sources.place(&sources.main)));
            return Err(problems.into());
        }
        config.watch_files(sources);
        Ok(Self { problems, ..config })
    }

    /// Follows the files that settings name and whose content counts.
    fn watch_files(&self, sources: &mut Sources) {
        let verify_files = self.accounts.iter().flat_map(|account| &account.pages.verify_files).map(|file| &file.path);
        self.http.ca_file.iter().chain(verify_files).for_each(|file| sources.watch(file));
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
        let matters = |key: &&String| !is_independent || !INDEPENDENT.contains(&key.as_str());
        let mut beside: Table =
            all.iter().filter(|(key, _)| matters(key)).map(|(key, node)| (key.clone(), node.clone())).collect();
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
    /// A plugin from the shared directory has `[plugins.NAME]` with the account's table over it. One from the
    /// account's own directory has the account's table alone, so that a file inherits nothing by choosing a name.
    pub fn plugin(&self, account: &Account, name: &str, own_directory: bool) -> PluginSettings {
        let shared = self.plugins.get(name).filter(|_| !own_directory);
        PluginSettings::of([account.plugin_tables.get(name), shared], &self.limits, &self.quarantine, &self.compile)
    }

    /// Returns which plugins have a table: `[plugins.NAME]`, and with its account `[accounts.ACCOUNT.plugins.NAME]`.
    pub fn plugin_tables(&self) -> Vec<(Option<&Account>, &str)> {
        let shared = self.plugins.keys().map(|name| (None, name.as_str()));
        let accounts = self.accounts.iter().map(Arc::as_ref);
        let own =
            accounts.flat_map(|account| account.plugin_tables.keys().map(move |name| (Some(account), name.as_str())));
        shared.chain(own).collect()
    }

    /// Returns everything whose change may change the settings: the main file, `.env`, the included files, those of
    /// `${file:…}`, and the directories where `include` looks. Some may not exist yet.
    pub fn watched(&self) -> Vec<PathBuf> {
        self.watched.paths().cloned().collect()
    }

    /// Returns the state of [`watched`](Self::watched), each from before it was read.
    pub fn stamps(&self) -> &Stamps {
        &self.watched
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
        top.texts("include");
        let listen = top.parsed("listen", listen);
        let admin_listen = top.parsed("admin_listen", admin_listen);
        let log = Log::read(&table("log"));
        let limits = Limits::default().with(&OwnLimits::read(&table("limits")));
        let quarantine = Quarantine::default().with(&OwnQuarantine::read(&table("quarantine")));
        let plugins = PluginTable::read_all(top);
        let plugins_dir = sources::absolute(&sources.directory, &top.text("plugins_dir"));
        let data_dir = sources::absolute(&sources.directory, &top.text("data_dir"));
        let cache_dir = top.text("cache_dir");
        let accounts = accounts(top, &sources.directory);
        if let Some(listen) = listen {
            forward::refuse_own_address(accounts.iter().map(Arc::as_ref), listen, top.problems);
        }
        Some(Self {
            file: sources.main.clone(),
            cache_dir: match cache_dir.is_empty() {
                true => data_dir.join("cache"),
                false => sources::absolute(&sources.directory, &cache_dir),
            },
            data_dir,
            listener: Listener::read(&table("listener")),
            late: Late::read(&table("late")),
            oauth: OAuth::read(&table("oauth")),
            pages: Pages::read(&table("pages")),
            dedupe: Dedupe::read(&table("dedupe")),
            watch: Watch::read(&table("watch")),
            compile: Compile::read(&table("compile")),
            compile_cache: CompileCache::read(&table("compile")),
            versions: Versions::read(&table("versions")),
            dev: Dev::read(&table("dev")),
            canary: Canary::read(&table("canary")),
            plugin_files_max: top.count("plugin_files_max", 1..=100_000),
            http: Http::read(&table("http"), &sources.directory),
            wechat_api: WechatApi::read(&table("wechat_api")),
            notes: notes(&accounts, &plugins),
            listen: listen?,
            admin_listen: admin_listen?,
            log: log?,
            engine: Engine::read(&table("engine")),
            metrics: Metrics::read(&table("metrics")),
            per_user: PerUser::read(&table("per_user")),
            limits,
            quarantine,
            plugins,
            plugins_dir,
            accounts,
            problems: Vec::new(),
            watched: Stamps::default(),
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

fn notes(accounts: &[Arc<Account>], plugins: &BTreeMap<String, PluginTable>) -> Vec<String> {
    let shared = plugins.values().flat_map(|table| table.notes.iter().cloned());
    accounts.iter().flat_map(|account| account.notes()).chain(shared).collect()
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

fn admin_listen(text: &str) -> Result<Option<SocketAddr>, String> {
    let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
    parsed.map_err(|_| "must be an address and a port, such as \"127.0.0.1:8001\", or \"\" for none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::fixture::{Directory, error, load};
    use super::*;

    const MAIN: &str = "[accounts.main]\ntoken = \"abc\"\n";

    /// An account in a file of its own.
    fn account(name: &str) -> String {
        format!("[accounts.{name}]\npath = \"/{name}\"\ntoken = \"abc\"\n")
    }

    fn names(config: &Config) -> Vec<&str> {
        config.accounts.iter().map(|account| &*account.name).collect()
    }

    #[test]
    fn what_is_not_given_comes_from_the_defaults() {
        let directory = Directory::with(MAIN);
        let config = directory.load();
        assert_eq!(config.file, directory.path("aviary.toml"));
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.plugins_dir, directory.path("plugins"));
        assert_eq!(config.data_dir, directory.path("data"));
        assert_eq!(config.cache_dir, directory.path("data/cache"));
        assert_eq!(config.listener.body_bytes_max, 262_144);
        assert_eq!(config.late.window.as_millis(), 4_500);
        assert_eq!(config.dedupe.keys_max, 500_000);
        assert_eq!((config.watch.quiet.as_millis(), config.watch.poll.as_millis()), (50, 2_000));
        assert_eq!(config.engine.instances_max, 0);
        assert_eq!(config.compile.file_bytes_max(), 64 << 20);
        assert_eq!((config.limits.memory_bytes(), config.limits.host_data_bytes()), (64 << 20, 4 << 20));
        assert_eq!((config.limits.cpu_ms, config.limits.timeout_ms), (1_000, 0));
        assert_eq!((config.problems.len(), config.notes.len()), (0, 0));
    }

    #[test]
    fn a_relative_path_starts_beside_the_main_file_and_an_absolute_one_stays() {
        let directory = Directory::with(
            "plugins_dir = \"./bots\"\ndata_dir = \"/var/lib/aviary\"\ncache_dir = \"code\"\n[accounts.main]\n\
             token = \"abc\"\nplugins_dir = \"own/\"\n",
        );
        let config = directory.load();
        assert_eq!(config.plugins_dir, directory.path("bots"));
        assert_eq!(config.data_dir, Path::new("/var/lib/aviary"));
        assert_eq!(config.cache_dir, directory.path("code"));
        assert_eq!(config.accounts[0].plugins_dir, Some(directory.path("own")));
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_valid_one() {
        assert_eq!(
            error("[accounts.main]\ntoken = \"abc\"\n\n[account.other]\n[late]\nwindow = 5\n"),
            "aviary.toml:4: unknown key `account`; did you mean `accounts`?\n\
             aviary.toml:6: unknown key `late.window`; did you mean `window_ms`?"
        );
        assert_eq!(
            error("[accounts.main]\ntoken = \"abc\"\ntokne = \"secret7\"\n"),
            "aviary.toml:3: unknown key `accounts.main.tokne`; did you mean `token`?"
        );
        assert_eq!(error("window_ms = 5"), "aviary.toml:1: unknown key `window_ms`; did you mean `late.window_ms`?");
        assert_eq!(
            error("[late]\nlisten = \"127.0.0.1:1\""),
            "aviary.toml:2: unknown key `late.listen`; `listen` belongs at the top of the file, before \
             the first [table]"
        );
        assert_eq!(
            error("[watch]\n\"a b\" = 5"),
            "aviary.toml:2: unknown key `watch.\"a b\"`; there are `poll_ms`, `quiet_ms`"
        );
    }

    #[test]
    fn a_value_of_another_kind_or_out_of_bounds_is_refused() {
        assert_eq!(
            error(
                "listen = \":8000\"\nlog = 5\n[late]\nwindow_ms = \"4500\"\n[dedupe]\n\
                 keys_max = 1.5\n[watch]\nquiet_ms = -1\n"
            ),
            "aviary.toml:1: `listen` is \":8000\"; it must be an address and a port, such as \"127.0.0.1:8000\"\n\
             aviary.toml:2: `log` is a number; it must be a table\n\
             aviary.toml:4: `late.window_ms` is \"4500\"; it must be a whole number, 100 to 5000\n\
             aviary.toml:6: `dedupe.keys_max` is 1.5; it must be a whole number, 1000 to 100000000\n\
             aviary.toml:8: `watch.quiet_ms` is -1; it must be a whole number, 0 to 10000"
        );
        assert_eq!(
            error("dedupe.keys_max = 99999999999999999999"),
            "aviary.toml:1: `dedupe.keys_max` is 99999999999999999999; it must be a whole number, 1000 to 100000000"
        );
    }

    #[test]
    fn a_long_value_is_shortened() {
        assert_eq!(
            error(&format!("listen = \"{}\"", "微".repeat(70))),
            format!(
                "aviary.toml:1: `listen` is \"{}…\"; it must be an address and a port, such as \"127.0.0.1:8000\"",
                "微".repeat(60)
            )
        );
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_without_quoting_it() {
        assert_eq!(
            error("[accounts.main]\ntoken = \"secret7\n"),
            "aviary.toml:2: invalid basic string, expected `\"`; this is not TOML"
        );
        assert_eq!(
            error("token = secret7"),
            "aviary.toml:1: string values must be quoted, expected literal string; this is not TOML"
        );
        assert_eq!(error("a = 1\na = 2"), "aviary.toml:2: duplicate key; this is not TOML");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let directory =
            Directory::with(MAIN).and("latin1.toml", b"token = \"\xe9\"").and("large.toml", vec![b'#'; 5 << 20]);
        let error = |file: &str| Config::load(&directory.path(file)).unwrap_err().to_string();
        assert_eq!(error("nowhere.toml"), "nowhere.toml: cannot be read: No such file or directory (os error 2)");
        assert_eq!(error("latin1.toml"), "latin1.toml: cannot be read: it is not UTF-8 text, from line 1 on");
        assert_eq!(error("large.toml"), "large.toml: cannot be read: it is larger than 4194304 bytes");
    }

    #[test]
    fn hostile_nesting_is_refused_and_not_followed() {
        assert!(error(&format!("a = {}", "[".repeat(100_000))).starts_with("aviary.toml:1: "));
        assert!(error(&format!("a.{} = 1", vec!["b"; 100_000].join("."))).starts_with("aviary.toml:1: "));
    }

    #[test]
    fn there_is_at_least_one_account() {
        let text = "no account; add a table [accounts.main] with its `token`, or let `aviary init` write one";
        assert_eq!(error(""), format!("aviary.toml: {text}"));
        let broken = Directory::with("include = [\"a.toml\"]").and("a.toml", "[accounts.a]\n");
        assert_eq!(
            broken.error(),
            format!(
                "a.toml:1: `accounts.a.token` is missing: the Token of WeChat's 服务器配置 form, 3 to 32 \
                 letters and digits\n\
                 aviary.toml: {text}"
            )
        );
    }

    #[test]
    fn a_text_takes_in_variables_and_files() {
        let directory = Directory::with(
            "[accounts.main]\ntoken = \"${WECHAT_TOKEN}\"\nprevious_token = \"${file:secrets/token}\"\n
             [plugins.a]\nenv = { URL = \"https://example.com/?key=${WECHAT_TOKEN}\" }",
        )
        .and(".env", "WECHAT_TOKEN=fromdotenv\n")
        .and("secrets/token", "fromfile\n");
        let config = directory.load();
        let account = &config.accounts[0];
        assert_eq!(account.token.expose(), "fromdotenv");
        assert_eq!(account.previous_token.as_ref().unwrap().expose(), "fromfile");
        assert_eq!(config.plugin(account, "a", false).env["URL"].expose(), "https://example.com/?key=fromdotenv");
    }

    #[test]
    fn a_variable_that_is_missing_is_named_with_its_key() {
        let way_out = "which is not set; set it, or give it a line in `.env` beside `aviary.toml`";
        assert_eq!(
            error("[accounts.main]\ntoken = \"${NOWHERE_A}\"\n[plugins.a]\nmatch = [{ key = \"${NOWHERE_B}\" }]\n"),
            format!(
                "aviary.toml:2: `accounts.main.token` needs the environment variable `NOWHERE_A`, {way_out}\n\
                 aviary.toml:4: `plugins.a.match[0].key` needs the environment variable `NOWHERE_B`, {way_out}"
            )
        );
    }

    #[test]
    fn an_error_shows_a_variable_by_its_name_only() {
        let directory = Directory::with("listen = \"${WHERE}\"\n[accounts.main]\ntoken = \"${WHERE}\"")
            .and(".env", "WHERE=hidden-7");
        assert_eq!(
            directory.error(),
            "aviary.toml:1: `listen` is \"${WHERE}\"; it must be an address and a port, such as \"127.0.0.1:8000\"\n\
             aviary.toml:3: `accounts.main.token` has a character that is no ASCII letter or digit; \
             WeChat allows 3 to 32 letters and digits"
        );
    }

    #[test]
    fn included_files_add_accounts_plugins_and_settings() {
        let directory = Directory::with(&format!(
            "include = [\"accounts.d/*.toml\", \"more.toml\"]\n{MAIN}[late]\nwindow_ms = 1000\n"
        ))
        .and("accounts.d/b.toml", account("b"))
        .and("accounts.d/a.toml", account("a") + "[accounts.a.late]\nwindow_ms = 500\n")
        .and("accounts.d/.hidden.toml", "broken")
        .and("accounts.d/a.toml.bak", "broken")
        .and("more.toml", "[plugins.echo]\nenv = { A = \"b\" }\n[limits]\ncpu_ms = 10\n");
        let config = directory.load();
        assert_eq!(config.problems, [""; 0]);
        assert_eq!(names(&config), ["a", "b", "main"]);
        assert_eq!(
            config.accounts.iter().map(|account| account.late.window.as_millis()).collect::<Vec<_>>(),
            [500, 1000, 1000]
        );
        let settings = config.plugin(&config.accounts[1], "echo", false);
        assert_eq!((settings.env["A"].expose(), settings.limits.cpu_ms), ("b", 10));
    }

    #[test]
    fn a_broken_included_file_stops_no_other() {
        let directory = Directory::with(&format!("include = [\"*.d/*.toml\"]\n{MAIN}"))
            .and("a.d/1.toml", account("one"))
            .and("a.d/2.toml", account("two") + "mode = \"aes\"\n[late]\nwindow_ms = 1\n")
            .and("a.d/3.toml", "[accounts.three\n")
            .and("a.d/4.toml", account("four").replace("abc", "${NOWHERE}"))
            .and("a.d/5.toml", account("five"));
        let config = directory.load();
        assert_eq!(names(&config), ["five", "main", "one"]);
        assert_eq!(config.late.window.as_millis(), 4_500);
        assert_eq!(
            config.problems,
            [
                "a.d/2.toml:4: `accounts.two.mode` is \"aes\"; it may be \"\", \"plain\", \"compatible\" or \"safe\"",
                "a.d/2.toml:6: `late.window_ms` is 1; it must be a whole number, 100 to 5000",
                "a.d/3.toml:1: unclosed table, expected `]`; this is not TOML",
                "a.d/4.toml:3: `accounts.four.token` needs the environment variable `NOWHERE`, which is not set; \
                 set it, or give it a line in `.env` beside `aviary.toml`",
            ]
        );
    }

    #[test]
    fn what_two_files_give_is_refused_with_both_names() {
        let directory = Directory::with(&format!(
            "include = [\"*.d/*.toml\"]\nlisten = \"127.0.0.1:1\"\n{MAIN}[late]\nwindow_ms = 1000\n"
        ))
        .and("a.d/1.toml", account("one") + "[plugins.echo]\n")
        .and("a.d/2.toml", account("one") + "[accounts.main.late]\nwindow_ms = 500\n[plugins.echo]\n")
        .and("a.d/3.toml", "listen = \"127.0.0.1:2\"\n[late]\nwindow_ms = 2000\n")
        .and("a.d/4.toml", account("four").replace("/four", "/one/"))
        .and("a.d/5.toml", "include = [\"x.toml\"]\n");
        let config = directory.load();
        assert_eq!(names(&config), ["main", "one"]);
        assert_eq!(
            config.problems,
            [
                "a.d/2.toml:1: `accounts.one` is already given in a.d/1.toml:1; keep one of them",
                "a.d/2.toml:4: `accounts.main` is already given in aviary.toml:3; keep one of them",
                "a.d/2.toml:6: `plugins.echo` is already given in a.d/1.toml:4; keep one of them",
                "a.d/3.toml:1: `listen` is already given in aviary.toml:2; keep one of them",
                "a.d/3.toml:3: `late.window_ms` is already given in aviary.toml:6; keep one of them",
                "a.d/4.toml:1: `accounts.four.path` is \"/one\", like that of `accounts.one` \
                 (a.d/1.toml:1); give each a path of its own",
                "a.d/5.toml:1: `include` counts in the main file only",
            ]
        );
    }

    #[test]
    fn an_include_that_names_no_file_or_no_pattern_is_told() {
        let directory =
            Directory::with(&format!("include = [\"nowhere.toml\", \"none.d/*.toml\", \"a[.toml\"]\n{MAIN}"));
        assert_eq!(
            directory.load().problems,
            [
                "aviary.toml:1: `include` has `a[.toml`: invalid range pattern",
                "aviary.toml:1: `include` names `nowhere.toml`, and there is no such file",
            ]
        );
        assert_eq!(error("include = 5"), "aviary.toml:1: `include` is 5; it must be a list of texts: [\"…\"]");
    }

    #[test]
    fn a_file_is_read_once_and_the_main_file_does_not_include_itself() {
        let directory =
            Directory::with(&format!("include = [\"*.toml\", \"a.*\"]\n{MAIN}")).and("a.toml", account("a"));
        let config = directory.load();
        assert_eq!((names(&config), config.problems.len()), (vec!["a", "main"], 0));
    }

    #[test]
    fn everything_that_was_read_or_looked_for_is_watched() {
        let main =
            "include = [\"a.d/*.toml\", \"none.d/x/*/b.toml\"]\n[accounts.main]\ntoken = \"${file:secrets/token}\"\n";
        let directory = Directory::with(main)
            .and("secrets/token", "abc")
            .and("a.d/good.toml", account("a"))
            .and("a.d/broken.toml", "[");
        let watched = ["a.d", "a.d/broken.toml", "a.d/good.toml", "aviary.toml", "none.d/x", "secrets/token", ".env"];
        let mut watched = watched.map(|path| directory.path(path));
        watched.sort();
        assert_eq!(directory.load().watched(), watched);
    }

    #[test]
    fn what_would_mend_refused_settings_is_watched_though_it_is_not_there() {
        let directory = Directory::with("[accounts.main]\ntoken = \"${file:secrets/token}\"\n");
        let refused = Config::load(&directory.path("aviary.toml")).unwrap_err();
        let watched: Vec<_> = refused.stamps().paths().cloned().collect();
        assert_eq!(watched, [".env", "aviary.toml", "secrets/token"].map(|path| directory.path(path)));
        assert_eq!(refused.stamps().now(), *refused.stamps());
        let directory = directory.and("secrets/token", "abc");
        assert_ne!(refused.stamps().now(), *refused.stamps());
        assert_eq!(directory.load().accounts.len(), 1);
    }

    #[test]
    fn every_plugin_that_has_a_table_is_named() {
        let config = load(&format!("{MAIN}[plugins.b]\n[plugins.a]\n[accounts.main.plugins.c]\n"));
        let tables = config.plugin_tables().into_iter();
        let names: Vec<_> = tables.map(|(account, name)| (account.map(|account| &*account.name), name)).collect();
        assert_eq!(names, [(None, "a"), (None, "b"), (Some("main"), "c")]);
    }

    #[test]
    fn hundreds_of_included_accounts_load_and_clash_nowhere() {
        let mut directory = Directory::with("include = [\"accounts.d/*.toml\"]\n");
        for number in 0..300 {
            directory = directory.and(&format!("accounts.d/{number}.toml"), account(&format!("a{number}")));
        }
        assert_eq!(directory.load().accounts.len(), 300);
    }

    #[test]
    fn debugging_the_settings_shows_no_secret() {
        let config = load("[accounts.main]\ntoken = \"secret7\"\n[plugins.a.env]\nKEY = \"hidden7\"\n");
        let shown = format!("{config:?}");
        assert!(!shown.contains("secret7") && !shown.contains("hidden7"), "{shown}");
    }
}
