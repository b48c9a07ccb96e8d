//! `aviary late`: what users are still owed, and what is to become of replies that could not be delivered.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use clap::Subcommand;

use super::{
    bot::CONFIG_FILE,
    status::{ago, data_dir, is_not_running, start_line},
};
use crate::{
    control::{
        client::Host,
        late::{DeadLetter, Late, LetterDeed, LetterOrder, LettersDone, OwedMessage, WaitsFor},
    },
    store::late::Id,
};

/// Lists the late replies of the running host, and its dead letters: replies that could not be delivered.
///
/// Exits 0 also where there are dead letters (`aviary status` does not); 1 if no host runs or a letter cannot be retried or
/// dropped; 2 if the settings cannot be loaded and no host is found.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    order: Option<OrderArgs>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum OrderArgs {
    /// Lists what is owed, and the dead letters
    List(ListArgs),
    /// Delivers a dead letter again, or all of them
    Retry(Which),
    /// Forgets a dead letter, or all of them
    Drop(Which),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The bot's directory, with its aviary.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The settings, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The letter's number, as `aviary late` lists it, or `all`
    #[arg(value_name = "ID|all")]
    letter: Letter,
    /// The bot's directory, with its aviary.toml
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The settings, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// One dead letter, or all: none.
#[derive(Clone, Copy, Debug)]
struct Letter(Option<Id>);

impl FromStr for Letter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self(None)),
            _ => text.parse().map(|id| Self(Some(id))).map_err(|_| "it is neither a number nor `all`".to_owned()),
        }
    }
}

/// Lists, or gives the order.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (deed, which) = match args.order {
        None => return list(args.list).await,
        Some(OrderArgs::List(args)) => return list(args).await,
        Some(OrderArgs::Retry(which)) => (LetterDeed::Retry, which),
        Some(OrderArgs::Drop(which)) => (LetterDeed::Drop, which),
    };
    let file = which.config.unwrap_or_else(|| which.dir.join(CONFIG_FILE));
    let order = LetterOrder { id: which.letter.0 };
    let given = async { Ok::<_, anyhow::Error>(Host::find(&data_dir(&file)?).await?.letters(deed, order).await?) };
    match given.await {
        Ok(done) => Ok(tell(deed, &done)),
        Err(error) if is_not_running(&error) => Ok(no_host(&error, &file)),
        Err(error) => Err(error),
    }
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.unwrap_or_else(|| args.dir.join(CONFIG_FILE));
    let asked = async { Ok::<_, anyhow::Error>(Host::find(&data_dir(&file)?).await?.late().await?) };
    match asked.await {
        Ok(late) if args.json => println!("{:#}", serde_json::to_value(&late)?),
        Ok(late) => print(&late),
        Err(error) if is_not_running(&error) => return Ok(no_host(&error, &file)),
        Err(error) => return Err(error),
    }
    Ok(ExitCode::SUCCESS)
}

fn no_host(error: &anyhow::Error, file: &Path) -> ExitCode {
    println!("{error}.\nStart it with: {}", start_line(file));
    ExitCode::FAILURE
}

fn print(late: &Late) {
    println!("Under way, while WeChat still tries  {}", late.under_way);
    println!("Owed  {}", late.counts.owed);
    late.owed.iter().for_each(print_owed);
    if let more @ 1.. = late.counts.owed.saturating_sub(late.owed.len() as u64) {
        println!("  and {more} more");
    }
    println!("Kept until their users ask  {}", late.counts.kept);
    println!("Dead letters  {}", late.counts.dead);
    late.dead.iter().for_each(print_dead);
    if let more @ 1.. = late.counts.dead.saturating_sub(late.dead.len() as u64) {
        println!("  and {more} more");
    }
    if !late.dead.is_empty() {
        println!("Deliver one again with: aviary late retry ID; forget it with: aviary late drop ID");
    }
}

fn print_owed(owed: &OwedMessage) {
    let OwedMessage { account, user, since_ms, attempt, waits_for } = owed;
    let waits_for = match waits_for {
        WaitsFor::Plugin => "waits for its plugin",
        WaitsFor::Wechat => "waits for WeChat",
    };
    println!("  account `{account}`, user {user}, came {}, attempt {attempt}, {waits_for}", ago(since_ms / 1_000));
}

fn print_dead(letter: &DeadLetter) {
    let DeadLetter { id, account, user, reply, why, died_ms } = letter;
    let reply = if reply.is_empty() { "no reply".to_owned() } else { reply.join(", ") };
    println!("  {id}  account `{account}`, user {user}, {reply}, given up {}: {why}", ago(died_ms / 1_000));
}

fn tell(deed: LetterDeed, done: &LettersDone) -> ExitCode {
    match (deed, done.done) {
        (_, 0) if done.left.is_empty() => println!("There are no dead letters"),
        (_, 0) => {}
        (LetterDeed::Retry, count) => {
            println!("Dead letters that are being delivered again: {count}; `aviary late` shows what comes of it")
        }
        (LetterDeed::Drop, count) => println!("Dead letters dropped: {count}"),
    }
    for left in &done.left {
        eprintln!("error: dead letter {} stays: {}", left.id, left.why);
    }
    if done.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
