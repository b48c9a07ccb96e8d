//! How the host is, for people and their scripts to read.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{
    api::{Api, NoToken},
    app::{App, Serving},
    config::Mode,
    forward::{Failing, Forward},
    https::without_parameters,
    plugin::{
        Plugin,
        quarantine::{Part, Quarantined},
        set::Fault,
        settings_check::WrongSettings,
        versions::{self, Kept},
    },
    store::late::Counts,
};

/// The state of a host that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The version of the host.
    pub version: String,
    /// The number of its process.
    pub pid: u32,
    /// How long it has been there, in s.
    pub running_s: u64,
    /// Its settings.
    pub settings: PathBuf,
    /// Why it cannot answer now, if it cannot.
    pub unready: Option<String>,
    /// What is wrong with the settings. One text each.
    pub problems: Vec<String>,
    /// What is allowed in the settings, but hardly meant, and what is not known of them yet. One text each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// In the order of their names.
    pub accounts: Vec<Account>,
    /// The plugin files that do not serve as they are.
    pub faults: Vec<Fault>,
    /// What is wrong with other files, with chains, and with tables about plugins. One sentence each.
    pub complaints: Vec<String>,
    /// How many messages are late and not written down.
    #[serde(default)]
    pub late_under_way: u64,
    /// How many late replies are written down; none if the store does not say.
    pub late: Option<Counts>,
}

/// An account, and whom it asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    pub path: String,
    /// `plain`, `compatible` or `safe`.
    pub mode: String,
    /// The webhook that is asked when no plugin answered, without its parameters.
    pub forward: Option<String>,
    /// How that fails, if it failed at the last messages.
    #[serde(default)]
    pub forward_failing: Option<Failing>,
    /// Why WeChat's API cannot be called for it, if no access_token could be fetched the last time.
    #[serde(default)]
    pub no_token: Option<NoToken>,
    /// In the order in which they are asked.
    pub plugins: Vec<Asked>,
    /// Those of them that say that their settings are wrong.
    #[serde(default)]
    pub wrong_settings: Vec<WrongSettings>,
}

/// A plugin that an account asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub account: String,
    pub name: String,
    pub file: PathBuf,
    /// The SHA-256 of what serves, which need not be what lies in the file.
    pub sha256: String,
    /// When this version first served, in seconds since 1970; none if it is not kept.
    pub first_served_s: Option<u64>,
    /// The `sha256` of its table.
    pub pinned: Option<String>,
    /// Why it is left alone at the moment, if it is.
    pub quarantine: Option<Quarantined>,
    /// Why it is not asked for pages at the moment, if it is not.
    #[serde(default)]
    pub pages_quarantine: Option<Quarantined>,
    /// The versions that can be gone back to, the newest first.
    pub earlier: Vec<Kept>,
}

impl Status {
    /// Looks at a host.
    pub async fn of(app: &App) -> Self {
        let troubles = app.troubles().await;
        let facts = Facts::of(app).await;
        let live = app.live();
        let wrong_settings = |name: &str| -> Vec<_> {
            troubles.wrong_settings.iter().filter(|wrong| wrong.account == name).cloned().collect()
        };
        let account = |serving: &Serving| Account {
            name: serving.account.name.clone(),
            path: serving.account.path.clone(),
            mode: mode(serving.account.mode).to_owned(),
            forward: serving.account.forward.as_ref().map(without_parameters),
            forward_failing: serving.chain.forward().and_then(Forward::failing),
            no_token: serving.api.as_ref().and_then(Api::no_token),
            plugins: serving.chain.plugins.iter().map(|plugin| facts.asked(plugin)).collect(),
            wrong_settings: wrong_settings(&serving.account.name),
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            running_s: app.age().as_secs(),
            settings: live.config.file.clone(),
            unready: app.unready(),
            problems: troubles.settings.into_iter().chain(live.config.problems.iter().cloned()).collect(),
            notes: live.config.notes.iter().cloned().chain(troubles.unheard).collect(),
            accounts: live.accounts().map(|serving| account(serving)).collect(),
            faults: troubles.faults,
            complaints: troubles.complaints,
            late_under_way: app.under_way(),
            late: app.owes().await.ok(),
        }
    }

    /// The plugins that are left alone at the moment.
    pub fn quarantined(&self) -> impl Iterator<Item = &Quarantined> {
        self.accounts.iter().flat_map(|account| &account.plugins).flat_map(Asked::quarantined)
    }
}

impl Asked {
    /// Its parts that are left alone at the moment.
    pub fn quarantined(&self) -> impl Iterator<Item = &Quarantined> {
        self.quarantine.iter().chain(&self.pages_quarantine)
    }
}

/// The plugins of a name, in all accounts.
pub(super) async fn asked(app: &App, name: &str) -> Vec<Asked> {
    let facts = Facts::of(app).await;
    let live = app.live();
    let plugins = live.accounts().flat_map(|serving| &serving.chain.plugins);
    plugins.filter(|plugin| *plugin.name == *name).map(|plugin| facts.asked(plugin)).collect()
}

/// What is known of plugins beside their chains.
struct Facts {
    quarantined: Vec<Quarantined>,
    kept: HashMap<versions::Key, Vec<Kept>>,
}

impl Facts {
    async fn of(app: &App) -> Self {
        Self { quarantined: app.records.quarantine.overview(Instant::now()), kept: app.all_versions().await }
    }

    fn asked(&self, plugin: &Plugin) -> Asked {
        let sha256 = plugin.code.hash.to_string();
        let dir = plugin.file.parent().unwrap_or(Path::new(""));
        let kept = self.kept.get(&(dir.to_owned(), plugin.name.to_string())).map_or(&[][..], Vec::as_slice);
        let is_it =
            |out: &&Quarantined| *out.account == *plugin.account && *out.plugin == *plugin.name && out.code == sha256;
        let quarantine = |part| self.quarantined.iter().filter(is_it).find(|out| out.part == part).cloned();
        Asked {
            account: plugin.account.to_string(),
            name: plugin.name.to_string(),
            file: plugin.file.clone(),
            first_served_s: kept.iter().find(|kept| kept.sha256 == sha256).map(|kept| kept.first_served_s),
            pinned: plugin.settings.sha256.map(|pinned| pinned.to_string()),
            quarantine: quarantine(Part::Bot),
            pages_quarantine: quarantine(Part::Pages),
            earlier: kept.iter().filter(|kept| kept.sha256 != sha256).cloned().collect(),
            sha256,
        }
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => "plain",
        Mode::Compatible => "compatible",
        Mode::Safe => "safe",
    }
}
