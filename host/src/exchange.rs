//! One message on its way to an answer: which of its tries are open, what they were given, and who owes the user the reply.
//!
//! The call that makes the reply, every try and the delivery of late replies change an [`Exchange`] through here, one at a
//! time, and whoever is first decides: a reply reaches the user by the tries or by `deliver`, never by both.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep_until};

use crate::{
    late::{Fetched, Held, Journal, OnItsWay, UnderWay, Wait},
    plugin::bindings::Reply,
    reply::parts,
    store::late::Id,
    user_queue::Place,
};

/// What became of a message: an answer, or nothing to say.
pub type Outcome = Option<Arc<Answer>>;

/// What a user is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What a try is given, but for `closing`.
    pub reply: Reply,
    /// What follows it, where a text has more than one message can hold.
    pub rest: Vec<Reply>,
    /// Whether that is sent by itself; else its user has to ask for it.
    pub is_rest_sent: bool,
    /// Stands behind `reply`, or in the place of silence, where its user has to ask.
    pub closing: String,
    /// Of which kept reply that tells, where it is another one.
    pub tells_of: Option<Id>,
    /// Which kept part it is, where its user fetched it.
    pub fetched: Option<Fetched>,
}

/// A message whose tries and call are not all over. Its parts hold on to it.
#[derive(Debug)]
pub struct Exchange {
    /// When its first try came, or this host took it up, and how old it was then.
    pub began: Instant,
    before: Duration,
    /// Its row in the store, if it has one.
    pub journal: Journal,
    /// Held while its user was put off and may ask for the reply.
    pub awaited: Held<Wait>,
    /// Its turn in its user's queue, held until the user has the reply or has to wait for it: what they say next is answered
    /// after it.
    pub place: Held<Place>,
    /// Held while it is late and not written down.
    pub under_way: Held<OnItsWay>,
    state: Mutex<State>,
    /// Wakes whoever waits for the state to become another.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// How many tries came, and how many of them wait.
    tries: u32,
    open: u32,
    /// Whether the call is over, whoever was told.
    is_over: bool,
    /// Whether the host before this one told its user to ask for the reply.
    was_asked_for: bool,
}

/// What the host before this one says of a message.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// How old it is by now.
    pub age: Duration,
    /// How many tries of it came, where one more may come. None: its user was put off.
    pub tries: Option<u32>,
    /// Whether its user was told to ask for the reply.
    pub is_asked_for: bool,
}

/// How far it is. It only ever moves downwards.
#[derive(Clone, Debug, Default)]
enum Phase {
    /// The call goes on, and nobody was told anything.
    #[default]
    Asked,
    /// The call is over, and no try was given what came of it.
    Replied(Outcome),
    /// A try was given it, and so is every later one.
    Given(Outcome),
    /// The tries were told this, and what comes of the call reaches the user otherwise.
    PutOff(Outcome),
}

/// One of WeChat's tries, while it waits. Dropped, it waits no more.
#[derive(Debug)]
pub struct Try {
    exchange: Arc<Exchange>,
    /// 1 for the first.
    pub number: u32,
    pub arrived: Instant,
}

/// What a try is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What came of the call, as the first try that is: whatever follows it is now this one's to see to.
    First(Outcome),
    /// What a try before was told.
    Again(Outcome),
    /// That there is nothing yet.
    PutOff(Outcome),
}

/// What the tries made of a message that is over.
#[derive(Clone, Debug)]
pub enum Fate {
    /// A try was given it, or there was nothing to give.
    Told,
    /// The user was put off: the reply is still to be delivered.
    Owed(Arc<Answer>),
    /// No try came for it, and its user was told nothing.
    Missed(Arc<Answer>),
}

impl Told {
    /// What WeChat is answered.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::First(outcome) | Self::Again(outcome) | Self::PutOff(outcome) => outcome,
        }
    }
}

impl Answer {
    /// An answer of one message.
    pub fn of(reply: Reply) -> Self {
        Self { reply, rest: Vec::new(), is_rest_sent: false, closing: String::new(), tells_of: None, fetched: None }
    }

    /// Whether there is nothing to give to a try.
    fn is_silence(&self) -> bool {
        self.reply == Reply::Nothing && self.closing.is_empty()
    }

    /// What a try is given.
    pub fn shown(&self) -> Cow<'_, Reply> {
        match self.closing.as_str() {
            "" => Cow::Borrowed(&self.reply),
            closing => Cow::Owned(parts::closed(self.reply.clone(), closing)),
        }
    }

    /// All of it, in order, where the user does not have to ask for more.
    pub fn parts(&self) -> Vec<Reply> {
        std::iter::once(&self.reply).chain(&self.rest).cloned().collect()
    }
}

impl Exchange {
    /// A message of which nothing came before.
    pub fn new(began: Instant) -> Arc<Self> {
        Self::with(began, Duration::ZERO, State::default(), Journal::default())
    }

    /// A message that the host before this one wrote down.
    pub fn resumed(began: Instant, before: Before, journal: Journal) -> Arc<Self> {
        let phase = if before.tries.is_some() { Phase::Asked } else { Phase::PutOff(None) };
        let (tries, was_asked_for) = (before.tries.unwrap_or_default(), before.is_asked_for);
        Self::with(began, before.age, State { phase, tries, was_asked_for, ..State::default() }, journal)
    }

    fn with(began: Instant, before: Duration, state: State, journal: Journal) -> Arc<Self> {
        let (state, changed) = (Mutex::new(state), Notify::new());
        let (awaited, place, under_way) = (Held::default(), Held::default(), Held::default());
        Arc::new(Self { began, before, journal, awaited, place, under_way, state, changed })
    }

    /// How old it was at this moment.
    pub fn age_at(&self, moment: Instant) -> Duration {
        self.before + moment.saturating_duration_since(self.began)
    }

    /// Counts it among those that are late, unless it is written down.
    pub fn go_under_way(&self, late: &UnderWay) {
        if self.journal.is_blank() {
            self.under_way.hold(late.enter());
        }
    }

    /// How many tries of it came.
    pub fn tries(&self) -> u32 {
        self.state().tries
    }

    /// The state as it is now, locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state is so.
    async fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            // Made before the look, so that no change is missed.
            let changed = self.changed.notified();
            if is_so(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    /// Whether its user was told to ask for the reply.
    pub fn is_asked_for(&self) -> bool {
        let state = self.state();
        state.was_asked_for || matches!(state.phase, Phase::PutOff(Some(_)))
    }

    /// Lets a try wait.
    pub fn begin(self: &Arc<Self>, arrived: Instant) -> Try {
        let mut state = self.state();
        state.tries += 1;
        state.open += 1;
        // Nobody is woken: a try that comes changes nothing for those that wait.
        Try { exchange: self.clone(), number: state.tries, arrived }
    }

    /// Says what came of the call: every try is told, unless the user was put off.
    pub fn publish(&self, outcome: Outcome) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Asked) {
            state.phase = Phase::Replied(outcome);
        }
        state.is_over = true;
        drop(state);
        self.changed.notify_waiters();
    }

    /// What tries are told from now on, if that is settled.
    pub fn settled(&self) -> Option<Outcome> {
        match &self.state().phase {
            Phase::Given(outcome) | Phase::PutOff(outcome) => Some(outcome.clone()),
            // Nothing is there that could be lost.
            Phase::Replied(None) => Some(None),
            Phase::Asked | Phase::Replied(_) => None,
        }
    }

    /// Waits until the call is over.
    pub async fn over(&self) {
        self.wait_until(|state| state.is_over).await;
    }

    /// Waits until the user was put off.
    pub async fn put_off(&self) {
        self.wait_until(|state| matches!(state.phase, Phase::PutOff(_))).await;
    }

    /// Waits until a try was given `outcome`, what came of the call, or until it is clear that none will be: the user was put
    /// off, or no try has been open until `next_try` was over, the time in which one would have come. From then on no try is
    /// given it.
    pub async fn fate<F: Future<Output = ()>>(&self, outcome: Outcome, next_try: impl Fn() -> F) -> Fate {
        let Some(answer) = outcome.filter(|answer| !answer.is_silence()) else { return Fate::Told };
        loop {
            let changed = self.changed.notified();
            let alone = match &*self.state() {
                State { phase: Phase::Given(_), .. } => return Fate::Told,
                State { phase: Phase::PutOff(_), .. } => return Fate::Owed(answer),
                State { open, .. } => *open == 0,
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = next_try(), if alone => if self.take_over() {
                    return Fate::Missed(answer);
                }
            }
        }
    }

    /// Whether a try waits.
    pub fn is_open(&self) -> bool {
        self.state().open > 0
    }

    /// Puts the user off in the name of all tries, unless they were told something before.
    pub fn put_off_with(&self, words: Outcome) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Asked) {
            state.phase = Phase::PutOff(words);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes a reply that no try waits for away from those to come, unless one comes this very moment. Where it does not, a
    /// try is open or it was told: else `fate` would ask again at once.
    fn take_over(&self) -> bool {
        let mut state = self.state();
        let is_taken = state.open == 0 && matches!(state.phase, Phase::Replied(_));
        if is_taken {
            state.phase = Phase::PutOff(None);
            drop(state);
            self.changed.notify_waiters();
        }
        is_taken
    }
}

impl Try {
    /// The message it is a try of.
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// Waits until there is something to tell, and takes it.
    pub async fn outcome(&self) -> Told {
        self.something_to_tell().await;
        self.end(|| None)
    }

    /// Takes what there is to tell; if there is nothing yet, the user is put off with `words`, and this is what every later
    /// try is told, too.
    pub fn end(&self, words: impl FnOnce() -> Outcome) -> Told {
        let mut state = self.exchange.state();
        let (phase, told) = match &state.phase {
            Phase::Asked => {
                let words = words();
                (Phase::PutOff(words.clone()), Told::PutOff(words))
            }
            Phase::Replied(outcome) => (Phase::Given(outcome.clone()), Told::First(outcome.clone())),
            Phase::Given(outcome) | Phase::PutOff(outcome) => return Told::Again(outcome.clone()),
        };
        state.phase = phase;
        drop(state);
        self.exchange.changed.notify_waiters();
        told
    }

    /// Waits until this moment, and no longer than until there is something to tell. Returns whether there is.
    pub async fn wait_until(&self, moment: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.something_to_tell() => true,
            () = sleep_until(moment.into()) => false,
        }
    }

    async fn something_to_tell(&self) {
        self.exchange.wait_until(|state| !matches!(state.phase, Phase::Asked)).await;
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        self.exchange.state().open -= 1;
        self.exchange.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        task::yield_now,
        time::{sleep, timeout},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn said(text: &str) -> Outcome {
        Some(Arc::new(Answer::of(Reply::Text(text.to_owned()))))
    }

    fn exchange() -> Arc<Exchange> {
        Exchange::new(Instant::now())
    }

    fn is_owed(fate: &Fate, text: &str) -> bool {
        matches!(fate, Fate::Owed(answer) if answer.reply == Reply::Text(text.to_owned()))
    }

    /// What came of a message to which a next try may come for a long time.
    async fn fate(exchange: &Exchange, outcome: Outcome) -> Fate {
        exchange.fate(outcome, || sleep(PATIENCE)).await
    }

    #[tokio::test]
    async fn every_try_is_told_the_same() {
        let exchange = exchange();
        let (first, second) = (exchange.begin(Instant::now()), exchange.begin(Instant::now()));
        assert_eq!((first.number, second.number), (1, 2));
        exchange.publish(said("a"));
        assert_eq!(exchange.settled(), None);
        assert_eq!((first.outcome().await, second.outcome().await), (Told::First(said("a")), Told::Again(said("a"))));
        assert_eq!(exchange.settled(), Some(said("a")));
        assert!(matches!(fate(&exchange, said("a")).await, Fate::Told));
        assert_eq!(exchange.begin(Instant::now()).end(|| said("wait")), Told::Again(said("a")));
    }

    #[tokio::test]
    async fn whoever_was_put_off_is_owed_the_reply_and_later_tries_are_put_off_alike() {
        let exchange = exchange();
        let first = exchange.begin(Instant::now());
        assert_eq!(first.end(|| said("wait")), Told::PutOff(said("wait")));
        timeout(PATIENCE, exchange.put_off()).await.unwrap();
        exchange.publish(said("a"));
        assert!(is_owed(&fate(&exchange, said("a")).await, "a"));
        assert_eq!(exchange.begin(Instant::now()).outcome().await, Told::Again(said("wait")));
    }

    #[tokio::test]
    async fn a_reply_that_no_try_waits_for_is_held_for_the_next_one() {
        let exchange = exchange();
        drop(exchange.begin(Instant::now()));
        exchange.publish(said("a"));
        let next = async {
            yield_now().await;
            exchange.begin(Instant::now()).outcome().await
        };
        let (fate, told) = tokio::join!(fate(&exchange, said("a")), next);
        assert!(matches!(fate, Fate::Told));
        assert_eq!(told, Told::First(said("a")));
    }

    #[tokio::test]
    async fn a_reply_for_which_no_try_comes_is_delivered_otherwise() {
        let exchange = exchange();
        drop(exchange.begin(Instant::now()));
        exchange.publish(said("b"));
        let fate = exchange.fate(said("b"), || async {}).await;
        assert!(matches!(fate, Fate::Missed(answer) if answer.reply == Reply::Text("b".to_owned())));
        assert_eq!(exchange.begin(Instant::now()).outcome().await, Told::Again(None));
    }

    #[tokio::test]
    async fn what_was_put_off_before_a_restart_waits_for_no_try() {
        let before = Before { age: Duration::ZERO, tries: None, is_asked_for: false };
        let exchange = Exchange::resumed(Instant::now(), before, Journal::default());
        exchange.publish(said("a"));
        assert!(is_owed(&fate(&exchange, said("a")).await, "a"));
        assert_eq!(exchange.begin(Instant::now()).outcome().await, Told::Again(None));
    }

    #[tokio::test]
    async fn all_open_tries_can_be_put_off_at_once_and_only_if_they_were_told_nothing() {
        let exchange = exchange();
        let (first, second) = (exchange.begin(Instant::now()), exchange.begin(Instant::now()));
        assert!(exchange.is_open());
        exchange.put_off_with(said("wait"));
        exchange.put_off_with(said("wait longer"));
        assert_eq!(
            [first.outcome().await, second.outcome().await],
            [Told::Again(said("wait")), Told::Again(said("wait"))]
        );
        drop((first, second));
        assert!(!exchange.is_open());
    }

    #[tokio::test]
    async fn silence_is_owed_to_nobody() {
        let exchange = exchange();
        for nothing in [None, Some(Arc::new(Answer::of(Reply::Nothing)))] {
            assert!(matches!(fate(&exchange, nothing).await, Fate::Told));
        }
    }

    #[tokio::test]
    async fn a_try_waits_for_what_comes_of_the_call_or_for_its_time() {
        let exchange = exchange();
        let waiting = exchange.begin(Instant::now());
        assert!(!waiting.wait_until(Instant::now()).await);
        let (is_there, ()) = tokio::join!(waiting.wait_until(Instant::now() + PATIENCE), async {
            yield_now().await;
            exchange.publish(None);
        });
        assert!(is_there);
    }

    /// The window closes and the reply comes in the same moment, thousands of times: it is given to the try or owed by
    /// `deliver`, and never both or neither.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_reply_that_comes_as_the_window_closes_has_exactly_one_owner() {
        const ROUNDS: usize = 10_000;
        let (mut by_try, mut by_delivery) = (0, 0);
        for _ in 0..ROUNDS {
            let exchange = exchange();
            let open = exchange.begin(Instant::now());
            let call = tokio::spawn({
                let exchange = exchange.clone();
                async move {
                    exchange.publish(said("a"));
                    fate(&exchange, said("a")).await
                }
            });
            let window = tokio::spawn(async move { open.end(|| None) });
            let (told, fate) = (window.await.unwrap(), timeout(PATIENCE, call).await.unwrap().unwrap());
            match (matches!(told, Told::First(_)), fate) {
                (true, Fate::Told) => by_try += 1,
                (false, Fate::Owed(_)) => by_delivery += 1,
                (told, fate) => panic!("told {told}, and then {fate:?}"),
            }
        }
        assert!(by_try > 0 && by_delivery > 0, "{by_try} by a try, {by_delivery} by `deliver`: it was no race");
    }
}
