//! What the plugins that serve said of their settings: each is asked once, and again when what it goes by is another.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tracing::warn;

use super::{Verdict, ask, is_wanted};
use crate::{
    config::Limits,
    plugin::{Hash, Plugin},
    secret::Secret,
};

/// How many plugins are asked at once: those that serve have the processor to themselves, as a rule.
const ASKED_AT_ONCE: usize = 2;

/// When a plugin is asked again that did not say whether its settings are right.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How long whoever wants to hear what is wrong waits for plugins that have not been heard yet. Each has a window to answer in.
const PATIENCE: Duration = Duration::from_secs(10);

/// The verdicts on all plugins that are asked for one. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Verdicts {
    known: watch::Sender<BTreeMap<Key, Known>>,
    places: Arc<Semaphore>,
}

/// Account and plugin.
type Key = (Arc<str>, Arc<str>);

/// A plugin to be asked, and the time it has to answer.
pub type Asked = (Arc<Plugin>, Duration);

/// What a plugin said, and what that depends on.
#[derive(Debug)]
struct Known {
    code: Hash,
    env: BTreeMap<String, Secret>,
    limits: Limits,
    time: Duration,
    /// Nothing as long as it was not heard.
    verdict: Option<Verdict>,
}

/// A plugin whose settings are wrong. Reads on after "plugin ".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrongSettings {
    pub account: String,
    pub plugin: String,
    /// In the plugin's own words.
    pub why: String,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { known: watch::Sender::default(), places: Arc::new(Semaphore::new(ASKED_AT_ONCE)) }
    }
}

impl Verdicts {
    /// Takes the plugins that serve from now on. Forgets what others said, and returns those that are to be asked.
    pub fn follow(&self, serving: impl Iterator<Item = Asked>) -> Vec<Asked> {
        let mut new = Vec::new();
        self.known.send_modify(|known| {
            let mut before = std::mem::take(known);
            for asked in serving.filter(|(plugin, _)| is_wanted(plugin)) {
                let key = key(&asked.0);
                let entry = before.remove(&key).filter(|entry| entry.is_on(&asked)).unwrap_or_else(|| {
                    new.push(asked.clone());
                    Known::nothing_of(&asked)
                });
                known.insert(key, entry);
            }
        });
        new
    }

    /// Asks plugins, each in a task of its own, and tells whose settings are wrong.
    pub fn ask(&self, plugins: Vec<Asked>) {
        for asked in plugins {
            tokio::spawn(self.clone().hear(asked));
        }
    }

    /// Asks a plugin until it says whether its settings are right, or it serves no more as it is.
    async fn hear(self, asked: Asked) {
        let (plugin, time) = &asked;
        let Plugin { account, name, .. } = &**plugin;
        let mut is_first = true;
        loop {
            let verdict = {
                let Ok(_place) = self.places.acquire().await else { return };
                ask(plugin, *time).await
            };
            // What it said of settings that are others by now helps nobody.
            if !self.settle(&asked, &verdict) {
                return;
            }
            match verdict {
                Verdict::Right => return,
                Verdict::Wrong(why) => {
                    let wrong = WrongSettings { account: account.to_string(), plugin: name.to_string(), why };
                    warn!(%account, plugin.name = %name, "Plugin {wrong}");
                    return;
                }
                Verdict::None(why) if is_first => {
                    let after_s = AGAIN_AFTER.as_secs();
                    warn!(
                        %account, plugin.name = %name,
                        "Plugin `{name}` did not say whether its settings are right, and is asked every {after_s} s: {why}"
                    );
                }
                Verdict::None(_) => {}
            }
            is_first = false;
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Takes what a plugin said. Returns whether that still counts.
    fn settle(&self, asked: &Asked, verdict: &Verdict) -> bool {
        self.known.send_if_modified(|known| {
            let entry = known.get_mut(&key(&asked.0)).filter(|entry| entry.is_on(asked));
            let Some(entry) = entry else { return false };
            entry.verdict = Some(verdict.clone());
            true
        })
    }

    /// The plugins whose settings are wrong; and those that have not said whether theirs are, one sentence each. Waits a little
    /// for what was not heard yet.
    pub async fn heard(&self) -> (Vec<WrongSettings>, Vec<String>) {
        let mut known = self.known.subscribe();
        _ = timeout(PATIENCE, known.wait_for(|known| known.values().all(|entry| entry.verdict.is_some()))).await;
        let (mut wrong, mut unheard) = (Vec::new(), Vec::new());
        for ((account, plugin), entry) in &*known.borrow() {
            match &entry.verdict {
                Some(Verdict::Right) => {}
                Some(Verdict::Wrong(why)) => {
                    wrong.push(WrongSettings {
                        account: account.to_string(),
                        plugin: plugin.to_string(),
                        why: why.clone(),
                    });
                }
                Some(Verdict::None(why)) => unheard.push(format!("{}: {why}", unsaid(account, plugin))),
                None => unheard.push(unsaid(account, plugin)),
            }
        }
        (wrong, unheard)
    }
}

fn key(plugin: &Plugin) -> Key {
    (plugin.account.clone(), plugin.name.clone())
}

fn unsaid(account: &str, plugin: &str) -> String {
    format!("account `{account}`: plugin `{plugin}` has not said yet whether its settings are right")
}

impl Known {
    fn nothing_of((plugin, time): &Asked) -> Self {
        let settings = &plugin.settings;
        let (env, limits) = (settings.env.clone(), settings.limits.clone());
        Self { code: plugin.code.hash, env, limits, time: *time, verdict: None }
    }

    /// Whether it is about this plugin as it is.
    fn is_on(&self, (plugin, time): &Asked) -> bool {
        // Nobody learns anything from how long this takes: both are the operator's.
        let env = self.env.iter().map(|(name, value)| (name, value.expose()));
        let others = plugin.settings.env.iter().map(|(name, value)| (name, value.expose()));
        self.code == plugin.code.hash && env.eq(others) && self.limits == plugin.settings.limits && self.time == *time
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
