//! How many requests are on their way at once: overall, and to the hosts of one grant, so that a slow host keeps no other
//! waiting for long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{HostPattern, Http, HttpGrant};

/// How many names are looked up at once: each takes a thread of the system's, for as long as the name server likes.
const LOOKUPS_MAX: usize = 32;

/// How many of them for the hosts of one grant: whoever owns a domain can make its names slow.
const LOOKUPS_PER_HOST_MAX: usize = 8;

/// From how many gates on those that nobody uses are forgotten: grants come and go with the settings.
const GATES_KEPT: usize = 1_024;

#[derive(Debug)]
pub(super) struct Gates {
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    connections_per_host_max: usize,
    hosts: Mutex<HashMap<(HostPattern, u16), Arc<Gate>>>,
}

/// What the hosts of one grant share.
#[derive(Debug)]
struct Gate {
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

/// The right to be on the way, or to look up a name, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _host: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Gates {
    pub(super) fn new(http: &Http) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(http.connections_max)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            connections_per_host_max: http.connections_per_host_max,
            hosts: Mutex::default(),
        }
    }

    /// Waits until one more request to a host may be on its way.
    pub(super) async fn connection(&self, grant: &HttpGrant) -> Turn {
        let gate = self.gate(grant);
        Turn::of(&gate.connections, &self.connections).await
    }

    /// Waits until one more name may be looked up.
    pub(super) async fn lookup(&self, grant: &HttpGrant) -> Turn {
        let gate = self.gate(grant);
        Turn::of(&gate.lookups, &self.lookups).await
    }

    fn gate(&self, grant: &HttpGrant) -> Arc<Gate> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= GATES_KEPT {
            hosts.retain(|_, gate| gate.is_in_use());
        }
        let gate = || Gate {
            connections: Arc::new(Semaphore::new(self.connections_per_host_max)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_PER_HOST_MAX)),
        };
        hosts.entry((grant.host.clone(), grant.port)).or_insert_with(|| Arc::new(gate())).clone()
    }
}

impl Gate {
    /// Whether somebody holds a turn of it or waits for one: turns keep the semaphores, not the gate.
    fn is_in_use(self: &Arc<Self>) -> bool {
        let semaphores = [&self.connections, &self.lookups];
        Arc::strong_count(self) > 1 || semaphores.iter().any(|semaphore| Arc::strong_count(semaphore) > 1)
    }
}

impl Turn {
    /// First the host's turn, then the one of all: who waits for a slow host takes no place from others.
    async fn of(host: &Arc<Semaphore>, all: &Arc<Semaphore>) -> Self {
        const NEVER_CLOSED: &str = "no semaphore of a gate is ever closed";
        let host = host.clone().acquire_owned().await.expect(NEVER_CLOSED);
        let all = all.clone().acquire_owned().await.expect(NEVER_CLOSED);
        Self { _host: host, _all: all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::target::Host;

    fn grant(port: u16) -> HttpGrant {
        HttpGrant {
            written: String::new(),
            secure: true,
            host: HostPattern::Exact(Host::Name("example.com".to_owned())),
            port,
            path: String::new(),
            private: false,
            headers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_gate_in_use_is_not_forgotten() {
        let gates = Gates::new(&Http { connections_max: 2, connections_per_host_max: 1, ..Http::default() });
        let turn = gates.connection(&grant(1)).await;
        for port in 2..=5_000 {
            gates.gate(&grant(port));
        }
        assert!(gates.hosts.lock().unwrap().len() <= GATES_KEPT);
        assert_eq!(gates.gate(&grant(1)).connections.available_permits(), 0);
        drop(turn);
        assert_eq!(gates.gate(&grant(1)).connections.available_permits(), 1);
    }
}
