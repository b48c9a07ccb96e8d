//! Replies of before, of which there may be thousands at once: what a restart found, and dead letters that are retried.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many of them an account sends at once: a few of its `wechat_api.calls_per_account_max`, so that what is late now, and
/// what plugins ask of WeChat, need not wait for all of them.
const AT_ONCE_MAX: usize = 4;

/// The turns of every account, by its name. Accounts come from the settings: that is the bound.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<HashMap<String, Arc<Semaphore>>>);

/// A turn. Dropped, the next one has it.
pub type Turn = OwnedSemaphorePermit;

impl Backlog {
    /// Waits for a turn, in the order they come.
    pub(super) async fn turn(&self, account: &str) -> Option<Turn> {
        let turns = {
            let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            accounts.entry(account.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_MAX))).clone()
        };
        // It is never closed.
        turns.acquire_owned().await.ok()
    }
}
