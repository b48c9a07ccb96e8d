//! `aviary plugins`: what each plugin is, and how one is switched off or on, or brought back to an earlier version.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;

use super::{
    bot::CONFIG_FILE,
    status::{self, ago, data_dir, is_not_running, short, shown, start_line, version},
};
use crate::{
    config::Config,
    control::{
        Deed, Done, Order,
        client::Host,
        status::{Asked, Status},
    },
    plugin::{directory, versions::Versions},
};

/// Lists the plugins of the running host with their versions, or changes one.
///
/// The plugins directory is the truth: switching a plugin off renames its file to `….wasm.off`, and going back writes the
/// earlier file. Where no host runs, the files are changed all the same, and count when it starts.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    order: Option<OrderArgs>,
    /// The bot's directory, with its aviary.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The settings, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum OrderArgs {
    /// Switches a plugin off: no account asks it any more
    Disable(Which),
    /// Switches a plugin on again
    Enable(Which),
    /// Goes back to the version of a plugin that served before
    Rollback {
        #[command(flatten)]
        which: Which,
        /// Go back to this version instead: the beginning of its SHA-256, as `aviary plugins` lists it
        #[arg(long, value_name = "SHA256")]
        to: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The plugin's name, or that of its file
    name: String,
    /// Search the directories of this account only
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// The bot's directory, with its aviary.toml
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The settings, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Lists, or gives the order.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (deed, which, to) = match args.order {
        None => return list(&args.config.unwrap_or_else(|| args.dir.join(CONFIG_FILE))).await,
        Some(OrderArgs::Disable(which)) => (Deed::Disable, which, None),
        Some(OrderArgs::Enable(which)) => (Deed::Enable, which, None),
        Some(OrderArgs::Rollback { which, to }) => (Deed::Rollback, which, to),
    };
    let file = which.config.unwrap_or_else(|| which.dir.join(CONFIG_FILE));
    let base = std::path::absolute(&file)?;
    let base = base.parent();
    let order = Order { name: which.name, account: which.account, to };
    let given = async { Ok::<_, anyhow::Error>(Host::find(&data_dir(&file)?).await?.order(deed, &order).await?) };
    match given.await {
        Ok(done) => Ok(tell(deed, &order, &done, base)),
        Err(error) if is_not_running(&error) => {
            let done = without_host(&Config::load(&file)?, deed, &order)?;
            println!("{}", told(deed, &order, &done, base));
            println!("No host runs; it counts from the next start: {}", start_line(&file));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error),
    }
}

/// Changes the files that the next host will find.
fn without_host(config: &Config, deed: Deed, order: &Order) -> anyhow::Result<Done> {
    let (account, name) = (order.account.as_deref(), order.name.as_str());
    let (file, sha256, set_aside) = match deed {
        Deed::Disable => (directory::disable(config, account, name)?, None, Vec::new()),
        Deed::Enable => (directory::enable(config, account, name)?, None, Vec::new()),
        Deed::Rollback => {
            let versions = Versions::open(config.data_dir.join("versions"))?;
            let back = versions.rollback(config, account, name, order.to.as_deref())?;
            (back.file, Some(back.hash.to_string()), back.set_aside)
        }
    };
    Ok(Done { file, sha256, set_aside, serving: Vec::new(), fault: None })
}

/// Tells what became of an order, and who serves now.
fn tell(deed: Deed, order: &Order, done: &Done, base: Option<&Path>) -> ExitCode {
    println!("{}", told(deed, order, done, base));
    for plugin in &done.serving {
        println!("Account `{}` asks `{}`: {}", plugin.account, plugin.name, version(plugin, base));
    }
    if done.serving.is_empty() {
        println!("No account asks a plugin of that name now.");
    }
    match &done.fault {
        Some(fault) => {
            eprintln!("error: {} is not loaded: {}", shown(&fault.file, base), fault.why);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn told(deed: Deed, order: &Order, done: &Done, base: Option<&Path>) -> String {
    let (name, file) = (&order.name, shown(&done.file, base));
    match deed {
        Deed::Disable => format!("Plugin `{name}` is switched off: {file}"),
        Deed::Enable => format!("Plugin `{name}` is switched on: {file}"),
        Deed::Rollback => {
            let hash = done.sha256.as_deref().map(short).unwrap_or_default();
            let mut told = format!("Plugin `{name}` went back to version {hash}: {file}");
            for aside in &done.set_aside {
                told += &format!("\nWhat lay in its place is now {}", shown(aside, base));
            }
            told
        }
    }
}

/// Prints every plugin file of the running host.
async fn list(file: &Path) -> anyhow::Result<ExitCode> {
    let asked = async { Ok::<_, anyhow::Error>(Host::find(&data_dir(file)?).await?.status().await?) };
    let status = match asked.await {
        Err(error) if is_not_running(&error) => {
            println!("{error}.\nStart it with: {}", start_line(file));
            return Ok(ExitCode::FAILURE);
        }
        asked => asked?,
    };
    print(&status);
    if let Ok(config) = Config::load(file) {
        for off in switched_off(&config) {
            println!("Off  {}", shown(&off, status.settings.parent()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(status: &Status) {
    let base = status.settings.parent();
    let mut files: BTreeMap<&Path, Vec<&Asked>> = BTreeMap::new();
    for plugin in status.accounts.iter().flat_map(|account| &account.plugins) {
        files.entry(&plugin.file).or_default().push(plugin);
    }
    for askers in files.values() {
        let plugin = askers[0];
        let accounts: Vec<&str> = askers.iter().map(|asker| asker.account.as_str()).collect();
        println!("Plugin `{}`: {}", plugin.name, version(plugin, base));
        println!("  {:<15} {}", "asked by", accounts.join(", "));
        for kept in &plugin.earlier {
            let left = if kept.is_left { ", gone back from" } else { "" };
            let earlier = format!("{}, first served {}{left}", short(&kept.sha256), ago(kept.first_served_s));
            println!("  {:<15} {earlier}", "earlier");
        }
    }
    for fault in &status.faults {
        println!("Not loaded  {}: {}; {}", status::shown(&fault.file, base), fault.why, status::instead(fault));
    }
}

/// The plugin files that are switched off.
fn switched_off(config: &Config) -> Vec<PathBuf> {
    let entries = directory::directories(config).into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut off: Vec<PathBuf> =
        files.filter(|file| file.to_str().is_some_and(|name| name.ends_with(".wasm.off"))).collect();
    off.sort();
    off
}
