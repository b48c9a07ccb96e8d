//! `aviary new`: a plugin's project.

use std::{path::PathBuf, process::ExitCode};

use super::bot::new_token;
use crate::{
    project::{Language, Project, ProjectError},
    shell::word,
};

/// Writes a plugin's project: a small bot to change, which builds as it is with the language's own tools.
///
/// The project brings the contract, bindings, helpers, a bot to try the plugin in, and a conversation that it has to hold. Its
/// README says what has to be installed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin's name, and the directory to make
    name: PathBuf,
    /// The language to write it in
    #[arg(long)]
    lang: Language,
}

/// Writes the project and says what comes next.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = args.name.file_name().unwrap_or(args.name.as_os_str()).to_string_lossy();
    let project = match Project::new(&name, args.lang, new_token()?) {
        Ok(project) => project,
        Err(error @ (ProjectError::Name { .. } | ProjectError::Taken { .. })) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(error.into()),
    };
    project.write(&args.name)?;
    let dir = args.name.display();
    println!("{dir}/ is there; {dir}/README.md says what its build needs.\n");
    println!("  cd {}", word(&args.name));
    println!("  aviary dev     # builds it, talks to it, and builds it anew at every change");
    Ok(ExitCode::SUCCESS)
}
