//! `aviary chat`: talks to plugins in the terminal, without a server.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Split, Stdin};

use super::{
    bot::{Bot, CONFIG_FILE},
    bots::{self, Bots},
};
use crate::{
    config::Config,
    conversation::{Conversation, DEFAULT_USER, Playback, Said},
    dispatch::{Said as Outcome, Step},
    plugin::services::Services,
    rehearsal::{self, Pace},
};

/// How long a replay waits where the conversation expects a late reply: as long as an exchange in it may take.
pub(super) const LATE_MAX: Duration = Duration::from_secs(600);

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
    let here = Path::new(CONFIG_FILE);
    let set_up = args.plugins.is_empty() && here.exists();
    // A bot that nobody has set up has the settings of a new one.
    let temporary = tempfile::tempdir()?;
    let config = if set_up { Config::load(here)? } else { Config::load(&Bot::demo()?.write(temporary.path())?)? };
    // What goes well is seen in the conversation.
    super::log::start_in_words()?;
    let services = match &conversation {
        None if set_up => bots::reaching_out(&config),
        _ => Services::played(exchanges),
    };
    let bots = match set_up {
        true => Bots::of_directory(config, env, services).await?,
        false => Bots::of_files(config, &args.plugins, env, services).await?,
    };
    if let Some(lack) = bots.lack() {
        eprintln!(
            "error: {lack}; `aviary dev` builds a project's, and `aviary check` tells why one that is there does not load"
        );
        return Ok(ExitCode::from(2));
    }
    match conversation {
        Some(conversation) => replay(&bots, &conversation).await,
        None => talk(bots).await,
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

async fn talk(mut bots: Bots) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = bots.chain.plugins.iter().map(|plugin| &*plugin.name).collect();
    println!("Talking to {}. Ctrl-D ends it.", names.join(", "));
    read_pushes(async |push| {
        // What was rebuilt since the last line answers this one.
        bots.reload().await?;
        say(&bots, push).await
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Asks the plugins, and prints what came of it.
pub(super) async fn say(bots: &Bots, push: &str) -> anyhow::Result<()> {
    let (dispatch, reply) = rehearsal::say(&bots.chain, push, bots.window).await?;
    println!("< {reply}");
    print_steps(&dispatch.steps);
    Ok(())
}

/// Makes a push of each line that is typed, and hands it on, until the input ends.
pub(super) async fn read_pushes(mut push: impl AsyncFnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (mut playback, mut typed) = (Playback::default(), Typed::new());
    loop {
        prompt()?;
        let Some(line) = typed.line().await? else { return Ok(()) };
        if let Some(words) = push_of(&mut playback, &line) {
            push(&words).await?;
        }
    }
}

/// What is typed, line by line.
pub(super) struct Typed(Split<BufReader<Stdin>>);

impl Typed {
    pub(super) fn new() -> Self {
        Self(BufReader::new(tokio::io::stdin()).split(b'\n'))
    }

    /// Returns the next line, or nothing when the input has ended. Of one in another encoding nothing is said, but why. What was
    /// typed so far stays if this is dropped.
    pub(super) async fn line(&mut self) -> anyhow::Result<Option<String>> {
        let Some(line) = self.0.next_segment().await? else { return Ok(None) };
        let told = |_| println!("this line is not UTF-8; set the terminal to UTF-8");
        Ok(Some(String::from_utf8(line).map_err(told).unwrap_or_default()))
    }
}

/// Shows that a line can be typed.
pub(super) fn prompt() -> anyhow::Result<()> {
    print!("> ");
    Ok(std::io::stdout().flush()?)
}

/// Makes a push of a line that was typed. One that says nothing, or nothing that can be understood, is none.
pub(super) fn push_of(playback: &mut Playback, line: &str) -> Option<String> {
    let (user, words) = speaker(line.trim());
    if words.is_empty() {
        return None;
    }
    let said = Said::parse(words).map_err(|error| println!("{error:#}")).ok()?;
    Some(playback.push(user, &said))
}

/// `小明> 你好` is said by 小明.
fn speaker(line: &str) -> (&str, &str) {
    match line.split_once("> ") {
        Some((user, words)) if !user.is_empty() && !user.contains([' ', '[']) => (user, words),
        _ => (DEFAULT_USER, line),
    }
}

/// Prints what plugins did.
pub(super) fn print_steps<'a>(steps: impl IntoIterator<Item = &'a Step>) {
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
