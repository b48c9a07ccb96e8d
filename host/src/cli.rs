//! The command line: one file for each command.

use std::{panic, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::{
    config::ConfigError,
    plugin::compile::{self, ChildArgs},
};

pub mod api;
pub mod bot;
mod bots;
pub mod chat;
pub mod check;
pub mod demo;
pub mod dev;
pub mod init;
pub mod late;
pub mod log;
pub mod new;
pub mod parse;
pub mod plugins;
mod progress;
pub mod push;
mod report;
pub mod serve;
pub mod status;

/// A server for WeChat Official Accounts (微信公众号) whose reply handlers are sandboxed WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "aviary", version, after_help = "Exit status: 0 fine, 1 failed, 2 wrong usage or settings.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Serve(serve::Args),
    Push(Box<push::Args>),
    Chat(chat::Args),
    Parse(parse::Args),
    Check(check::Args),
    New(new::Args),
    Dev(dev::Args),
    Status(status::Args),
    Plugins(plugins::Args),
    Late(late::Args),
    Api(api::Args),
    /// Compiles one plugin; the host runs this itself, as a process of its own.
    #[command(name = compile::SUBCOMMAND, hide = true)]
    CompilePlugin(ChildArgs),
}

/// What a shell says of a command that was ended by SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Ends a command quietly whose reader wants no more, as `head` does; the standard library makes a panic of that.
fn end_with_a_closed_pipe() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let is_closed = |text: &str| text.starts_with("failed printing to std") && text.contains("Broken pipe");
        if info.payload_as_str().is_some_and(is_closed) {
            std::process::exit(CLOSED_PIPE);
        }
        before(info);
    }));
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    end_with_a_closed_pipe();
    let cli = Cli::parse();
    // The compiler of unknown bytes has no use for a runtime, and less is better there.
    if let Command::CompilePlugin(args) = cli.command {
        return compile::child(args);
    }
    let ended = runtime().map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(cli.command)));
    log::flush();
    match ended {
        Ok(code) => code,
        Err(error) => tell(&error),
    }
}

/// Tells why a command ended. Wrong settings are wrong usage, and nothing was tried.
fn tell(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ConfigError>() {
        Some(wrong) => {
            wrong.problems().iter().for_each(|problem| eprintln!("error: {problem}"));
            ExitCode::from(2)
        }
        None => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Init(args) => init::run(args),
        Command::Serve(args) => serve::run(args).await,
        Command::Push(args) => push::run(*args).await,
        Command::Chat(args) => chat::run(args).await,
        Command::Parse(args) => parse::run(args),
        Command::Check(args) => check::run(args).await,
        Command::New(args) => new::run(args),
        Command::Dev(args) => dev::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Plugins(args) => plugins::run(args).await,
        Command::Late(args) => late::run(args).await,
        Command::Api(args) => api::run(args).await,
        Command::CompilePlugin(args) => Ok(compile::child(args)),
    }
}

/// How long a thread for work that blocks waits for more. Memory that it has freed is for itself alone until it ends. With tokio's
/// 10 s, a host whose plugins are replaced every second would keep some ten of these threads for ever, as they are woken in turn,
/// and each would fill pages of its own. `tests/load/README.md` has the figures.
const THREADS_KEPT: Duration = Duration::from_millis(100);

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_keep_alive(THREADS_KEPT)
        .enable_all()
        // Guests that compute come back to the scheduler every millisecond; where there are many of them, sockets and timers
        // are looked at after 16, not after 61. Each look is a system call, so not after every one.
        .event_interval(16)
        .build()
}

/// The program that compiles plugins: ourselves, even if the file was replaced since.
fn own_program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}
