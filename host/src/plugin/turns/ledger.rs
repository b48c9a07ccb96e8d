//! The books of the turns: who holds what, who waits, and who is next. Everything in here happens under one lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::Ask;
use crate::config::AccountCalls;

/// What is held, or asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) calls: usize,
    /// Of the instance pool: more than one for a component of many memories or tables.
    pub(super) places: usize,
    pub(super) pages: usize,
}

/// Who holds what, and who waits.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) total: Amount,
    pub(super) taken: Amount,
    /// Whether there are several accounts, so that none may have everything.
    pub(super) is_shared: bool,
    /// As many as were ever named by the operator, a few words each; so are the lanes, two to a plugin.
    accounts: Vec<Account>,
    accounts_by_name: HashMap<Arc<str>, usize>,
    lanes: Vec<Lane>,
    /// Guests that run and wait for memory: served first, because they hold what others wait for.
    growing: Queue,
    /// Calls that wait for their turn.
    starting: Queue,
    next_ticket: u64,
}

/// What the plugins of one account hold together.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    pub(super) bounds: AccountCalls,
    taken: Amount,
    /// How many calls wait for their turn.
    pub(super) waiting: usize,
    /// Those of its plugins, by name.
    lanes: HashMap<Arc<str>, usize>,
}

/// What the calls of a lane may have of the host, so that no plugin stands in the way of all others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    Half,
    Quarter,
}

/// What the calls of one plugin in one account hold together, or those for its pages.
#[derive(Debug)]
struct Lane {
    account: usize,
    share: Share,
    taken: Amount,
    /// How many wait, growing guests as well.
    waiting: usize,
}

/// Accounts, then lanes, then tickets.
type Queue = Ring<Ring<BTreeMap<u64, Waiter>>>;

#[derive(Debug)]
struct Waiter {
    ask: Ask,
    served: oneshot::Sender<()>,
}

/// Entries that are served one after another, again and again.
#[derive(Debug)]
struct Ring<T> {
    entries: BTreeMap<usize, T>,
    /// Who was served last.
    last: usize,
}

/// What stands in the way of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// All places of the pool are taken.
    Host,
    /// The account has all that it may have.
    Account,
    /// The plugin has its `calls_max`.
    Plugin,
    /// The lane has its share of the pool.
    Share,
    /// The memory for all guests is taken.
    Memory,
    /// The account has all the memory that one of several may have.
    AccountMemory,
    /// The lane has its share of the memory.
    ShareOfMemory,
}

impl Ledger {
    /// A host of which nothing is taken.
    pub(super) fn new(places: usize, pages: usize) -> Self {
        Self {
            total: Amount { calls: usize::MAX, places, pages },
            taken: Amount::default(),
            is_shared: false,
            accounts: Vec::new(),
            accounts_by_name: HashMap::new(),
            lanes: Vec::new(),
            growing: Queue::default(),
            starting: Queue::default(),
            next_ticket: 0,
        }
    }

    /// Finds an account by its name, or makes it.
    pub(super) fn account(&mut self, name: &str) -> &mut Account {
        let index = self.account_index(name);
        &mut self.accounts[index]
    }

    fn account_index(&mut self, name: &str) -> usize {
        if let Some(index) = self.accounts_by_name.get(name) {
            return *index;
        }
        let (name, index) = (Arc::<str>::from(name), self.accounts.len());
        let bounds = AccountCalls::default();
        let account =
            Account { name: name.clone(), bounds, taken: Amount::default(), waiting: 0, lanes: HashMap::new() };
        self.accounts.push(account);
        self.accounts_by_name.insert(name, index);
        index
    }

    /// Finds the lane of that name in an account, or makes it.
    pub(super) fn lane(&mut self, account: &str, name: &str, share: Share) -> usize {
        let account = self.account_index(account);
        let lanes = &mut self.accounts[account].lanes;
        if let Some(index) = lanes.get(name) {
            return *index;
        }
        let index = self.lanes.len();
        lanes.insert(name.into(), index);
        self.lanes.push(Lane { account, share, taken: Amount::default(), waiting: 0 });
        index
    }

    /// The account of a lane.
    pub(super) fn account_of(&self, lane: usize) -> &Account {
        &self.accounts[self.lanes[lane].account]
    }

    /// Whether there is what is asked for, and nobody of the lane came earlier.
    pub(super) fn is_free(&self, lane: usize, ask: &Ask) -> bool {
        self.lanes[lane].waiting == 0 && self.obstacle(lane, ask).is_none()
    }

    /// Adds someone to the queue; returns the ticket with which to leave, and what tells of being served.
    pub(super) fn enqueue(&mut self, lane: usize, ask: Ask) -> (u64, oneshot::Receiver<()>) {
        let account = self.lanes[lane].account;
        self.lanes[lane].waiting += 1;
        self.accounts[account].waiting += usize::from(ask.is_start());
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (served, receiver) = oneshot::channel();
        let queue = if ask.is_start() { &mut self.starting } else { &mut self.growing };
        queue.entry(account).entry(lane).insert(ticket, Waiter { ask, served });
        (ticket, receiver)
    }

    /// Returns what stands in the way, if anything does.
    pub(super) fn obstacle(&self, lane: usize, ask: &Ask) -> Option<Obstacle> {
        let lane = &self.lanes[lane];
        let account = &self.accounts[lane.account];
        if ask.is_start() {
            let place = self.obstacle_to_start(lane, account, ask);
            if place.is_some() {
                return place;
            }
        }
        let pages = ask.amount.pages;
        // One guest always gets what its own limit allows, however small the share is.
        let is_over = |taken: &Amount, share: usize| taken.pages + pages > share.max(ask.pages_max);
        let obstacles = [
            (Obstacle::ShareOfMemory, is_over(&lane.taken, lane.share.of(self.total.pages))),
            (Obstacle::AccountMemory, self.is_shared && is_over(&account.taken, three_quarters(self.total.pages))),
            (Obstacle::Memory, self.taken.pages + pages > self.total.pages),
        ];
        obstacles.into_iter().find_map(|(obstacle, stands)| (pages > 0 && stands).then_some(obstacle))
    }

    fn obstacle_to_start(&self, lane: &Lane, account: &Account, ask: &Ask) -> Option<Obstacle> {
        let Amount { calls, places, .. } = ask.amount;
        let is_over_calls = |taken: &Amount, calls_max: usize| calls_max > 0 && taken.calls + calls > calls_max;
        // One call always fits, however small the share is.
        let is_over_share = |taken: &Amount, share: usize| taken.places + places > share.max(places);
        let account_calls_max = account.bounds.calls_max;
        let has_share = self.is_shared && account_calls_max == 0;
        let obstacles = [
            (Obstacle::Plugin, is_over_calls(&lane.taken, ask.calls_max)),
            (Obstacle::Share, is_over_share(&lane.taken, lane.share.of(self.total.places))),
            (Obstacle::Account, is_over_calls(&account.taken, account_calls_max)),
            (Obstacle::Account, has_share && is_over_share(&account.taken, three_quarters(self.total.places))),
            (Obstacle::Host, self.taken.places + places > self.total.places),
        ];
        obstacles.into_iter().find_map(|(obstacle, stands)| stands.then_some(obstacle))
    }

    pub(super) fn take(&mut self, lane: usize, amount: Amount) {
        let lane = &mut self.lanes[lane];
        lane.taken.add(&amount);
        self.accounts[lane.account].taken.add(&amount);
        self.taken.add(&amount);
    }

    pub(super) fn give_back(&mut self, lane: usize, amount: Amount) {
        let lane = &mut self.lanes[lane];
        lane.taken.subtract(&amount);
        self.accounts[lane.account].taken.subtract(&amount);
        self.taken.subtract(&amount);
    }

    /// Hands what is free to those whose turn it is, until nobody who waits fits.
    pub(super) fn serve(&mut self) {
        for growing in [true, false] {
            while let Some((lane, ticket)) = self.next(growing) {
                let waiter = self.remove(lane, ticket, !growing).expect("`next` found it");
                self.take(lane, waiter.ask.amount);
                let account = self.lanes[lane].account;
                let queue = if growing { &mut self.growing } else { &mut self.starting };
                queue.last = account;
                if let Some(lanes) = queue.entries.get_mut(&account) {
                    lanes.last = lane;
                }
                // Nobody listens if the call just ended: its `Waiting` gives back what it finds served.
                let _ = waiter.served.send(());
            }
        }
    }

    /// Finds who is next of those who fit: the lane and the ticket.
    fn next(&self, growing: bool) -> Option<(usize, u64)> {
        let queue = if growing { &self.growing } else { &self.starting };
        queue.in_turn().find_map(|(_, lanes)| {
            lanes.in_turn().find_map(|(lane, waiters)| {
                let (ticket, waiter) = waiters.first_key_value()?;
                self.obstacle(lane, &waiter.ask).is_none().then_some((lane, *ticket))
            })
        })
    }

    /// Takes someone out of the queue, and says whether it was still there: what was served is not.
    pub(super) fn leave(&mut self, lane: usize, ticket: u64, is_start: bool) -> bool {
        self.remove(lane, ticket, is_start).is_some()
    }

    fn remove(&mut self, lane: usize, ticket: u64, is_start: bool) -> Option<Waiter> {
        let account = self.lanes[lane].account;
        let queue = if is_start { &mut self.starting } else { &mut self.growing };
        let lanes = queue.entries.get_mut(&account)?;
        let waiters = lanes.entries.get_mut(&lane)?;
        let waiter = waiters.remove(&ticket)?;
        if waiters.is_empty() {
            lanes.entries.remove(&lane);
        }
        if lanes.entries.is_empty() {
            queue.entries.remove(&account);
        }
        self.lanes[lane].waiting -= 1;
        self.accounts[account].waiting -= usize::from(is_start);
        Some(waiter)
    }
}

impl Amount {
    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.places += other.places;
        self.pages += other.pages;
    }

    fn subtract(&mut self, other: &Self) {
        self.calls -= other.calls;
        self.places -= other.places;
        self.pages -= other.pages;
    }
}

impl<T> Ring<T> {
    /// The entries, from the one behind the last served.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &T)> {
        let (before, after) = (self.entries.range(..=self.last), self.entries.range(self.last + 1..));
        after.chain(before).map(|(index, entry)| (*index, entry))
    }
}

impl<T: Default> Ring<T> {
    fn entry(&mut self, index: usize) -> &mut T {
        self.entries.entry(index).or_default()
    }
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), last: 0 }
    }
}

impl Share {
    fn of(self, total: usize) -> usize {
        match self {
            Self::Half => total / 2,
            Self::Quarter => total / 4,
        }
    }
}

/// What one of several accounts may have.
fn three_quarters(total: usize) -> usize {
    total - total / 4
}

#[cfg(test)]
impl Ledger {
    /// Whether nothing is taken, and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        let nothing = Amount::default();
        self.taken == nothing
            && self.lanes.iter().all(|lane| lane.taken == nothing && lane.waiting == 0)
            && self.accounts.iter().all(|account| account.taken == nothing && account.waiting == 0)
            && self.starting.entries.is_empty()
            && self.growing.entries.is_empty()
    }
}
