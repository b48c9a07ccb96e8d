//! The way out: HTTP that guests ask for, to the hosts that their grants name and to no others.

use crate::conversation::Exchange;

/// Sends guests' requests. Cheap to clone: all clones share their connections.
#[derive(Clone, Debug)]
pub enum Egress {
    /// To the network.
    Network,
    /// To nobody: the exchanges of a conversation file are played, anything else is refused.
    Played(std::sync::Arc<[Exchange]>),
}

impl Egress {
    /// Plays these exchanges.
    pub fn played(exchanges: Vec<Exchange>) -> Self {
        Self::Played(exchanges.into())
    }
}
