//! How many requests are on their way at once, and how much of answers is held: overall, to the hosts of one grant, so that
//! a slow host keeps no other waiting for long, and for one plugin, which gets half of either.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::Owner;
use crate::{
    config::{HostPattern, Http, HttpGrant},
    refusal::OnceAMinute,
};

/// How many names are looked up at once: each takes a thread of the system's, for as long as the name server likes.
const LOOKUPS_MAX: usize = 32;

/// How many of them for the hosts of one grant: whoever owns a domain can make its names slow.
const LOOKUPS_PER_HOST_MAX: usize = 8;

/// From how many gates on those that nobody uses are forgotten: grants and plugins come and go with the settings.
const GATES_KEPT: usize = 4_096;

#[derive(Debug)]
pub(super) struct Gates {
    connections_max: usize,
    connections_per_host_max: usize,
    answers_bytes_max: usize,
    /// The largest answer: so much a plugin may always hold, however small its half is.
    body_bytes_max: usize,
    gates: Mutex<HashMap<Gate, Arc<Semaphore>>>,
    /// Whose requests had to wait for their own lately.
    told: OnceAMinute<Owner>,
}

/// What is counted together: of everybody or of one plugin, to all hosts or to those of one grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Gate {
    what: What,
    owner: Option<Owner>,
    host: Option<(HostPattern, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Connections,
    Lookups,
    AnswerBytes,
}

/// The right to be on the way, or to look up a name, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: Vec<OwnedSemaphorePermit>,
}

/// Where an answer takes room for its bytes until it is complete, and what to say where there is none.
pub(super) type Room = Vec<(Arc<Semaphore>, &'static str)>;

impl Gates {
    pub(super) fn new(http: &Http) -> Self {
        Self {
            connections_max: http.connections_max,
            connections_per_host_max: http.connections_per_host_max,
            answers_bytes_max: http.answers_mib_max << 20,
            body_bytes_max: http.body_bytes_max(),
            gates: Mutex::default(),
            told: OnceAMinute::default(),
        }
    }

    /// Waits until one more request to a host may be on its way.
    pub(super) async fn connection(&self, owner: Option<&Owner>, grant: &HttpGrant) -> Turn {
        let maxima = (self.connections_per_host_max, self.connections_max);
        let gates = self.gates(What::Connections, owner, grant, maxima);
        if let (Some(owner), [own @ .., _, _]) = (owner, &*gates)
            && own.iter().any(|gate| gate.available_permits() == 0)
            && self.told.turn(owner.clone(), Instant::now()).is_some()
        {
            let Owner { account, plugin } = owner;
            warn!(
                plugin.name = %plugin,
                %account,
                "Plugin `{plugin}` of account `{account}` has as many requests on their way as one plugin may: half of \
                 `http.connections_max`, or to one host half of `http.connections_per_host_max`; its next ones wait"
            );
        }
        Turn::of(gates).await
    }

    /// Waits until one more name may be looked up.
    pub(super) async fn lookup(&self, owner: Option<&Owner>, grant: &HttpGrant) -> Turn {
        Turn::of(self.gates(What::Lookups, owner, grant, (LOOKUPS_PER_HOST_MAX, LOOKUPS_MAX))).await
    }

    /// Where the answers to an owner have room.
    pub(super) fn room(&self, owner: Option<&Owner>) -> Room {
        const FULL: &str = "the host holds too many answers at the moment (`http.answers_mib_max`)";
        const OWN_FULL: &str = "the answers to this plugin take half of `http.answers_mib_max` at the moment, which is all \
                                that one plugin gets";
        let gate = |owner, bytes_max| self.gate(Gate { what: What::AnswerBytes, owner, host: None }, bytes_max);
        let own_max = half(self.answers_bytes_max).max(self.body_bytes_max);
        let own = owner.map(|owner| (gate(Some(owner.clone()), own_max), OWN_FULL));
        own.into_iter().chain([(gate(None, self.answers_bytes_max), FULL)]).collect()
    }

    /// The gates on the way to a host, the narrowest first: who waits for its own requests takes no place from others, nor does
    /// who waits for a slow host.
    fn gates(
        &self,
        what: What,
        owner: Option<&Owner>,
        grant: &HttpGrant,
        (per_host_max, max): (usize, usize),
    ) -> Vec<Arc<Semaphore>> {
        let host = Some((grant.host.clone(), grant.port));
        let own = owner.map(|owner| Some(owner.clone()));
        let own = own.map(|owner| [(owner.clone(), host.clone(), half(per_host_max)), (owner, None, half(max))]);
        let all = [(None, host, per_host_max), (None, None, max)];
        let gates = own.into_iter().flatten().chain(all);
        gates.map(|(owner, host, max)| self.gate(Gate { what, owner, host }, max)).collect()
    }

    fn gate(&self, gate: Gate, max: usize) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= GATES_KEPT && !gates.contains_key(&gate) {
            // Who holds a turn or waits for one holds the semaphore, too.
            gates.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        gates.entry(gate).or_insert_with(|| Arc::new(Semaphore::new(max))).clone()
    }
}

/// What one plugin gets, of as little as one, too.
fn half(max: usize) -> usize {
    max.div_ceil(2)
}

impl Turn {
    async fn of(gates: Vec<Arc<Semaphore>>) -> Self {
        let mut permits = Vec::with_capacity(gates.len());
        for gate in gates {
            permits.push(gate.acquire_owned().await.expect("no semaphore of a gate is ever closed"));
        }
        Self { _permits: permits }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

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

    fn plugin(name: &str) -> Owner {
        Owner { account: "main".into(), plugin: name.into() }
    }

    /// A turn that is there at once.
    fn now(turn: impl Future<Output = Turn>) -> Option<Turn> {
        match pin!(turn).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// As many turns for a host of this port as are there at once.
    fn connections(gates: &Gates, owner: Option<&Owner>, port: u16) -> Vec<Turn> {
        std::iter::from_fn(|| now(gates.connection(owner, &grant(port)))).collect()
    }

    #[tokio::test]
    async fn a_gate_in_use_is_not_forgotten() {
        let gates = Gates::new(&Http { connections_max: 2, connections_per_host_max: 1, ..Http::default() });
        let turn = gates.connection(None, &grant(1)).await;
        for port in 2..=9_000 {
            gates.gates(What::Connections, None, &grant(port), (1, 2));
        }
        assert!(gates.gates.lock().unwrap().len() <= GATES_KEPT);
        assert!(now(gates.connection(None, &grant(1))).is_none());
        drop(turn);
        assert!(now(gates.connection(None, &grant(1))).is_some());
    }

    #[test]
    fn one_plugin_has_half_of_the_connections_to_a_host_and_half_of_all() {
        let gates = Gates::new(&Http { connections_max: 10, connections_per_host_max: 6, ..Http::default() });
        let (greedy, other) = (plugin("greedy"), plugin("other"));
        let to_one = connections(&gates, Some(&greedy), 1);
        let to_another = connections(&gates, Some(&greedy), 2);
        assert_eq!((to_one.len(), to_another.len()), (3, 2));
        assert_eq!(connections(&gates, Some(&other), 1).len(), 3);
        drop(to_one);
        assert_eq!(connections(&gates, Some(&greedy), 1).len(), 3);
        // What the host itself asks for is nobody's share.
        drop(to_another);
        let hosts_own = [2, 3].map(|port| connections(&gates, None, port));
        assert_eq!(hosts_own.map(|turns| turns.len()), [6, 4]);
    }

    #[test]
    fn one_plugin_has_half_of_the_lookups() {
        let gates = Gates::new(&Http::default());
        let (greedy, other) = (plugin("greedy"), plugin("other"));
        let lookups: Vec<_> = (1..=20).filter_map(|port| now(gates.lookup(Some(&greedy), &grant(port)))).collect();
        assert_eq!(lookups.len(), LOOKUPS_MAX / 2);
        assert!(now(gates.lookup(Some(&other), &grant(1))).is_some());
    }

    #[test]
    fn where_there_is_room_for_one_it_is_for_whoever_comes() {
        let gates = Gates::new(&Http { connections_max: 1, connections_per_host_max: 1, ..Http::default() });
        let turn = now(gates.connection(Some(&plugin("alone")), &grant(1)));
        assert!(turn.is_some() && now(gates.connection(Some(&plugin("other")), &grant(1))).is_none());
    }

    #[test]
    fn the_answers_to_one_plugin_have_half_of_the_room_or_as_much_as_the_largest_takes() {
        for (body_mib_max, own_mib) in [(1, 4), (6, 6)] {
            let gates = Gates::new(&Http { answers_mib_max: 8, body_mib_max, ..Http::default() });
            let [(own, why), (all, _)] = &gates.room(Some(&plugin("greedy")))[..] else { unreachable!("two gates") };
            assert_eq!((own.available_permits(), all.available_permits()), (own_mib << 20, 8 << 20));
            assert!(why.contains("half of `http.answers_mib_max`"));
            assert_eq!(gates.room(None).len(), 1);
        }
    }
}
