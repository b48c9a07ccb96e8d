//! A bot in a directory of its own, served on a free port, and a WeChat that talks to it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aviary_host::{
    admin,
    app::{App, Live},
    config::Config,
    conversation::{Answer, Header, Said, Simulator, shown},
    dispatch::{self, Dispatch},
    plugin::{self, question::Question},
    server,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

/// The token of the account `main`.
pub const TOKEN: &str = "testtoken";

/// How long a test waits for what must happen: far longer than it takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, as cargo built it for this test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_aviary"))
}

/// A bot that is being set up.
pub struct Setup {
    dir: TempDir,
    settings: String,
    account: String,
    watched: bool,
    compiler: PathBuf,
}

impl Setup {
    /// A bot without plugins.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        fs::create_dir(dir.path().join("plugins")).expect("it is empty");
        let account = format!("token = \"{TOKEN}\"\n");
        Self { dir, settings: String::new(), account, watched: false, compiler: binary().into() }
    }

    /// Puts a plugin into the shared directory.
    pub fn plugin(self, file: &str, wasm: &[u8]) -> Self {
        fs::write(self.dir.path().join("plugins").join(file), wasm).expect("the directory is there");
        self
    }

    /// Writes a file into the bot's directory.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().expect("it is in the directory")).expect("it can be made");
        fs::write(path, content).expect("the directory is there");
        self
    }

    /// A path in the bot's directory.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes its `aviary.toml`, and reads it as the host does.
    pub fn config(&self) -> Config {
        Config::load(&self.write()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Adds tables to `aviary.toml`.
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings += toml;
        self.settings += "\n";
        self
    }

    /// Adds keys to the account `main`; a `token` replaces the usual one.
    pub fn account(mut self, toml: &str) -> Self {
        if toml.contains("token =") && !toml.contains("previous_token =") {
            self.account.clear();
        }
        self.account += toml;
        self.account += "\n";
        self
    }

    /// Lets the host follow changes by itself, as `serve` does. Without it, a test calls `reload`.
    pub fn watched(mut self) -> Self {
        self.watched = true;
        self
    }

    /// Lets another program compile plugins.
    pub fn compiler(mut self, program: &Path) -> Self {
        self.compiler = program.into();
        self
    }

    /// Starts it, and waits until its plugins are loaded.
    pub async fn start(self) -> Bot {
        let bot = self.start_unloaded().await;
        bot.app.reload().await;
        if bot.watched {
            tokio::spawn(plugin::watch::run(bot.app.clone()));
        }
        bot
    }

    /// Writes its `aviary.toml` and leaves it to a process of its own.
    pub fn written(self) -> TempDir {
        self.write();
        self.dir
    }

    fn write(&self) -> PathBuf {
        let file = self.dir.path().join("aviary.toml");
        fs::write(&file, self.toml()).expect("the directory is there");
        file
    }

    /// Starts it without loading any plugin.
    pub async fn start_unloaded(self) -> Bot {
        self.write();
        serve(self.dir, self.watched, self.compiler).await
    }

    fn toml(&self) -> String {
        let (settings, account) = (&self.settings, &self.account);
        // Compiled plugins are shared between tests, as they are between restarts; what plugins store is not.
        let cache_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache").join("aviary");
        let has_cache = settings.contains("data_dir =") || settings.contains("cache_dir =");
        let cache_dir = if has_cache { String::new() } else { format!("cache_dir = \"{}\"\n", cache_dir.display()) };
        let engine = if settings.contains("[engine]") { "" } else { "[engine]\ninstances_max = 20\n" };
        // Wherever a process of its own serves this: several do at once.
        let admin = if settings.contains("admin_listen =") { "" } else { "admin_listen = \"127.0.0.1:0\"\n" };
        format!("{cache_dir}{admin}{settings}\n{engine}\n[accounts.main]\n{account}")
    }
}

/// A bot that serves.
pub struct Bot {
    pub app: Arc<App>,
    /// WeChat, as far as the account `main` knows it.
    pub simulator: Simulator,
    /// `http://127.0.0.1:PORT`
    pub origin: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    watched: bool,
    compiler: PathBuf,
    dir: TempDir,
}

/// Serves a bot's directory, without loading any plugin.
async fn serve(dir: TempDir, watched: bool, compiler: PathBuf) -> Bot {
    let config = Config::load(&dir.path().join("aviary.toml")).unwrap_or_else(|error| panic!("{error}"));
    let main = config.accounts.iter().find(|account| account.name == "main").expect("it is always there");
    let path = main.path.clone();
    let app = App::new(config, &compiler).expect("the host starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
    let simulator = Simulator::new(&format!("{origin}{path}"), TOKEN).expect("it is a URL");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server::run(app.clone(), listener, async { _ = stopped.await }));
    Bot { app, simulator, origin, stop, server, watched, compiler, dir }
}

impl Bot {
    /// The bot's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file in the shared plugins directory.
    pub fn plugin_file(&self, file: &str) -> PathBuf {
        self.dir().join("plugins").join(file)
    }

    /// Opens the admin listener and returns where it is: `http://127.0.0.1:PORT`.
    pub async fn admin(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(admin::run(self.app.clone(), listener));
        origin
    }

    /// Pushes what a user says, in the notation of conversation files, and returns the reply in it: `""` is silence.
    pub async fn says(&self, words: &str) -> String {
        let said = Said::parse(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        self.shown(&self.push(&said.to_xml(&new_header())).await)
    }

    /// Like [`Bot::says`], as another user.
    pub async fn says_as(&self, openid: &str, words: &str) -> String {
        let said = Said::parse(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        let header = Header { from_user: openid.to_owned(), ..new_header() };
        self.shown(&self.push(&said.to_xml(&header)).await)
    }

    /// WeChat, as far as the account at another path knows it; its token is [`TOKEN`], too.
    pub fn account(&self, path: &str) -> Simulator {
        Simulator::new(&format!("{}{path}", self.origin), TOKEN).expect("it is a URL")
    }

    /// Like [`Bot::says`], to another account.
    pub async fn says_to(&self, account: &Simulator, words: &str) -> String {
        let said = Said::parse(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        let answer = account.push(&said.to_xml(&new_header())).await;
        self.shown(&answer.unwrap_or_else(|error| panic!("the push was not answered: {error:#}")))
    }

    /// Asks the plugins of account `main` without a server, and tells what each did.
    pub async fn asked(&self, words: &str) -> Dispatch {
        self.asked_within(words, PATIENCE).await
    }

    /// Like [`Bot::asked`], with so much time for all of them.
    pub async fn asked_within(&self, words: &str, time: Duration) -> Dispatch {
        let said = Said::parse(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        let question = Question::read("main", said.to_xml(&new_header())).expect("the notation writes messages");
        let live = self.app.live();
        let chain = &live.named("main").expect("it is there").chain;
        dispatch::run(chain, &question, Instant::now() + time).await
    }

    /// Pushes a body as it is.
    pub async fn push(&self, xml: &str) -> Answer {
        self.simulator.push(xml).await.unwrap_or_else(|error| panic!("the push was not answered: {error:#}"))
    }

    /// An answer's reply in the notation of conversation files.
    pub fn shown(&self, answer: &Answer) -> String {
        assert_eq!(answer.status, 200, "{answer:?}");
        let reply = self.simulator.reply(answer).unwrap_or_else(|error| panic!("WeChat would not read it: {error:#}"));
        shown(reply.as_ref())
    }

    /// Waits until what serves is as wanted. Only for a watched bot.
    pub async fn until(&self, wanted: impl Fn(&Live) -> bool) -> Arc<Live> {
        let mut live = self.app.follow();
        let found = timeout(PATIENCE, live.wait_for(|live| wanted(live))).await;
        found.expect("it happens in time").expect("the host is there").clone()
    }

    /// The names of the plugins of account `main`, in the order they are asked.
    pub fn chain(&self) -> Vec<String> {
        names(&self.app.live())
    }

    /// Stops the host and waits until it has finished what was in flight.
    pub async fn stop(self) {
        self.ended().await;
    }

    /// Stops the host, and starts another in its place.
    pub async fn restart(self) -> Bot {
        let bot = self.restart_unloaded().await;
        bot.app.reload().await;
        bot
    }

    /// The same, and loads no plugins yet.
    pub async fn restart_unloaded(self) -> Bot {
        let (watched, compiler) = (self.watched, self.compiler.clone());
        let dir = self.ended().await;
        serve(dir, watched, compiler).await
    }

    async fn ended(self) -> TempDir {
        let _ = self.stop.send(());
        timeout(PATIENCE, self.server).await.expect("it stops in time").expect("it does not panic");
        self.dir
    }

    /// How many messages are owed an answer.
    pub async fn owed(&self) -> u64 {
        self.app.owes().await.expect("the store answers").owed
    }
}

/// The names of the plugins of account `main`, in the order they are asked.
pub fn names(live: &Live) -> Vec<String> {
    let main = live.named("main").expect("there is an account `main`");
    main.chain.plugins.iter().map(|plugin| plugin.name.to_string()).collect()
}

/// The header of a message that nobody sent before.
pub fn new_header() -> Header {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Header { to_user: "gh_test".into(), from_user: "oUser".into(), create_time: 1_700_000_000 + number, msg_id: number }
}
