//! The plugins: each file loaded as the host would, and the tables that are about no file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Report,
    imports::{self, Asker},
};
use crate::{
    cli::progress,
    config::Config,
    plugin::{
        Hash, canary,
        directory::{self, directories},
        file_name::name_of,
        idle_tables::{Names, idle_tables},
        loader::{Loaded, Loader, Look, NotLoaded, Progress, ReadError, Terms},
    },
};

/// A plugin's file, and what became of it.
pub(super) struct Examined {
    pub(super) file: PathBuf,
    /// Empty for one that is no plugin by its name.
    pub(super) name: String,
    /// Nothing if it could not be read.
    bytes: Option<u64>,
    pub(super) hash: Option<Hash>,
    pub(super) loaded: Result<Loaded, String>,
}

/// Loads every plugin of a bot, in the order of the directories and of the names in them. Reports what only looks like one.
pub(super) async fn examine_all(loader: &Loader, config: &Config, report: &mut Report) -> Vec<Examined> {
    let (mut examined, mut refused) = (Vec::new(), Vec::new());
    for dir in directories(config) {
        match directory::list(dir, config.plugin_files_max) {
            Ok(listing) => {
                refused.extend(listing.refused);
                for file in listing.plugins {
                    examined.push(examine(loader, &file, Terms::of(config, &file)).await);
                }
            }
            Err(error) => report.wrong(&format!("plugins directory {} cannot be read: {error}", dir.display())),
        }
    }
    if !refused.is_empty() {
        report.heading("\nFiles");
        refused.iter().for_each(|why| report.wrong(why));
    }
    examined
}

/// Loads a file as the host would. What did not compile before is tried again.
pub(super) async fn examine(loader: &Loader, file: &Path, terms: Terms) -> Examined {
    let mut examined = Examined {
        file: file.into(),
        name: name_of(file).unwrap_or_default(),
        bytes: fs::metadata(file).ok().map(|metadata| metadata.len()),
        hash: None,
        loaded: Err("compiled code cannot be checked; put the `.wasm` file there".to_owned()),
    };
    if !examined.name.is_empty() {
        examined.loaded = load(loader, file, &terms, &mut examined.hash).await.map_err(|error| error.to_string());
    }
    examined
}

async fn load(loader: &Loader, file: &Path, terms: &Terms, hash: &mut Option<Hash>) -> Result<Loaded, NotLoaded> {
    let look = Look::at(file).map_err(ReadError::Io)?;
    let source = loader.read(file, look, terms).await?;
    *hash = Some(source.content.hash);
    // What cannot be forgotten is found again below.
    let _ = loader.pardon(source.content).await;
    let unwatched = Progress::unwatched();
    let what = if loader.is_new(source.content).await { "Compiling" } else { "Loading" };
    let load = loader.load(file, look, &source, terms, &unwatched);
    progress::shown(&format!("{what} {}", file.display()), load).await
}

/// Prints a plugin, shown as a path; `askers` are the accounts that ask it.
pub(super) fn print(plugin: &Examined, shown: &Path, askers: Option<&[Asker<'_>]>, report: &mut Report) {
    let shown = shown.display();
    match plugin.name.as_str() {
        "" => report.heading(&format!("\nFile {shown}")),
        name => report.heading(&format!("\nPlugin `{name}`: {shown}")),
    }
    if let Some(bytes) = plugin.bytes {
        report.fact("size", &size(bytes));
    }
    if let Some(hash) = plugin.hash {
        report.fact("sha256", &hash.to_string());
    }
    let loaded = match &plugin.loaded {
        Ok(loaded) => loaded,
        Err(why) => return report.wrong(&format!("not loaded: {why}")),
    };
    let compiled = loaded.compiled.map(|took| format!("compiled in {} ms", took.as_millis()));
    report.fact("contract", &loaded.code.exports.join(", "));
    report.fact("code", compiled.as_deref().unwrap_or("cached"));
    let needs = loaded.code.needs();
    report.fact("starts with", &format!("{} of memory", size(needs.start_bytes as u64)));
    if let Some(count) = loaded.held {
        report.fact("conversation", &format!("{} ({count} replies as expected)", canary::file_name(&plugin.file)));
    }
    match askers {
        Some([]) => report.note("no account asks it"),
        Some(askers) => {
            report.fact("asked by", &askers.iter().map(|asker| asker.account).collect::<Vec<_>>().join(", "));
        }
        None => {}
    }
    for Asker { account, settings, .. } in askers.unwrap_or_default() {
        let over = needs.over(&settings.limits);
        over.iter().for_each(|over| report.wrong(&format!("it cannot start in account `{account}`: {over}")));
    }
    imports::print(&plugin.name, &loaded.code, askers.unwrap_or_default(), report);
}

fn size(bytes: u64) -> String {
    match bytes {
        ..1_024 => format!("{bytes} bytes"),
        _ => format!("{} KiB", bytes >> 10),
    }
}

/// Reports every table of settings that is about no file, and so means nothing.
pub(super) fn check_tables(config: &Config, names: &Names, report: &mut Report) {
    let idle = idle_tables(config, names);
    if !idle.is_empty() {
        report.heading("\nTables");
        idle.iter().for_each(|table| report.wrong(table));
    }
}
