//! `aviary dev`: an author's loop. Builds a plugin's project, loads what was built, holds it to its conversation, and lets the
//! author talk to it; at every change again, and then it answers anew what was said last.

mod sources;

use std::{
    collections::BTreeSet,
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    pin::pin,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::mpsc,
    time::{Instant, timeout},
};

use self::sources::Sources;
use super::{
    bot::CONFIG_FILE,
    bots::{self, Bots},
    chat::{self, LATE_MAX},
    serve,
};
use crate::{
    config::{Config, Log},
    conversation::{Conversation, Playback, Said},
    plugin::watch::{Watched, settle},
    rehearsal::{self, Pace},
};

/// Builds a plugin's project, loads what was built, and lets you talk to it; at every change again.
///
/// What was said last is then answered anew, and a conversation NAME.txt beside aviary.toml is held. `[dev] build` is the command
/// that builds. A build that fails leaves the version before it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = Said::words())]
pub struct Args {
    /// The project's directory, with its aviary.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
}

/// Builds and talks until the input ends, or the process is told to stop.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let file = args.dir.join(CONFIG_FILE);
    if !file.exists() {
        bail!("there is no {}; `aviary new NAME --lang …` writes a project that has one", file.display());
    }
    let config = Config::load(&file)?;
    super::log::start(&Log { level: "warn".into(), ..config.log.clone() })?;
    let mut stop = pin!(serve::stop_signal()?);
    tokio::select! {
        ended = work(config) => ended.map(|()| ExitCode::SUCCESS),
        () = &mut stop => Ok(ExitCode::SUCCESS),
    }
}

async fn work(config: Config) -> anyhow::Result<()> {
    let (hint, mut hints) = mpsc::channel(1);
    let mut watched = Watched::start(notify::recommended_watcher, hint);
    let (quiet, poll) = (config.watch.quiet, config.watch.poll);
    let mut workshop = Workshop::open(config).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut is_heard = true;
    println!("Talk to it: 你好, [subscribe], [image], … Ctrl-D ends it.");
    chat::prompt()?;
    loop {
        watched.follow(workshop.directories());
        tokio::select! {
            line = lines.next_line(), if is_heard => match line? {
                Some(line) => workshop.hear(&line).await?,
                // Without a terminal it is the changes that count.
                None if std::io::stdin().is_terminal() => return Ok(()),
                None => { is_heard = false; continue }
            },
            // Where the system reports no changes, a look now and then finds them.
            hint = timeout(poll, hints.recv()) => {
                if hint.is_ok() {
                    settle(&mut hints, quiet).await;
                }
                if !workshop.follow().await? {
                    continue;
                }
            }
        }
        chat::prompt()?;
    }
}

/// A project with the plugins that were built of it.
struct Workshop {
    dir: PathBuf,
    config: Config,
    bots: Bots,
    /// What it was last built from.
    sources: Sources,
    playback: Playback,
    last_said: Option<String>,
}

impl Workshop {
    /// Builds a project for the first time.
    async fn open(config: Config) -> anyhow::Result<Self> {
        let dir = config.file.parent().context("the settings stand in a directory")?.to_owned();
        fs::create_dir_all(&config.plugins_dir)?;
        let sources = look(&dir, &config)?;
        build(&dir, &config).await?;
        let bots = Bots::of_directory(config.clone(), Vec::new(), bots::reaching_out(&config)).await?;
        let workshop = Self { dir, config, bots, sources, playback: Playback::default(), last_said: None };
        workshop.rehearse().await;
        Ok(workshop)
    }

    /// The directories in which a change matters.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut directories = self.sources.directories.clone();
        directories.insert(self.config.plugins_dir.clone());
        directories
    }

    async fn hear(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some(push) = chat::push_of(&mut self.playback, line) {
            self.last_said = Some(line.to_owned());
            chat::say(&self.bots, &push).await?;
        }
        Ok(())
    }

    /// Builds what changed, and loads what was built. Returns whether there was anything to tell.
    async fn follow(&mut self) -> anyhow::Result<bool> {
        let sources = look(&self.dir, &self.config)?;
        let is_edited = sources != self.sources;
        let mut is_built = false;
        if is_edited {
            println!();
            self.sources = sources;
            self.configure();
            is_built = build(&self.dir, &self.config).await?;
        }
        // Another hand may have built it, too.
        let is_reloaded = self.bots.reload().await?;
        if is_reloaded || is_built {
            self.rehearse().await;
            self.bots.tidy().await;
            if let Some(line) = self.last_said.clone() {
                println!("> {}", line.trim());
                self.hear(&line).await?;
            }
        }
        Ok(is_reloaded || is_edited)
    }

    /// Takes the settings as they are now; a mistake in them leaves those before.
    fn configure(&mut self) {
        match Config::load(&self.config.file) {
            Ok(config) => {
                self.config = config.clone();
                self.bots.configure(config);
            }
            Err(error) => eprintln!("error: {error}; the settings before stay"),
        }
    }

    /// Holds every plugin to its conversation, if it has one.
    async fn rehearse(&self) {
        for plugin in &self.bots.chain.plugins {
            let name = format!("{}.txt", plugin.name);
            if let Ok(text) = fs::read_to_string(self.dir.join(&name)) {
                println!("{name}: {}", self.replay(&text).await);
            }
        }
    }

    async fn replay(&self, text: &str) -> String {
        let conversation = match Conversation::parse(text) {
            Ok(conversation) => conversation,
            Err(error) => return error.to_string(),
        };
        let chain = self.bots.rehearsing(&conversation);
        let pace = Pace { window: self.bots.window, late: LATE_MAX };
        match rehearsal::replay(&chain, &conversation, pace, |_, _, _| ()).await {
            Ok(Ok(count)) => format!("all {count} expected replies came"),
            Ok(Err(fault)) => fault.difference,
            Err(error) => format!("{error:#}"),
        }
    }
}

fn look(dir: &Path, config: &Config) -> anyhow::Result<Sources> {
    Ok(Sources::look(dir, &[&config.plugins_dir, &config.data_dir, &config.cache_dir])?)
}

/// Builds a project, its tools' output in view. Returns whether it was built: a build that fails is told, and changes nothing.
async fn build(dir: &Path, config: &Config) -> anyhow::Result<bool> {
    let Some(command) = config.dev.build(dir) else {
        bail!("{}: `[dev] build` does not say how to build, and nothing here tells", config.file.display());
    };
    let started = Instant::now();
    println!("$ {command}");
    let build =
        Command::new("sh").args(["-c", command]).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true).status();
    let status = build.await.context("`sh` does not run")?;
    let seconds = started.elapsed().as_secs_f64();
    match status.success() {
        true => println!("Built in {seconds:.1} s."),
        false => eprintln!("The build failed ({status}) after {seconds:.1} s; the version before it stays."),
    }
    Ok(status.success())
}
