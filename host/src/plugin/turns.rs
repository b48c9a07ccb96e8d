//! Whose turn it is: how many calls run at once, how much memory they hold together, and who is next when it is used up.
//!
//! A call takes its turn before it runs, and what its guest grows by while it does. As long as there is room and nobody of
//! its lane waits, that is one short lock. Otherwise it waits in its *lane*, the calls of one plugin in one account, with another one
//! for its pages, and what comes free goes round: over the accounts, over an account's lanes, and within a lane in the order of
//! arrival. A flood to one account or one plugin is thus a long lane of its own, and nobody else's.
//!
//! Who does not fit is passed over by those who do: one that asks for much may wait longer, but holds up nobody.

mod ledger;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout_at};

use self::ledger::{Amount, Ledger, Obstacle};
use super::{millis, quarantine::Part};
use crate::config::{self, Config};

/// The unit in which memory is shared out: a page of WebAssembly's.
const PAGE_BYTES: usize = 64 << 10;

/// What the pool has room for in each of its places; a component of more takes several.
/// QuickJS has two memories, and a garbage collector's heap is one more.
pub(super) const MEMORIES_PER_PLACE: usize = 3;
/// See [`MEMORIES_PER_PLACE`].
pub(super) const TABLES_PER_PLACE: usize = 4;

/// The turns of the host. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<Ledger>>);

/// Calls of one plugin in one account, those for messages or those for pages: where it takes its turns and waits for them.
#[derive(Clone, Debug)]
pub struct Lane {
    turns: Turns,
    index: usize,
}

/// The lanes of one plugin in one account. Anybody can ask for a page, so that all pages together get half of what messages may
/// have of the host and of an account, and those of one plugin half of that again; one page always fits.
#[derive(Clone, Debug)]
pub struct Lanes {
    pub messages: Lane,
    pub pages: Lane,
}

/// What a call holds. Dropping it hands it to whoever is next.
#[derive(Debug)]
#[must_use = "it is given back when it is dropped"]
pub struct Turn<'lane> {
    lane: &'lane Lane,
    amount: Amount,
}

/// The memory that a guest got beyond its turn. Dropping it hands it to whoever is next.
#[derive(Debug)]
pub struct Grown {
    lane: Lane,
    amount: Amount,
}

/// What a call asks for, and the plugin's own bounds.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    amount: Amount,
    /// `limits.calls_max`; 0: half of the host's.
    calls_max: usize,
    /// `limits.memory_mib`: so much one call may always hold, however small the plugin's share of the host is.
    pages_max: usize,
    /// `limits.wait_ms`.
    wait: Duration,
}

/// Why a call did not get its turn, or its guest not the memory it asked for, in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("found no free instance{}; raise `engine.instances_max` if memory allows", within(*.wait_ms))]
    Host { wait_ms: u64 },
    /// Where there is no instance pool, memory is not there before it is asked for.
    #[error(
        "found no memory for an instance: the system gave none; give this machine, its container or this process (`ulimit -v`) \
         more, or lower `engine.instances_max`"
    )]
    System,
    #[error(
        "found no free instance{}: its account has all that one may have; raise `calls_max` in \
         `[accounts.{account}]`", within(*.wait_ms)
    )]
    Account { wait_ms: u64, account: Arc<str> },
    #[error(
        "found no free instance{}: its other calls have all it may have; raise its `limits.calls_max`",
        within(*.wait_ms)
    )]
    Plugin { wait_ms: u64 },
    #[error(
        "found no free instance{}: its other calls have half of the host's, or for pages a quarter, which is all a plugin gets; \
         raise `engine.instances_max` if memory allows", within(*.wait_ms)
    )]
    Share { wait_ms: u64 },
    #[error(
        "was not asked: {waiting_max} calls wait for account `{account}`; raise `calls_waiting_max` in \
         `[accounts.{account}]`"
    )]
    Queue { waiting_max: usize, account: Arc<str> },
    #[error(
        "found no memory left on the host{}; raise `engine.memory_mib`, or lower `limits.memory_mib`", within(*.wait_ms)
    )]
    Memory { wait_ms: u64 },
    #[error(
        "found no memory left on the host{}: account `{account}` has three quarters of it, which is all that one of several \
         gets; raise `engine.memory_mib`, or lower `limits.memory_mib`", within(*.wait_ms)
    )]
    AccountMemory { wait_ms: u64, account: Arc<str> },
    #[error(
        "found no memory left on the host{}: its other calls have half of it, or for pages a quarter, which is all a plugin gets; \
         raise `engine.memory_mib`, or lower its `limits.calls_max`", within(*.wait_ms)
    )]
    ShareOfMemory { wait_ms: u64 },
    #[error("needs {needed_mib} MiB of memory at once, and all guests have {total_mib} MiB; raise `engine.memory_mib`")]
    TooLarge { needed_mib: usize, total_mib: usize },
}

/// How long was waited, if it was at all.
fn within(wait_ms: u64) -> String {
    if wait_ms == 0 { String::new() } else { format!(" within {wait_ms} ms") }
}

impl Turns {
    /// Makes the turns of a host with nothing running, with so many places and so much linear memory to share out.
    pub(super) fn new(places: usize, memory_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(places, pages(memory_bytes)))))
    }

    /// Returns how many places of the pool a component takes, by how many memories and tables it has.
    pub fn places(&self, memories: usize, tables: usize) -> usize {
        // One memory more: a guest with a garbage collector's heap has it there.
        let places = (memories + 1).div_ceil(MEMORIES_PER_PLACE).max(tables.div_ceil(TABLES_PER_PLACE));
        places.clamp(1, self.lock().total.places)
    }

    /// Returns how many places of the pool are taken, and how many there are.
    pub(super) fn places_taken(&self) -> (usize, usize) {
        let ledger = self.lock();
        (ledger.taken.all.places, ledger.total.places)
    }

    /// Takes over the bounds of new settings. Calls that run keep what they have.
    pub fn apply(&self, config: &Config) {
        let mut ledger = self.lock();
        ledger.total.pages = pages(config.engine.memory_bytes());
        ledger.is_shared = config.accounts.len() > 1;
        for account in &config.accounts {
            ledger.account(&account.name).bounds = account.calls.clone();
        }
        ledger.serve();
    }

    /// Returns the lanes of a plugin in an account: the same ones after every reload.
    pub fn lanes(&self, account: &str, plugin: &str) -> Lanes {
        // No file's name has a slash, so that no plugin is called like another one's pages.
        let pages = self.lock().lane(account, &format!("{plugin}/pages"), Part::Pages);
        Lanes { messages: self.lane(account, plugin), pages: Lane { turns: self.clone(), index: pages } }
    }

    /// The lane of a plugin's messages.
    pub(super) fn lane(&self, account: &str, plugin: &str) -> Lane {
        Lane { turns: self.clone(), index: self.lock().lane(account, plugin, Part::Bot) }
    }

    /// Nothing in here can panic half-way, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ask {
    /// Asks for a call's turn: places in the pool, and the memory that its guest begins with.
    pub fn to_start(places: usize, memory_bytes: usize, limits: &config::Limits) -> Self {
        Self::of(Amount { calls: 1, places, pages: pages(memory_bytes) }, limits)
    }

    /// Asks for more memory for a guest that runs.
    pub fn to_grow(memory_bytes: usize, limits: &config::Limits) -> Self {
        Self::of(Amount { calls: 0, places: 0, pages: pages(memory_bytes) }, limits)
    }

    fn of(amount: Amount, limits: &config::Limits) -> Self {
        let (calls_max, pages_max) = (limits.calls_max, pages(limits.memory_bytes()));
        Self { amount, calls_max, pages_max, wait: Duration::from_millis(limits.wait_ms) }
    }

    fn is_start(&self) -> bool {
        self.amount.calls > 0
    }
}

impl Lane {
    /// Takes a turn, or waits for it: as long as `limits.wait_ms` allows, and until `deadline` at the latest.
    ///
    /// Dropping the future leaves the queue.
    ///
    /// # Errors
    ///
    /// [`Busy`] names the bound that stood in the way, and with it the setting to raise.
    pub async fn turn(&self, ask: Ask, deadline: Instant) -> Result<Turn<'_>, Busy> {
        if !self.take(&ask) {
            self.wait(ask, deadline).await?;
        }
        Ok(Turn { lane: self, amount: ask.amount })
    }

    /// Takes what is asked for if it is free and nobody of the lane waits. The caller sees to giving it back.
    fn take(&self, ask: &Ask) -> bool {
        let mut ledger = self.turns.lock();
        let is_free = ledger.is_free(self.index, ask);
        if is_free {
            ledger.take(self.index, ask.amount);
        }
        is_free
    }

    fn give_back(&self, amount: Amount) {
        let mut ledger = self.turns.lock();
        ledger.give_back(self.index, amount);
        ledger.serve();
    }

    /// Waits for what is asked for, and takes it. The caller sees to giving it back.
    async fn wait(&self, ask: Ask, deadline: Instant) -> Result<(), Busy> {
        let started = Instant::now();
        let until = deadline.min(started + ask.wait);
        let (mut waiting, served) = self.enqueue(ask)?;
        match timeout_at(until.into(), served).await {
            Ok(Ok(())) => {
                waiting.is_over = true;
                Ok(())
            }
            _ => Err(self.busy(&ask, millis(until.saturating_duration_since(started)))),
        }
    }

    fn enqueue(&self, ask: Ask) -> Result<(Waiting<'_>, oneshot::Receiver<()>), Busy> {
        let mut ledger = self.turns.lock();
        if ask.amount.pages > ledger.total.pages {
            let [needed_mib, total_mib] =
                [ask.amount.pages, ledger.total.pages].map(|pages| (pages * PAGE_BYTES) >> 20);
            return Err(Busy::TooLarge { needed_mib, total_mib });
        }
        if ask.is_start()
            && let Some(waiting_max) = ledger.full_at(self.index)
        {
            return Err(Busy::Queue { waiting_max, account: ledger.account_of(self.index).name.clone() });
        }
        let (ticket, served) = ledger.enqueue(self.index, ask);
        let waiting = Waiting { lane: self, ask, ticket, is_over: false };
        // Something may have come free since `take` looked.
        ledger.serve();
        Ok((waiting, served))
    }

    /// Says what stands in the way of what was waited for.
    fn busy(&self, ask: &Ask, wait_ms: u64) -> Busy {
        let ledger = self.turns.lock();
        // What came free this moment came too late.
        let scarce = if ask.is_start() { Obstacle::Host } else { Obstacle::Memory };
        let account = || ledger.account_of(self.index).name.clone();
        match ledger.obstacle(self.index, ask).unwrap_or(scarce) {
            Obstacle::Host => Busy::Host { wait_ms },
            Obstacle::Account => Busy::Account { wait_ms, account: account() },
            Obstacle::Plugin => Busy::Plugin { wait_ms },
            Obstacle::Share => Busy::Share { wait_ms },
            Obstacle::Memory => Busy::Memory { wait_ms },
            Obstacle::AccountMemory => Busy::AccountMemory { wait_ms, account: account() },
            Obstacle::ShareOfMemory => Busy::ShareOfMemory { wait_ms },
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lane.give_back(self.amount);
    }
}

impl Grown {
    /// Nothing yet.
    pub fn nothing(lane: &Lane) -> Self {
        Self { lane: lane.clone(), amount: Amount::default() }
    }

    /// Adds what is asked for if it is free and nobody of the lane waits.
    pub fn take(&mut self, ask: &Ask) -> bool {
        let is_taken = self.lane.take(ask);
        if is_taken {
            self.amount.add(&ask.amount);
        }
        is_taken
    }

    /// Adds what is asked for as soon as it is free; see [`Lane::turn`].
    ///
    /// # Errors
    ///
    /// It did not come free in time.
    pub async fn wait(&mut self, ask: Ask, deadline: Instant) -> Result<(), Busy> {
        self.lane.wait(ask, deadline).await?;
        self.amount.add(&ask.amount);
        Ok(())
    }

    /// Says what stands in the way of what has been waited for until now.
    pub fn busy(&self, ask: &Ask, wait: Duration) -> Busy {
        self.lane.busy(ask, millis(wait))
    }
}

impl Drop for Grown {
    fn drop(&mut self) {
        // Most guests never grow.
        if self.amount != Amount::default() {
            self.lane.give_back(self.amount);
        }
    }
}

/// A place in the queue. Dropping it gives up the place, and what was served but not fetched yet.
struct Waiting<'lane> {
    lane: &'lane Lane,
    ask: Ask,
    ticket: u64,
    /// Whether what was served belongs to somebody else now.
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut ledger = self.lane.turns.lock();
        let was_served = !ledger.leave(self.lane.index, self.ticket, self.ask.is_start());
        if was_served {
            ledger.give_back(self.lane.index, self.ask.amount);
        }
        // Who waited behind it in its lane may fit.
        ledger.serve();
    }
}

fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}

#[cfg(test)]
mod tests;
