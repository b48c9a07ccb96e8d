//! The writes that wait, in lanes that take turns: whoever writes much waits longer, and nobody else does. Nor does anybody find
//! the queue full of one plugin's writes: each has a part of it, and the host itself a part that no plugin gets.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use redb::WriteTransaction;

use super::Unavailable;

/// A write: carried out in a transaction of many. Its answer is given once the transaction is durable; dropped without
/// being called, it tells that the write failed.
pub(super) type Op = Box<dyn FnOnce(&WriteTransaction) -> Result<Answer, redb::Error> + Send>;

/// Tells a write's outcome to whoever waits for it.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

/// How many writes may wait: as many as calls may run at once (`engine.instances_max`), for a call writes one at a time.
const WAITING_MAX: usize = 10_000;

/// How many bytes they may hold together. Each brings a value or two of `VALUE_BYTES_MAX` at most.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Which part of both one plugin gets, and which is kept for the host's own writes: a quarter.
const PARTS: usize = 4;

/// Where a write waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane<'name> {
    /// With others of a plugin in an account.
    Plugin(&'name [u8]),
    /// With others of the host's own: what is owed, who is signed in.
    Host(&'name [u8]),
}

/// Writes in the order of their turns.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// What the writes that wait hold.
    bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    lanes: HashMap<Arc<[u8]>, Slots>,
    /// The lanes that have something waiting, the next one first.
    turns: VecDeque<Arc<[u8]>>,
    waiting: usize,
    closed: bool,
}

/// What waits in a lane.
#[derive(Default)]
struct Slots {
    waiting: VecDeque<Slot>,
    /// What they hold.
    bytes: Arc<AtomicUsize>,
}

/// Where a write waits. Empty once it was taken, or taken back.
type Slot = Arc<Mutex<Option<(Op, Held)>>>;

/// The bytes of a write that waits. Dropped with it.
struct Held {
    bytes: usize,
    /// Of its lane, and of all.
    sums: [Arc<AtomicUsize>; 2],
}

impl Held {
    fn new(bytes: usize, sums: [Arc<AtomicUsize>; 2]) -> Self {
        sums.iter().for_each(|sum| _ = sum.fetch_add(bytes, Ordering::Relaxed));
        Self { bytes, sums }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sums.iter().for_each(|sum| _ = sum.fetch_sub(self.bytes, Ordering::Relaxed));
    }
}

/// A write that waits. Dropped before its turn, it is taken back, with whatever memory it holds.
pub(super) struct Waiting(Slot);

impl Queue {
    /// Puts a write that holds so many bytes at the end of a lane, unless too much waits or the queue is closed.
    pub(super) fn push(&self, lane: Lane<'_>, bytes: usize, op: Op) -> Result<Waiting, Unavailable> {
        let mut state = self.state();
        if state.closed {
            return Err(Unavailable::Failed);
        }
        // Only here it grows, behind the lock.
        let all = (state.waiting + 1, self.bytes.load(Ordering::Relaxed) + bytes);
        let (Lane::Host(name) | Lane::Plugin(name)) = lane;
        match lane {
            Lane::Host(_) if !fits(all, PARTS) => return Err(Unavailable::Busy),
            Lane::Plugin(_) if !fits(all, PARTS - 1) => return Err(Unavailable::Busy),
            Lane::Plugin(_) if !fits(state.with_one_more(name, bytes), 1) => return Err(Unavailable::OwnBusy),
            _ => (),
        }
        let slots = state.lane(name);
        let held = Held::new(bytes, [slots.bytes.clone(), self.bytes.clone()]);
        let slot = Arc::new(Mutex::new(Some((op, held))));
        slots.waiting.push_back(slot.clone());
        state.waiting += 1;
        self.changed.notify_one();
        Ok(Waiting(slot))
    }

    /// Takes the next write.
    pub(super) fn pop(&self) -> Option<Op> {
        let mut state = self.state();
        // What was taken back is passed over.
        std::iter::from_fn(|| state.pop()).find_map(|slot| locked(&slot).take()).map(|(op, _)| op)
    }

    /// Waits for a write, or for this moment if one is given. Returns false when the queue is closed and empty.
    pub(super) fn wait(&self, until: Option<Instant>) -> bool {
        self.wait_while(until, |state| state.waiting == 0 && !state.closed);
        let state = self.state();
        state.waiting > 0 || !state.closed
    }

    /// Waits for this moment, or until the queue is closed.
    pub(super) fn pause(&self, until: Instant) {
        self.wait_while(Some(until), |state| !state.closed);
    }

    fn wait_while(&self, until: Option<Instant>, waits: impl Fn(&State) -> bool) {
        let mut state = self.state();
        while waits(&state) {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Takes no further writes.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl State {
    /// What would wait in a lane with one more write of so many bytes, and what it would hold.
    fn with_one_more(&self, lane: &[u8], bytes: usize) -> (usize, usize) {
        let slots = self.lanes.get(lane);
        slots.map_or((1, bytes), |slots| (slots.waiting.len() + 1, slots.bytes.load(Ordering::Relaxed) + bytes))
    }

    /// Returns a lane in which something is going to wait.
    fn lane(&mut self, lane: &[u8]) -> &mut Slots {
        if !self.lanes.contains_key(lane) {
            self.turns.push_back(lane.into());
        }
        self.lanes.entry(lane.into()).or_default()
    }

    fn pop(&mut self) -> Option<Slot> {
        let lane = self.turns.pop_front()?;
        let slots = &mut self.lanes.get_mut(&lane)?.waiting;
        let slot = slots.pop_front();
        if slots.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        self.waiting -= 1;
        slot
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(locked(&self.0).take());
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.state().waiting).finish_non_exhaustive()
    }
}

/// Whether so many writes of so many bytes are within so many parts of what may wait.
fn fits((waiting, bytes): (usize, usize), parts: usize) -> bool {
    waiting <= WAITING_MAX * parts / PARTS && bytes <= WAITING_BYTES_MAX * parts / PARTS
}

/// Nothing panics while these locks are held.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use redb::{Database, backends::InMemoryBackend};

    use super::*;

    /// A queue whose writes note their names.
    struct Noting {
        queue: Queue,
        noted: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Noting {
        fn new() -> Self {
            Self { queue: Queue::default(), noted: Arc::default() }
        }

        fn push(&self, lane: &str, name: &'static str) -> Result<Waiting, Unavailable> {
            let noted = self.noted.clone();
            let op: Op = Box::new(move |_| {
                noted.lock().unwrap().push(name);
                Ok(Box::new(|| ()))
            });
            self.queue.push(Lane::Host(lane.as_bytes()), 0, op)
        }

        /// Carries out what waits, and returns the names.
        fn run(&self) -> Vec<&'static str> {
            let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let transaction = database.begin_write().unwrap();
            while let Some(op) = self.queue.pop() {
                op(&transaction).unwrap()();
            }
            std::mem::take(&mut self.noted.lock().unwrap())
        }
    }

    /// Puts a write there that is never carried out.
    fn pushed(queue: &Queue, lane: Lane<'_>, bytes: usize) -> Result<Waiting, Unavailable> {
        queue.push(lane, bytes, Box::new(|_| unreachable!("nothing is carried out")))
    }

    #[test]
    fn lanes_take_turns_and_each_keeps_its_order() {
        let noting = Noting::new();
        let names = [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")];
        let _waiting: Vec<_> = names.map(|(lane, name)| noting.push(lane, name).unwrap()).into();
        assert_eq!(noting.run(), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(noting.queue.state().lanes.is_empty() && noting.queue.state().turns.is_empty());
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_passed_over_and_its_memory_given_back() {
        let noting = Noting::new();
        let held = Arc::new(());
        let in_op = held.clone();
        let op: Op = Box::new(move |_| {
            drop(in_op);
            unreachable!("it was taken back")
        });
        let given_up = noting.queue.push(Lane::Host(b"a"), 0, op).unwrap();
        let _kept = noting.push("a", "kept");
        drop(given_up);
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(noting.run(), ["kept"]);
    }

    #[test]
    fn a_full_queue_takes_nothing_more_until_something_was_taken() {
        let noting = Noting::new();
        let waiting: Vec<_> = (0..WAITING_MAX).map_while(|_| noting.push("a", "first").ok()).collect();
        assert_eq!(waiting.len(), WAITING_MAX);
        assert_eq!(noting.push("b", "too much").err(), Some(Unavailable::Busy));
        assert!(noting.queue.pop().is_some());
        assert!(noting.push("b", "fits").is_ok());
    }

    #[test]
    fn the_bytes_that_wait_are_bounded_and_given_back_when_taken_or_taken_back() {
        let queue = Queue::default();
        let push = |bytes| pushed(&queue, Lane::Host(b"a"), bytes);
        let first = push(WAITING_BYTES_MAX - 1).unwrap();
        assert_eq!(push(2).err(), Some(Unavailable::Busy));
        let _second = push(1).unwrap();
        drop(first);
        let _third = push(WAITING_BYTES_MAX - 1).unwrap();
        assert_eq!(push(1).err(), Some(Unavailable::Busy));
        while queue.pop().is_some() {}
        assert!(push(WAITING_BYTES_MAX).is_ok());
    }

    /// Fills a lane with writes of so many bytes, and returns them with the reason why there are no more.
    fn filled(queue: &Queue, lane: Lane<'_>, bytes: usize) -> (Vec<Waiting>, Unavailable) {
        let mut waiting = Vec::new();
        loop {
            match pushed(queue, lane, bytes) {
                Ok(write) => waiting.push(write),
                Err(why) => return (waiting, why),
            }
        }
    }

    #[test]
    fn one_plugin_has_a_quarter_of_the_queue_and_the_host_what_no_plugin_gets() {
        for (bytes, waiting_max) in [(0, WAITING_MAX), (1 << 20, WAITING_BYTES_MAX >> 20)] {
            let queue = Queue::default();
            let quarter = waiting_max / 4;
            let (greedy, why) = filled(&queue, Lane::Plugin(b"greedy"), bytes);
            assert_eq!((greedy.len(), why), (quarter, Unavailable::OwnBusy));
            let others = [b"a", b"b", b"c"].map(|lane| filled(&queue, Lane::Plugin(lane), bytes));
            assert_eq!(others.each_ref().map(|(waiting, _)| waiting.len()), [quarter, quarter, 0]);
            assert_eq!(others[2].1, Unavailable::Busy);
            let (journal, why) = filled(&queue, Lane::Host(b"journal"), bytes);
            assert_eq!((journal.len(), why), (quarter, Unavailable::Busy));
            drop((greedy, journal));
            while queue.pop().is_some() {}
            assert_eq!(filled(&queue, Lane::Plugin(b"greedy"), bytes).0.len(), quarter);
        }
    }

    #[test]
    fn a_write_that_is_larger_than_a_plugins_part_leaves_nothing_behind() {
        let queue = Queue::default();
        let larger = WAITING_BYTES_MAX / 4 + 1;
        assert_eq!(pushed(&queue, Lane::Plugin(b"a"), larger).err(), Some(Unavailable::OwnBusy));
        assert!(queue.pop().is_none() && queue.state().turns.is_empty());
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_takes_nothing() {
        let noting = Noting::new();
        let _waiting = noting.push("a", "last").unwrap();
        noting.queue.close();
        assert_eq!(noting.push("a", "too late").err(), Some(Unavailable::Failed));
        assert!(noting.queue.wait(None));
        assert_eq!(noting.run(), ["last"]);
        assert!(!noting.queue.wait(None));
    }
}
