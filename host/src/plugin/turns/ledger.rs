//! The books of the turns: who holds what, who waits, and who is next. Everything in here happens under one lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::Ask;
use crate::{config::AccountCalls, plugin::quarantine::Part};

/// What is held, or asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) calls: usize,
    /// Of the instance pool: more than one for a component of many memories or tables.
    pub(super) places: usize,
    pub(super) pages: usize,
}

/// What is held, and what of that makes pages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) all: Amount,
    for_pages: Amount,
}

/// Who holds what, and who waits.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) total: Amount,
    pub(super) taken: Taken,
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
    taken: Taken,
    /// How many calls wait for their turn, for each part.
    waiting: [usize; Part::ALL.len()],
    /// Those of its plugins, by name.
    lanes: HashMap<Arc<str>, usize>,
}

/// What the calls of one plugin in one account hold together, or those for its pages.
#[derive(Debug)]
struct Lane {
    account: usize,
    part: Part,
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
            taken: Taken::default(),
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
        let (taken, waiting, lanes) = (Taken::default(), [0; Part::ALL.len()], HashMap::new());
        let account = Account { name: name.clone(), bounds, taken, waiting, lanes };
        self.accounts.push(account);
        self.accounts_by_name.insert(name, index);
        index
    }

    /// Finds the lane of that name in an account, or makes it.
    pub(super) fn lane(&mut self, account: &str, name: &str, part: Part) -> usize {
        let account = self.account_index(account);
        let lanes = &mut self.accounts[account].lanes;
        if let Some(index) = lanes.get(name) {
            return *index;
        }
        let index = self.lanes.len();
        lanes.insert(name.into(), index);
        self.lanes.push(Lane { account, part, taken: Amount::default(), waiting: 0 });
        index
    }

    /// The account of a lane.
    pub(super) fn account_of(&self, lane: usize) -> &Account {
        &self.accounts[self.lanes[lane].account]
    }

    /// How many calls may wait at most, if no more can wait with a lane's.
    pub(super) fn full_at(&self, lane: usize) -> Option<usize> {
        let Lane { account, part, .. } = self.lanes[lane];
        let Account { bounds: AccountCalls { waiting_max, .. }, waiting, .. } = &self.accounts[account];
        let half = waiting_max / 2;
        match part {
            Part::Pages if waiting[part as usize] >= half => Some(half),
            _ if waiting.iter().sum::<usize>() >= *waiting_max => Some(*waiting_max),
            _ => None,
        }
    }

    /// Whether there is what is asked for, and nobody of the lane came earlier.
    pub(super) fn is_free(&self, lane: usize, ask: &Ask) -> bool {
        self.lanes[lane].waiting == 0 && self.obstacle(lane, ask).is_none()
    }

    /// Adds someone to the queue; returns the ticket with which to leave, and what tells of being served.
    pub(super) fn enqueue(&mut self, lane: usize, ask: Ask) -> (u64, oneshot::Receiver<()>) {
        let account = self.lanes[lane].account;
        self.lanes[lane].waiting += 1;
        self.accounts[account].waiting[self.lanes[lane].part as usize] += usize::from(ask.is_start());
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
        let is_over_of = |taken: &Taken, share| taken.of(lane.part).any(|(taken, part)| is_over(taken, share / part));
        let obstacles = [
            (Obstacle::ShareOfMemory, is_over(&lane.taken, share(lane.part, self.total.pages))),
            (Obstacle::AccountMemory, self.is_shared && is_over_of(&account.taken, three_quarters(self.total.pages))),
            (Obstacle::Memory, is_over_of(&self.taken, self.total.pages)),
            (Obstacle::Memory, self.taken.all.pages + pages > self.total.pages),
        ];
        obstacles.into_iter().find_map(|(obstacle, stands)| (pages > 0 && stands).then_some(obstacle))
    }

    fn obstacle_to_start(&self, lane: &Lane, account: &Account, ask: &Ask) -> Option<Obstacle> {
        let Amount { calls, places, .. } = ask.amount;
        let is_over_calls = |taken: &Amount, calls_max: usize| calls_max > 0 && taken.calls + calls > calls_max;
        // One call always fits, however small the share is.
        let is_over_share = |taken: &Amount, share: usize| taken.places + places > share.max(places);
        let is_over_calls_of = |taken: &Taken, max: usize| {
            taken.of(lane.part).any(|(taken, part)| is_over_calls(taken, max.div_ceil(part)))
        };
        let is_over_share_of =
            |taken: &Taken, share| taken.of(lane.part).any(|(taken, part)| is_over_share(taken, share / part));
        let account_calls_max = account.bounds.calls_max;
        let has_share = self.is_shared && account_calls_max == 0;
        let obstacles = [
            (Obstacle::Plugin, is_over_calls(&lane.taken, ask.calls_max)),
            (Obstacle::Share, is_over_share(&lane.taken, share(lane.part, self.total.places))),
            (Obstacle::Account, is_over_calls_of(&account.taken, account_calls_max)),
            (Obstacle::Account, has_share && is_over_share_of(&account.taken, three_quarters(self.total.places))),
            (Obstacle::Host, is_over_share_of(&self.taken, self.total.places)),
        ];
        obstacles.into_iter().find_map(|(obstacle, stands)| stands.then_some(obstacle))
    }

    pub(super) fn take(&mut self, lane: usize, amount: Amount) {
        let lane = &mut self.lanes[lane];
        lane.taken.add(&amount);
        self.accounts[lane.account].taken.add(lane.part, &amount);
        self.taken.add(lane.part, &amount);
    }

    pub(super) fn give_back(&mut self, lane: usize, amount: Amount) {
        let lane = &mut self.lanes[lane];
        lane.taken.subtract(&amount);
        self.accounts[lane.account].taken.subtract(lane.part, &amount);
        self.taken.subtract(lane.part, &amount);
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
        self.accounts[account].waiting[self.lanes[lane].part as usize] -= usize::from(is_start);
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

impl Taken {
    fn add(&mut self, part: Part, amount: &Amount) {
        self.all.add(amount);
        if part == Part::Pages {
            self.for_pages.add(amount);
        }
    }

    fn subtract(&mut self, part: Part, amount: &Amount) {
        self.all.subtract(amount);
        if part == Part::Pages {
            self.for_pages.subtract(amount);
        }
    }

    /// What counts against a bound: all of it, and for a page, what makes pages against half.
    fn of(&self, part: Part) -> impl Iterator<Item = (&Amount, usize)> {
        [(&self.all, 1)].into_iter().chain((part == Part::Pages).then_some((&self.for_pages, 2)))
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

/// What the calls of a lane may have of the host, so that no plugin stands in the way of all others.
fn share(part: Part, total: usize) -> usize {
    match part {
        Part::Bot => total / 2,
        Part::Pages => total / 4,
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
        let nothing = Taken::default();
        self.taken == nothing
            && self.lanes.iter().all(|lane| lane.taken == nothing.all && lane.waiting == 0)
            && self.accounts.iter().all(|account| account.taken == nothing && account.waiting == [0, 0])
            && self.starting.entries.is_empty()
            && self.growing.entries.is_empty()
    }
}
