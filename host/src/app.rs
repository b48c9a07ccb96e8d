//! What the whole host shares: the settings and chains that serve now, and the memory of messages.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::{
    config::{self, Account, Config},
    dedupe::Dedupe,
    dispatch::{Chain, Dispatch},
    egress::Egress,
    plugin::{
        self,
        bindings::Message,
        compile::Compiler,
        engine::Engine,
        services::Services,
        set::{Effort, Scan, Set},
    },
    refusal::{OnceAMinute, Refusals},
    stamp::Stamps,
    store::Store,
    user::UserNames,
    verify::Previous,
};

/// A claim lives at least this long: WeChat's third try comes after 10 s, and a slow one a little later.
const CLAIM_LIVES_MIN: Duration = Duration::from_secs(60);

/// How much longer than a signature is accepted its message is remembered: clocks differ.
const CLAIM_OUTLIVES_SIGNATURE: Duration = Duration::from_secs(30);

/// The host, as every request sees it.
#[derive(Debug)]
pub struct App {
    live: watch::Sender<Arc<Live>>,
    pub dedupe: Dedupe,
    pub refusals: Refusals,
    users: UserNames,
    /// Which previous secret of which account was told of lately.
    previous: OnceAMinute<(String, &'static str)>,
    /// Dispatches in flight: a shutdown waits for them.
    pub tasks: TaskTracker,
    started: Instant,
    loading: Mutex<Loading>,
}

/// What a message sees from beginning to end: a reload makes a new one and never changes this.
#[derive(Debug)]
pub struct Live {
    pub config: Arc<Config>,
    /// Whether the chains are complete: not yet, while plugins are compiled at the first start.
    ready: bool,
    /// In the order of their names, as in `config`.
    accounts: Vec<Arc<Serving>>,
    /// Where the account of a path stands in `accounts`.
    paths: HashMap<String, usize>,
}

/// An account with its plugins.
#[derive(Debug)]
pub struct Serving {
    pub account: Arc<Account>,
    pub chain: Arc<Chain>,
}

/// What only a reload needs, one at a time.
#[derive(Debug)]
struct Loading {
    set: Set,
    config_file: PathBuf,
    /// The state of every file that the settings came from, from before it was read.
    stamps: Stamps,
}

impl App {
    /// Sets up the host of a configuration. `compiler` is the program that compiles plugins: our own binary.
    /// Nothing is loaded yet: see [`App::reload`].
    pub fn new(config: Config, compiler: &Path) -> anyhow::Result<Arc<Self>> {
        tell_config(&config);
        let engine = Engine::new(&config.engine)?;
        let cache_dir = config.data_dir.join("cache");
        let compiler = Compiler::new(compiler.into(), cache_dir, config.compile.clone(), engine.fingerprint())?;
        let services = Services { store: Store::open(&config.data_dir)?, egress: Egress::Network };
        let loading = Loading {
            set: Set::new(engine, compiler, services),
            config_file: config.file.clone(),
            stamps: config.stamps().clone(),
        };
        Ok(Arc::new(Self {
            dedupe: Dedupe::new(config.dedupe.keys_max, claim_lifetime(&config)),
            refusals: Refusals::default(),
            users: UserNames::new(config.log.user),
            previous: OnceAMinute::default(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            loading: Mutex::new(loading),
            live: watch::Sender::new(Arc::new(Live::new(Arc::new(config), None))),
        }))
    }

    /// Returns what serves now.
    pub fn live(&self) -> Arc<Live> {
        self.live.borrow().clone()
    }

    /// Follows what serves: each reload that changes something brings a new value.
    pub fn follow(&self) -> watch::Receiver<Arc<Live>> {
        self.live.subscribe()
    }

    /// Waits until the first chains are complete, then returns what serves.
    pub async fn ready(&self) -> Arc<Live> {
        let live = self.live();
        if live.ready {
            return live;
        }
        match self.follow().wait_for(|live| live.ready).await {
            Ok(live) => live.clone(),
            // Cannot happen: the sender lives as long as `self`.
            Err(_) => live,
        }
    }

    /// Tells the operator that a secret from before the last change is still in use.
    pub fn tell_previous(&self, account: &Account, previous: Previous) {
        let causes = [("token", previous.token), ("encoding_aes_key", previous.encoding_aes_key)];
        for (key, _) in causes.into_iter().filter(|(_, needed)| *needed) {
            if self.previous.turn((account.name.clone(), key), Instant::now()).is_some() {
                let name = &account.name;
                warn!(account = %name, "WeChat still uses `accounts.{name}.previous_{key}`; keep it until this stops");
            }
        }
    }

    /// Tells what became of a message: once for each.
    pub fn tell_message(&self, message: &Message, dispatch: &Dispatch, duration: Duration) {
        let user = self.users.name(&message.from_user);
        let (account, duration_ms) = (&message.account, plugin::millis(duration));
        match dispatch.answered_by() {
            Some(name) => info!(
                %account, %user, plugin.name = name, duration_ms, "Plugin `{name}` answered user {user} in {duration_ms} ms"
            ),
            None => info!(%account, %user, duration_ms, "No plugin answered user {user} ({duration_ms} ms)"),
        }
    }

    /// Looks at the settings and plugins again, and swaps in what changed, whole. What is broken keeps what it was.
    pub async fn reload(&self) -> Scan {
        let mut loading = self.loading.lock().await;
        let old = self.live();
        let new = loading.changed_config(&old.config);
        let config = new.clone().unwrap_or_else(|| old.config.clone());
        if new.is_some() {
            loading.set.forgive();
            self.dedupe.resize(config.dedupe.keys_max, claim_lifetime(&config));
            // A new token counts at once, however long the plugins take.
            if old.ready {
                self.publish(&mut loading.set, &config);
            }
        }
        // What was compiled before serves while the rest is compiled: one slow file does not keep the others waiting.
        let known = loading.set.scan(&config, Effort::Cached).await;
        let first = !old.ready && loading.set.has_code();
        if known.changed && (old.ready || first) {
            self.publish(&mut loading.set, &config);
        }
        let compiled = if known.pending { loading.set.scan(&config, Effort::Compile).await } else { Scan::default() };
        if compiled.changed || !self.live().ready {
            self.publish(&mut loading.set, &config);
        }
        Scan {
            changed: known.changed || compiled.changed || new.is_some(),
            unsettled: known.unsettled || compiled.unsettled,
            pending: false,
        }
    }

    /// Swaps in the chains of what is loaded.
    fn publish(&self, set: &mut Set, config: &Arc<Config>) {
        let live = Live::new(config.clone(), Some(set));
        live.log();
        let before = self.live.send_replace(Arc::new(live));
        if !before.ready {
            info!("Ready after {} ms", self.started.elapsed().as_millis());
        }
    }
}

impl Live {
    fn new(config: Arc<Config>, set: Option<&mut Set>) -> Self {
        let ready = set.is_some();
        let chains = set.map(|set| set.chains(&config)).unwrap_or_default();
        let chains = chains.into_iter().chain(std::iter::repeat_with(Chain::default));
        let serving = |(account, chain): (&Arc<Account>, _)| {
            Arc::new(Serving { account: account.clone(), chain: Arc::new(chain) })
        };
        let accounts = config.accounts.iter().zip(chains).map(serving).collect();
        let paths = config.accounts.iter().enumerate().map(|(index, account)| (account.path.clone(), index)).collect();
        Self { config, ready, accounts, paths }
    }

    /// Finds the account of a request's path; `/wx` and `/wx/` are one path.
    pub fn account(&self, path: &str) -> Option<&Arc<Serving>> {
        let path = match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        self.accounts.get(*self.paths.get(path)?)
    }

    /// Finds an account by its name in the settings.
    pub fn named(&self, name: &str) -> Option<&Arc<Serving>> {
        let index = self.accounts.binary_search_by(|serving| serving.account.name.as_str().cmp(name)).ok()?;
        self.accounts.get(index)
    }

    /// All accounts, in the order of their names.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Serving>> {
        self.accounts.iter()
    }

    fn log(&self) {
        for Serving { account, chain } in self.accounts().map(AsRef::as_ref) {
            let names: Vec<&str> = chain.plugins.iter().map(|plugin| &*plugin.name).collect();
            let count = names.len();
            info!(account = %account.name, "Account `{}` asks {count} plugins: {}", account.name, names.join(", "));
        }
    }
}

impl Loading {
    /// Reads the settings again if a file they came from changed. A broken edit keeps the old ones and says why, once.
    fn changed_config(&mut self, old: &Config) -> Option<Arc<Config>> {
        let now = self.stamps.now();
        if now == self.stamps {
            return None;
        }
        self.stamps = now;
        match Config::load(&self.config_file) {
            Err(error) => {
                error!("The settings were not reloaded; the old ones stay: {error}");
                None
            }
            Ok(new) => {
                // Other files may matter now. An edit that came while they were read differs from these stamps.
                self.stamps = new.stamps().clone();
                tell_config(&new);
                for key in config::needs_restart(old, &new) {
                    warn!("`{key}` changed; it counts after a restart");
                }
                info!("The settings were reloaded");
                Some(Arc::new(new))
            }
        }
    }
}

/// Tells what is wrong with the settings, though not so wrong that they cannot serve.
fn tell_config(config: &Config) {
    for problem in &config.problems {
        error!("{problem}");
    }
    for note in &config.notes {
        warn!("{note}");
    }
}

fn claim_lifetime(config: &Config) -> Duration {
    let oldest = config.accounts.iter().map(|account| account.signature_max_age).max().unwrap_or_default();
    CLAIM_LIVES_MIN.max(oldest + CLAIM_OUTLIVES_SIGNATURE)
}
