//! What a plugin may reach: `grants` in its table. Nothing by default.

pub mod http;
pub mod kv;

pub use http::{HostPattern, HttpGrant};
pub use kv::KvGrant;

use super::section::Section;

/// What one plugin in one account may reach.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// `kv`: its own keys in the store. Default none.
    pub kv: Option<KvGrant>,
    /// `http`: the hosts that it may send requests to. Default none.
    pub http: Vec<HttpGrant>,
}

/// The grants that one table gives.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnGrants {
    kv: Option<Option<KvGrant>>,
    http: Option<Vec<HttpGrant>>,
}

impl OwnGrants {
    /// Reads a plugin's table `grants`.
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self { kv: kv::read(section), http: http::read(section) }
    }
}

impl Grants {
    /// The grants of a plugin among scratch services: keys in the store that is gone afterwards. What HTTP is played needs no
    /// grant.
    pub fn scratch() -> Self {
        Self { kv: Some(KvGrant::default()), http: Vec::new() }
    }

    /// Returns these grants with a table's own over them, key by key.
    pub(super) fn with(mut self, own: &OwnGrants) -> Self {
        if let Some(kv) = &own.kv {
            self.kv = kv.clone();
        }
        if let Some(http) = &own.http {
            self.http = http.clone();
        }
        self
    }
}
