//! From unknown bytes to machine code, in a process of its own, kept in a cache that is ours alone.
//!
//! wasmtime calls a guest that breaks the host at run time a vulnerability, but not one that breaks the compiler: 33 KB
//! can make a parser recurse until the process aborts. So wrapping, validating and compiling happen in a child process
//! with limits, and the serving process loads only what its own child wrote.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitCode, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
    time::timeout,
};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasm_encoder::{CustomSection, Section};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use super::{
    Content, aside, bindings,
    cache::{Cache, Keeping},
    engine::{self, Class},
    fuse::fuse,
    one_line,
};
use crate::{config, foreign::on_one_line, machine::memory_bytes};

/// The hidden subcommand under which our own binary is the compiler.
pub const SUBCOMMAND: &str = "compile-plugin";

/// Machine code is at most this many times as large as the wasm it came from, plus a constant. Seen: 4 to 10 times.
const EXPANSION_MAX: u64 = 32;

/// Machine code is never larger than this, however large the wasm: a compiler that goes astray is not to fill the disk.
const CODE_BYTES_MAX: u64 = 2 << 30;

/// How much machine code is in memory at once, on its way from the compiler to the cache.
const PART_BYTES: usize = 256 << 10;

/// What a compiler that failed may say.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// Memory that a compile takes whatever the file, and for each byte of it. Measured (peak resident, two cores, linking
/// included): 32 to 39 MiB for 55 to 90 KiB of Rust, 106 to 112 MiB for 1.6 to 1.7 MiB of QuickJS, 110 MiB for 2.4 MiB of Go,
/// 409 MiB for 17.5 MiB of Python.
const MEMORY_BASE_BYTES: u64 = 48 << 20;
const MEMORY_BYTES_PER_BYTE: u64 = 40;

/// How much more address space a compiler may take than there is memory. Seen: two to three times what is resident, so that
/// it ends by itself where otherwise the system would have to end it.
const ADDRESSES_PER_MEMORY: u64 = 2;

/// How much longer than `compile.cpu_s` a compiler may compute that does not end when it is told to.
const CPU_GRACE_S: u64 = 5;

/// Address space that the child's allocator takes at once. Its default is a gibibyte, all of which counts against
/// `compile.memory_mib`.
const ARENA_RESERVE: &str = "32MiB";

/// Compiles plugins and keeps the results.
#[derive(Debug)]
pub struct Compiler {
    /// Our own binary, which compiles when asked by [`SUBCOMMAND`].
    program: PathBuf,
    pub cache: Arc<Cache>,
    /// One at a time: a compile takes every core and much memory.
    turn: Mutex<()>,
}

/// The right to compile, which one file has at a time.
#[derive(Debug)]
pub struct Turn<'a> {
    compiler: &'a Compiler,
    _guard: MutexGuard<'a, ()>,
}

/// Why a file did not become code. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("{0}")]
    Refused(String),
    #[error("compiling took longer than {limit_s} s; raise `compile.timeout_s` if the file is trusted")]
    Timeout { limit_s: u64 },
    #[error("compiling computed longer than {limit_s} s; raise `compile.cpu_s` if the file is trusted")]
    Cpu { limit_s: u64 },
    #[error(
        "the compiler crashed ({status}); the file is broken or hostile, or it needs more address space than {memory_mib} MiB: \
         `compile.memory_mib`, or twice the memory of this machine, or its container, if that is less"
    )]
    Crashed { status: ExitStatus, memory_mib: u64 },
    #[error(
        "the system killed the compiler, as it does when memory runs out; compiling this file may take {needed_mib} MiB: give \
         this machine, or its container, more memory"
    )]
    Killed { needed_mib: u64 },
    #[error(
        "its machine code has more than {bytes_max} bytes, far more than such a file needs; it is broken or hostile"
    )]
    TooLarge { bytes_max: u64 },
    #[error(
        "{why} (known from an earlier try; `aviary check` tries again, and if it compiles then, a host that runs has to be \
         started again)"
    )]
    Known { why: String },
    #[error("the compiler could not run: {0}")]
    Io(#[from] io::Error),
    #[error("its machine code cannot be kept in {}: {error}; is the disk full?", .dir.display())]
    Cache { dir: PathBuf, error: io::Error },
}

impl CompileError {
    /// Whether the file is not at fault, so that it may compile later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Io(_) | Self::Cache { .. } | Self::Killed { .. } => true,
            Self::Refused(_)
            | Self::Timeout { .. }
            | Self::Cpu { .. }
            | Self::Crashed { .. }
            | Self::TooLarge { .. }
            | Self::Known { .. } => false,
        }
    }
}

impl Compiler {
    /// Makes a compiler that runs `program` and keeps what it makes in `cache`.
    pub fn new(program: PathBuf, cache: Cache) -> Self {
        Self { program, cache: Arc::new(cache), turn: Mutex::new(()) }
    }

    /// Returns why a file is known not to compile, from an earlier try under the same limits.
    pub async fn known(&self, content: Content, limits: &config::Compile) -> Option<CompileError> {
        let (cache, limits) = (self.cache.clone(), limits.clone());
        let why = aside(move || cache.verdict(content, &limits)).await?;
        Some(CompileError::Known { why })
    }

    /// Waits until no other file is compiled.
    pub async fn turn(&self) -> Turn<'_> {
        Turn { compiler: self, _guard: self.turn.lock().await }
    }

    fn cannot_keep(&self, error: io::Error) -> CompileError {
        CompileError::Cache { dir: self.cache.dir().to_owned(), error }
    }

    /// Compiles a file into the cache, where its code is still to be given its name.
    async fn run(&self, wasm: Vec<u8>, content: Content, limits: &config::Compile) -> Result<Keeping, CompileError> {
        let limit = Duration::from_secs(limits.timeout_s);
        let code_bytes_max = code_bytes_max(content);
        let cache = self.cache.clone();
        let keeping = aside(move || cache.begin(content)).await.map_err(|error| self.cannot_keep(error))?;
        let mut child = self.spawn(content.class(), limits)?;
        // On a time-out the child is dropped, and with it killed.
        match timeout(limit, self.talk(&mut child, wasm, keeping, code_bytes_max)).await {
            Err(_) => Err(CompileError::Timeout { limit_s: limits.timeout_s }),
            Ok(Err(error)) => Err(error),
            // Checked before the status: the child cannot write what nobody reads.
            Ok(Ok((_, code, _))) if code.bytes > code_bytes_max => {
                Err(CompileError::TooLarge { bytes_max: code_bytes_max })
            }
            Ok(Ok((status, code, _))) if status.success() => Ok(code),
            Ok(Ok((status, _, complaint))) if status.signal().is_none() && !complaint.is_empty() => {
                Err(CompileError::Refused(on_one_line(&complaint)))
            }
            Ok(Ok((status, ..))) if status.signal() == Some(Signal::XCPU.as_raw()) => {
                Err(CompileError::Cpu { limit_s: limits.cpu_s })
            }
            Ok(Ok((status, ..))) if status.signal() == Some(Signal::KILL.as_raw()) => {
                Err(CompileError::Killed { needed_mib: memory_bytes_needed(content.bytes) >> 20 })
            }
            Ok(Ok((status, ..))) => Err(CompileError::Crashed { status, memory_mib: limits.memory_mib }),
        }
    }

    /// Feeds the child and reads what it says, all at once, so that no pipe fills up. Of code that is too large, one byte more
    /// than `code_bytes_max` is read.
    async fn talk(
        &self,
        child: &mut Child,
        wasm: Vec<u8>,
        keeping: Keeping,
        code_bytes_max: u64,
    ) -> Result<(ExitStatus, Keeping, String), CompileError> {
        let mut complaint = Vec::new();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A child that already gave up closes the pipe; its exit status tells more than this error would.
                let _ = stdin.write_all(&wasm).await;
            }
            Ok::<_, CompileError>(())
        };
        let read_code = async {
            match stdout {
                Some(stdout) => self.take_in(stdout.take(code_bytes_max + 1), keeping).await,
                None => Ok(keeping),
            }
        };
        let read_complaint = async {
            if let Some(stderr) = stderr {
                stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await?;
            }
            Ok::<_, CompileError>(())
        };
        // What cannot be kept is not waited for.
        let ((), code, ()) = tokio::try_join!(feed, read_code, read_complaint)?;
        let status = child.wait().await?;
        Ok((status, code, String::from_utf8_lossy(&complaint).trim().to_owned()))
    }

    /// Takes machine code into the cache's file as it comes.
    async fn take_in(&self, mut code: impl AsyncRead + Unpin, mut keeping: Keeping) -> Result<Keeping, CompileError> {
        loop {
            let part = next_part(&mut code).await?;
            if part.is_empty() {
                return Ok(keeping);
            }
            let kept = aside(move || keeping.add(&part).map(|()| keeping)).await;
            keeping = kept.map_err(|error| self.cannot_keep(error))?;
        }
    }

    fn spawn(&self, class: Class, limits: &config::Compile) -> io::Result<Child> {
        Command::new(&self.program)
            .arg(SUBCOMMAND)
            .args(["--class", class.name()])
            .args(["--memory-mib", &limits.memory_mib.to_string()])
            .args(["--cpu-s", &limits.cpu_s.to_string()])
            .env_clear()
            .env("MIMALLOC_ARENA_RESERVE", ARENA_RESERVE)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

impl Turn<'_> {
    /// Compiles a file and keeps its code, or, if the file is at fault, that it does not compile.
    pub async fn compile(&self, wasm: Vec<u8>, content: Content, limits: &config::Compile) -> Result<(), CompileError> {
        let Self { compiler, .. } = self;
        let code = match compiler.run(wasm, content, limits).await {
            Ok(code) => code,
            Err(error) => {
                if !error.passes() {
                    // The next start would only find the same again.
                    let (cache, limits, why) = (compiler.cache.clone(), limits.clone(), error.to_string());
                    let _ = aside(move || cache.condemn(content, &limits, &why)).await;
                }
                return Err(error);
            }
        };
        let cache = compiler.cache.clone();
        aside(move || cache.keep(code)).await.map_err(|error| compiler.cannot_keep(error))?;
        Ok(())
    }
}

/// Returns limits as they count here. With more memory than at an earlier try they are others, and the file is tried again; not
/// for the few MiB that another kernel leaves.
pub fn on_this_machine(limits: &config::Compile) -> config::Compile {
    let memory_mib_max = (memory_bytes() as u64 >> 26 << 6) * ADDRESSES_PER_MEMORY;
    config::Compile { memory_mib: limits.memory_mib.min(memory_mib_max), ..limits.clone() }
}

/// How much memory compiling a file of so many bytes may take, in bytes: an estimate on the safe side.
pub fn memory_bytes_needed(wasm_bytes: usize) -> u64 {
    MEMORY_BASE_BYTES + (wasm_bytes as u64).saturating_mul(MEMORY_BYTES_PER_BYTE)
}

/// How much machine code a file may become, in bytes.
fn code_bytes_max(content: Content) -> u64 {
    (content.bytes as u64).saturating_mul(EXPANSION_MAX).saturating_add(1 << 20).min(CODE_BYTES_MAX)
}

/// Reads the next part of what a child says, shorter than the others only at the end.
async fn next_part(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(PART_BYTES);
    from.take(PART_BYTES as u64).read_to_end(&mut part).await?;
    Ok(part)
}

/// The child's own limits, as its parent hands them over.
#[derive(Args, Clone, Copy, Debug)]
pub struct ChildArgs {
    #[arg(long)]
    class: Class,
    #[arg(long)]
    memory_mib: u64,
    #[arg(long)]
    cpu_s: u64,
}

/// The child: reads wasm from standard input, writes machine code to standard output, or says why not.
pub fn child(args: ChildArgs) -> ExitCode {
    match compile_stdin(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn compile_stdin(args: ChildArgs) -> anyhow::Result<()> {
    volunteer_as_victim();
    limit(Resource::As, args.memory_mib << 20, 0)?;
    // At the harder limit the process is killed, as it is when memory is short. The first says what it was.
    limit(Resource::Cpu, args.cpu_s, CPU_GRACE_S)?;
    limit(Resource::Core, 0, 0)?;
    // Writing files is not needed: the pipes do not count here.
    limit(Resource::Fsize, 0, 0)?;
    // Messages come first: beside a busy host this is a tenth of a core. Idle priority would be next to nothing, and the
    // wall clock would then end what is only slow. That it cannot be lowered is no reason not to compile.
    let _ = rustix::process::nice(10);
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let component = component(bytes)?;
    let engine = engine::compiler(args.class).map_err(engine::plain)?;
    let linked = fuse(&component).and_then(|linked| engine.precompile_component(&linked).ok());
    let code = match linked {
        Some(code) => code,
        // What is wrong with the file is to be told of the file as it is.
        None => engine.precompile_component(&component).map_err(engine::plain)?,
    };
    io::stdout().lock().write_all(&code)?;
    Ok(())
}

/// Has the system end this process rather than the host, should memory run out.
fn volunteer_as_victim() {
    if cfg!(target_os = "linux") {
        // Where it is refused, the system chooses by size.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
    }
}

/// Platforms without a limit (macOS has no `RLIMIT_AS` to speak of) compile without it. One that the host was started under
/// cannot be raised.
fn limit(resource: Resource, value: u64, grace: u64) -> io::Result<()> {
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit { current: Some(value.min(most)), maximum: Some((value + grace).min(most)) };
    if cfg!(target_os = "linux") { Ok(setrlimit(resource, limit)?) } else { Ok(()) }
}

/// Makes a component of what the operator dropped: a component as it is, a core module wrapped.
fn component(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if Parser::is_component(&bytes) {
        return Ok(bytes);
    }
    if !Parser::is_core_wasm(&bytes) {
        // Nothing of its content: it may be a link to a file of secrets.
        bail!("this is no WebAssembly: it does not begin with `\\0asm`");
    }
    let facts = CoreFacts::read(&bytes)?;
    let module = if facts.has_component_type { bytes } else { with_bot_world(bytes) };
    let mut encoder = ComponentEncoder::default().validate(true).module(&module)?;
    if facts.imports_wasip1 {
        encoder = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?;
    }
    encoder.encode().context("this core module does not fit the `bot` world of aviary:bot@0.1.0")
}

/// What decides how a core module is wrapped.
struct CoreFacts {
    has_component_type: bool,
    imports_wasip1: bool,
}

impl CoreFacts {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut facts = Self { has_component_type: false, imports_wasip1: false };
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::CustomSection(section) => {
                    facts.has_component_type |= section.name().starts_with("component-type")
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        facts.imports_wasip1 |= import?.module == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
                    }
                }
                _ => {}
            }
        }
        Ok(facts)
    }
}

/// Says for a module that does not say so itself that it is a bot. What of the world it does not import is left out.
fn with_bot_world(mut module: Vec<u8>) -> Vec<u8> {
    let section = CustomSection { name: "component-type:bot".into(), data: bindings::COMPONENT_TYPE.into() };
    section.append_to(&mut module);
    module
}
