//! `aviary demo`: a bot to talk to, with one command.

use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, pin::pin, process::ExitCode};

use tokio::net::TcpListener;

use super::{
    bot::{Bot, CONFIG_FILE},
    chat, serve,
};
use crate::{
    app::App,
    config::{Config, Mode},
    conversation::{Encryption, Simulator, shown},
    server,
};

/// Runs a bot with the bundled plugins on this machine only, and talks to it.
///
/// On a terminal every line you type is pushed to the bot as WeChat would, signed and over HTTP; elsewhere it serves until
/// it is stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory to keep the bot in; without it, one that is gone afterwards
    dir: Option<PathBuf>,
}

/// Serves the demo until the conversation, or the process, ends.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Removed when it is dropped, at the end.
    let temporary = tempfile::Builder::new().prefix("aviary-demo-").tempdir()?;
    let dir = args.dir.unwrap_or_else(|| temporary.path().to_owned());
    let file = dir.join(CONFIG_FILE);
    if !file.exists() {
        Bot::demo()?.write(&dir)?;
    }
    let config = Config::load(&file)?;
    super::log::start(&config.log)?;
    // Before anyone can know that we run; and a temporary directory is not left behind.
    let mut stop = pin!(serve::stop_signal()?);
    let listener = bind(config.listen, "listen").await?;
    let admin = match config.admin_listen {
        Some(address) => Some(bind(address, "admin_listen").await?),
        None => None,
    };
    let account = config.accounts[0].clone();
    let url = format!("http://{}{}", listener.local_addr()?, account.path);
    let app = App::new(config, &super::own_program()?)?;
    serve::start(&app, &listener, admin)?;
    tokio::select! {
        _ = app.ready() => {}
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    }
    println!("\nThe bot is running. Its plugins are in {}/plugins.", dir.display());
    println!("Push a message to it from another terminal:\n");
    let token = account.token.expose();
    let secrets = match account.mode {
        Mode::Plain => format!("--token {token}"),
        Mode::Compatible | Mode::Safe => format!("--config {}", file.display()),
    };
    println!("  {} push {url} {secrets} --text 你好\n", program());
    let mut simulator = Simulator::new(&url, token)?;
    simulator.encryption = Encryption::of(&account);
    if std::io::stdin().is_terminal() {
        println!("Or talk to it here: 你好, [subscribe], [image], … Ctrl-D ends it.\n");
        let done = async {
            tokio::select! {
                result = talk(&simulator) => if let Err(error) = result { eprintln!("error: {error:#}") },
                () = stop => {}
            }
        };
        server::run(app, listener, done).await;
    } else {
        println!("Ctrl-C ends it.");
        server::run(app, listener, stop).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Binds the listener of a setting, or where that is taken any free port, which will do for a demo.
async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(_) => serve::bind((address.ip(), 0).into(), setting).await,
    }
}

/// Pushes each line that is typed, and prints what the user would see.
async fn talk(simulator: &Simulator) -> anyhow::Result<()> {
    chat::read_pushes(async |push| {
        match say(simulator, push).await {
            Ok(reply) => println!("< {reply}"),
            Err(error) => println!("{error:#}"),
        }
        Ok(())
    })
    .await
}

async fn say(simulator: &Simulator, xml: &str) -> anyhow::Result<String> {
    let answer = simulator.push(xml).await?;
    Ok(match simulator.reply(&answer)? {
        Some(reply) => shown(Some(&reply)),
        None => "(success: no reply)".into(),
    })
}

/// How this program was called, so that the line to copy works.
fn program() -> String {
    quoted(&std::env::args().next().unwrap_or_else(|| "aviary".into()))
}

/// Writes a word so that a shell takes it as it is.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "/._-+@%:,".contains(char);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_an_odd_place_is_quoted_for_the_shell() {
        assert_eq!(quoted("target/debug/aviary"), "target/debug/aviary");
        assert_eq!(quoted("/home/小明/aviary-0.1"), "/home/小明/aviary-0.1");
        assert_eq!(quoted("/my bots/aviary"), "'/my bots/aviary'");
        assert_eq!(quoted("it's/$HOME"), r"'it'\''s/$HOME'");
    }
}
