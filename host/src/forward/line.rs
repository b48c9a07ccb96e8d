//! What stays of an account's webhook when the settings or plugins are loaded again: how many messages are with it,
//! whether it is there, and since when it fails.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{away::Away, trouble::Trouble};
use crate::config::Account;

/// The line to one webhook.
#[derive(Debug)]
pub(super) struct Line {
    /// As many messages as may be with it at once. The next ones wait, as long as theirs leaves time.
    pub places: Semaphore,
    pub away: Away,
    pub trouble: Trouble,
}

/// The lines to all webhooks, each for as long as its account has it. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Cancelled when the host stops, which waits for no webhook that is not there.
    pub(super) stopping: CancellationToken,
    lines: Arc<Mutex<HashMap<Key, Arc<Line>>>>,
}

/// What makes it another line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    account: String,
    url: String,
    places_max: usize,
    patience: Duration,
}

impl Lines {
    pub fn new(stopping: CancellationToken) -> Self {
        Self { stopping, lines: Arc::default() }
    }

    /// Lets go of the lines that no account has any more.
    pub fn retain(&self, accounts: &[Arc<Account>]) {
        let keys: Vec<_> = accounts.iter().filter_map(|account| Key::of(account)).collect();
        self.lock().retain(|key, _| keys.contains(key));
    }

    /// The line of an account, if it has a webhook.
    pub(super) fn of(&self, account: &Account) -> Option<Arc<Line>> {
        let key = Key::of(account)?;
        let (places, away) = (Semaphore::new(key.places_max), Away::new(key.patience));
        let line = Line { places, away, trouble: Trouble::default() };
        Some(self.lock().entry(key).or_insert_with(|| Arc::new(line)).clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Line>>> {
        // Every change leaves the map whole.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn of(account: &Account) -> Option<Self> {
        Some(Self {
            account: account.name.clone(),
            url: account.forward.as_ref()?.to_string(),
            places_max: account.forward_calls_max,
            patience: account.late.held().saturating_sub(account.late.window),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The account of these settings.
    fn account(toml: &str) -> Arc<Account> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("[accounts.main]\ntoken = \"secret7\"\n{toml}")).unwrap();
        Config::load(file.path()).unwrap().accounts[0].clone()
    }

    #[test]
    fn an_account_has_one_line_until_its_webhook_is_another() {
        let lines = Lines::new(CancellationToken::new());
        let [first, other] = ["forward = \"http://127.0.0.1:1\"", "forward = \"http://127.0.0.1:2\""].map(account);
        let line = lines.of(&first).unwrap();
        assert!(Arc::ptr_eq(&line, &lines.of(&first).unwrap()) && lines.of(&account("")).is_none());
        assert!(!Arc::ptr_eq(&line, &lines.of(&other).unwrap()));
        lines.retain(&[other]);
        assert!(!Arc::ptr_eq(&line, &lines.of(&first).unwrap()) && lines.lock().len() == 2);
    }
}
