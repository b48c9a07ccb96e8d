//! A host to be hostile to: a process of its own, so that what kills it kills no test, and its memory can be told.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aviary_host::conversation::{Said, Simulator, shown};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{
    bot::{PATIENCE, Setup, TOKEN, new_header},
    http::get,
    plugins::ECHO,
    process::{Running, aviary},
};

/// How many calls the host has room for. Fewer than [`ROUNDS`]: what a call did not give back would be missed.
const INSTANCES_MAX: usize = 4;

/// How often each message is sent.
const ROUNDS: usize = 12;

/// How much more memory the host may hold than before. Allocators keep some, and so do the slots of the pool; what the
/// guests here take, times [`ROUNDS`], is far more.
const GROWTH_MIB_MAX: u64 = 24;

/// How often to look at what tells nobody when it changes.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `aviary serve` with room for few calls, and an echo at the end of its chain.
pub struct Host {
    running: Running,
    user: User,
    /// Where its metrics are: `http://127.0.0.1:PORT`.
    admin: String,
    dir: TempDir,
    /// Resident before anything hostile was done.
    resident_mib: u64,
}

impl Host {
    /// Serves the echo alone.
    pub async fn start(settings: &str) -> Self {
        Self::with_plugins(&[], settings).await
    }

    /// Serves these plugins, asked in this order before the echo. They must all load.
    pub async fn with_plugins(plugins: &[(&str, &[u8])], settings: &str) -> Self {
        Self::with_engine("", plugins, settings).await
    }

    /// The same with more keys of `[engine]`.
    pub async fn with_engine(engine: &str, plugins: &[(&str, &[u8])], settings: &str) -> Self {
        // What did not compile is remembered beside what did: also what earlier runs of a test did not compile.
        let cache = if settings.contains("[compile]") { "cache_dir = \"cache\"\n" } else { "" };
        // Whoever fails is asked again: were it left alone, it would do no harm.
        let setup = Setup::new().plugin("90-echo.wasm", &ECHO).settings(&format!(
            "{cache}listen = \"127.0.0.1:0\"\n[engine]\ninstances_max = {INSTANCES_MAX}\n{engine}\n\
             [quarantine]\nfailures = 0\nshare_percent = 0\n{settings}"
        ));
        let setup = plugins
            .iter()
            .zip(10..)
            .fold(setup, |setup, ((name, wasm), number)| setup.plugin(&format!("{number}-{name}.wasm"), wasm));
        let dir = setup.written();
        let mut running = Running::start(aviary(dir.path(), &["serve"]));
        let line = running.line("Account `main` listens on http://").await;
        let wechat = Simulator::new(url(&line), TOKEN).expect("it is a URL");
        let admin = running.line("Metrics and health are on http://").await;
        let admin = url(&admin).trim_end_matches(':').to_owned();
        running.line(&format!("asks {} plugin", plugins.len() + 1)).await;
        let mut host = Self { running, user: User(wechat), admin, dir, resident_mib: 0 };
        // Whatever is made at the first call is there from here on.
        host.says("[image]").await;
        host.says("[voice]").await;
        host.resident_mib = host.resident_mib();
        host
    }

    /// A user who can talk while the host is watched.
    pub fn user(&self) -> User {
        self.user.clone()
    }

    /// What [`User::says`] does.
    pub async fn says(&self, words: &str) -> String {
        self.user.says(words).await
    }

    /// Says the words more often than the host has room for calls that leave something behind. Each time the reply comes;
    /// then all is as before.
    pub async fn endures(&self, words: &str, reply: &str) {
        self.endures_any(words, |said| said == reply).await;
    }

    /// The same where more than one reply is right.
    pub async fn endures_any(&self, words: &str, is_right: impl Fn(&str) -> bool) {
        for _ in 0..ROUNDS {
            let reply = self.says(words).await;
            assert!(is_right(&reply), "`{words}` was answered with `{reply}`");
        }
        self.is_as_before().await;
    }

    /// Waits until no guest has a place any more, and memory is back where it was.
    pub async fn is_as_before(&self) {
        let returned = async {
            while self.instances().await > 0 || self.resident_mib() > self.resident_mib + GROWTH_MIB_MAX {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(PATIENCE, returned).await.is_err() {
            let (instances, now, before) = (self.instances().await, self.resident_mib(), self.resident_mib);
            panic!("{instances} guests have a place; {now} MiB are resident, {before} MiB were");
        }
    }

    /// Waits for the line that says why a plugin failed.
    pub async fn failed(&mut self, plugin: &str, why: &str) {
        let line = self.running.line(&format!("Plugin `{plugin}` failed")).await;
        assert!(line.contains(why), "`{why}` is not in: {line}");
    }

    /// Waits for a line of the log.
    pub async fn line(&mut self, part: &str) -> String {
        self.running.line(part).await
    }

    /// Drops a file that is to be refused, for this reason.
    pub async fn refuses(&mut self, file: &str, content: &[u8], why: &str) {
        self.drops(file, content);
        self.refused(file, why).await;
    }

    /// Waits for the line that says why a file is no plugin. Until it comes, messages are answered; then what it took to
    /// find out is given back.
    pub async fn refused(&mut self, file: &str, why: &str) {
        let user = self.user();
        let told = format!("{file} is ");
        let is_told = Cell::new(false);
        let line = async {
            let line = self.running.line(&told).await;
            is_told.set(true);
            line
        };
        let (line, ()) = tokio::join!(line, user.keeps_talking_until(&is_told));
        assert!(line.contains(why), "`{why}` is not in: {line}");
        // Each try would be a whole compile.
        let tries = ["tried again", "compiled again"].iter().any(|tries| line.contains(tries));
        assert!(!tries, "a hostile file is refused for good: {line}");
        assert_eq!(self.says("还在吗").await, "还在吗");
        self.is_as_before().await;
    }

    /// Puts a file into the plugins directory, whole, as `mv` does it.
    pub fn drops(&self, file: &str, content: &[u8]) {
        let partial = self.dir().join("partial");
        fs::write(&partial, content).expect("the directory is there");
        fs::rename(partial, self.plugin_file(file)).expect("the directory is there");
    }

    /// A file in the plugins directory.
    pub fn plugin_file(&self, file: &str) -> PathBuf {
        self.dir().join("plugins").join(file)
    }

    /// The bot's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many guests have a place, as the host counts them.
    async fn instances(&self) -> u64 {
        let metrics = get(&self.admin, "/metrics").await;
        let (_, metrics) = metrics.told();
        let line = metrics.lines().find_map(|line| line.strip_prefix("aviary_instances "));
        line.expect("it counts them").parse().expect("it is a number")
    }

    /// `VmRSS`.
    fn resident_mib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.running.id());
        let status = fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") >> 10
    }
}

/// `http://…` in a line, up to the next blank.
fn url(line: &str) -> &str {
    line.split_whitespace().find(|word| word.starts_with("http://")).expect("it tells the URL")
}

/// Somebody who talks to the account.
#[derive(Clone)]
pub struct User(Simulator);

impl User {
    /// Pushes what a user says and returns the reply in the notation of conversation files: `""` is silence. That it
    /// comes in time is the host's promise: the push waits no longer than WeChat does.
    pub async fn says(&self, words: &str) -> String {
        let said = Said::parse(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        let answer = self.0.push(&said.to_xml(&new_header())).await;
        let answer = answer.unwrap_or_else(|error| panic!("`{words}` was not answered: {error:#}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let reply = self.0.reply(&answer).unwrap_or_else(|error| panic!("WeChat would not read it: {error:#}"));
        shown(reply.as_ref())
    }

    /// Says something again and again, and the echo says it back. Nothing that was said is left without its answer: what the
    /// user says next would wait behind it.
    async fn keeps_talking_until(&self, is_over: &Cell<bool>) {
        while !is_over.get() {
            assert_eq!(self.says("你好").await, "你好");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Says the words until this is the reply: a plugin is loaded when it is.
    pub async fn is_answered(&self, words: &str, reply: &str) {
        let answered = async {
            while self.says(words).await != reply {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("`{words}` was never answered with `{reply}`"));
    }
}
