//! What the host keeps about a plugin from call to call: how it has done, who called it, and what is counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    Hash, Plugin,
    per_user::PerUser,
    quarantine::{self, Admission, Change, Quarantine, Standing},
};
use crate::{
    app::Live,
    config::{Config, PluginSettings, Rate},
    dispatch::Step,
    metrics::{Metrics, PluginMetrics, Turn},
    refusal::OnceAMinute,
};

/// The records of all plugins that serve. They outlive reloads. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Records {
    pub quarantine: Quarantine,
    pub metrics: Metrics,
    per_user: PerUser,
    /// Which plugin of which account was called too often lately.
    over: Arc<OnceAMinute<(Arc<str>, Arc<str>)>>,
}

impl Records {
    /// Begins to keep records.
    pub fn new(config: &Config) -> Self {
        Self {
            quarantine: Quarantine::default(),
            metrics: Metrics::new(config.metrics.plugins_max),
            per_user: PerUser::new(config.per_user.users_max),
            over: Arc::default(),
        }
    }

    /// Changes the bounds, for what comes from now on.
    pub fn resize(&self, config: &Config) {
        self.metrics.resize(config.metrics.plugins_max);
        self.per_user.resize(config.per_user.users_max);
    }

    /// Finds the record of a plugin in an account.
    pub fn of(&self, account: &Arc<str>, plugin: &Arc<str>, code: Hash, settings: &PluginSettings) -> Record {
        let key = quarantine::Key { account: account.clone(), plugin: plugin.clone(), code };
        let standing = self.quarantine.standing(key.clone(), &settings.quarantine);
        let metrics = self.metrics.plugin(account, plugin);
        Record(Some(Kept { key, standing, metrics, per_user: settings.per_user, records: self.clone() }))
    }

    /// Forgets every account and plugin that does not serve.
    pub fn retain(&self, live: &Live) {
        let plugins: Vec<&Plugin> =
            live.accounts().flat_map(|serving| &serving.chain.plugins).map(AsRef::as_ref).collect();
        let key = |plugin: &&Plugin| quarantine::Key {
            account: plugin.account.clone(),
            plugin: plugin.name.clone(),
            code: plugin.code.hash,
        };
        self.quarantine.retain(&plugins.iter().map(key).collect());
        let accounts = live.accounts().map(|serving| serving.account.name.as_str()).collect();
        self.metrics.retain(&accounts, &plugins.iter().map(|plugin| (&*plugin.account, &*plugin.name)).collect());
    }
}

/// The record of one plugin in one account. The default keeps nothing and lets every call through: for plugins that answer
/// no user.
#[derive(Debug, Default)]
pub struct Record(Option<Kept>);

#[derive(Debug)]
struct Kept {
    key: quarantine::Key,
    standing: Arc<Standing>,
    metrics: PluginMetrics,
    per_user: Option<Rate>,
    records: Records,
}

/// Why a plugin is not asked about a message that it would be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is out of its chain because it kept failing.
    Quarantined,
    /// The user called it too often.
    PerUser,
}

impl Record {
    /// Says whether a user's message may be put to the plugin now.
    pub fn admit(&self, openid: &str, now: Instant) -> Result<Admitted<'_>, Held> {
        let Some(kept) = &self.0 else { return Ok(Admitted(None)) };
        let Some(admission) = kept.standing.admit(now) else {
            kept.metrics.skip(Turn::Quarantined);
            return Err(Held::Quarantined);
        };
        if !kept.is_within_rate(openid, now) {
            kept.metrics.skip(Turn::PerUser);
            return Err(Held::PerUser);
        }
        Ok(Admitted(Some((kept, admission, now))))
    }
}

impl Kept {
    fn is_within_rate(&self, openid: &str, now: Instant) -> bool {
        let (account, plugin) = (&self.key.account, &self.key.plugin);
        let Some(rate) = self.per_user else { return true };
        let is_within = self.records.per_user.allows(rate, account, plugin, openid, now);
        if !is_within && let Some(unsaid) = self.records.over.turn((account.clone(), plugin.clone()), now) {
            let more = if unsaid > 0 { format!(" ({unsaid} more times in between)") } else { String::new() };
            info!(
                account = %account, plugin.name = %plugin,
                "A user asked plugin `{plugin}` more than {rate} (`per_user`), so it was skipped{more}"
            );
        }
        is_within
    }

    fn tell(&self, change: &Change) {
        let quarantine::Key { account, plugin, code } = &self.key;
        match change {
            Change::Back { .. } => {
                info!(account = %account, plugin.name = %plugin, hash = %code, "Plugin `{plugin}` {change}");
            }
            Change::Out { .. } | Change::StaysOut { .. } => {
                warn!(account = %account, plugin.name = %plugin, hash = %code, "Plugin `{plugin}` {change}");
            }
        }
    }
}

/// The right to call a plugin once, and since when there is it.
#[derive(Debug)]
pub struct Admitted<'a>(Option<(&'a Kept, Admission<'a>, Instant)>);

impl Admitted<'_> {
    /// Draws the conclusions from the call: it is counted, and may bring the plugin out of its chain or back. The plugin
    /// counted on having the time `expected`. Of a failure, `told` is what the log says: "it …".
    pub fn settle(self, step: &Step, told: &str, expected: Duration) {
        let Some((kept, admission, since)) = self.0 else { return };
        let Step { duration, waited, .. } = *step;
        kept.metrics.call(Turn::of(&step.outcome), duration, waited);
        let change = match &step.outcome {
            Ok(_) => admission.worked(since + duration),
            Err(failure) if quarantine::is_its_fault(failure, duration.saturating_sub(waited), expected) => {
                admission.failed(told, since + duration)
            }
            Err(_) => None,
        };
        change.iter().for_each(|change| kept.tell(change));
    }
}
