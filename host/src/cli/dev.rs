//! `aviary dev`: builds a plugin's project at every change, and talks to it.

use std::{path::PathBuf, process::ExitCode};

/// Builds a plugin's project, loads what it built, and lets you talk to it; again at every change.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The project's directory, with its aviary.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
}

/// Builds and talks until the input ends.
pub async fn run(_args: Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
