//! `aviary dev`: an author's loop. Builds a plugin's project, loads what was built, holds it to its conversation, and lets the
//! author talk to it; at every change again, and then it answers anew what was said last.

mod settings;
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
    process::Command,
    sync::mpsc,
    time::{Instant, timeout},
};

use self::{settings::Settings, sources::Sources};
use super::{
    bot::CONFIG_FILE,
    bots::{self, Bots},
    chat::{self, LATE_MAX, Typed},
    parse, serve,
};
use crate::{
    config::{self, Config, ConfigError, Watch},
    conversation::{Conversation, Playback, Said},
    plugin::{
        Plugin,
        watch::{Watched, settle},
    },
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
    super::log::start_in_words()?;
    let mut stop = pin!(serve::stop_signal()?);
    tokio::select! {
        ended = work(config) => ended.map(|()| ExitCode::SUCCESS),
        () = &mut stop => Ok(ExitCode::SUCCESS),
    }
}

async fn work(config: Config) -> anyhow::Result<()> {
    let (hint, mut hints) = mpsc::channel(1);
    let mut watched = Watched::start(notify::recommended_watcher, hint);
    let mut workshop = Workshop::open(config).await?;
    let (mut typed, mut is_heard) = (Typed::new(), true);
    let end = if std::io::stdin().is_terminal() { "Ctrl-D" } else { "Ctrl-C" };
    println!("Talk to it: 你好, [subscribe], [image], … {end} ends it.");
    chat::prompt()?;
    loop {
        watched.follow(workshop.directories());
        let Watch { quiet, poll } = workshop.config.watch;
        tokio::select! {
            line = typed.line(), if is_heard => match line? {
                Some(line) if line.trim().is_empty() => workshop.build_again().await?,
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
    settings: Settings,
    bots: Bots,
    /// As they were looked at last.
    sources: Sources,
    /// Whether the last build was one.
    is_built: bool,
    /// Why it could not be looked at, once that was told.
    trouble: Option<String>,
    playback: Playback,
    last_said: Option<String>,
}

impl Workshop {
    /// Builds a project for the first time.
    async fn open(config: Config) -> anyhow::Result<Self> {
        let dir = config.file.parent().context("the settings stand in a directory")?.to_owned();
        tell(&config);
        let mut sources = look(&dir, &config)?;
        let is_built = build(&dir, &config, &mut sources).await?;
        let bots = Bots::of_directory(config.clone(), Vec::new(), bots::reaching_out(&config)).await?;
        let workshop = Self {
            dir,
            settings: Settings::of(config.stamps()),
            config,
            bots,
            sources,
            is_built,
            trouble: None,
            playback: Playback::default(),
            last_said: None,
        };
        workshop.hold_conversations().await;
        if let Some(lack) = workshop.lack() {
            eprintln!("{lack}");
        }
        Ok(workshop)
    }

    /// The directories in which a change matters.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let others = self.settings.directories().chain([self.config.plugins_dir.as_path()]);
        self.sources.directories.iter().cloned().chain(others.map(Path::to_owned)).collect()
    }

    /// Builds what could not be built: what was wrong may lie outside of the project.
    async fn build_again(&mut self) -> anyhow::Result<()> {
        if !self.is_built && self.load(true).await? {
            self.answer_anew().await?;
        }
        Ok(())
    }

    async fn hear(&mut self, line: &str) -> anyhow::Result<()> {
        let Some(push) = chat::push_of(&mut self.playback, line) else { return Ok(()) };
        self.last_said = Some(line.to_owned());
        match self.lack() {
            Some(lack) => eprintln!("{lack}"),
            None => chat::say(&self.bots, &push).await?,
        }
        Ok(())
    }

    /// Asks anew what was said last, if there is anybody to ask.
    async fn say_again(&mut self) -> anyhow::Result<()> {
        match (self.lack(), self.last_said.clone()) {
            (Some(lack), _) => eprintln!("{lack}"),
            (None, Some(line)) => {
                println!("> {}", line.trim());
                self.hear(&line).await?;
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn lack(&self) -> Option<String> {
        self.bots.lack().map(|lack| format!("{lack}; the build has to put NAME.wasm there"))
    }

    /// Builds what changed, and loads what was built. Returns whether anything was told.
    async fn follow(&mut self) -> anyhow::Result<bool> {
        let trouble = self.trouble.clone();
        let Some(mut changed) = self.look_again() else { return Ok(self.trouble != trouble) };
        changed.retain(|file| !self.settings.has(file));
        let read = self.settings.read_changed(&self.config.file);
        // What they name now is no source, either.
        changed.retain(|file| !self.settings.has(file));
        let is_changed = read.is_some() || !changed.is_empty();
        if is_changed {
            println!();
        }
        let (command, faults) = (self.command(), self.bots.faults());
        let is_configured = read.is_some_and(|read| self.configure(read));
        let needs_build = changed.iter().any(|file| !self.is_conversation(file)) || self.command() != command;
        let is_new = self.load(needs_build).await? || is_configured;
        if is_new {
            self.answer_anew().await?;
        } else if changed.iter().any(|file| self.is_conversation(file)) {
            self.hold_conversations().await;
        }
        Ok(is_changed || is_new || self.bots.faults() != faults)
    }

    /// Builds if that is needed, and loads what was built, by this hand or another. Returns whether it may be another plugin now.
    async fn load(&mut self, needs_build: bool) -> anyhow::Result<bool> {
        let is_built = needs_build && self.build().await;
        let had_plugins = self.bots.lack().is_none();
        let is_reloaded = self.bots.reload().await?;
        let is_cleaned_away = had_plugins && self.bots.lack().is_some();
        if needs_build || !is_cleaned_away {
            return Ok(is_built || is_reloaded);
        }
        println!();
        self.build().await;
        self.bots.reload().await?;
        Ok(true)
    }

    /// Shows what has become of it with what is loaded now.
    async fn answer_anew(&mut self) -> anyhow::Result<()> {
        self.hold_conversations().await;
        self.bots.tidy().await;
        self.say_again().await
    }

    fn command(&self) -> Option<String> {
        self.config.dev.build(&self.dir, &self.config.plugins_dir)
    }

    /// Builds it anew. What keeps it from that may pass: the next change is built again.
    async fn build(&mut self) -> bool {
        let is_built = build(&self.dir, &self.config, &mut self.sources).await;
        self.is_built = is_built.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            false
        });
        self.is_built
    }

    /// Looks at the project again, and returns the files that changed. What keeps it from that is told once, and may pass.
    fn look_again(&mut self) -> Option<BTreeSet<PathBuf>> {
        match look(&self.dir, &self.config) {
            Ok(sources) => {
                let changed = sources.changed_since(&self.sources);
                (self.sources, self.trouble) = (sources, None);
                Some(changed)
            }
            Err(error) => {
                let trouble = format!("error: {error:#}; nothing is built until that is mended");
                if self.trouble.as_ref() != Some(&trouble) {
                    eprintln!("\n{trouble}");
                    self.trouble = Some(trouble);
                }
                None
            }
        }
    }

    /// Whether only this command reads a file, when a plugin is built and loaded.
    fn is_conversation(&self, file: &Path) -> bool {
        self.bots.chain.plugins.iter().any(|plugin| *file == self.conversation(plugin))
    }

    fn conversation(&self, plugin: &Plugin) -> PathBuf {
        self.dir.join(format!("{}.txt", plugin.name))
    }

    /// Takes the settings that were read. Returns whether it could: a mistake in them leaves those before.
    fn configure(&mut self, read: Result<Config, ConfigError>) -> bool {
        match read {
            Ok(config) => {
                tell(&config);
                for key in config::needs_restart(&self.config, &config) {
                    eprintln!("`{key}` changed; it counts after a restart");
                }
                self.bots.configure(config.clone());
                self.config = config;
                true
            }
            Err(error) => {
                error.problems().iter().for_each(|problem| eprintln!("error: {problem}"));
                eprintln!("The settings before stay.");
                false
            }
        }
    }

    /// Holds every plugin to its conversation, if it has one. Failures are shown where they happen: silence may be expected.
    async fn hold_conversations(&self) {
        for plugin in &self.bots.chain.plugins {
            let file = self.conversation(plugin);
            if file.is_file() {
                let came = match parse::read_text(&file) {
                    Ok(text) => self.replay(&text).await,
                    Err(error) => format!("{error:#}"),
                };
                println!("{}.txt: {came}", plugin.name);
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
        let replayed = rehearsal::replay(&chain, &conversation, pace, |turn, dispatch, reply| {
            let mut failed = dispatch.steps.iter().filter(|step| step.outcome.is_err()).peekable();
            if failed.peek().is_some() {
                println!("{turn}\n< {reply}");
            }
            chat::print_steps(failed);
        });
        match replayed.await {
            Ok(Ok(count)) => format!("all {count} expected replies came"),
            Ok(Err(fault)) => fault.difference,
            Err(error) => format!("{error:#}"),
        }
    }
}

/// Tells what is wrong with included files, which are left out, and what is hardly meant.
fn tell(config: &Config) {
    config.problems.iter().for_each(|problem| eprintln!("error: {problem}"));
    config.notes.iter().for_each(|note| eprintln!("note: {note}"));
}

fn look(dir: &Path, config: &Config) -> anyhow::Result<Sources> {
    Ok(Sources::look(dir, &[&config.plugins_dir, &config.data_dir, &config.cache_dir])?)
}

/// Builds a project of these sources, its tools' output in view. Returns whether it was built: a build that fails is told, and
/// changes nothing.
async fn build(dir: &Path, config: &Config, sources: &mut Sources) -> anyhow::Result<bool> {
    let Some(command) = config.dev.build(dir, &config.plugins_dir) else {
        bail!("{}: `[dev] build` does not say how to build, and nothing here tells", config.file.display());
    };
    let plugins_dir = &config.plugins_dir;
    fs::create_dir_all(plugins_dir).with_context(|| format!("cannot make {}", plugins_dir.display()))?;
    let started = Instant::now();
    println!("$ {command}");
    let build =
        Command::new("sh").args(["-c", &command]).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true).status();
    let status = build.await.context("`sh` does not run")?;
    if let Ok(after) = look(dir, config) {
        sources.take_locks(&after);
    }
    let seconds = started.elapsed().as_secs_f64();
    match status.success() {
        true => println!("Built in {seconds:.1} s."),
        false => {
            eprintln!("The build failed ({status}) after {seconds:.1} s; nothing new is loaded. Enter builds again.")
        }
    }
    Ok(status.success())
}
