//! `aviary chat`: talks to plugins in the terminal, without a server.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::bot::{Bot, CONFIG_FILE};
use crate::{
    api::Api,
    config::{Config, Grants, Log, PluginSettings},
    conversation::{Conversation, DEFAULT_USER, Exchange, Playback, Said},
    dispatch::{Chain, Said as Outcome, Step},
    plugin::{
        Plugin,
        engine::Engine,
        file_name::name_of,
        loader::{Loader, Look, Phase, Progress, Terms},
        record::Record,
        services::Services,
        set::Set,
    },
    rehearsal::{self, Pace},
    secret::Secret,
};

/// How long a replay waits where the conversation expects a late reply: as long as an exchange in it may take.
const LATE_MAX: Duration = Duration::from_secs(600);

/// Talks to plugins in the terminal, with the time, memory and log lines of every call.
///
/// Type a text, or a word such as `[subscribe]`, `[image]` or `[CLICK key]`; `小明> 你好` speaks as another user.
#[derive(Debug, clap::Args)]
#[command(after_long_help = Said::words())]
pub struct Args {
    /// The plugins to ask, in this order; without any, those of the aviary.toml here, or the bundled ones
    #[arg(value_name = "PLUGIN.wasm")]
    plugins: Vec<PathBuf>,
    /// Hold the plugins to this conversation; exits 1 at the first difference
    #[arg(long, value_name = "FILE.txt")]
    replay: Option<PathBuf>,
    /// Give every plugin this environment variable
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
}

/// Talks until the input ends, or replays a conversation.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let conversation = args.replay.as_deref().map(read_conversation).transpose()?;
    let mut env = args.env.iter().map(|pair| variable(pair)).collect::<anyhow::Result<Vec<_>>>()?;
    env.extend(conversation.iter().flat_map(|conversation| conversation.env.clone()));
    // What the conversation plays is all the HTTP there is, and what is kept is gone at the end.
    let exchanges = conversation.iter().flat_map(|conversation| conversation.exchanges.clone()).collect::<Vec<_>>();
    let bots = Bots::load(&args.plugins, &env, exchanges).await?;
    match conversation {
        Some(conversation) => replay(&bots, &conversation).await,
        None => talk(&bots).await,
    }
}

fn variable(pair: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = pair.split_once('=').with_context(|| format!("`--env {pair}` has no `=`"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn read_conversation(file: &Path) -> anyhow::Result<Conversation> {
    let text = super::parse::read_text(file)?;
    Conversation::parse(&text).with_context(|| file.display().to_string())
}

/// The plugins that are asked, and how long they have.
struct Bots {
    chain: Chain,
    window: Duration,
}

impl Bots {
    /// Loads the plugins that are named, or those of the bot directory here, or the bundled ones.
    async fn load(files: &[PathBuf], env: &[(String, String)], exchanges: Vec<Exchange>) -> anyhow::Result<Self> {
        // A bot that nobody has set up has the settings of a new one.
        let temporary = tempfile::tempdir()?;
        let here = Path::new(CONFIG_FILE);
        let set_up = files.is_empty() && here.exists();
        let config = if set_up { Config::load(here)? } else { Config::load(&Bot::demo()?.write(temporary.path())?)? };
        // What goes well is seen in the conversation.
        super::log::start(&Log { level: "warn".into(), ..config.log.clone() })?;
        let cache_dir = if set_up { config.cache_dir.clone() } else { cache_dir() };
        let services = Services::played(exchanges);
        let engine = Engine::new(&config.engine)?;
        let loader = Loader::new(engine, super::own_program()?, cache_dir, config.compile.clone(), services)?;
        let plugins =
            if files.is_empty() { configured(&config, loader).await } else { named(files, &config, &loader).await? };
        let given = |mut plugin: Plugin| {
            Arc::make_mut(&mut plugin.settings).env.extend(secrets(env));
            Arc::new(plugin)
        };
        let chain = Chain::of(plugins.into_iter().map(given).collect());
        Ok(Self { chain, window: config.accounts[0].late.window })
    }
}

/// The plugins of a bot directory, as its first account asks them.
async fn configured(config: &Config, loader: Loader) -> Vec<Plugin> {
    let mut set = Set::new(loader);
    set.look(config, Phase::Compile).await;
    set.chains(config).swap_remove(0).plugins.into_iter().filter_map(Arc::into_inner).collect()
}

/// The plugins of these files, without any settings. The conversations beside them are not held: they may be
/// what is being written.
async fn named(files: &[PathBuf], config: &Config, loader: &Loader) -> anyhow::Result<Vec<Plugin>> {
    let mut plugins = Vec::new();
    for file in files {
        let not_loaded = || format!("{} is not loaded", file.display());
        let terms = Terms::of_no_bot(config, file);
        let look = Look::at(file).with_context(|| format!("cannot read {}", file.display()))?.without_canary();
        let source = loader.read(file, look, &terms).await.with_context(not_loaded)?;
        let loaded = loader.load(file, look, &source, &terms, &Progress::unwatched()).await.with_context(not_loaded)?;
        let name = name_of(file).unwrap_or_else(|| file.display().to_string());
        plugins.push(Plugin {
            lane: loaded.code.lane("main", &name),
            name: name.into(),
            account: "main".into(),
            file: file.into(),
            code: loaded.code,
            settings: Arc::new(PluginSettings { grants: Grants::scratch(), ..PluginSettings::default() }),
            api: Some(Api::played(loader.services.egress.clone())),
            services: loader.services.clone(),
            record: Record::default(),
        });
    }
    // No bot does it for this cache. That it cannot be tidied is no reason not to talk.
    let in_use = plugins.iter().map(|plugin| plugin.code.hash).collect();
    let _ = loader.tidy(in_use, &config.compile).await;
    Ok(plugins)
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

async fn replay(bots: &Bots, conversation: &Conversation) -> anyhow::Result<ExitCode> {
    let pace = Pace { window: bots.window, late: LATE_MAX };
    let replayed = rehearsal::replay(&bots.chain, conversation, pace, |turn, dispatch, reply| {
        println!("{turn}\n< {reply}");
        print_steps(&dispatch.steps);
    });
    match replayed.await? {
        Ok(count) => {
            println!("\nAll {count} expected replies came.");
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            eprintln!("\n{}", fault.difference);
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn talk(bots: &Bots) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = bots.chain.plugins.iter().map(|plugin| &*plugin.name).collect();
    println!("Talking to {}. Ctrl-D ends it.", names.join(", "));
    read_pushes(async |push| {
        let (dispatch, reply) = rehearsal::say(&bots.chain, push, bots.window).await?;
        println!("< {reply}");
        print_steps(&dispatch.steps);
        Ok(())
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a push of each line that is typed, and hands it on, until the input ends.
pub(super) async fn read_pushes(mut push: impl AsyncFnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut playback = Playback::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        print!("> ");
        std::io::stdout().flush()?;
        let Some(line) = lines.next_line().await? else { return Ok(()) };
        let (user, words) = speaker(line.trim());
        if words.is_empty() {
            continue;
        }
        match Said::parse(words) {
            Err(error) => println!("{error:#}"),
            Ok(said) => push(&playback.push(user, &said)).await?,
        }
    }
}

/// `小明> 你好` is said by 小明.
fn speaker(line: &str) -> (&str, &str) {
    match line.split_once("> ") {
        Some((user, words)) if !user.is_empty() && !user.contains([' ', '[']) => (user, words),
        _ => (DEFAULT_USER, line),
    }
}

fn print_steps(steps: &[Step]) {
    for Step { plugin, outcome, duration, memory_bytes, output, .. } in steps {
        for line in output {
            println!("    {plugin} | {line}");
        }
        let said = match outcome {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Replied) => "replied".to_owned(),
            Ok(Outcome::Served) => "made a page".to_owned(),
            Err(failure) => format!("failed: it {failure}"),
        };
        println!("    {plugin} {said} ({:.2} ms, {} KiB)", duration.as_secs_f64() * 1e3, memory_bytes >> 10);
    }
}
