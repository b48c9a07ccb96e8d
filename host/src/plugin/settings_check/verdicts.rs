//! What the plugins that serve said of their settings: each is asked once, and again when its code or its settings are others.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout};
use tracing::warn;

use super::{ask, is_wanted};
use crate::{
    plugin::{Hash, Plugin},
    secret::Secret,
};

/// The verdicts on all plugins that are asked for one. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Verdicts(watch::Sender<BTreeMap<Key, Verdict>>);

/// Account and plugin.
type Key = (Arc<str>, Arc<str>);

/// A plugin to be asked, and the time it has to answer.
pub type Asked = (Arc<Plugin>, Duration);

/// What a plugin said, and what it depends on.
#[derive(Debug)]
struct Verdict {
    code: Hash,
    env: BTreeMap<String, Secret>,
    said: Said,
}

#[derive(Debug, PartialEq)]
enum Said {
    /// It was not asked yet, or has not answered.
    Nothing,
    Right,
    Wrong(String),
}

/// A plugin whose settings are wrong. Reads on after "plugin ".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrongSettings {
    pub account: String,
    pub plugin: String,
    /// In the plugin's own words.
    pub why: String,
}

impl Verdicts {
    /// Takes the plugins that serve from now on. Forgets what others said, and returns those that are to be asked.
    pub fn follow(&self, serving: impl Iterator<Item = Asked>) -> Vec<Asked> {
        let mut new = Vec::new();
        self.0.send_modify(|verdicts| {
            let mut known = std::mem::take(verdicts);
            for (plugin, time) in serving.filter(|(plugin, _)| is_wanted(plugin)) {
                let key = (plugin.account.clone(), plugin.name.clone());
                let verdict = known.remove(&key).filter(|verdict| verdict.is_on(&plugin)).unwrap_or_else(|| {
                    new.push((plugin.clone(), time));
                    Verdict { code: plugin.code.hash, env: plugin.settings.env.clone(), said: Said::Nothing }
                });
                verdicts.insert(key, verdict);
            }
        });
        new
    }

    /// Asks plugins one after another, and tells whose settings are wrong.
    pub async fn ask(self, plugins: Vec<Asked>) {
        for (plugin, time) in plugins {
            let wrong = ask(&plugin, time).await;
            let said = wrong.clone().map_or(Said::Right, Said::Wrong);
            let (account, name) = (plugin.account.to_string(), plugin.name.to_string());
            // What it said of settings that are others by now helps nobody.
            if self.settle(&plugin, said)
                && let Some(why) = wrong
            {
                let wrong = WrongSettings { account, plugin: name, why };
                warn!(account = %wrong.account, plugin.name = %wrong.plugin, "Plugin {wrong}");
            }
        }
    }

    /// Takes what a plugin said. Returns whether that still counts.
    fn settle(&self, plugin: &Plugin, said: Said) -> bool {
        self.0.send_if_modified(|verdicts| {
            let verdict = verdicts.get_mut(&(plugin.account.clone(), plugin.name.clone()));
            let Some(verdict) = verdict.filter(|verdict| verdict.is_on(plugin)) else { return false };
            verdict.said = said;
            true
        })
    }

    /// The plugins whose settings are wrong. Waits so long for those that have not answered yet.
    pub async fn wrong(&self, patience: Duration) -> Vec<WrongSettings> {
        let mut verdicts = self.0.subscribe();
        let are_in = |verdicts: &BTreeMap<Key, Verdict>| verdicts.values().all(|verdict| verdict.said != Said::Nothing);
        // What is not said by then is told in the log.
        _ = timeout(patience, verdicts.wait_for(are_in)).await;
        let wrong = |((account, plugin), verdict): (&Key, &Verdict)| match &verdict.said {
            Said::Wrong(why) => {
                Some(WrongSettings { account: account.to_string(), plugin: plugin.to_string(), why: why.clone() })
            }
            Said::Nothing | Said::Right => None,
        };
        verdicts.borrow().iter().filter_map(wrong).collect()
    }
}

impl Verdict {
    /// Whether it is one on this plugin as it is.
    fn is_on(&self, plugin: &Plugin) -> bool {
        // Nobody learns anything from how long this takes: both are the operator's.
        let env = self.env.iter().map(|(name, value)| (name, value.expose()));
        let others = plugin.settings.env.iter().map(|(name, value)| (name, value.expose()));
        self.code == plugin.code.hash && env.eq(others)
    }
}

impl fmt::Display for WrongSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, why, .. } = self;
        write!(
            formatter,
            "`{plugin}` has wrong settings: {why}; mend them where they stand: what is saved counts at once"
        )
    }
}
