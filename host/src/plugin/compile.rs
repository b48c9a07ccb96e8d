//! From unknown bytes to machine code, in a process of its own, kept in a cache that is ours alone.
//!
//! wasmtime calls a guest that breaks the host at run time a vulnerability, but not one that breaks the compiler: 33 KB
//! can make a parser recurse until the process aborts. So wrapping, validating and compiling happen in a child process
//! with limits, and the serving process loads only what its own child wrote.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Mutex,
    time::timeout,
};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasm_encoder::{CustomSection, Section};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use super::{
    Hash, bindings,
    engine::{self, Class},
    one_line,
};
use crate::config;

/// The hidden subcommand under which our own binary is the compiler.
pub const SUBCOMMAND: &str = "compile-plugin";

/// Machine code is at most this many times as large as the wasm it came from, plus a constant. Seen: 4 to 10 times.
const EXPANSION_MAX: u64 = 32;

/// What a compiler that failed may say.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// Compiles plugins and keeps the results.
#[derive(Debug)]
pub struct Compiler {
    /// Our own binary, which compiles when asked by [`SUBCOMMAND`].
    program: PathBuf,
    cache_dir: PathBuf,
    limits: config::Compile,
    /// The engine whose code it is; see [`engine::Engine::fingerprint`].
    fingerprint: u64,
    /// One at a time: a compile takes every core and much memory.
    turn: Mutex<()>,
}

/// Why a file did not become code. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("{0}")]
    Refused(String),
    #[error("compiling took longer than {limit_s} s; raise `compile.timeout_s` if the file is trusted")]
    Timeout { limit_s: u64 },
    #[error(
        "the compiler crashed ({status}); the file is broken or hostile, or `compile.memory_mib` ({memory_mib}) is too small"
    )]
    Crashed { status: ExitStatus, memory_mib: u64 },
    #[error(
        "its machine code has more than {bytes_max} bytes, far more than such a file needs; it is broken or hostile"
    )]
    TooLarge { bytes_max: u64 },
    #[error("the compiler could not run: {0}")]
    Io(#[from] io::Error),
    #[error("its machine code cannot be kept in {}: {error}; is the disk full?", .dir.display())]
    Cache { dir: PathBuf, error: io::Error },
}

impl CompileError {
    /// Whether the file is not at fault, so that it may compile later. Killed is how the system ends a process when memory
    /// is short.
    pub fn passes(&self) -> bool {
        match self {
            Self::Io(_) | Self::Cache { .. } => true,
            Self::Crashed { status, .. } => status.signal() == Some(Signal::KILL.as_raw()),
            Self::Refused(_) | Self::Timeout { .. } | Self::TooLarge { .. } => false,
        }
    }
}

impl Compiler {
    /// Makes a compiler that runs `program` and caches in `cache_dir`, which is created for us alone (mode 0700).
    ///
    /// # Errors
    /// When the directory cannot be made, or belongs to or is open to somebody else: its files are run as they are.
    pub fn new(
        program: PathBuf,
        cache_dir: PathBuf,
        limits: config::Compile,
        fingerprint: u64,
    ) -> anyhow::Result<Self> {
        let dir = &cache_dir;
        create_private(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let metadata = fs::metadata(dir)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
            bail!(
                "the compile cache {} must belong to this user and to no one else (mode 0700): its code is run unchecked",
                dir.display()
            );
        }
        Ok(Self { program, cache_dir, limits, fingerprint, turn: Mutex::new(()) })
    }

    /// Returns the file with the code of `wasm`, compiling it unless that was done before.
    pub async fn compile(&self, wasm: Vec<u8>, hash: &Hash) -> Result<PathBuf, CompileError> {
        let class = Class::of(wasm.len());
        let path = self.cached(hash, class);
        if path.exists() {
            return Ok(path);
        }
        let _turn = self.turn.lock().await;
        if !path.exists() {
            let code = self.run(wasm, class).await?;
            write_whole(&self.cache_dir, &path, &code)
                .map_err(|error| CompileError::Cache { dir: self.cache_dir.clone(), error })?;
        }
        Ok(path)
    }

    /// Forgets the code of `wasm`, because it did not load.
    pub fn forget(&self, hash: &Hash, class: Class) -> io::Result<()> {
        fs::remove_file(self.cached(hash, class))
    }

    /// Whether `wasm` was compiled before.
    pub fn has(&self, hash: &Hash, class: Class) -> bool {
        self.cached(hash, class).exists()
    }

    fn cached(&self, hash: &Hash, class: Class) -> PathBuf {
        self.cache_dir.join(format!("{hash}-{:016x}-{}.cwasm", self.fingerprint, class.name()))
    }

    async fn run(&self, wasm: Vec<u8>, class: Class) -> Result<Vec<u8>, CompileError> {
        let limit = Duration::from_secs(self.limits.timeout_s);
        let code_bytes_max = wasm.len() as u64 * EXPANSION_MAX + (1 << 20);
        let mut child = self.spawn(class)?;
        // On a time-out the child is dropped, and with it killed.
        match timeout(limit, talk(&mut child, wasm, code_bytes_max)).await {
            Err(_) => Err(CompileError::Timeout { limit_s: self.limits.timeout_s }),
            Ok(Err(error)) => Err(error.into()),
            // Checked before the status: the child cannot write what nobody reads.
            Ok(Ok((_, code, _))) if code.len() as u64 > code_bytes_max => {
                Err(CompileError::TooLarge { bytes_max: code_bytes_max })
            }
            Ok(Ok((status, code, _))) if status.success() => Ok(code),
            Ok(Ok((status, _, complaint))) if status.signal().is_none() && !complaint.is_empty() => {
                Err(CompileError::Refused(complaint))
            }
            Ok(Ok((status, ..))) => Err(CompileError::Crashed { status, memory_mib: self.limits.memory_mib }),
        }
    }

    fn spawn(&self, class: Class) -> io::Result<Child> {
        Command::new(&self.program)
            .arg(SUBCOMMAND)
            .args(["--class", class.name()])
            .args(["--memory-mib", &self.limits.memory_mib.to_string()])
            .args(["--cpu-s", &self.limits.cpu_s.to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Feeds the child and reads what it says, all at once, so that no pipe fills up. Of code that is too large, one byte more
/// than `code_bytes_max` is read.
async fn talk(child: &mut Child, wasm: Vec<u8>, code_bytes_max: u64) -> io::Result<(ExitStatus, Vec<u8>, String)> {
    let (mut code, mut complaint) = (Vec::new(), Vec::new());
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A child that already gave up closes the pipe; its exit status tells more than this error would.
            let _ = stdin.write_all(&wasm).await;
        }
    };
    let read_code = async {
        match stdout {
            Some(stdout) => stdout.take(code_bytes_max + 1).read_to_end(&mut code).await,
            None => Ok(0),
        }
    };
    let read_complaint = async {
        match stderr {
            Some(stderr) => stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await,
            None => Ok(0),
        }
    };
    let ((), read, said) = tokio::join!(feed, read_code, read_complaint);
    read?;
    said?;
    let status = child.wait().await?;
    Ok((status, code, String::from_utf8_lossy(&complaint).trim().to_owned()))
}

/// Writes a file so that it is there whole or not at all, and never changes afterwards: it will be mapped and run.
fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_private(dir)?;
    // Nobody else can read it, nobody else has its name, and it is removed if writing fails.
    let mut partial = tempfile::Builder::new().suffix(".partial").tempfile_in(dir)?;
    partial.write_all(bytes)?;
    partial.as_file().sync_all()?;
    partial.persist(path)?;
    Ok(())
}

/// Makes a directory that is ours alone, unless it is there.
fn create_private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
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
    limit(Resource::As, args.memory_mib << 20)?;
    limit(Resource::Cpu, args.cpu_s)?;
    limit(Resource::Core, 0)?;
    // Writing files is not needed: the pipes do not count here.
    limit(Resource::Fsize, 0)?;
    // Messages come first. That it cannot be lowered is no reason not to compile.
    let _ = rustix::process::nice(10);
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let component = component(bytes)?;
    let code = engine::compiler(args.class)
        .and_then(|engine| engine.precompile_component(&component))
        .map_err(engine::plain)?;
    io::stdout().lock().write_all(&code)?;
    Ok(())
}

/// Platforms without a limit (macOS has no `RLIMIT_AS` to speak of) compile without it.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    if cfg!(target_os = "linux") { Ok(setrlimit(resource, limit)?) } else { Ok(()) }
}

/// Makes a component of what the operator dropped: a component as it is, a core module wrapped.
fn component(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if Parser::is_component(&bytes) {
        return Ok(bytes);
    }
    if !Parser::is_core_wasm(&bytes) {
        bail!("this is no WebAssembly: it begins with {:02x?}", &bytes[..bytes.len().min(8)]);
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
