//! What the host keeps about a plugin from call to call: how it has done, who called it, and what is counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    Hash, Plugin,
    per_user::PerUser,
    quarantine::{self, Admission, Change, Part, Quarantine, Standing},
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
        let judged = |part| {
            let key = quarantine::Key { account: account.clone(), plugin: plugin.clone(), code, part };
            Judged { standing: self.quarantine.standing(key.clone(), &settings.quarantine), key }
        };
        let metrics = self.metrics.plugin(account, plugin);
        let (bot, pages) = (judged(Part::Bot), judged(Part::Pages));
        Record(Some(Kept { bot, pages, metrics, per_user: settings.per_user, records: self.clone() }))
    }

    /// Forgets every account and plugin that does not serve.
    pub fn retain(&self, live: &Live) {
        let plugins: Vec<&Plugin> =
            live.accounts().flat_map(|serving| &serving.chain.plugins).map(AsRef::as_ref).collect();
        let keys = |plugin: &&Plugin| {
            let (account, plugin, code) = (plugin.account.clone(), plugin.name.clone(), plugin.code.hash);
            Part::ALL.map(|part| quarantine::Key { account: account.clone(), plugin: plugin.clone(), code, part })
        };
        self.quarantine.retain(&plugins.iter().flat_map(keys).collect());
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
    bot: Judged,
    pages: Judged,
    metrics: PluginMetrics,
    per_user: Option<Rate>,
    records: Records,
}

/// A part of a plugin, and how it has done.
#[derive(Debug)]
struct Judged {
    key: quarantine::Key,
    standing: Arc<Standing>,
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
    pub fn admit<'a>(&'a self, openid: &'a str, now: Instant) -> Result<Admitted<'a>, Held> {
        self.0.as_ref().map_or(Ok(Admitted(None)), |kept| kept.admit(&kept.bot, openid, now))
    }

    /// Says whether the plugin may be asked for a page now. Who is not signed in has no openid.
    pub fn admit_visitor<'a>(&'a self, openid: &'a str, now: Instant) -> Result<Admitted<'a>, Held> {
        self.0.as_ref().map_or(Ok(Admitted(None)), |kept| kept.admit(&kept.pages, openid, now))
    }
}

impl Kept {
    fn admit<'a>(&'a self, judged: &'a Judged, openid: &'a str, now: Instant) -> Result<Admitted<'a>, Held> {
        let Some(admission) = judged.standing.admit(openid, now) else {
            self.metrics.skip(Turn::Quarantined);
            return Err(Held::Quarantined);
        };
        if !self.is_within_rate(openid, now) {
            self.metrics.skip(Turn::PerUser);
            return Err(Held::PerUser);
        }
        Ok(Admitted(Some(Admittance { kept: self, judged, admission, openid, since: now })))
    }

    /// Visitors who are not signed in are nobody's users: together they would lock each other out.
    fn is_within_rate(&self, openid: &str, now: Instant) -> bool {
        let (account, plugin) = (&self.bot.key.account, &self.bot.key.plugin);
        let Some(rate) = self.per_user.filter(|_| !openid.is_empty()) else { return true };
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
}

impl Judged {
    fn tell(&self, change: &Change) {
        let quarantine::Key { account, plugin, code, part } = &self.key;
        let what = match part {
            Part::Bot => "",
            Part::Pages => ", for its pages,",
        };
        match change {
            Change::Back { .. } => {
                info!(account = %account, plugin.name = %plugin, hash = %code, "Plugin `{plugin}`{what} {change}");
            }
            Change::Out { .. } | Change::StaysOut { .. } => {
                warn!(account = %account, plugin.name = %plugin, hash = %code, "Plugin `{plugin}`{what} {change}");
            }
        }
    }
}

/// The right to call a plugin once, and since when there is it.
#[derive(Debug)]
pub struct Admitted<'a>(Option<Admittance<'a>>);

#[derive(Debug)]
struct Admittance<'a> {
    kept: &'a Kept,
    judged: &'a Judged,
    admission: Admission<'a>,
    openid: &'a str,
    since: Instant,
}

impl Admitted<'_> {
    /// Draws the conclusions from the call: it is counted, and may bring the plugin out of its chain or back. The plugin
    /// counted on having the time `expected`. Of a failure, `told` is what the log says: "it …".
    pub fn settle(self, step: &Step, told: &str, expected: Duration) {
        let Some(Admittance { kept, judged, admission, openid, since }) = self.0 else { return };
        let Step { duration, waited, .. } = *step;
        kept.metrics.call(judged.key.part, Turn::of(&step.outcome), duration, waited);
        let change = match &step.outcome {
            Ok(_) => admission.worked(since + duration),
            Err(failure) if quarantine::is_its_fault(failure, duration.saturating_sub(waited), expected) => {
                admission.failed(openid, told, since + duration)
            }
            Err(_) => None,
        };
        change.iter().for_each(|change| judged.tell(change));
    }
}
