//! The one wasmtime engine of the host: how guest code is compiled, where instances live, and the clock that stops them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use tokio::sync::Semaphore;
use tracing::warn;
use wasmtime::{
    Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails,
    component::{HasSelf, Linker},
};

use super::{bindings::Bot, guest::Guest};
use crate::config;

/// How often a running guest lets others run, and the unit in which its computing time is counted.
const TICK: Duration = Duration::from_millis(1);

/// Linear memory that an instance slot keeps between two calls, zeroed in place: what a small guest touches fits, and
/// its next call needs no page fault. It is paid for every slot ever used, so it is not larger.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// Compiles, instantiates and stops guests. Cheap to clone: all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) linker: Linker<Guest>,
    /// One permit for each call that may run at once; fewer than the pool has room for.
    pub(super) slots: Arc<Semaphore>,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// Starts an engine with a pool of `instances_max` instances, or without a pool where the address space is too
    /// small for one.
    pub fn new(settings: &config::Engine) -> anyhow::Result<Self> {
        let wasmtime = match wasmtime::Engine::new(&pooled(settings)) {
            Ok(engine) => engine,
            Err(error) => {
                warn!(
                    error = %error,
                    "No room for an instance pool; each call allocates its own memory, which is slower: {error}"
                );
                wasmtime::Engine::new(&serving()).map_err(plain)?
            }
        };
        Ok(Self {
            linker: linker(&wasmtime).map_err(plain)?,
            slots: Arc::new(Semaphore::new(settings.instances_max)),
            ticker: Ticker::start(&wasmtime)?,
            wasmtime,
        })
    }

    /// Names this engine's machine code: what another version, configuration or processor compiled has another name.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(&self.wasmtime)
    }

    /// Keeps the epoch clock running for as long as the guard lives.
    pub(super) fn run_clock(&self) -> Running {
        Running::new(self.ticker.clone())
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// An engine that only compiles, as the child process uses it. Its code loads in an [`Engine`].
pub(super) fn compiler() -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&code())
}

/// wasmtime's errors are their own kind; ours are for people, who want the whole chain of causes.
pub(super) fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn fingerprint(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    hasher.finish()
}

/// Everything that machine code depends on. Proposals that no bot needs and that widen the attack surface are off.
fn code() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .memory_may_move(false)
        .async_stack_zeroing(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .relaxed_simd_deterministic(true);
    config
}

/// The same code, with the stack a guest may use.
fn serving() -> Config {
    let mut config = code();
    config.max_wasm_stack(config::WASM_STACK_BYTES);
    config
}

fn pooled(settings: &config::Engine) -> Config {
    // One more than calls may run: a plugin that is loaded is tried while all of them do.
    let instances = u32::try_from(settings.instances_max).unwrap_or(u32::MAX).saturating_add(1);
    let mut pool = PoolingAllocationConfig::new();
    // A component is often several core instances: a wasip1 module with its adapter is four.
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(4))
        .total_memories(instances.saturating_mul(2))
        .total_tables(instances.saturating_mul(4))
        .total_stacks(instances)
        .total_gc_heaps(instances.min(64))
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        // Python made into a component is about a hundred core instances.
        .max_core_instances_per_component(200)
        .max_memories_per_component(8)
        .max_tables_per_component(64)
        .max_memories_per_module(2)
        .max_tables_per_module(2)
        .table_elements(config::TABLE_ELEMENTS_MAX)
        .max_memory_size(config::MEMORY_MIB_MAX << 20)
        .max_unused_warm_slots(instances)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(16 << 10);
    let mut config = serving();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Links all that a guest can import. What is not granted answers `denied`; nothing here opens a file or a socket.
fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Bot::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// The thread that advances the engine's epoch every [`TICK`] while calls run, and sleeps while none does.
struct Ticker {
    running: AtomicUsize,
    thread: std::sync::OnceLock<Thread>,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self { running: AtomicUsize::new(0), thread: std::sync::OnceLock::new() });
        let (weak_engine, weak_ticker) = (engine.weak(), Arc::downgrade(&ticker));
        let handle = thread::Builder::new().name("epoch".into()).spawn(move || {
            while let (Some(engine), Some(ticker)) = (weak_engine.upgrade(), weak_ticker.upgrade()) {
                if ticker.running.load(Ordering::SeqCst) == 0 {
                    drop((engine, ticker));
                    // Woken by the next call; the bound lets the thread see that the engine is gone.
                    thread::park_timeout(Duration::from_secs(1));
                } else {
                    engine.increment_epoch();
                    drop((engine, ticker));
                    thread::sleep(TICK);
                }
            }
        })?;
        ticker.thread.get_or_init(|| handle.thread().clone());
        Ok(ticker)
    }
}

/// Counts one running call.
pub(super) struct Running(Arc<Ticker>);

impl Running {
    fn new(ticker: Arc<Ticker>) -> Self {
        if ticker.running.fetch_add(1, Ordering::SeqCst) == 0
            && let Some(thread) = ticker.thread.get()
        {
            thread.unpark();
        }
        Self(ticker)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
