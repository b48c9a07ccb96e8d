//! The chains that the accounts make of what is loaded, and what in their settings does not fit it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Set;
use crate::{
    config::{Account, Config},
    dispatch::Chain,
    plugin::{
        Plugin,
        code::{Code, PAGES},
        file_name::{file_name_order, name_of},
        versions::Served,
    },
};

impl Set {
    /// Makes the chains of all accounts out of what is loaded, in the order of the accounts.
    pub fn chains(&mut self, config: &Config) -> Vec<Chain> {
        self.loader.turns().apply(config);
        let chains = config.accounts.iter().map(|account| self.chain(config, account)).collect();
        self.refused_plugins.end_round();
        chains
    }

    fn chain(&mut self, config: &Config, account: &Account) -> Chain {
        let mut plugins: Vec<Plugin> = Vec::new();
        let api = self.loader.services.apis.of(account);
        for (path, code, own) in self.serving(config, account) {
            let Some(name) = name_of(&path) else { continue };
            if let Some(first) = plugins.iter().find(|plugin| *plugin.name == *name) {
                let text = format!(
                    "account `{}`: {} is not asked, because {} is a plugin of the same name `{name}`; rename one of them",
                    account.name,
                    path.display(),
                    first.file.display()
                );
                self.refused_plugins.tell(text);
                continue;
            }
            let settings = Arc::new(config.plugin(account, &name, own));
            let (name, account): (Arc<str>, Arc<str>) = (name.into(), account.name.as_str().into());
            plugins.push(Plugin {
                lanes: code.lanes(&account, &name),
                record: self.loader.services.record(&account, &name, code.hash, &settings),
                name,
                account,
                file: path,
                code,
                settings,
                api: api.clone(),
                services: self.loader.services.clone(),
            });
        }
        if !account.plugins.is_empty() {
            plugins = self.listed(account, plugins);
        }
        plugins.iter().for_each(|plugin| self.tell_misfit(plugin));
        Chain::of(plugins.into_iter().map(Arc::new).collect())
    }

    /// Tells where what is set for a plugin does not fit the one that serves.
    fn tell_misfit(&mut self, plugin: &Plugin) {
        let Plugin { name, account, file, code, settings, .. } = plugin;
        // What is examined anew has not come to its end yet, and what was refused was told of.
        let is_settled = self.files.get(file).is_some_and(|known| known.look.is_some() && known.refused.is_none());
        if let Some(pinned) = settings.sha256.filter(|pinned| is_settled && *pinned != code.hash) {
            // It began to serve before the pin; what takes its place will have to fit.
            self.refused_plugins.tell(format!(
                "account `{account}`: plugin `{name}` still runs with SHA-256 {}, but its table says `sha256 = \"{pinned}\"`; it \
                 stays until its file is replaced or the host restarts",
                code.hash
            ));
        }
        // The file was tried under the limits that most accounts have.
        for over in code.needs().over(&settings.limits) {
            self.refused_plugins.tell(format!("account `{account}`: plugin `{name}` cannot start: {over}"));
        }
        if settings.grants.pages.is_some() && !code.has_pages() {
            self.refused_plugins.tell(format!(
                "account `{account}`: plugin `{name}` is granted `pages`, but it exports no `{PAGES}`; build it with pages, or take the \
                 grant away"
            ));
        }
    }

    /// The files whose plugins are in a chain, each once.
    pub fn served<'a>(&self, chains: impl Iterator<Item = &'a Chain>) -> Vec<Served> {
        let plugins: BTreeMap<&Path, &Plugin> =
            chains.flat_map(|chain| &chain.plugins).map(|plugin| (plugin.file.as_path(), &**plugin)).collect();
        let served = |(file, plugin): (&Path, &Plugin)| {
            let identity = self.files.get(file)?.serving.as_ref()?.identity;
            Some(Served { file: file.to_owned(), name: plugin.name.to_string(), identity })
        };
        plugins.into_iter().filter_map(served).collect()
    }

    /// The plugins that the account lists, in its order.
    fn listed(&mut self, account: &Account, mut plugins: Vec<Plugin>) -> Vec<Plugin> {
        let mut listed = Vec::new();
        for name in &account.plugins {
            match plugins.iter().position(|plugin| *plugin.name == **name) {
                Some(index) => listed.push(plugins.remove(index)),
                None => self.refused_plugins.tell(format!(
                    "account `{}` lists plugin `{name}`, but no plugin of that name is loaded",
                    account.name
                )),
            }
        }
        listed
    }

    /// Files with code that the account can ask, in file-name order, each with whether it is from the account's own
    /// directory.
    fn serving(&self, config: &Config, account: &Account) -> Vec<(PathBuf, Arc<Code>, bool)> {
        let mut files: Vec<_> = self
            .files
            .iter()
            .filter_map(|(path, known)| {
                let dir = path.parent()?;
                let own = account.plugins_dir.as_deref() == Some(dir);
                let code = known.serving.as_ref()?.code.clone();
                (own || dir == config.plugins_dir).then(|| (path.clone(), code, own))
            })
            .collect();
        files.sort_by(|(a, ..), (b, ..)| file_name_order(a, b));
        files
    }
}
