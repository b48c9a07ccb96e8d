//! Puts load on the host and on a native handler, side by side. `README.md` says what the figures mean.
//!
//! A run goes through these files in this order: [`binaries`] builds what is measured, [`bot`] writes a bot directory,
//! [`server_process`] starts a server as a process of its own, [`generator`] plays WeChat with what [`wechat`] signs and
//! [`http`] carries, and [`table`] prints what came of it. [`compare`], [`reload`], [`budget`], [`soak`], [`late`], [`pages`],
//! [`languages`] and [`today`] are the kinds of run;
//! [`native`] is the server that the host is compared with.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::generator::Failures;

mod compare;

mod reload;

mod budget;

mod soak;

mod late;

mod pages;

mod languages;

mod today;

mod native;

mod binaries;

mod bot;

mod server_process;

mod generator;

mod wechat;

mod http;

mod slow_server;

mod account;

mod latencies;

mod table;

/// The host's own: what is measured in this process must cost what it costs there. The native handler gets it, too, so that no
/// figure is one of allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prints what a message costs the host, and what it costs a native handler, from one run; or all that the host is held to.
#[derive(Debug, Parser)]
#[command(name = "aviary-load", args_conflicts_with_subcommands = true)]
#[command(after_help = "Exit status: 0 every answer was right, 1 one was not or the run failed, 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the native handler; the tool runs this itself, as a process of its own
    Native(native::Args),
}

/// How to load.
#[derive(Clone, Debug, clap::Args)]
struct Run {
    /// Compare in safe mode too: the host's AES beside a native handler's
    #[arg(long)]
    safe: bool,
    /// Instead of comparing, replace the plugin ten times under load and miss no message
    #[arg(long, conflicts_with = "safe")]
    reload: bool,
    /// Instead of comparing, measure late replies: recognising, writing down and delivering them
    #[arg(long, conflicts_with_all = ["safe", "reload", "budget", "soak"])]
    late: bool,
    /// Instead of comparing messages, compare a page that a plugin makes with a native one
    #[arg(long, conflicts_with_all = ["safe", "reload", "late", "budget", "soak"])]
    pages: bool,
    /// Instead of comparing, measure what users run today beside the host: co-wechat, Flask, wechatpy
    #[arg(long, conflicts_with_all = ["safe", "reload", "late", "pages", "budget", "soak"])]
    today: bool,
    #[command(flatten)]
    budget: budget::Args,
    #[command(flatten)]
    soak: soak::Args,
    #[command(flatten)]
    languages: languages::Args,
    /// How often every server is measured; they take turns, and the table shows medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long one measurement takes; there are two in each server's turn
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Load before the measurements; with --today 5, in which Node.js compiles what is often run
    #[arg(long, value_name = "S", default_value_t = 1, default_value_if("today", "true", "5"))]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up: u64,
    /// Connections, each kept alive and with one message at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Messages per second of the measurement that does not saturate; with --today 500, which all can bear
    #[arg(long, default_value_t = 2_000, default_value_if("today", "true", "500"))]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// The host's log level; it logs into a file
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
    /// Measure this `aviary` instead of building the one of this workspace
    #[arg(long, value_name = "FILE")]
    host: Option<PathBuf>,
}

impl Run {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Native(args)) => native::run(&args).map(|()| ExitCode::SUCCESS),
        None => load(&cli.run),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(run: &Run) -> anyhow::Result<Failures> {
    match run {
        Run { reload: true, .. } => reload::run(run).await,
        Run { budget, .. } if budget.budget => budget::run(run).await,
        Run { late: true, .. } => late::run(run).await,
        Run { pages: true, .. } => pages::run(run).await,
        Run { today: true, .. } => today::run(run).await,
        Run { languages, .. } if languages.languages => languages::run(run).await,
        Run { soak, .. } if soak.soak => soak::run(run).await,
        _ => compare::run(run).await,
    }
}

/// Loads on one thread, so that the servers have the rest of the machine. When the process is told to stop, the run is
/// dropped where it is, and its servers and directories with it.
fn load(run: &Run) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failures = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            failures = measure(run) => failures,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("told to stop"),
        }
    })?;
    println!("{failures}");
    Ok(if failures.count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_kinds_of_run_claim_the_same_name() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_users_run_today_has_a_pace_and_a_warm_up_of_its_own_unless_they_are_named() {
        let of = |args: &[&str]| {
            let Cli { run, .. } = Cli::try_parse_from([&["aviary-load"], args].concat()).unwrap();
            (run.rate, run.warm_up)
        };
        assert_eq!(of(&[]), (2_000, 1));
        assert_eq!(of(&["--today"]), (500, 5));
        assert_eq!(of(&["--today", "--rate", "1000", "--warm-up", "2"]), (1_000, 2));
    }
}
