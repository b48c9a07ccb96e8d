//! What guests reach beyond their sandbox, as far as their grants allow.

use crate::{egress::Egress, store::Store};

/// The host's services. The same for all plugins that serve; a plugin on trial has scratch ones.
#[derive(Clone, Debug)]
pub struct Services {
    pub store: Store,
    pub egress: Egress,
}

impl Services {
    /// Services that reach nothing and keep nothing.
    pub fn scratch() -> Self {
        Self { store: Store::scratch(), egress: Egress::played(Vec::new()) }
    }
}
