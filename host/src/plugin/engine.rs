//! The engines of the host: how guest code is compiled, where instances live, and the clock that stops them.
//!
//! There are two, because a fresh instance for each message is cheap in one way for small guests and in another for large
//! ones; see [`Class`].

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use rustix::io::Errno;
use tracing::{info, warn};
use wasmtime::{
    Config, Enabled, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails,
    component::{HasSelf, Linker},
};

use super::{
    bindings::Bot,
    fuse,
    guest::Guest,
    turns::{MEMORIES_PER_PLACE, TABLES_PER_PLACE, Turns},
    wasi_http,
};
use crate::{config, machine};

/// How often a running guest lets others run, and it is seen how long it has computed.
const TICK: Duration = Duration::from_millis(1);

/// How often the clock looks for a guest that runs while none did at the last look. A call is over in microseconds, as a
/// rule, and waking up for each would cost more than the call.
const LOOK: Duration = Duration::from_millis(4);

/// After so many looks without any call the clock stops until the next one.
const IDLE_LOOKS_MAX: u32 = 25;

/// How much of the beginning of a linear memory an instance slot keeps between two calls, zeroed in place: where all that a guest
/// touches fits, its next call makes no system call and no page fault. A plugin with a stack of 64 KiB, as `aviary new` makes
/// them, has its stack, data and heap there. It is paid for every slot ever used, and zeroed whether touched or not.
const KEPT_BYTES: usize = 128 << 10;

/// How much it keeps where the kernel tells which pages were written, wherever they are and however few: what a JavaScript
/// plugin writes, and most of what one in Go or Python does.
const KEPT_WRITTEN_BYTES: usize = 512 << 10;

/// Files up to this size are [`Class::Small`]. Bots in Rust, C and Zig have some ten to some hundred kilobytes; the
/// smallest interpreter, QuickJS, has a million bytes.
const SMALL_FILE_BYTES_MAX: usize = 768 << 10;

/// How many memories, for each core, stay as the plugin left them that had them last, so that its next call finds them
/// ready. Until there are so many, a plugin that is new gets memory that none had before: this is also what all the
/// plugins together leave behind that were replaced.
const WARM_MEMORIES_PER_CORE: u32 = 32;

/// Which engine a plugin runs in. What it costs to make and to reset an instance decides what small guests cost, and the
/// speed of the code what large ones cost. Measured in `tests/load/README.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Class {
    /// Memory accesses are checked by code. Growing and resetting a memory then needs no change of page protection, for which
    /// all threads of the process would wait for each other.
    Small,
    /// Memory accesses are checked by guard pages: code that computes much is faster, and half as large.
    Large,
}

impl Class {
    /// Chooses by a file's size, which is known before anything in the file is looked at.
    pub fn of(wasm_bytes: usize) -> Self {
        if wasm_bytes <= SMALL_FILE_BYTES_MAX { Self::Small } else { Self::Large }
    }

    /// How the class is called on a command line and in a file name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

/// How the memory of a call that is over becomes that of a call to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    /// Its beginning is reset in place, touched or not, and the rest is given back.
    Beginning,
    /// The kernel tells which pages were written, and these are reset in place. A page that is not there at that moment, as
    /// it is being moved, is overlooked: wasmtime asks for those that are present.
    Written,
}

impl Reset {
    /// What the operator wants, if it can be had here.
    fn of(settings: &config::Engine) -> Self {
        if !settings.pagemap_scan {
            return Self::Beginning;
        }
        let obstacle = if !PoolingAllocationConfig::is_pagemap_scan_available() {
            "this system cannot say which pages were written; Linux 6.7 and later can"
        } else if machine::may_swap() {
            "there is, or may be, swap here, and a page that is out would be overlooked; `swapoff -a`, or `MemorySwapMax=0` \
             for a service of systemd, makes sure that none is"
        } else {
            info!("`engine.pagemap_scan`: the kernel tells which pages a call has written, and these alone are reset");
            return Self::Written;
        };
        warn!("`engine.pagemap_scan` is not used: {obstacle}");
        Self::Beginning
    }
}

/// Compiles, instantiates and stops guests. Cheap to clone: all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    small: Runtime,
    large: Runtime,
    reset: Reset,
    /// How many calls may run at once, and whose turn it is.
    pub turns: Turns,
    ticker: Arc<Ticker>,
}

/// How much of the engines is in use.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Guests that compute or wait for something.
    pub guests_running: usize,
    /// Slots that are taken, and how many there are.
    pub slots: usize,
    pub slots_max: usize,
}

/// One engine, with what its guests can import.
#[derive(Clone)]
pub(super) struct Runtime {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) linker: Linker<Guest>,
}

impl Engine {
    /// Starts the engines, each with a pool of [`places`](config::Engine::places) instances, or without a pool where the address
    /// space is too small for one.
    pub fn new(settings: &config::Engine) -> anyhow::Result<Self> {
        let (places, reset) = (settings.places(), Reset::of(settings));
        let (small, large) = (
            Runtime::new(Class::Small, settings, places, reset)?,
            Runtime::new(Class::Large, settings, places, reset)?,
        );
        Ok(Self {
            turns: Turns::new(places, settings.memory_bytes()),
            ticker: Ticker::start([small.wasmtime.weak(), large.wasmtime.weak()])?,
            small,
            large,
            reset,
        })
    }

    /// Names the engines' machine code: what another version, configuration or processor compiled, or what was linked in
    /// another way, has another name.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for runtime in [&self.small, &self.large] {
            runtime.wasmtime.precompile_compatibility_hash().hash(&mut hasher);
        }
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        fuse::REVISION.hash(&mut hasher);
        hasher.finish()
    }

    /// Tells how much is in use at the moment.
    pub fn usage(&self) -> Usage {
        let (slots, slots_max) = self.turns.places_taken();
        Usage { guests_running: self.ticker.running.sum(), slots, slots_max }
    }

    /// Whether the kernel is asked which pages a call has written: `engine.pagemap_scan`, where it can be had.
    pub fn scans_pagemap(&self) -> bool {
        self.reset == Reset::Written
    }

    /// The engine of a class.
    pub(super) fn runtime(&self, class: Class) -> &Runtime {
        match class {
            Class::Small => &self.small,
            Class::Large => &self.large,
        }
    }

    /// Keeps the epoch clock running for as long as the guard lives.
    pub(super) fn run_clock(&self) -> Running<'_> {
        Running::new(&self.ticker)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Runtime {
    fn new(class: Class, settings: &config::Engine, places: usize, reset: Reset) -> anyhow::Result<Self> {
        let wasmtime = match wasmtime::Engine::new(&pooled(class, settings, places, reset)) {
            Ok(engine) => engine,
            Err(error) => {
                warn!(
                    "No room in the address space for an instance pool of {places} places; each call allocates its own memory, which \
                     is slower. Lower `engine.instances_max`, or raise what bounds it (`ulimit -v`): {error}"
                );
                wasmtime::Engine::new(&serving(class, settings)).map_err(plain)?
            }
        };
        Ok(Self { linker: linker(&wasmtime).map_err(plain)?, wasmtime })
    }
}

/// An engine that only compiles, as the child process uses it. Its code loads in an [`Engine`].
pub(super) fn compiler(class: Class) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&code(class))
}

/// wasmtime's errors are their own kind; ours are for people, who want the whole chain of causes.
pub(super) fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

/// Whether the system gave no memory for an instance, which is no fault of the guest's. What a guest grows by is refused in
/// another way.
pub(super) fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.downcast_ref() == Some(&Errno::NOMEM)
}

/// Everything that machine code depends on. Proposals that no bot needs and that widen the attack surface are off.
fn code(class: Class) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .memory_may_move(false)
        // What was used of a stack stays with its place: zeroing it would be a system call for each message, which costs 1 to 2 µs
        // where one thread runs and 8 where two do.
        .async_stack_zeroing(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .relaxed_simd_deterministic(true);
    if class == Class::Small {
        config
            .signals_based_traps(false)
            .memory_guard_size(0)
            // All that a memory may ever need: it cannot move.
            .memory_reservation((config::MEMORY_MIB_MAX as u64) << 20);
    }
    config
}

/// The same code, with the stack a guest may use. wasmtime looks at it whenever a guest is entered, not when code is compiled;
/// but it looks at the engine's, so that no plugin can have its own.
fn serving(class: Class, settings: &config::Engine) -> Config {
    let mut config = code(class);
    config.max_wasm_stack(settings.stack_bytes());
    config
}

fn pooled(class: Class, settings: &config::Engine, places: usize, reset: Reset) -> Config {
    // One more than calls may run: a plugin that is loaded is tried while all of them do.
    let instances = u32::try_from(places).unwrap_or(u32::MAX).saturating_add(1);
    let cores = thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let mut pool = PoolingAllocationConfig::new();
    let total = |per_place: usize, one_more: usize| u32::try_from(places * per_place + one_more).unwrap_or(u32::MAX);
    let all = |most: usize| u32::try_from(most).unwrap_or(u32::MAX);
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(all(config::CORE_INSTANCES_MAX)))
        // The largest component fits beside all calls: it may be on trial. One memory more is a garbage collector's heap.
        .total_memories(total(MEMORIES_PER_PLACE, config::MEMORIES_MAX + 1))
        .total_tables(total(TABLES_PER_PLACE, config::TABLES_MAX))
        .total_stacks(instances)
        .total_gc_heaps(instances)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .max_core_instances_per_component(all(config::CORE_INSTANCES_MAX))
        .max_memories_per_component(all(config::MEMORIES_MAX))
        .max_tables_per_component(all(config::TABLES_MAX))
        .max_memories_per_module(all(config::MEMORIES_MAX))
        .max_tables_per_module(all(config::TABLES_MAX))
        .table_elements(config::TABLE_ELEMENTS_MAX)
        .max_memory_size(config::MEMORY_MIB_MAX << 20)
        .max_unused_warm_slots(instances.min(cores.saturating_mul(WARM_MEMORIES_PER_CORE)))
        .table_keep_resident(64 << 10);
    match reset {
        Reset::Beginning => pool.linear_memory_keep_resident(KEPT_BYTES),
        Reset::Written => pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT_WRITTEN_BYTES),
    };
    let mut config = serving(class, settings);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Links all that a guest can import. What is not granted answers `denied`; nothing here opens a file or a socket.
fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasi_http::bound_requests(&mut linker)?;
    Bot::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// The thread that advances the engines' epoch every [`TICK`] while calls run, and sleeps while none does.
struct Ticker {
    running: Count,
    thread: OnceLock<Thread>,
    is_asleep: AtomicBool,
}

impl Ticker {
    fn start(engines: [EngineWeak; 2]) -> std::io::Result<Arc<Self>> {
        let ticker =
            Arc::new(Self { running: Count::default(), thread: OnceLock::new(), is_asleep: AtomicBool::new(false) });
        let weak = Arc::downgrade(&ticker);
        let handle = thread::Builder::new().name("epoch".into()).spawn(move || {
            let mut idle_looks = 0;
            while let Some(ticker) = weak.upgrade() {
                let pause = if ticker.running.sum() > 0 {
                    idle_looks = 0;
                    engines.iter().filter_map(EngineWeak::upgrade).for_each(|engine| engine.increment_epoch());
                    TICK
                } else {
                    idle_looks += 1;
                    LOOK
                };
                if idle_looks <= IDLE_LOOKS_MAX {
                    drop(ticker);
                    thread::sleep(pause);
                } else {
                    ticker.sleep();
                    idle_looks = 0;
                }
            }
        })?;
        ticker.thread.get_or_init(|| handle.thread().clone());
        Ok(ticker)
    }

    /// Sleeps until the next call; the bound lets the thread see that the engines are gone.
    fn sleep(self: Arc<Self>) {
        self.is_asleep.store(true, Ordering::SeqCst);
        // A call that came before the line above did not see that it has to wake us.
        let is_idle = self.running.sum() == 0;
        let ticker = Arc::downgrade(&self);
        drop(self);
        if is_idle {
            thread::park_timeout(Duration::from_secs(1));
        }
        if let Some(ticker) = ticker.upgrade() {
            ticker.is_asleep.store(false, Ordering::SeqCst);
        }
    }
}

/// Counts one running call.
pub(super) struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn new(ticker: &'a Ticker) -> Self {
        let count = ticker.running.own();
        count.fetch_add(1, Ordering::SeqCst);
        if ticker.is_asleep.load(Ordering::SeqCst)
            && ticker.is_asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = ticker.thread.get()
        {
            thread.unpark();
        }
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A number that each thread counts at a place of its own: no two cores wait for each other to write to it.
#[derive(Default)]
struct Count([OnItsOwn; COUNT_PLACES]);

/// Two kilobytes, and enough for most machines' cores.
const COUNT_PLACES: usize = 16;

/// Processors fetch and lock two lines of 64 bytes together.
#[derive(Default)]
#[repr(align(128))]
struct OnItsOwn(AtomicUsize);

impl Count {
    /// Where the thread that asks counts. More threads than places share some.
    fn own(&self) -> &AtomicUsize {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        &self.0[NUMBER.with(|number| *number) % COUNT_PLACES].0
    }

    fn sum(&self) -> usize {
        self.0.iter().map(|place| place.0.load(Ordering::SeqCst)).sum()
    }
}
