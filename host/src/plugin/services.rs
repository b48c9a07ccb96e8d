//! What guests reach beyond their sandbox, as far as their grants allow.

use std::{sync::Arc, time::Duration};

use super::{
    Hash,
    record::{Record, Records},
};
use crate::{api::Apis, config::PluginSettings, conversation::Exchange, egress::Egress, store::Store};

/// The host's services. The same for all plugins that serve; a plugin on trial has scratch ones.
#[derive(Clone, Debug)]
pub struct Services {
    pub store: Store,
    pub egress: Egress,
    /// WeChat's API, for each account.
    pub apis: Apis,
    /// What is kept about plugins from call to call; nothing while they are only tried.
    pub records: Option<Records>,
}

impl Services {
    /// Services that reach nothing and keep nothing.
    pub fn scratch() -> Self {
        Self::played(Vec::new())
    }

    /// Services that keep nothing, and for which these exchanges are the whole network, WeChat's API included.
    pub fn played(exchanges: Vec<Exchange>) -> Self {
        let egress = Egress::played(exchanges);
        Self { store: Store::scratch(), apis: Apis::Played(egress.clone()), egress, records: None }
    }

    /// Counts a file that was compiled, or could not be.
    pub fn compiled(&self, worked: bool, duration: Duration) {
        self.records.iter().for_each(|records| records.metrics.compiled(worked, duration));
    }

    /// Finds the record of a plugin in an account.
    pub fn record(&self, account: &Arc<str>, plugin: &Arc<str>, code: Hash, settings: &PluginSettings) -> Record {
        self.records.as_ref().map(|records| records.of(account, plugin, code, settings)).unwrap_or_default()
    }
}
