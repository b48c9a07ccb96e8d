//! A plugin: a `.wasm` file that answers messages, each in a sandbox of its own.
//!
//! The one boundary of the runtime is [`Plugin::call`]: a message goes in, a reply or a [`Failure`] comes out, and nothing
//! of the guest is left. Below it, one WIT interface that a guest can import is one file.

use std::{
    fmt,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

pub mod bindings;
pub mod cache;
pub mod canary;
pub mod code;
pub mod compile;
mod computing;
pub mod directory;
pub mod engine;
pub mod file_name;
mod fuse;
mod guest;
mod handler;
pub mod idle_tables;
mod limits;
pub mod loader;
mod log;
pub mod page;
mod per_user;
pub mod quarantine;
pub mod question;
pub mod record;
pub mod rules;
pub mod services;
pub mod set;
pub mod settings_check;
pub mod turns;
pub mod versions;
pub mod watch;

mod call_info;
mod customer_service;
mod http;
mod kv;
mod wasi_http;
mod wechat_api;

use self::{
    bindings::{Message, Reply},
    code::Code,
    computing::UsedUp,
    engine::Class,
    guest::Guest,
    question::Question,
    record::Record,
    services::Services,
    turns::{Ask, Busy, Lane, Lanes, Turn},
};
use crate::{
    api::Api,
    config::PluginSettings,
    deadline::before,
    foreign::{on_one_line, shortened},
};

/// The SHA-256 of a plugin's file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Names a file's content.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Reads the 64 hexadecimal digits that `sha256sum` prints.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// What a plugin's file holds: enough to find it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub hash: Hash,
    pub bytes: usize,
}

impl Content {
    /// Looks at a file's content.
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: Hash::of(bytes), bytes: bytes.len() }
    }

    /// The class of engine that runs it.
    pub fn class(self) -> Class {
        Class::of(self.bytes)
    }
}

/// One plugin as one account uses it: its code, with the settings of that account.
#[derive(Debug)]
pub struct Plugin {
    /// Its name in `aviary.toml`: the file's stem without number and version.
    pub name: Arc<str>,
    /// Whose messages it answers.
    pub account: Arc<str>,
    /// Where it came from.
    pub file: PathBuf,
    pub code: Arc<Code>,
    pub settings: Arc<PluginSettings>,
    pub services: Arc<Services>,
    /// WeChat's API for the account; nothing if the account has no AppID or no AppSecret.
    pub api: Option<Api>,
    /// Where its calls take their turns.
    pub lanes: Lanes,
    /// What is kept about it from call to call.
    pub record: Record,
}

/// What a call came to, with what it took.
#[derive(Debug)]
pub struct Call<T = Option<Reply>> {
    pub answer: Result<T, Failure>,
    /// From the question to the answer, waiting included.
    pub duration: Duration,
    /// How much of that it waited before it could begin.
    pub waited: Duration,
    /// All linear memories together, at their largest.
    pub memory_bytes: usize,
    /// What the guest wrote to standard output and error.
    pub output: Vec<String>,
}

/// Why a plugin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("computed longer than {limit_ms} ms (`limits.cpu_ms`)")]
    Cpu { limit_ms: u64 },
    #[error("gave no answer within {limit_ms} ms")]
    Timeout { limit_ms: u64 },
    #[error("asked for more than {} MiB of memory (`limits.memory_mib`)", .limit_bytes >> 20)]
    Memory { limit_bytes: usize },
    #[error("recursed too deep: its stack is used up")]
    Stack,
    #[error("trapped: {0}")]
    Trap(String),
    #[error("said: {0}")]
    Guest(String),
    /// Not the plugin's fault: the host, or what its account or the plugin may have of it, is in use.
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error("gave a reply that is not sent: {0}")]
    Refused(#[from] crate::reply::Refused),
    #[error(transparent)]
    Page(#[from] page::NoPage),
}

/// A guest that runs, with the turn that it took.
struct Sandbox<'a> {
    plugin: &'a Plugin,
    /// Dropped before the turn: the next call finds the instance free.
    store: Store<Guest>,
    _turn: Turn<'a>,
    started: Instant,
    deadline: Instant,
    limit_ms: u64,
    waited: Duration,
}

/// What a guest's own error text may be in a log line.
const GUEST_ERROR_CHARS_MAX: usize = 500;

impl Plugin {
    /// Asks the plugin for an answer, in a fresh sandbox that ends with this call, at `deadline` at the latest.
    pub async fn call(&self, question: &Question, deadline: Instant) -> Call {
        let answering = |held_bytes, deadline| Guest::of_call(self, question, held_bytes, deadline);
        let mut sandbox = match self.open(&self.lanes.messages, answering, deadline).await {
            Ok(sandbox) => sandbox,
            Err(call) => return call,
        };
        let asked = sandbox.run(async |store| self.ask(store, &question.message).await).await;
        sandbox.close(asked)
    }

    /// Takes a turn, and makes the sandbox of one call.
    async fn open<'a, T>(
        &'a self,
        lane: &'a Lane,
        guest: impl FnOnce(usize, Instant) -> Guest,
        deadline: Instant,
    ) -> Result<Sandbox<'a>, Call<T>> {
        let started = Instant::now();
        let deadline = self.own_deadline(started, deadline);
        let (code, limits) = (&self.code, &self.settings.limits);
        // Read once: a trial that ends meanwhile sets it, and what was taken must be what the guest is told to hold.
        let start_bytes = code.start_bytes();
        let turn = lane.turn(Ask::to_start(code.places, start_bytes, limits), deadline).await;
        let turn = turn.map_err(|busy| Call::unasked(busy.into(), started))?;
        Ok(Sandbox {
            plugin: self,
            store: guest(start_bytes, deadline).into_store(code.wasmtime()),
            _turn: turn,
            started,
            deadline,
            limit_ms: millis(deadline.saturating_duration_since(started)),
            waited: started.elapsed(),
        })
    }

    async fn ask(
        &self,
        store: &mut Store<Guest>,
        message: &Message,
    ) -> wasmtime::Result<Result<Option<Reply>, String>> {
        // A plugin that only serves pages has nothing to say to a message.
        match &self.code.bot {
            Some(bot) => bot.ask(store, message).await,
            None => Ok(Ok(None)),
        }
    }

    fn own_deadline(&self, started: Instant, deadline: Instant) -> Instant {
        match self.settings.limits.timeout_ms {
            0 => deadline,
            own => deadline.min(started + Duration::from_millis(own)),
        }
    }

    /// Finds the reason behind wasmtime's error: a limit of ours, if one was hit.
    fn explain(&self, error: &wasmtime::Error, store: &Store<Guest>, waited: Duration) -> Failure {
        let guest = store.data();
        if let Some(busy) = guest.limiter.busy() {
            return busy.into();
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Busy::Host { wait_ms: millis(waited) }.into();
        }
        if engine::is_out_of_memory(error) {
            return Busy::System.into();
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => Failure::Stack,
            _ if guest.limiter.memory_refused() => Failure::Memory { limit_bytes: guest.limiter.memory_bytes_max() },
            Some(trap) => Failure::Trap(limits::trapped(*trap, error)),
            None => Failure::Trap(limits::explained(error)),
        }
    }
}

impl Sandbox<'_> {
    /// Lets the guest do something, as long as it may.
    async fn run<T>(
        &mut self,
        ask: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Failure> {
        let _running = self.plugin.code.engine.run_clock();
        let limits = &self.plugin.settings.limits;
        let asked = {
            // Pinned here, it is not moved on its way through those who wait for it: it is some kilobytes.
            let asking = pin!(ask(&mut self.store));
            computing::within(limits.cpu(), before(self.deadline, asking)).await
        };
        match asked.map_err(|UsedUp| Failure::Cpu { limit_ms: limits.cpu_ms })? {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(text))) => Err(Failure::Guest(shortened(&text, GUEST_ERROR_CHARS_MAX).to_owned())),
            Ok(Err(error)) => Err(self.plugin.explain(&error, &self.store, self.waited)),
            Err(_) => {
                let busy = self.store.data().limiter.busy();
                Err(busy.map_or(Failure::Timeout { limit_ms: self.limit_ms }, Failure::from))
            }
        }
    }

    /// Ends the guest.
    fn close<T>(self, answer: Result<T, Failure>) -> Call<T> {
        let guest = self.store.data();
        Call {
            answer,
            duration: self.started.elapsed(),
            waited: self.waited,
            memory_bytes: guest.limiter.memory_bytes(),
            output: guest.take_output(),
        }
    }
}

impl<T> Call<T> {
    fn unasked(failure: Failure, started: Instant) -> Self {
        let waited = started.elapsed();
        Self { answer: Err(failure), duration: waited, waited, memory_bytes: 0, output: Vec::new() }
    }

    /// Gives the answer another kind, and leaves the rest.
    fn map<U>(self, answer: Result<U, Failure>) -> Call<U> {
        let Self { duration, waited, memory_bytes, output, .. } = self;
        Call { answer, duration, waited, memory_bytes, output }
    }
}

/// An error with its causes on one line, as the log shows it.
fn one_line(error: &impl fmt::Display) -> String {
    on_one_line(&format!("{error:#}"))
}

/// Does what waits for the disk, on a thread that no message needs.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Whole milliseconds, as the log has them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
