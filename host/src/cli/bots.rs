//! Plugins to talk to without a server: those of a bot's directory, or files by themselves. What was rebuilt meanwhile is
//! loaded as the host loads it, and what does not load leaves the version before it in place.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::time::sleep;

use super::progress;
use crate::{
    api::Api,
    config::{Config, Grants, PluginSettings},
    conversation::Conversation,
    dispatch::Chain,
    egress::Egress,
    plugin::{
        Plugin,
        code::Code,
        engine::Engine,
        file_name::name_of,
        loader::{Loader, Look, NotLoaded, Progress, Terms},
        record::Record,
        services::Services,
        set::{Fault, Patience, Set},
    },
    secret::Secret,
};

/// A file that changes while it is read is read again after so long.
const UNSETTLED_WAIT: Duration = Duration::from_millis(50);

/// The plugins that are asked, and how long they have.
pub(super) struct Bots {
    pub(super) chain: Chain,
    pub(super) window: Duration,
    config: Config,
    /// Over those of the settings.
    env: Vec<(String, String)>,
    /// By which their requests go out.
    egress: Egress,
    source: Source,
}

enum Source {
    /// A bot's directory, as its first account asks its plugins.
    Directory(Box<Set>),
    Files(Box<Loader>, Vec<Named>),
}

/// A plugin that was named by its file. It has no settings, and the conversation beside it is not held: it may be what is being
/// written.
struct Named {
    file: PathBuf,
    /// As it was when it was last loaded or refused.
    look: Look,
    code: Arc<Code>,
}

/// The services of a bot that somebody talks to: real HTTP, as far as its settings grant it, but for WeChat's API: nobody who only
/// talks means to change an account. What is kept is gone at the end.
pub(super) fn reaching_out(config: &Config) -> Services {
    Services { egress: Egress::network(&config.http), ..Services::scratch() }
}

impl Bots {
    /// Loads the plugins of a bot's directory.
    pub(super) async fn of_directory(
        config: Config,
        env: Vec<(String, String)>,
        services: Services,
    ) -> anyhow::Result<Self> {
        let loader = loader(&config, config.cache_dir.clone(), services)?;
        Self::of_set(config, env, loader).await
    }

    /// Loads plugins' files, or the bundled plugins if there are none.
    pub(super) async fn of_files(
        config: Config,
        files: &[PathBuf],
        env: Vec<(String, String)>,
        services: Services,
    ) -> anyhow::Result<Self> {
        let loader = loader(&config, cache_dir(), services)?;
        if files.is_empty() {
            return Self::of_set(config, env, loader).await;
        }
        let mut named = Vec::new();
        for file in files {
            let look = Look::at(file).with_context(|| format!("cannot read {}", file.display()))?.without_canary();
            let code = code(&loader, &config, file, look).await.with_context(|| not_loaded(file))?;
            named.push(Named { file: file.clone(), look, code });
        }
        // No bot does it for this cache. That it cannot be tidied is no reason not to talk.
        let in_use = named.iter().map(|named| named.code.hash).collect();
        let _ = loader.tidy(in_use, config.compile_cache).await;
        let egress = loader.services.egress.clone();
        Self::load(config, env, egress, Source::Files(Box::new(loader), named)).await
    }

    async fn of_set(config: Config, env: Vec<(String, String)>, loader: Loader) -> anyhow::Result<Self> {
        let egress = loader.services.egress.clone();
        Self::load(config, env, egress, Source::Directory(Box::new(Set::new(loader)))).await
    }

    async fn load(config: Config, env: Vec<(String, String)>, egress: Egress, source: Source) -> anyhow::Result<Self> {
        let window = config.accounts[0].late.window;
        let mut bots = Self { chain: Chain::default(), window, config, env, egress, source };
        bots.reload().await?;
        bots.link();
        Ok(bots)
    }

    /// Loads what was rebuilt. Returns whether anything was.
    pub(super) async fn reload(&mut self) -> anyhow::Result<bool> {
        let changed = match &mut self.source {
            Source::Directory(set) => progress::shown("Compiling", look(set, &self.config)).await,
            Source::Files(loader, named) => {
                let mut changed = false;
                for named in named {
                    changed |= named.reload(loader, &self.config).await;
                }
                changed
            }
        };
        if changed {
            self.link();
        }
        Ok(changed)
    }

    /// Says that there is nobody to ask, if that is so.
    pub(super) fn lack(&self) -> Option<String> {
        let dir = &self.config.plugins_dir;
        let shown = self.config.file.parent().and_then(|base| dir.strip_prefix(base).ok()).unwrap_or(dir);
        self.chain.plugins.is_empty().then(|| format!("there is no plugin to ask in {}", shown.display()))
    }

    /// The files that do not serve as they are, which was told.
    pub(super) fn faults(&self) -> Vec<Fault> {
        match &self.source {
            Source::Directory(set) => set.faults(),
            Source::Files(..) => Vec::new(),
        }
    }

    /// Takes new settings.
    pub(super) fn configure(&mut self, config: Config) {
        if let Source::Directory(set) = &mut self.source {
            set.forgive();
        }
        self.window = config.accounts[0].late.window;
        self.egress.configure(&config.http);
        self.config = config;
        self.link();
    }

    /// Throws away the code that is not needed any more.
    pub(super) async fn tidy(&mut self) {
        if let Source::Directory(set) = &mut self.source
            && set.is_untidy()
        {
            set.tidy(&self.config, HashSet::new()).await;
        }
    }

    /// The same plugins with what a conversation plays in place of the world.
    pub(super) fn rehearsing(&self, conversation: &Conversation) -> Chain {
        let services = Arc::new(Services::played(conversation.exchanges.clone()));
        let plugins = self.chain.plugins.iter().map(|plugin| {
            let mut settings = plugin.settings.clone();
            Arc::make_mut(&mut settings).env.extend(secrets(&conversation.env));
            Arc::new(Plugin {
                name: plugin.name.clone(),
                account: plugin.account.clone(),
                file: plugin.file.clone(),
                code: plugin.code.clone(),
                settings,
                services: services.clone(),
                api: Some(Api::played(services.egress.clone())),
                lanes: plugin.code.lanes(&plugin.account, &plugin.name),
                record: Record::default(),
            })
        });
        Chain::of(plugins.collect())
    }

    /// Makes the chain of what is loaded.
    fn link(&mut self) {
        let plugins: Vec<Plugin> = match &mut self.source {
            Source::Directory(set) => {
                let first = set.chains(&self.config).swap_remove(0);
                first.plugins.into_iter().filter_map(Arc::into_inner).collect()
            }
            Source::Files(loader, named) => named.iter().map(|named| named.plugin(loader)).collect(),
        };
        let given = |mut plugin: Plugin| {
            Arc::make_mut(&mut plugin.settings).env.extend(secrets(&self.env));
            Arc::new(plugin)
        };
        self.chain = Chain::of(plugins.into_iter().map(given).collect());
    }
}

impl Named {
    /// Loads the file again if it changed.
    async fn reload(&mut self, loader: &Loader, config: &Config) -> bool {
        let Ok(look) = Look::at(&self.file).map(Look::without_canary) else { return false };
        if look == self.look {
            return false;
        }
        match code(loader, config, &self.file, look).await {
            Ok(code) => {
                (self.code, self.look) = (code, look);
                true
            }
            Err(error) => {
                eprintln!("{}: {error}; the version before it stays", not_loaded(&self.file));
                // What will not load as it is, is tried once.
                if !error.passes() {
                    self.look = look;
                }
                false
            }
        }
    }

    fn plugin(&self, loader: &Loader) -> Plugin {
        let name = name_of(&self.file).unwrap_or_else(|| self.file.display().to_string());
        Plugin {
            lanes: self.code.lanes("main", &name),
            name: name.into(),
            account: "main".into(),
            file: self.file.clone(),
            code: self.code.clone(),
            settings: Arc::new(PluginSettings { grants: Grants::scratch(), ..PluginSettings::default() }),
            services: loader.services.clone(),
            api: Some(Api::played(loader.services.egress.clone())),
            record: Record::default(),
        }
    }
}

fn loader(config: &Config, cache_dir: PathBuf, services: Services) -> anyhow::Result<Loader> {
    Loader::new(Engine::new(&config.engine)?, super::own_program()?, cache_dir, services)
}

/// Looks at the directory until nothing changes any more.
async fn look(set: &mut Set, config: &Config) -> bool {
    let mut scan = set.look(config, Patience::Whole).await;
    while scan.unsettled {
        sleep(UNSETTLED_WAIT).await;
        scan = scan.then(set.look(config, Patience::Whole).await);
    }
    scan.changed
}

/// Loads a file that belongs to no bot.
async fn code(loader: &Loader, config: &Config, file: &Path, look: Look) -> Result<Arc<Code>, NotLoaded> {
    let terms = Terms::of_no_bot(config, file);
    let source = loader.read(file, look, &terms).await?;
    let unwatched = Progress::unwatched();
    let load = loader.load(file, look, &source, &terms, &unwatched);
    Ok(progress::shown(&format!("Compiling {}", file.display()), load).await?.code)
}

fn not_loaded(file: &Path) -> String {
    format!("{} is not loaded", file.display())
}

fn secrets(env: &[(String, String)]) -> impl Iterator<Item = (String, Secret)> {
    env.iter().map(|(name, value)| (name.clone(), Secret::from(value.clone())))
}

/// Where the code of plugins that belong to no bot is kept.
pub(super) fn cache_dir() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    home.unwrap_or_else(std::env::temp_dir).join("aviary")
}
