//! `aviary chat`: talks to plugins in the terminal, without a server.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use aviary_wechat::xml;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::bot::{Bot, CONFIG_FILE};
use crate::{
    config::{Config, Log, PluginSettings},
    conversation::{Conversation, DEFAULT_USER, Playback, Said, difference, shown},
    dispatch::{self, Chain, Dispatch, Said as Outcome, Step},
    message::{self, Push},
    plugin::{
        Hash, Plugin,
        code::Code,
        compile::Compiler,
        engine::{Class, Engine},
        file_name::name_of,
        services::Services,
        set::{Effort, Set},
    },
    reply,
    secret::Secret,
};

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
    let bots = Bots::load(&args.plugins, &env).await?;
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
    let conversation = Conversation::parse(&text).with_context(|| file.display().to_string())?;
    ensure!(
        conversation.exchanges.is_empty(),
        "{}: this version gives plugins no HTTP, so the conversation cannot have any",
        file.display()
    );
    Ok(conversation)
}

/// The plugins that are asked, and how long they have.
struct Bots {
    chain: Chain,
    window: Duration,
}

impl Bots {
    /// Loads the plugins that are named, or those of the bot directory here, or the bundled ones.
    async fn load(files: &[PathBuf], env: &[(String, String)]) -> anyhow::Result<Self> {
        // A bot that nobody has set up has the settings of a new one.
        let temporary = tempfile::tempdir()?;
        let here = Path::new(CONFIG_FILE);
        let set_up = files.is_empty() && here.exists();
        let config = if set_up { Config::load(here)? } else { Config::load(&Bot::demo()?.write(temporary.path())?)? };
        // What goes well is seen in the conversation.
        super::log::start(&Log { level: "warn".into(), ..config.log.clone() })?;
        let cache_dir = if set_up { config.data_dir.join("cache") } else { cache_dir() };
        let engine = Engine::new(&config.engine)?;
        let compiler = Compiler::new(super::own_program()?, cache_dir, config.compile.clone(), engine.fingerprint())?;
        let plugins = if files.is_empty() {
            configured(&config, engine, compiler).await
        } else {
            named(files, &engine, &compiler).await?
        };
        let given = |mut plugin: Plugin| {
            Arc::make_mut(&mut plugin.settings).env.extend(secrets(env));
            Arc::new(plugin)
        };
        let chain = Chain { plugins: plugins.into_iter().map(given).collect() };
        Ok(Self { chain, window: config.accounts[0].late.window })
    }
}

/// The plugins of a bot directory, as its first account asks them.
async fn configured(config: &Config, engine: Engine, compiler: Compiler) -> Vec<Plugin> {
    let mut set = Set::new(engine, compiler, Services::scratch());
    set.scan(config, Effort::Compile).await;
    set.chains(config).swap_remove(0).plugins.into_iter().filter_map(Arc::into_inner).collect()
}

/// The plugins of these files, without any settings.
async fn named(files: &[PathBuf], engine: &Engine, compiler: &Compiler) -> anyhow::Result<Vec<Plugin>> {
    let mut plugins = Vec::new();
    for file in files {
        let not_loaded = || format!("{} is not loaded", file.display());
        let settings = Arc::new(PluginSettings::default());
        let wasm = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let (hash, class) = (Hash::of(&wasm), Class::of(wasm.len()));
        let compiled = compiler.compile(wasm, &hash).await.with_context(not_loaded)?;
        let code = Code::load(engine, class, &compiled, hash, &settings).await.with_context(not_loaded)?;
        let name = name_of(file).unwrap_or_else(|| file.display().to_string());
        let (name, account) = (name.into(), "main".into());
        plugins.push(Plugin { name, account, file: file.into(), code, settings, services: Services::scratch() });
    }
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
    let mut count = 0;
    for (turn, push) in Playback::default().turns(conversation) {
        let (dispatch, reply) = say(bots, &push).await?;
        println!("{turn}\n< {reply}");
        print_steps(&dispatch.steps);
        for expected in &turn.expected {
            // This version delivers nothing late.
            let reply = if expected.late { "" } else { reply.as_str() };
            if !expected.fits(reply) {
                eprintln!("\n{}", difference(expected, reply));
                return Ok(ExitCode::FAILURE);
            }
            count += 1;
        }
    }
    println!("\nAll {count} expected replies came.");
    Ok(ExitCode::SUCCESS)
}

async fn talk(bots: &Bots) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = bots.chain.plugins.iter().map(|plugin| &*plugin.name).collect();
    println!("Talking to {}. Ctrl-D ends it.", names.join(", "));
    read_pushes(async |push| {
        let (dispatch, reply) = say(bots, push).await?;
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

/// Asks the plugins, as the host would. Returns the reply in the notation of conversation files, too, as it looks after its
/// way over the wire.
async fn say(bots: &Bots, push: &str) -> anyhow::Result<(Dispatch, String)> {
    let Push::Message(message) = message::parse("main", &xml::parse(push.as_bytes())?)? else {
        bail!("nobody could be answered, so no plugin is asked");
    };
    let message = Arc::new(*message);
    let dispatch = dispatch::run(&bots.chain, &message, Instant::now() + bots.window).await;
    let address = reply::Address::back_to(&message);
    let xml = dispatch.reply.as_ref().and_then(|reply| reply::to_xml(reply, &address, message.create_time));
    let element = xml.map(|xml| xml::parse(xml.as_bytes())).transpose()?;
    Ok((dispatch, shown(element.as_ref())))
}

fn print_steps(steps: &[Step]) {
    for Step { plugin, outcome, duration, memory_bytes, output } in steps {
        for line in output {
            println!("    {plugin} | {line}");
        }
        let said = match outcome {
            Ok(Outcome::Passed) => "passed".to_owned(),
            Ok(Outcome::Replied) => "replied".to_owned(),
            Err(failure) => format!("failed: it {failure}"),
        };
        println!("    {plugin} {said} ({:.2} ms, {} KiB)", duration.as_secs_f64() * 1e3, memory_bytes >> 10);
    }
}
