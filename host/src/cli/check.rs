//! `aviary check`: verifies a bot without starting it.
//!
//! What it finds is printed as it is found: compiling may take a while. A *wrong* thing is one that keeps a message from
//! its answer or a setting from its meaning; a *note* is for whoever did not mean it so.

mod account;
mod imports;
mod online;
mod plugin;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::builder::RangedU64ValueParser;
use tokio::time::timeout;

use self::{imports::Asker, plugin::Examined};
use super::{
    bot::{Bot, CONFIG_FILE},
    report::Report,
    status::left_alone,
};
use crate::{
    config::{Account, Config},
    control::{
        client::{Host, NoAnswer},
        status::Status,
    },
    dispatch::Chain,
    plugin::{
        engine::Engine,
        loader::{Loader, Terms},
        quarantine::Quarantined,
        services::Services,
        set::{Patience, Set},
        settings_check::{self, Verdict},
    },
};

/// How long the running host may take to say how it is.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call of WeChat's API may be waited for.
const TIMEOUT_MS_MAX: u64 = 600_000;

/// Verifies a bot's settings and plugins without starting it, or plugins alone.
///
/// Plugins are compiled into the bot's cache, so that a start after this is quick. Exits 0 if all is well, 1 if something is
/// wrong, 2 if the settings cannot be loaded.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bot's directory, with its aviary.toml, or else plugins
    #[arg(value_name = "DIR|PLUGIN.wasm", default_value = ".")]
    targets: Vec<PathBuf>,
    /// The settings, if they are elsewhere
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask WeChat's API whether AppID, AppSecret and this machine's IP address are right, and whether WeChat sees the URL
    #[arg(long)]
    online: bool,
    /// How long a call of WeChat's API may take
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..=TIMEOUT_MS_MAX))]
    timeout_ms: u64,
}

/// Prints what is there, and what is wrong with it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    match args.targets.as_slice() {
        [dir] if !is_plugin(dir) => {
            let file = args.config.clone().unwrap_or_else(|| dir.join(CONFIG_FILE));
            let config = Config::load(&file)?;
            bot(&config, &mut report).await?;
            if args.online {
                online::check(&config, Duration::from_millis(args.timeout_ms), &mut report).await;
            }
        }
        files if files.iter().all(|file| is_plugin(file)) && args.config.is_none() && !args.online => {
            plugins(files, &mut report).await?;
        }
        _ => {
            eprintln!("error: one bot's directory is checked, or plugins without settings; see `aviary check --help`");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(report.end())
}

fn is_plugin(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm" || extension == "cwasm")
}

async fn bot(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    report.heading(&format!("Settings: {}", config.file.display()));
    config.problems.iter().for_each(|problem| report.wrong(problem));
    config.notes.iter().for_each(|note| report.note(note));
    let loader = loader(config, config.cache_dir.clone())?;
    let plugins = plugin::examine_all(&loader, config, report).await;

    // The chains are those that the host will make; what was compiled is not compiled again.
    let mut set = Set::new(loader);
    set.look(config, Patience::Whole).await;
    let mut chains = Vec::new();
    for (account, chain) in config.accounts.iter().zip(set.chains(config)) {
        account::check(account, &chain, config, &plugins, report);
        chains.push((account, chain));
    }
    let running = running(config, report).await;
    for plugin in &plugins {
        let askers: Vec<Asker<'_>> =
            chains.iter().filter_map(|(account, chain)| asker(account, chain, plugin)).collect();
        plugin::print(plugin, shown(&plugin.file, config), Some(&askers), report);
        check_settings(plugin, &chains, report).await;
        running.iter().for_each(|status| check_running(plugin, &askers, status, report));
    }
    plugin::check_tables(config, set.names(), report);
    Ok(())
}

/// Asks the host of these settings, if it runs, how it is.
async fn running(config: &Config, report: &mut Report) -> Option<Status> {
    let asked = async { Host::find(&config.data_dir).await?.status().await };
    let why = match timeout(HOST_TIMEOUT, asked).await {
        Ok(Ok(status)) => return Some(status),
        Ok(Err(NoAnswer::NotRunning(_))) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the host did not answer within {} s", HOST_TIMEOUT.as_secs()),
    };
    report.note(&format!("whether the running host does without a plugin is not known: {why}"));
    None
}

/// Tells what keeps a plugin from answering in the host that runs, though nothing may be wrong with its file.
fn check_running(plugin: &Examined, askers: &[Asker<'_>], status: &Status, report: &mut Report) {
    let fault = status.faults.iter().find(|fault| fault.file == plugin.file);
    if let (Some(fault), Ok(_)) = (fault, &plugin.loaded) {
        report.wrong(&format!("the running host has not loaded it: {}", fault.why));
    }
    // Other code in its place is not to blame, once that serves.
    let hash = plugin.hash.map(|hash| hash.to_string());
    let is_asked =
        |out: &&Quarantined| out.plugin == plugin.name && askers.iter().any(|asker| asker.account == out.account);
    let is_its = |out: &&Quarantined| fault.is_some() || hash.as_ref() == Some(&out.code);
    for out in status.quarantined().filter(is_asked).filter(is_its) {
        report.wrong(&format!("in account `{}` of the running host, {}", out.account, left_alone(out)));
    }
}

/// Lets a plugin say what is wrong with its settings, in each account that asks it.
async fn check_settings(plugin: &Examined, chains: &[(&Arc<Account>, Chain)], report: &mut Report) {
    for (account, chain) in chains {
        let asked = chain.plugins.iter().find(|asked| asked.file == plugin.file);
        if let Some(asked) = asked.filter(|asked| settings_check::is_wanted(asked))
            && let Verdict::Wrong(wrong) | Verdict::None(wrong) = settings_check::ask(asked, account.late.window).await
        {
            report.wrong(&format!("its settings in account `{}`: {wrong}", account.name));
        }
    }
}

/// The account as one that asks a plugin, if it does.
fn asker<'a>(account: &'a Account, chain: &'a Chain, plugin: &Examined) -> Option<Asker<'a>> {
    let asked = chain.plugins.iter().find(|asked| asked.file == plugin.file)?;
    let is_own = account.plugins_dir.as_deref() == plugin.file.parent();
    let has_domains = account.pages.are_on();
    Some(Asker { account: &account.name, is_own, has_domains, settings: &asked.settings })
}

/// A path as short as can be.
fn shown<'a>(file: &'a Path, config: &Config) -> &'a Path {
    config.file.parent().and_then(|dir| file.strip_prefix(dir).ok()).unwrap_or(file)
}

/// Examines plugins that belong to no bot, with the limits of a new one.
async fn plugins(files: &[PathBuf], report: &mut Report) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let config = Config::load(&Bot::demo()?.write(temporary.path())?)?;
    let loader = loader(&config, super::bots::cache_dir())?;
    let mut in_use = HashSet::new();
    for file in files {
        let plugin = plugin::examine(&loader, file, Terms::of_no_bot(&config, file)).await;
        plugin::print(&plugin, file, None, report);
        in_use.extend(plugin.hash);
    }
    // No bot does it for this cache. That it cannot be tidied is nothing wrong with the plugins.
    let _ = loader.tidy(in_use, config.compile_cache).await;
    Ok(())
}

fn loader(config: &Config, cache_dir: PathBuf) -> anyhow::Result<Loader> {
    Loader::new(Engine::new(&config.engine)?, super::own_program()?, cache_dir, Services::scratch())
}
