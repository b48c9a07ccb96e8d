//! A plugin's code, loaded and tried: what stays the same however many accounts use the file.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use wasmtime::{
    PoolConcurrencyLimitError, Store, Trap,
    component::{Component, InstancePre, types::ComponentItem},
};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use super::{
    Content, Hash,
    computing::{self, UsedUp},
    engine::{self, Class, Engine},
    guest::Guest,
    handler::Handler,
    limits::over_count,
    one_line,
    turns::Lanes,
};
use crate::{
    config::{Limits, PluginSettings},
    deadline::before,
    foreign::on_one_line,
};

/// What a bot exports.
const HANDLER: &str = "aviary:bot/handler";

/// What a plugin exports that serves pages.
pub const PAGES: &str = "wasi:http/incoming-handler";

/// The version of the contract that this host speaks.
const WIT_VERSION: &str = "0.1.0";

/// How long the first instantiation may wait for anything.
const START_MAX: Duration = Duration::from_secs(5);

/// Loaded code, ready to be instantiated for each message.
pub struct Code {
    pub hash: Hash,
    /// What it exports of what the host calls, with the versions that it was built against: `aviary:bot/handler@0.1.0`.
    pub exports: Vec<String>,
    pub engine: Engine,
    class: Class,
    pub(super) pre: InstancePre<Guest>,
    /// How it is asked about messages; none if it only serves pages.
    pub(super) bot: Option<Handler>,
    /// How it is asked for pages.
    pub(super) page: Option<ProxyIndices>,
    /// How many places of the instance pool it takes.
    pub(super) places: usize,
    /// The linear memory that it has once it is instantiated; 0 until it was.
    start_bytes: AtomicUsize,
}

/// What a plugin has as soon as it is instantiated, whatever it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    pub memories: usize,
    pub tables: usize,
    /// All memories together.
    pub start_bytes: usize,
}

impl Needs {
    /// Says of each limit that they exceed what to raise it to.
    pub fn over(&self, limits: &Limits) -> Vec<String> {
        let start_mib = self.start_bytes.div_ceil(1 << 20);
        let needs = [
            (start_mib, limits.memory_mib, "MiB of memory", "memory_mib"),
            (self.memories, limits.memories_max, "memories", "memories_max"),
            (self.tables, limits.tables_max, "tables", "tables_max"),
        ];
        let over = needs.into_iter().filter(|(needed, most, ..)| needed > most);
        over.map(|(needed, most, things, setting)| {
            format!("it needs {needed} {things}; raise its `limits.{setting}`, which is {most}")
        })
        .collect()
    }
}

/// Why code does not become a plugin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("it exports no `{HANDLER}@{WIT_VERSION}`; a bot must export that interface, and one with pages `{PAGES}`")]
    NoHandler,
    #[error(
        "it was built against `{found}`; this host has `{HANDLER}@{WIT_VERSION}`: use a newer host, or build the plugin \
         against the older contract"
    )]
    OtherVersion { found: String },
    #[error("it does not fit this host: {0}")]
    Unlinkable(String),
    #[error("{0}")]
    TooMuch(String),
    #[error("it does not start: {0}")]
    NoStart(String),
    #[error("the host has no free instance to try it in")]
    NoPlace,
    #[error(
        "the system gave no memory to try it in; give this machine, its container or this process (`ulimit -v`) more"
    )]
    NoMemory,
    #[error("its cached code does not load: {0}")]
    Cache(String),
}

impl Code {
    /// Loads what our compiler wrote, checked, and links it. It is not tried yet.
    pub(super) fn load(engine: &Engine, file: &Path, content: Content) -> Result<Arc<Self>, LoadError> {
        let Content { hash, .. } = content;
        let class = content.class();
        let runtime = engine.runtime(class);
        let component = deserialize(&runtime.wasmtime, file).map_err(|error| not_loaded(&error))?;
        let exports = check_exports(&runtime.wasmtime, &component)?;
        let unlinkable = |error| LoadError::Unlinkable(one_line(&error));
        let pre = runtime.linker.instantiate_pre(&component).map_err(unlinkable)?;
        let export = |interface| exports.iter().find(|export| name(export) == interface);
        let bot = export(HANDLER).map(|export| Handler::of(&pre, export)).transpose().map_err(unlinkable)?;
        let page = export(PAGES).map(|_| ProxyIndices::new(&pre)).transpose().map_err(unlinkable)?;
        let (memories, tables) = counts(&component);
        let (places, start_bytes) = (engine.turns.places(memories, tables), AtomicUsize::new(0));
        Ok(Arc::new(Self { hash, exports, engine: engine.clone(), class, pre, bot, page, places, start_bytes }))
    }

    /// Whether it can be asked for pages.
    pub fn has_pages(&self) -> bool {
        self.page.is_some()
    }

    /// Whether it can be asked about messages.
    pub fn answers_messages(&self) -> bool {
        self.bot.is_some()
    }

    /// Returns the interfaces that it imports, with their versions.
    pub fn imports(&self) -> Vec<String> {
        let kind = self.pre.component().component_type();
        kind.imports(self.wasmtime()).map(|(name, _)| on_one_line(name)).collect()
    }

    /// The engine that it was compiled for.
    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine.runtime(self.class).wasmtime
    }

    /// Returns where the calls of a plugin with this code take their turns.
    pub fn lanes(&self, account: &str, plugin: &str) -> Lanes {
        self.engine.turns.lanes(account, plugin)
    }

    /// Says what it has as soon as it is instantiated.
    pub fn needs(&self) -> Needs {
        let (memories, tables) = counts(self.pre.component());
        Needs { memories, tables, start_bytes: self.start_bytes() }
    }

    /// Returns the linear memory that it has once it is instantiated; 0 until it was.
    pub(super) fn start_bytes(&self) -> usize {
        self.start_bytes.load(Ordering::Relaxed)
    }

    /// Instantiates it once in a store that is thrown away: a record or variant that differs from ours shows only then.
    pub(super) async fn try_start(&self, settings: &Arc<PluginSettings>) -> Result<(), LoadError> {
        let over = self.needs().over(&settings.limits);
        if !over.is_empty() {
            return Err(LoadError::TooMuch(over.join("; ")));
        }
        let deadline = Instant::now() + START_MAX;
        let mut store = Guest::on_trial(settings, deadline).into_store(self.wasmtime());
        let _running = self.engine.run_clock();
        let limits = &settings.limits;
        let started = computing::within(limits.cpu(), before(deadline, self.start(&mut store))).await;
        let started = started.map_err(|UsedUp| {
            LoadError::NoStart(format!("it computed longer than {} ms (`limits.cpu_ms`)", limits.cpu_ms))
        })?;
        match started {
            Ok(Ok(_)) => {
                self.start_bytes.store(store.data().limiter.memory_bytes(), Ordering::Relaxed);
                Ok(())
            }
            Ok(Err(_)) if store.data().limiter.memory_refused() => Err(LoadError::NoStart(format!(
                "it needs more than {} MiB of memory; raise its `limits.memory_mib`",
                limits.memory_mib
            ))),
            Ok(Err(error)) if error.is::<PoolConcurrencyLimitError>() => Err(LoadError::NoPlace),
            Ok(Err(error)) if engine::is_out_of_memory(&error) => Err(LoadError::NoMemory),
            Ok(Err(error)) => Err(match over_count(&error) {
                Some(needs) => LoadError::TooMuch(needs),
                None => LoadError::NoStart(match error.downcast_ref::<Trap>() {
                    // Without the way there, which is long.
                    Some(trap) => trap.to_string(),
                    None => one_line(&error),
                }),
            }),
            Err(_) => Err(LoadError::NoStart(format!("it was not ready within {START_MAX:?}"))),
        }
    }
}

impl Code {
    /// Instantiates it, and looks at the types of what it exports.
    async fn start(&self, store: &mut Store<Guest>) -> wasmtime::Result<()> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        if let Some(bot) = &self.bot {
            bot.check(&mut *store, &instance)?;
        }
        if let Some(page) = &self.page {
            page.load(store, &instance)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// Maps code that our own child wrote into a directory that only we can write to.
#[expect(unsafe_code, reason = "wasmtime cannot check machine code; `Cache` vouches for it")]
fn deserialize(engine: &wasmtime::Engine, file: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written whole by `Cache` from our child's output into a directory of mode 0700 that belongs to us,
    // is never written to again, carries this engine's fingerprint in its name, and matches its checksum.
    let component = unsafe { Component::deserialize_file(engine, file) }?;
    // Now rather than at the first message.
    component.initialize_copy_on_write_image()?;
    Ok(component)
}

/// Tells a component that is too large for any slot of the pool, which no compiling again will mend, from spoilt code.
fn not_loaded(error: &wasmtime::Error) -> LoadError {
    let why = one_line(error);
    match error.is::<std::io::Error>() {
        true => LoadError::Cache(why),
        // The code is whole and this engine's, or it would not have come here.
        false => LoadError::TooMuch(format!("it asks for more than a plugin can have: {why}")),
    }
}

/// How many memories and tables a component has. One that imports core modules may have others, but no host gives it any.
fn counts(component: &Component) -> (usize, usize) {
    let needs = component.resources_required();
    needs.map_or((0, 0), |needs| (needs.num_memories as usize, needs.num_tables as usize))
}

/// Returns what it exports of what this host can call.
fn check_exports(engine: &wasmtime::Engine, component: &Component) -> Result<Vec<String>, LoadError> {
    let kind = component.component_type();
    let instances = kind
        .exports(engine)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentInstance(_)))
        .map(|(name, _)| name);
    let known: Vec<String> =
        instances.filter(|export| [HANDLER, PAGES].contains(&name(export))).map(on_one_line).collect();
    let (fitting, others): (Vec<String>, Vec<String>) = known.into_iter().partition(|export| is_callable(export));
    match (fitting.is_empty(), others.into_iter().next()) {
        (_, Some(found)) => Err(LoadError::OtherVersion { found }),
        (true, None) => Err(LoadError::NoHandler),
        (false, None) => Ok(fitting),
    }
}

/// An interface without its version.
fn name(export: &str) -> &str {
    export.split('@').next().unwrap_or(export)
}

/// Pages are those of WASI 0.2, whatever comes after that.
fn is_callable(export: &str) -> bool {
    match name(export) {
        PAGES => export.contains("@0.2."),
        _ => is_compatible(export),
    }
}

/// `0.1.x` is one contract, whatever x is.
fn is_compatible(name: &str) -> bool {
    let version = name.rsplit('@').next().unwrap_or_default();
    version.rsplit_once('.').map(|(line, _)| line) == WIT_VERSION.rsplit_once('.').map(|(line, _)| line)
}
