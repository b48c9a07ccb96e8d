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
    let turns = Turns::new(4, MIB);
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
    let turns = Turns::new(100, MIB);
    let lane = turns.lane("main", "shy");
    let shy = Ask::to_start(1, 0, &Limits { calls_max: 1, ..limits() });
    let turn = take(&lane, &shy);
    assert!(turn.is_some() && take(&lane, &shy).is_none());
    drop(turn);
    assert!(take(&lane, &shy).is_some());
}

#[tokio::test]
async fn what_comes_free_goes_round_over_accounts_and_their_plugins() {
    let turns = Turns::new(1, MIB);
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
    let turns = Turns::new(2, MIB);
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
    let turns = Turns::new(2, MIB);
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
    let turns = Turns::new(20, 20 * MIB);
    let Lanes { messages, pages } = turns.lanes("main", "greedy");
    let most = |lane: &Lane| std::iter::from_fn(|| lane.take(&call()).then_some(())).count();
    assert_eq!((most(&messages), most(&pages)), (10, 5));
    assert!(take(&turns.lane("main", "other"), &call()).is_some());

    let turns = Turns::new(100, 20 * MIB);
    let Lanes { messages, pages } = turns.lanes("main", "greedy");
    let mib = Ask::to_grow(MIB, &limits());
    let most = |lane: &Lane| std::iter::from_fn(|| lane.take(&mib).then_some(())).count();
    assert_eq!((most(&messages), most(&pages)), (10, 5));
    assert!(take(&turns.lane("main", "other"), &mib).is_some());
}

#[test]
fn the_pages_of_all_plugins_leave_half_of_the_host_and_of_an_account_to_messages() {
    let turns = Turns::new(20, 20 * MIB);
    let all = ["a", "b", "c", "d"].map(|name| turns.lanes("main", name));
    let most = |ask: &Ask| {
        all.iter().map(|lanes| std::iter::from_fn(|| lanes.pages.take(ask).then_some(())).count()).sum::<usize>()
    };
    assert_eq!([most(&call()), most(&Ask::to_grow(MIB, &limits()))], [10, 10]);
    assert!(take(&all[0].messages, &Ask::to_start(1, MIB, &limits())).is_some());

    let turns = Turns::new(20, MIB);
    turns.lock().account("main").bounds.calls_max = 4;
    let Lanes { messages, pages } = turns.lanes("main", "a");
    let most = |lane: &Lane| std::iter::from_fn(|| lane.take(&call()).then_some(())).count();
    assert_eq!((most(&pages), most(&messages)), (2, 2));
}

#[tokio::test]
async fn pages_that_wait_leave_room_for_messages_that_wait() {
    let turns = Turns::new(4, MIB);
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
    let turns = Turns::new(20, MIB);
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
    let turns = Turns::new(20, MIB);
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
    let turns = Turns::new(3, MIB);
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
    let turns = Turns::new(100, 4 * MIB);
    turns.lock().is_shared = true;
    let [a, b, other] = [("main", "a"), ("main", "b"), ("shop", "a")].map(|(account, name)| turns.lane(account, name));
    let at_once = Limits { wait_ms: 0, ..limits() };
    let busy =
        async |lane: &Lane, bytes| lane.turn(Ask::to_start(1, bytes, &at_once), later()).await.unwrap_err().to_string();
    let _a = take(&a, &Ask::to_start(1, 2 * MIB, &limits()));
    assert!(busy(&a, 65_536).await.starts_with("found no memory left on the host: its other calls have half of it"));
    let _b = take(&b, &Ask::to_start(1, MIB, &limits()));
    assert!(busy(&b, 65_536).await.contains("account `main` has three quarters of it"));
    let told = busy(&other, 2 * MIB).await;
    assert_eq!(told, "found no memory left on the host; raise `engine.memory_mib`, or lower `limits.memory_mib`");
}

#[tokio::test]
async fn the_deadline_ends_a_wait_that_might_be_longer() {
    let turns = Turns::new(1, MIB);
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
    let turns = Turns::new(100, MIB);
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
    let turns = Turns::new(3, MIB);
    assert_eq!([turns.places(0, 0), turns.places(2, 4), turns.places(3, 0), turns.places(1, 12)], [1, 1, 2, 3]);
    assert_eq!(turns.places(8, 64), 3, "it fits when it is alone");
    let (large, small) = (turns.lane("main", "large"), turns.lane("main", "small"));
    let running = take(&large, &Ask::to_start(3, 0, &limits()));
    assert!(running.is_some() && take(&small, &call()).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_calls_come_and_go_in_any_order() {
    let turns = Turns::new(3, MIB);
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
