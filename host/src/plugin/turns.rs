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
    /// Makes the turns of a host with nothing running.
    pub fn new(settings: &config::Engine) -> Self {
        Self::with(settings.instances_max, settings.memory_bytes())
    }

    pub(super) fn with(places: usize, memory_bytes: usize) -> Self {
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
mod tests {
    use std::{
        future::Future,
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::config::Limits;

    const MIB: usize = 1 << 20;

    /// Far enough away that no test gets there.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3_600)
    }

    fn limits() -> Limits {
        Limits { memory_mib: 1, wait_ms: 3_600_000, ..Limits::default() }
    }

    /// One call of a guest without memory.
    fn call() -> Ask {
        Ask::to_start(1, 0, &limits())
    }

    /// Takes a turn that is free.
    fn take<'lane>(lane: &'lane Lane, ask: &Ask) -> Option<Turn<'lane>> {
        lane.take(ask).then(|| Turn { lane, amount: ask.amount })
    }

    /// A call that waits, polled by hand: a test sees who was served, and no clock is involved.
    struct Caller<'lane>(Pin<Box<dyn Future<Output = Result<Turn<'lane>, Busy>> + 'lane>>);

    impl<'lane> Caller<'lane> {
        /// Asks, and is not served at once.
        fn waits(lane: &'lane Lane, ask: Ask) -> Self {
            let mut caller = Self(Box::pin(lane.turn(ask, later())));
            assert!(caller.served().is_none(), "nobody was to be served");
            caller
        }

        fn served(&mut self) -> Option<Turn<'lane>> {
            match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(turn) => Some(turn.expect("it is not late")),
                Poll::Pending => None,
            }
        }
    }

    fn assert_idle(turns: &Turns) {
        assert!(turns.lock().is_idle(), "{turns:?}");
    }

    #[test]
    fn a_plugin_gets_half_of_the_host_and_leaves_the_rest_to_others() {
        let turns = Turns::with(4, MIB);
        let (greedy, other) = (turns.lane("main", "greedy"), turns.lane("main", "other"));
        let held = [take(&greedy, &call()), take(&greedy, &call())];
        assert!(held.iter().all(Option::is_some));
        assert!(take(&greedy, &call()).is_none());
        let others = [take(&other, &call()), take(&other, &call())];
        assert!(others.iter().all(Option::is_some));
        drop((held, others));
        assert_idle(&turns);
    }

    #[test]
    fn a_plugins_own_bound_can_be_lower() {
        let turns = Turns::with(100, MIB);
        let lane = turns.lane("main", "shy");
        let shy = Ask::to_start(1, 0, &Limits { calls_max: 1, ..limits() });
        let turn = take(&lane, &shy);
        assert!(turn.is_some() && take(&lane, &shy).is_none());
        drop(turn);
        assert!(take(&lane, &shy).is_some());
    }

    #[tokio::test]
    async fn what_comes_free_goes_round_over_accounts_and_their_plugins() {
        let turns = Turns::with(1, MIB);
        let [first, flooded, quiet, other] = [("x", "first"), ("a", "flooded"), ("a", "quiet"), ("b", "other")]
            .map(|(account, name)| turns.lane(account, name));
        let mut running = take(&first, &call());
        let mut callers = Vec::from([1, 2, 3].map(|_| ("flooded", Caller::waits(&flooded, call()))));
        callers.push(("quiet", Caller::waits(&quiet, call())));
        callers.push(("other", Caller::waits(&other, call())));
        let mut order = Vec::new();
        while !callers.is_empty() {
            drop(running.take());
            let served = callers.iter_mut().position(|(_, caller)| {
                running = caller.served();
                running.is_some()
            });
            order.push(callers.remove(served.expect("somebody is served")).0);
        }
        // The accounts take turns, and in `a` so do its plugins.
        assert_eq!(order, ["flooded", "other", "quiet", "flooded", "flooded"]);
        drop(running);
        assert_idle(&turns);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_no_hole() {
        let turns = Turns::with(2, MIB);
        let lane = turns.lane("main", "a");
        let running = take(&lane, &call());
        let mut callers: Vec<_> = (0..3).map(|_| Caller::waits(&lane, call())).collect();
        drop(callers.remove(0));
        drop(running);
        let turn = callers[0].served();
        assert!(turn.is_some(), "the next one is served");
        assert!(callers[1].served().is_none());
        drop((turn, callers));
        assert_idle(&turns);
    }

    #[tokio::test]
    async fn a_turn_that_nobody_fetches_goes_to_the_next() {
        let turns = Turns::with(2, MIB);
        let lane = turns.lane("main", "a");
        let running = take(&lane, &call());
        let [first, mut second] = [Caller::waits(&lane, call()), Caller::waits(&lane, call())];
        // `first` is served, but its call ends before it looks.
        drop(running);
        assert!(second.served().is_none());
        drop(first);
        assert!(second.served().is_some());
        drop(second);
        assert_idle(&turns);
    }

    #[test]
    fn messages_get_half_and_pages_a_quarter_so_that_others_find_something_left() {
        let turns = Turns::with(20, 20 * MIB);
        let Lanes { messages, pages } = turns.lanes("main", "greedy");
        let most = |lane: &Lane| std::iter::from_fn(|| lane.take(&call()).then_some(())).count();
        assert_eq!((most(&messages), most(&pages)), (10, 5));
        assert!(take(&turns.lane("main", "other"), &call()).is_some());

        let turns = Turns::with(100, 20 * MIB);
        let Lanes { messages, pages } = turns.lanes("main", "greedy");
        let mib = Ask::to_grow(MIB, &limits());
        let most = |lane: &Lane| std::iter::from_fn(|| lane.take(&mib).then_some(())).count();
        assert_eq!((most(&messages), most(&pages)), (10, 5));
        assert!(take(&turns.lane("main", "other"), &mib).is_some());
    }

    #[test]
    fn the_pages_of_all_plugins_leave_half_of_the_host_and_of_an_account_to_messages() {
        let turns = Turns::with(20, 20 * MIB);
        let all = ["a", "b", "c", "d"].map(|name| turns.lanes("main", name));
        let most = |ask: &Ask| {
            all.iter().map(|lanes| std::iter::from_fn(|| lanes.pages.take(ask).then_some(())).count()).sum::<usize>()
        };
        assert_eq!([most(&call()), most(&Ask::to_grow(MIB, &limits()))], [10, 10]);
        assert!(take(&all[0].messages, &Ask::to_start(1, MIB, &limits())).is_some());

        let turns = Turns::with(20, MIB);
        turns.lock().account("main").bounds.calls_max = 4;
        let Lanes { messages, pages } = turns.lanes("main", "a");
        let most = |lane: &Lane| std::iter::from_fn(|| lane.take(&call()).then_some(())).count();
        assert_eq!((most(&pages), most(&messages)), (2, 2));
    }

    #[tokio::test]
    async fn pages_that_wait_leave_room_for_messages_that_wait() {
        let turns = Turns::with(4, MIB);
        turns.lock().account("main").bounds.waiting_max = 2;
        let Lanes { messages, pages } = turns.lanes("main", "a");
        let held = [(&pages, 1), (&messages, 2)]
            .map(|(lane, count)| (0..count).filter_map(|_| take(lane, &call())).collect::<Vec<_>>());
        let page = Caller::waits(&pages, call());
        let full = Busy::Queue { waiting_max: 1, account: "main".into() };
        assert_eq!(pages.turn(call(), later()).await.unwrap_err(), full);
        let message = Caller::waits(&messages, call());
        let full = Busy::Queue { waiting_max: 2, account: "main".into() };
        assert_eq!(messages.turn(call(), later()).await.unwrap_err(), full);
        drop((held, page, message));
        assert_idle(&turns);
    }

    #[tokio::test]
    async fn nobody_overtakes_in_a_lane() {
        let turns = Turns::with(20, MIB);
        let lane = turns.lane("main", "a");
        let mut turn = take(&lane, &Ask::to_grow(MIB / 2, &limits()));
        let large = Ask::to_start(1, MIB, &limits());
        let mut first = Caller::waits(&lane, large);
        // It would fit, but it came later.
        let mut second = Caller::waits(&lane, Ask::to_start(1, 65_536, &limits()));
        // Another plugin is not held up.
        assert!(take(&turns.lane("main", "b"), &Ask::to_start(1, 65_536, &limits())).is_some());
        drop(turn.take());
        let held = first.served();
        assert!(held.is_some() && second.served().is_none());
        drop(held);
        assert!(second.served().is_some());
    }

    #[tokio::test]
    async fn a_guest_that_runs_gets_memory_before_a_call_that_wants_to_start() {
        let turns = Turns::with(20, MIB);
        let (a, b) = (turns.lane("main", "a"), turns.lane("main", "b"));
        let all = take(&a, &Ask::to_grow(MIB, &limits()));
        assert!(all.is_some(), "one guest may have all its limits allow, though it is more than half of the host's");
        let mut start = Caller::waits(&a, Ask::to_start(1, MIB, &limits()));
        let mut growth = Caller::waits(&b, Ask::to_grow(MIB, &limits()));
        drop(all);
        let grown = growth.served();
        assert!(grown.is_some() && start.served().is_none());
        drop(grown);
        assert!(start.served().is_some());
    }

    #[tokio::test]
    async fn a_call_that_waits_too_long_is_told_what_to_raise() {
        let turns = Turns::with(3, MIB);
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| turns.lane("main", name));
        let busy = async |lane: &Lane, limits: Limits, bytes| {
            let ask = Ask::to_start(1, bytes, &Limits { wait_ms: 0, ..limits });
            lane.turn(ask, later()).await.unwrap_err().to_string()
        };
        let _a = take(&a, &call());
        assert!(busy(&a, limits(), 0).await.contains("half of the host's"));
        assert!(busy(&a, Limits { calls_max: 1, ..limits() }, 0).await.contains("`limits.calls_max`"));
        let _b = take(&b, &Ask::to_start(1, MIB, &limits()));
        assert!(busy(&c, limits(), 65_536).await.contains("`engine.memory_mib`"));
        assert_eq!(
            busy(&c, limits(), 2 * MIB).await,
            "needs 2 MiB of memory at once, and all guests have 1 MiB; raise `engine.memory_mib`"
        );
        let _c = take(&c, &call());
        let told = busy(&d, limits(), 0).await;
        assert_eq!(told, "found no free instance; raise `engine.instances_max` if memory allows");
    }

    #[tokio::test]
    async fn who_gets_no_memory_is_told_whose_share_is_used_up() {
        let turns = Turns::with(100, 4 * MIB);
        turns.lock().is_shared = true;
        let [a, b, other] =
            [("main", "a"), ("main", "b"), ("shop", "a")].map(|(account, name)| turns.lane(account, name));
        let at_once = Limits { wait_ms: 0, ..limits() };
        let busy = async |lane: &Lane, bytes| {
            lane.turn(Ask::to_start(1, bytes, &at_once), later()).await.unwrap_err().to_string()
        };
        let _a = take(&a, &Ask::to_start(1, 2 * MIB, &limits()));
        assert!(
            busy(&a, 65_536).await.starts_with("found no memory left on the host: its other calls have half of it")
        );
        let _b = take(&b, &Ask::to_start(1, MIB, &limits()));
        assert!(busy(&b, 65_536).await.contains("account `main` has three quarters of it"));
        let told = busy(&other, 2 * MIB).await;
        assert_eq!(told, "found no memory left on the host; raise `engine.memory_mib`, or lower `limits.memory_mib`");
    }

    #[tokio::test]
    async fn the_deadline_ends_a_wait_that_might_be_longer() {
        let turns = Turns::with(1, MIB);
        let lane = turns.lane("main", "a");
        let _running = take(&lane, &call());
        assert!(lane.turn(call(), Instant::now()).await.is_err());
    }

    #[tokio::test]
    async fn accounts_have_bounds_of_their_own_which_follow_the_settings() {
        let accounts = |calls_max: usize| {
            crate::config::fixture::load(&format!(
                "[engine]\nmemory_mib = 1\n[accounts.a]\npath = \"/a\"\ntoken = \"abc\"\ncalls_max = {calls_max}\n\
                 calls_waiting_max = 1\n[accounts.b]\npath = \"/b\"\ntoken = \"abc\""
            ))
        };
        let turns = Turns::with(100, MIB);
        turns.apply(&accounts(1));
        let (first, second) = (turns.lane("a", "first"), turns.lane("a", "second"));
        let running = take(&first, &call());
        assert!(running.is_some() && take(&second, &call()).is_none());
        assert!(take(&turns.lane("b", "first"), &call()).is_some());
        let mut waiting = Caller::waits(&second, call());
        let told = first.turn(call(), later()).await.unwrap_err().to_string();
        assert_eq!(told, "was not asked: 1 calls wait for account `a`; raise `calls_waiting_max` in `[accounts.a]`");
        // A raised bound serves who waits.
        turns.apply(&accounts(2));
        assert!(waiting.served().is_some());
        drop(running);
        // Without a bound of its own, one of several accounts leaves a quarter to the others.
        turns.apply(&accounts(0));
        let lanes: Vec<_> = (0..8).map(|number| turns.lane("a", &number.to_string())).collect();
        let held: Vec<_> = (0..100).filter_map(|number| take(&lanes[number % 8], &call())).collect();
        assert_eq!(held.len(), 75);
    }

    #[test]
    fn a_large_component_takes_several_places() {
        let turns = Turns::with(3, MIB);
        assert_eq!([turns.places(0, 0), turns.places(2, 4), turns.places(3, 0), turns.places(1, 12)], [1, 1, 2, 3]);
        assert_eq!(turns.places(8, 64), 3, "it fits when it is alone");
        let (large, small) = (turns.lane("main", "large"), turns.lane("main", "small"));
        let running = take(&large, &Ask::to_start(3, 0, &limits()));
        assert!(running.is_some() && take(&small, &call()).is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_when_calls_come_and_go_in_any_order() {
        let turns = Turns::with(3, MIB);
        let calls = (0..400_usize).map(|number| {
            let lane = turns.lane(["a", "b", "c"][number % 3], ["x", "y"][number % 2]);
            tokio::spawn(async move {
                let ask = Ask::to_start(1 + number % 2, (number % 5) * 65_536, &limits());
                let mut call = pin!(lane.turn(ask, later()));
                if number % 7 == 0 {
                    // Polled, then dropped, whatever it was about to get.
                    tokio::select! { biased; _ = &mut call => {}, () = tokio::task::yield_now() => {} }
                    return;
                }
                let turn = call.await.expect("it is served");
                tokio::task::yield_now().await;
                drop(turn);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("it does not panic");
        }
        assert_idle(&turns);
    }
}
