//! Where the host's log goes, and in which form.

mod fields;
mod lines;
mod words;

use std::{error::Error, io::IsTerminal};

use anyhow::Context;
use tracing_subscriber::{EnvFilter, fmt};

use self::lines::Lines;
use crate::config::{Log, LogFormat};

pub use self::lines::flush;

/// What is not logged unless `[log] level` names it: wasmtime warns of every odd request that a guest makes, as often as the
/// guest likes.
const UNSAID: &str = "wasmtime_wasi_http=off";

/// Starts logging to standard error, as `[log]` says.
pub fn start(settings: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{UNSAID},{}", settings.level))
        .with_context(|| format!("`log.level` is {:?}, which is no level such as \"info\"", settings.level))?;
    let lines = Lines::start()?;
    let is_watched = std::io::stderr().is_terminal();
    let log = fmt().with_env_filter(filter).with_writer(lines).with_ansi(is_watched);
    started(match settings.format {
        LogFormat::Text if is_watched => log.with_target(false).try_init(),
        LogFormat::Text => log.with_target(false).fmt_fields(fields::plain()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    })
}

/// Starts telling on standard error what goes wrong, to a person who talks with the command: in words, and nothing else.
pub fn start_in_words() -> anyhow::Result<()> {
    let filter = EnvFilter::new(format!("{UNSAID},warn"));
    let log = fmt().with_env_filter(filter).with_writer(Lines::start()?);
    started(log.fmt_fields(words::message()).event_format(words::Words).try_init())
}

fn started(started: Result<(), Box<dyn Error + Send + Sync>>) -> anyhow::Result<()> {
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}
