//! What outlives a message: the store behind `kv`.

use std::path::Path;

/// Where the host keeps what must survive a restart. Cheap to clone: all clones are one store.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process.
    Embedded,
}

impl Store {
    /// Opens the embedded store of a data directory, or makes it.
    pub fn open(_data_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self::Embedded)
    }

    /// Makes a store that is gone with its last clone.
    pub fn scratch() -> Self {
        Self::Embedded
    }
}
