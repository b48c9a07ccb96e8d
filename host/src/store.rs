//! What outlives a message: the store behind `kv`, and what the host still owes its users.
//!
//! [`Store`] says where things are kept. `embedded` keeps them in this process: a file with groups of writes (`writer`),
//! which wait in turns (`queue`). What is kept has a file of its own: [`kv`] for plugins' keys, [`late`] for late replies.

mod embedded;
pub mod kv;
pub mod late;
mod queue;
mod writer;

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

pub use embedded::{Embedded, OpenError};

/// Where the host keeps what must survive a restart. Cheap to clone: all clones are one store.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process.
    Embedded(Embedded),
}

impl Store {
    /// Opens the embedded store of a data directory, or makes it.
    ///
    /// # Errors
    /// When the file cannot be used, belongs to a host that runs, or is damaged; then it is left as it is.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        Embedded::open(data_dir).map(Self::Embedded)
    }

    /// Makes a store that is gone with its last clone. It costs nothing until it is used.
    pub fn scratch() -> Self {
        Self::Embedded(Embedded::scratch())
    }

    /// Ends what was begun and lets go of the files, for all clones: from now on every operation fails. For a host that stops.
    pub async fn close(&self) {
        let Self::Embedded(embedded) = self;
        let embedded = embedded.clone();
        // It only fails if closing panicked, and then there is nothing left to close.
        let _ = tokio::task::spawn_blocking(move || embedded.close()).await;
    }
}

/// Milliseconds since 1970, by the wall clock: what runs out does so while the host is down, too.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why the store gave no answer. A write may have been carried out all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("the store did not answer in time")]
    Late,
    #[error("too many writes wait for the store already")]
    Busy,
    #[error(
        "too many of the plugin's own writes wait for the store already: a quarter of what may wait is all that one plugin gets"
    )]
    OwnBusy,
    #[error("too many keys that have run out lie in between; they are being removed")]
    Sweeping,
    #[error("the store failed; the host's log says why")]
    Failed,
}
