//! What the whole host shares: the settings and chains that serve now, and the memory of messages.

use std::{
    cell::LazyCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    api::{Api, Apis},
    config::{self, Account, Config},
    dedupe::Dedupe,
    dispatch::{Chain, Dispatch},
    egress::Egress,
    forward::{self, Forward},
    https::Client,
    late::{Late, fetch},
    metrics::{Levels, Outcome},
    plugin::{
        self, Plugin,
        bindings::Message,
        directory::{self, OrderError},
        engine::Engine,
        loader::Loader,
        record::Records,
        services::Services,
        set::{Fault, Patience, Scan, Set},
        settings_check::{Verdicts, WrongSettings},
        versions::{self, Kept, RolledBack, Version, Versions},
    },
    refusal::{OnceAMinute, Refusals},
    stamp::Stamps,
    store::{Store, Unavailable, late::Counts},
    user::{UserName, UserNames},
    verify::Previous,
    web::Web,
};

/// How long a start waits for plugins that do not start at once or hold their conversations: one push of WeChat's, which asks again.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// A claim lives at least this long: WeChat's third try comes after 10 s, and a slow one a little later.
const CLAIM_LIVES_MIN: Duration = Duration::from_secs(60);

/// How much longer than a signature is accepted its message is remembered: clocks differ.
const CLAIM_OUTLIVES_SIGNATURE: Duration = Duration::from_secs(30);

/// The host, as every request sees it.
#[derive(Debug)]
pub struct App {
    live: watch::Sender<Arc<Live>>,
    pub dedupe: Dedupe,
    egress: Egress,
    webhooks: forward::Lines,
    /// WeChat's API for all accounts; an account's own is in [`Serving`].
    apis: Apis,
    store: Store,
    /// What all accounts' late replies share.
    pub(crate) late: Late,
    pub refusals: Refusals,
    pub web: Web,
    /// What is kept about plugins from call to call, and all that is counted.
    pub records: Records,
    /// What plugins said of their settings.
    verdicts: Verdicts,
    engine: Engine,
    users: UserNames,
    /// Which previous secret of which account was told of lately.
    previous: OnceAMinute<(String, &'static str)>,
    /// Messages in flight: a shutdown waits for them.
    pub tasks: TaskTracker,
    /// What becomes of replies, from when they are made until a try was given them or they are written down. While they wait for
    /// WeChat's next try, that is no message in flight; a shutdown ends the wait, and sees the end of it.
    pub ending: TaskTracker,
    /// Messages that wait for their plugins, until they are written down for the next host: a shutdown waits for that, however
    /// little time it has.
    pub leaving: TaskTracker,
    /// Cancelled when the host stops: what it owes is left to the next one.
    pub stopping: CancellationToken,
    started: Instant,
    loading: Mutex<Loading>,
    /// What the last look found wrong, for whoever asks while the next one has the lock, which may take as long as a
    /// conversation.
    found: watch::Sender<Troubles>,
    /// Told when a load ends.
    loads: watch::Receiver<()>,
    versions: Arc<Versions>,
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
    /// WeChat's API for it; nothing if it has no AppID or no AppSecret.
    pub api: Option<Api>,
}

/// What somebody should look at, in words that the log had, too.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// Why the settings were not reloaded: one line for each mistake.
    pub settings: Vec<String>,
    /// The plugin files that do not serve as they are.
    pub faults: Vec<Fault>,
    /// What is wrong with other files, with chains, and with tables about plugins.
    pub complaints: Vec<String>,
    /// The plugins that say that their settings are wrong.
    pub wrong_settings: Vec<WrongSettings>,
    /// Those that have not said yet whether they are. One sentence each.
    pub unheard: Vec<String>,
}

/// What only a reload needs, one at a time.
#[derive(Debug)]
struct Loading {
    set: Set,
    /// The newest settings that can serve; while the plugins are not ready yet, chains are still to be made of them.
    config: Arc<Config>,
    /// The state of every file that the settings came from, from before it was read.
    stamps: Stamps,
    /// Why the settings that are there now do not count.
    refused: Vec<String>,
    /// Whether the plugins were looked at once.
    has_looked: bool,
    /// Whether the host stops: its files are let go.
    is_closed: bool,
}

impl App {
    /// Sets up the host of a configuration. `compiler` is the program that compiles plugins: our own binary.
    /// Nothing is loaded yet: see [`App::reload`].
    pub fn new(config: Config, compiler: &Path) -> anyhow::Result<Arc<Self>> {
        tell_config(&config);
        let engine = Engine::new(&config.engine)?;
        let egress = Egress::network(&config.http);
        let store = Store::open(&config.data_dir)?;
        let web = Web::open(&config, &store)?;
        let records = Records::new(&config);
        let apis = Apis::new(&config, records.metrics.clone());
        let services = Services {
            store: store.clone(),
            egress: egress.clone(),
            apis: apis.clone(),
            records: Some(records.clone()),
        };
        let cache_dir = config.cache_dir.clone();
        let loader = Loader::new(engine.clone(), compiler.into(), cache_dir, services)?;
        let versions = Arc::new(Versions::open(config.data_dir.join("versions"))?);
        let config = Arc::new(config);
        let loading = Loading {
            set: Set::new(loader).falling_back_to(versions.clone()),
            config: config.clone(),
            stamps: config.stamps().clone(),
            refused: Vec::new(),
            has_looked: false,
            is_closed: false,
        };
        let stopping = CancellationToken::new();
        let webhooks = forward::Lines::new(stopping.clone());
        Ok(Arc::new(Self {
            dedupe: Dedupe::new(config.dedupe.keys_max, claim_lifetime(&config)),
            egress,
            late: Late::new(store.clone()),
            store,
            refusals: Refusals::new(records.metrics.clone()),
            web,
            users: UserNames::new(config.log.user),
            previous: OnceAMinute::default(),
            verdicts: Verdicts::default(),
            tasks: TaskTracker::new(),
            ending: TaskTracker::new(),
            leaving: TaskTracker::new(),
            started: Instant::now(),
            loads: loading.set.moved(),
            loading: Mutex::new(loading),
            found: watch::Sender::default(),
            versions,
            live: watch::Sender::new(Arc::new(Live::new(config, None, &records, &apis, &webhooks))),
            webhooks,
            stopping,
            apis,
            records,
            engine,
        }))
    }

    /// Lets go of the files, for the host that is started next. Nothing may be in flight any more; nothing is loaded from now
    /// on.
    pub async fn close(&self) {
        // Whoever has the lock may be writing.
        self.loading.lock().await.is_closed = true;
        fetch::forget_all(self).await;
        self.store.close().await;
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

    /// Names a user for the log.
    pub fn user_name(&self, openid: &str) -> UserName {
        self.users.name(openid)
    }

    /// Tells what became of a message: once for each.
    pub fn tell_message(&self, message: &Message, dispatch: &Dispatch, duration: Duration) {
        let user = self.users.name(&message.from_user);
        let (account, duration_ms) = (&message.account, plugin::millis(duration));
        match dispatch.answered_by() {
            Some(name) => info!(
                %account, %user, plugin.name = name, duration_ms, "Plugin `{name}` answered user {user} in {duration_ms} ms"
            ),
            None if dispatch.outcome == Outcome::Apologised => {
                let who = if dispatch.is_forwarded { "The webhook" } else { "Every plugin asked" };
                info!(%account, %user, duration_ms, "{who} failed; user {user} got the apology ({duration_ms} ms)");
            }
            None if dispatch.is_forwarded && dispatch.reply.is_some() => {
                info!(%account, %user, duration_ms, "The webhook answered user {user} in {duration_ms} ms");
            }
            None => info!(%account, %user, duration_ms, "No plugin answered user {user} ({duration_ms} ms)"),
        }
    }

    /// Tells what a user got in place of a reply, or of one that was late.
    pub fn tell_late(&self, account: &str, openid: &str, what: &str) {
        let user = self.users.name(openid);
        info!(%account, %user, "User {user} {what}");
    }

    /// Says why the host cannot answer now, if it cannot.
    pub fn unready(&self) -> Option<String> {
        if self.tasks.is_closed() {
            return Some(format!("stopping: {} messages are being finished", self.tasks.len()));
        }
        let loading_s = self.started.elapsed().as_secs();
        (!self.live().ready).then(|| format!("loading: the plugins are not ready yet, after {loading_s} s"))
    }

    /// Writes down all that is counted, in the format of OpenMetrics.
    pub fn metrics(&self) -> String {
        let usage = self.engine.usage();
        let levels = Levels {
            ready: self.live().ready,
            guests_running: usage.guests_running,
            instances: usage.slots,
            instances_max: usage.slots_max,
            messages_in_flight: self.tasks.len(),
            dedupe_keys: self.dedupe.remembered(),
        };
        self.records.metrics.text(&levels, &self.records.quarantine.overview(Instant::now()))
    }

    /// Looks at the settings and plugins again, and swaps in what changed, whole. What is broken keeps what it was. Returns
    /// when everything is loaded, however long it takes.
    pub async fn reload(&self) -> Scan {
        let first = self.look_and_wait().await;
        if !first.unsettled {
            return first;
        }
        // Something changed in the middle, and what was loaded is overtaken.
        let second = self.look_and_wait().await;
        Scan { unsettled: second.unsettled, ..first.then(second) }
    }

    async fn look_and_wait(&self) -> Scan {
        let mut loads = self.loads();
        loads.mark_unchanged();
        let mut scan = self.look().await;
        while scan.pending && loads.changed().await.is_ok() {
            scan = scan.then(self.collect().await);
        }
        scan
    }

    /// Looks at the settings and plugins again, and swaps in what changed. What has to be compiled, or to hold a conversation,
    /// goes on by itself: see [`App::collect`].
    pub async fn look(&self) -> Scan {
        let mut loading = self.loading.lock().await;
        if loading.is_closed {
            return Scan::default();
        }
        let is_ready = self.live().ready;
        let is_new = loading.changed_config();
        let config = loading.config.clone();
        if is_new {
            loading.set.forgive();
            self.dedupe.resize(config.dedupe.keys_max, claim_lifetime(&config));
            self.egress.configure(&config.http);
            self.apis.configure(&config);
            // A new token counts at once, however long the plugins take.
            if is_ready {
                self.publish(&mut loading.set, &config).await;
            } else {
                self.publish_unready(&config);
            }
        }
        // At the start a plugin is missed until its conversation is held, and the others until they are asked at all; later, the
        // version before it serves meanwhile.
        let patience =
            if is_ready { Patience::Brief } else { Patience::Start { until: Instant::now() + START_PATIENCE } };
        let scan = loading.set.look(&config, patience).await;
        loading.set.tell_idle_tables(&config);
        self.take_in(&mut loading, &config, scan).await;
        self.found.send_replace(loading.troubles());
        Scan { changed: scan.changed || is_new, ..scan }
    }

    /// Swaps in what was loaded since the last look.
    pub async fn collect(&self) -> Scan {
        let mut loading = self.loading.lock().await;
        if loading.is_closed {
            return Scan::default();
        }
        let config = loading.config.clone();
        let scan = loading.set.collect();
        self.take_in(&mut loading, &config, scan).await;
        self.found.send_replace(loading.troubles());
        scan
    }

    /// Follows the loads that take long: a change means that [`App::collect`] finds something.
    pub fn loads(&self) -> watch::Receiver<()> {
        self.loads.clone()
    }

    /// Waits until a plugin's file is loaded or refused, as it lies there now.
    pub async fn settled(&self, file: &Path) {
        let mut loads = self.loads();
        loop {
            loads.mark_unchanged();
            // Each look begins again what was overtaken.
            self.look().await;
            if !self.loading.lock().await.set.is_loading(file) || loads.changed().await.is_err() {
                return;
            }
        }
    }

    /// All that somebody should look at, as of the last look that ended. Plugins that have new settings are heard first.
    pub async fn troubles(&self) -> Troubles {
        let (wrong_settings, unheard) = self.verdicts.heard().await;
        Troubles { wrong_settings, unheard, ..self.found.borrow().clone() }
    }

    /// How long the host has been there.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The kept versions of all plugins, by their directory and name, the newest first.
    pub async fn all_versions(&self) -> HashMap<versions::Key, Vec<Kept>> {
        let versions = self.versions.clone();
        plugin::aside(move || versions.all()).await
    }

    /// Counts what users are still owed, and what could not be delivered.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn owes(&self) -> Result<Counts, Unavailable> {
        let counts = self.store.late_counts(Instant::now() + fetch::STORE_TAKES_MAX).await?;
        // What its user has stays a little for WeChat's next try, and is owed to nobody.
        Ok(Counts { kept: counts.kept.saturating_sub(self.late.fetching.given()), ..counts })
    }

    /// Counts the messages that are late, but not written down yet: before [`App::owes`], so that none is missed.
    pub fn under_way(&self) -> u64 {
        self.late.under_way.count()
    }

    /// The plugin files that do not serve as they are.
    pub fn faults(&self) -> Vec<Fault> {
        self.found.borrow().faults.clone()
    }

    /// Switches a plugin off, by its name or that of its file: it is renamed to `….wasm.off`. Without an account, all
    /// directories are searched. Returns its new path.
    pub async fn disable(&self, account: Option<&str>, name: &str) -> Result<PathBuf, OrderError> {
        let done = self.order(directory::disable, account, name).await?;
        self.look().await;
        Ok(done)
    }

    /// Switches a plugin on again. Returns its path; whether it loads shows in [`App::faults`].
    pub async fn enable(&self, account: Option<&str>, name: &str) -> Result<PathBuf, OrderError> {
        let done = self.order(directory::enable, account, name).await?;
        self.look().await;
        Ok(done)
    }

    async fn order(
        &self,
        order: fn(&Config, Option<&str>, &str) -> Result<PathBuf, OrderError>,
        account: Option<&str>,
        name: &str,
    ) -> Result<PathBuf, OrderError> {
        let (config, account, name) = (self.live().config.clone(), account.map(str::to_owned), name.to_owned());
        plugin::aside(move || order(&config, account.as_deref(), &name)).await
    }

    /// Goes back to the version of a plugin that served before, or to one by the beginning of its hash; see
    /// [`Versions::rollback`].
    pub async fn rollback(
        &self,
        account: Option<&str>,
        name: &str,
        to: Option<&str>,
    ) -> Result<RolledBack, OrderError> {
        let (versions, config) = (self.versions.clone(), self.live().config.clone());
        let (account, name, to) = (account.map(str::to_owned), name.to_owned(), to.map(str::to_owned));
        let done = plugin::aside(move || versions.rollback(&config, account.as_deref(), &name, to.as_deref())).await?;
        self.look().await;
        Ok(done)
    }

    /// The kept versions of a plugin, the newest first.
    pub async fn versions(&self, account: Option<&str>, name: &str) -> Result<Vec<Version>, OrderError> {
        let (versions, config) = (self.versions.clone(), self.live().config.clone());
        let (account, name) = (account.map(str::to_owned), name.to_owned());
        plugin::aside(move || versions.list(&config, account.as_deref(), &name)).await
    }

    /// Swaps in what a look or a load came to, if it changed anything, and tidies up when nothing is left to do.
    async fn take_in(&self, loading: &mut Loading, config: &Arc<Config>, scan: Scan) {
        let set = &mut loading.set;
        let is_ready = self.live().ready;
        // At the start, what was compiled before serves while the rest is compiled. Where nothing was, a message waits for
        // all of it: the first plugin that is done may be the last that should be asked.
        let is_enough = !scan.pending || (!loading.has_looked && set.has_code());
        // Only what has to be compiled is left, or something serves already.
        loading.has_looked |= set.has_code() || !set.is_held_up();
        let is_first = !is_ready && is_enough;
        if is_first || (is_ready && scan.changed) {
            self.publish(set, config).await;
        }
        if set.is_untidy() {
            let versions = self.versions.clone();
            let kept = plugin::aside(move || versions.hashes()).await;
            set.tidy(config, kept).await;
        }
    }

    /// Swaps in settings before there are chains: WeChat's check of the URL needs the token and no plugin.
    fn publish_unready(&self, config: &Arc<Config>) {
        self.records.resize(config);
        let live = Live::new(config.clone(), None, &self.records, &self.apis, &self.webhooks);
        self.live.send_replace(Arc::new(live));
    }

    /// Swaps in the chains of what is loaded, and keeps a copy of what serves for the first time.
    async fn publish(&self, set: &mut Set, config: &Arc<Config>) {
        self.records.resize(config);
        let live = Live::new(config.clone(), Some(set), &self.records, &self.apis, &self.webhooks);
        let live = Arc::new(live);
        live.log();
        let served = set.served(live.accounts().map(|serving| &*serving.chain));
        let new = self.verdicts.follow(live.plugins());
        let before = self.live.send_replace(live.clone());
        self.records.retain(&live);
        self.verdicts.ask(new);
        let was_ready = before.ready;
        // What keeps copies below waits for the disk, and nobody needs the old chains for it.
        drop(before);
        if !was_ready {
            info!("Ready after {} ms", self.started.elapsed().as_millis());
        }
        let (versions, bounds) = (self.versions.clone(), config.versions);
        plugin::aside(move || versions.keep(&served, bounds)).await;
    }
}

impl Live {
    fn new(
        config: Arc<Config>,
        set: Option<&mut Set>,
        records: &Records,
        apis: &Apis,
        webhooks: &forward::Lines,
    ) -> Self {
        let ready = set.is_some();
        let chains = set.map(|set| set.chains(&config)).unwrap_or_default();
        let chains = chains.into_iter().chain(std::iter::repeat_with(Chain::default));
        webhooks.retain(&config.accounts);
        // Made at its first use: few accounts have a webhook.
        let client = LazyCell::new(|| Client::trusting(&config.http.authorities));
        let serving = |(account, chain): (&Arc<Account>, Chain)| {
            let reply_bytes_max = config.limits.reply_bytes_max;
            let forward = || Forward::of(account, &client, reply_bytes_max, &records.metrics, webhooks);
            let forward = account.forward.as_ref().and_then(|_| forward());
            let chain = chain.serving(account, forward, config.log.guest, records.metrics.account(&account.name));
            Arc::new(Serving { account: account.clone(), chain: Arc::new(chain), api: apis.of(account) })
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

    /// Finds a file that WeChat wants to find at a domain's root, by its name.
    pub fn verify_file(&self, name: &str) -> Option<&str> {
        let mut files = self.accounts().flat_map(|serving| &serving.account.pages.verify_files);
        files.find(|file| file.name == name).map(|file| file.content.as_str())
    }

    /// All accounts, in the order of their names.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Serving>> {
        self.accounts.iter()
    }

    /// All plugins with the time they have for an answer.
    fn plugins(&self) -> impl Iterator<Item = (Arc<Plugin>, Duration)> {
        self.accounts().flat_map(|serving| {
            let window = serving.account.late.window;
            serving.chain.plugins.iter().map(move |plugin| (plugin.clone(), window))
        })
    }

    fn log(&self) {
        for Serving { account, chain, .. } in self.accounts().map(AsRef::as_ref) {
            let names: Vec<&str> = chain.plugins.iter().map(|plugin| &*plugin.name).collect();
            let name = &account.name;
            match names.len() {
                0 => info!(account = %name, "Account `{name}` has no plugin to ask"),
                1 => info!(account = %name, "Account `{name}` asks 1 plugin: {}", names.concat()),
                count => info!(account = %name, "Account `{name}` asks {count} plugins: {}", names.join(", ")),
            }
            if let Some(forward) = chain.forward() {
                let (name, url) = (&account.name, forward.url());
                info!(account = %name, "Account `{name}` sends on to {url} what no plugin answers");
            }
        }
    }
}

impl Loading {
    /// What is wrong with the files.
    fn troubles(&self) -> Troubles {
        Troubles {
            settings: self.refused.clone(),
            faults: self.set.faults(),
            complaints: self.set.complaints().into_iter().map(str::to_owned).collect(),
            ..Troubles::default()
        }
    }

    /// Reads the settings again if a file they came from changed, and returns whether there are new ones. A broken edit keeps
    /// the old ones and says why, once.
    fn changed_config(&mut self) -> bool {
        if self.stamps.now() == self.stamps {
            return false;
        }
        match Config::load(&self.config.file) {
            Err(error) => {
                // What would mend it may be a file that is not there yet.
                self.stamps = error.stamps().clone();
                for problem in error.problems() {
                    error!("The settings were not reloaded; the old ones stay: {problem}");
                }
                self.refused = error.problems().to_vec();
                false
            }
            Ok(new) => {
                // Other files may matter now. An edit that came while they were read differs from these stamps.
                self.stamps = new.stamps().clone();
                tell_config(&new);
                for key in config::needs_restart(&self.config, &new) {
                    warn!("`{key}` changed; it counts after a restart");
                }
                info!("The settings were reloaded");
                self.refused.clear();
                self.config = Arc::new(new);
                true
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
