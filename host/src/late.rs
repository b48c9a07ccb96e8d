//! The ladder: what a message's tries are told when its reply is not there in time.
//!
//! 1. Within the window a try is given the reply.
//! 2. Where the account may send customer-service messages, the first try is then answered `success`, and the reply is sent
//!    when it comes.
//! 3. Elsewhere the tries are left open until WeChat hangs up, and the reply goes out on whichever is open then.
//! 4. When the last one runs out, it is answered with `waiting_text`; the reply is kept for its user, who fetches it.
//!
//! Whatever ends a ladder without the reply is written down first ([`Journal`]): from then on it is `deliver`'s. So is what a host
//! that stops had no try for (`leaving`): the next host has the reply, or asks again.

mod afterwards;
mod awaited;
mod call;
pub mod fetch;
mod held;
mod journal;
mod leaving;
pub mod resume;
mod typing;
mod under_way;
mod until_written;
pub mod untold;
mod way;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing::{error, warn};

use self::fetch::Fetching;
pub use self::{
    awaited::{PutOffUsers, Wait},
    call::Call,
    fetch::Fetched,
    held::Held,
    journal::Journal,
    under_way::{OnItsWay, UnderWay},
    untold::Untold,
    way::{NO_RIGHT, Way, Ways},
};
use crate::{
    api::ApiError,
    app::{App, Serving},
    config,
    deadline::before,
    deliver::{self, Backlog},
    dispatch::expects_words,
    exchange::{Answer, Exchange, Outcome, Told, Try},
    metrics::LateStep,
    outlive::Outliving,
    plugin::{bindings::Reply, question::Question},
    refusal::OnceAMinute,
    store::{Store, Unavailable, late::Owed, now_ms},
    user_queue::UserQueues,
};

/// WeChat tries three times. Where a try went astray, one that begins two windows after the first is the last.
const TRIES_MAX: u32 = 3;

/// How long after a message WeChat sends it again: 5 s after each of its tries began it hangs up, and the third is the last.
const TRIES_COME_FOR: Duration = Duration::from_secs(15);

/// How often kept replies are looked at that nobody fetched.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);

/// How long the store may take to write down what is owed. If WeChat hangs up meanwhile, its next try finds it written.
const JOURNAL_TAKES_MAX: Duration = Duration::from_secs(5);

/// What all accounts' ladders share.
#[derive(Debug)]
pub struct Late {
    pub store: Store,
    pub queues: UserQueues,
    pub ways: Ways,
    pub users: PutOffUsers,
    pub fetching: Fetching,
    pub untold: Untold,
    pub under_way: UnderWay,
    pub backlog: Backlog,
    told: OnceAMinute<&'static str>,
    /// Of which accounts it was told lately that WeChat does not take their messages, by its code.
    unsent: OnceAMinute<(String, Option<i64>)>,
}

impl Late {
    /// Begins with nothing owed but what the store has.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            queues: UserQueues::default(),
            ways: Ways::default(),
            users: PutOffUsers::default(),
            fetching: Fetching::default(),
            untold: Untold::default(),
            under_way: UnderWay::default(),
            backlog: Backlog::default(),
            told: OnceAMinute::default(),
            unsent: OnceAMinute::default(),
        }
    }

    /// Tells the operator, at most once a minute, that the store could not do what it should.
    pub fn tell(&self, what: &'static str, why: &Unavailable) {
        if self.told.turn(what, Instant::now()).is_some() {
            error!("{what}: {why}");
        }
    }

    /// Tells the operator, at most once a minute for each cause, that an account's messages cannot be sent now.
    pub fn tell_unsent(&self, account: &str, why: &ApiError) {
        if self.unsent.turn((account.to_owned(), why.code()), Instant::now()).is_some() {
            let why = why.advised();
            warn!(%account, "Late replies of account `{account}` cannot be sent now, and are tried again: {why}");
        }
    }

    /// Whether a reply that misses its tries can reach its user.
    pub fn may_be_late(&self, serving: &Serving) -> bool {
        self.ways.is_by_customer_service(serving) || !serving.account.late.fetch_words.is_empty()
    }
}

impl config::Late {
    /// How long the tries of a message wait together: a single window at least.
    pub fn held(&self) -> Duration {
        self.hold.max(self.window)
    }

    /// When whatever is done for a message that came at `arrived` must end.
    pub fn ends(&self, arrived: Instant) -> Instant {
        arrived + self.held() + self.background
    }

    /// When a try begins to be late: time enough is left to find out by which way its reply will go.
    fn is_late_at(&self, arrived: Instant) -> Instant {
        arrived + self.window * 2 / 3
    }

    /// How long to wait for WeChat's next try of a message of this age, where none is open.
    pub fn grace(&self, age: Duration) -> Duration {
        (self.window * 2).min(TRIES_COME_FOR.saturating_sub(age))
    }
}

/// Gives up what nobody fetched in time, as long as it is polled.
pub async fn upkeep(app: &App) {
    loop {
        let deadline = Instant::now() + fetch::WRITE_TAKES_MAX;
        let expired = app.late.store.expire_kept("nobody asked for it in time (`late.keep_s`)", deadline).await;
        if let Err(why) = expired {
            app.late.tell("Kept replies could not be looked at", &why);
        }
        app.late.untold.forget_past(now_ms());
        sleep(UPKEEP_EVERY).await;
    }
}

/// Waits for what a message's first try is told. The call is made meanwhile, and goes on if nobody waits for it any more.
pub async fn first_try(app: &Arc<App>, serving: &Arc<Serving>, tried: &Try, call: Call) -> Outcome {
    let question = call.question.clone();
    let late_at = serving.account.late.is_late_at(tried.arrived);
    let running = Outliving::new(call.run());
    if let Ok(Ok(after)) = before(late_at, running).await {
        let outcome = given(app, serving, &question, tried).await;
        after.end();
        return outcome;
    }
    // In a box: what most messages never need shall not make the future of all of them larger, which is moved.
    Box::pin(wait(app, serving, &question, tried)).await
}

/// Waits for what a further try of a message is told.
pub async fn next_try(app: &Arc<App>, serving: &Arc<Serving>, question: &Question, tried: &Try) -> Outcome {
    if is_last(tried, &serving.account.late) {
        return last_try(app, serving, question, tried).await;
    }
    if tried.wait_until(serving.account.late.is_late_at(tried.arrived)).await {
        return given(app, serving, question, tried).await;
    }
    wait(app, serving, question, tried).await
}

/// Waits on, when the reply is about to be late.
async fn wait(app: &Arc<App>, serving: &Arc<Serving>, question: &Question, tried: &Try) -> Outcome {
    let late = &serving.account.late;
    tried.exchange().go_under_way(&app.late.under_way);
    let window_ends = tried.arrived + late.window;
    let way = tokio::select! {
        biased;
        told = tried.outcome() => return see_to(app, serving, question, tried, told).await,
        way = app.late.ways.of(serving, &question.message.from_user, window_ends) => way,
    };
    match way {
        Some(Way::CustomerService) => put_off(app, serving, question, tried, window_ends, None).await,
        _ if is_last(tried, late) => last_try(app, serving, question, tried).await,
        // Nobody reads an answer of after WeChat hung up: then this ends, too.
        Some(Way::NextTry | Way::Barred) | None => given(app, serving, question, tried).await,
    }
}

/// Waits for the last try's reply. Its user is told to wait when it runs out.
async fn last_try(app: &Arc<App>, serving: &Arc<Serving>, question: &Question, tried: &Try) -> Outcome {
    let late = &serving.account.late;
    let age = tried.exchange().age_at(tried.arrived);
    let ends = tried.arrived + late.held().saturating_sub(age).min(late.window);
    put_off(app, serving, question, tried, ends, waiting_words(app, serving, question)).await
}

/// What a user is told who has to wait longer than WeChat's tries.
fn waiting_words(app: &App, serving: &Serving, question: &Question) -> Outcome {
    let is_sent = app.late.ways.is_by_customer_service(serving);
    let words = serving.account.late.waiting_text.as_ref();
    let words = words.filter(|_| !is_sent && expects_words(&question.message.body));
    words.map(|text| Arc::new(Answer::of(Reply::Text(text.clone()))))
}

/// Waits until `ends` and then puts the user off, once it is written down that an answer is owed. Where that cannot be
/// written, the try stays open.
async fn put_off(
    app: &Arc<App>,
    serving: &Arc<Serving>,
    question: &Question,
    tried: &Try,
    ends: Instant,
    words: Outcome,
) -> Outcome {
    let is_last = tried.number >= TRIES_MAX || app.late.ways.is_by_customer_service(serving);
    let message = Owed::of(question, tried.exchange());
    let owed = Owed { is_asked_for: words.is_some(), is_for_next_try: !is_last, ..message };
    // In a task of its own: what is written has to be remembered, whether or not this try is still open then.
    let journaled = tokio::spawn(journal(app.clone(), owed, tried.exchange().clone(), ends));
    if tried.wait_until(ends).await {
        return given(app, serving, question, tried).await;
    }
    let is_written = tokio::select! {
        biased;
        // A disk that takes its time does not keep a reply from the user that came meanwhile.
        told = tried.outcome() => return see_to(app, serving, question, tried, told).await,
        written = journaled => written.unwrap_or(false),
    };
    if !is_written {
        return given(app, serving, question, tried).await;
    }
    if words.is_some() {
        let wait = app.late.users.enter(&question.message.account, &question.message.from_user);
        tried.exchange().awaited.hold(wait);
    }
    let told = tried.end(|| words);
    match &told {
        Told::PutOff(Some(_)) => {
            serving.chain.count_late(LateStep::Waiting);
            let message = &question.message;
            app.tell_late(&message.account, &message.from_user, "was told to wait (`late.waiting_text`)");
        }
        Told::PutOff(None) => {
            serving.chain.count_late(LateStep::PutOff);
            if app.late.ways.is_by_customer_service(serving) {
                typing::show(serving, question, tried.exchange());
            }
        }
        Told::First(_) => tried.exchange().awaited.let_go(),
        // Another try put the user off, who may still ask.
        Told::Again(_) => {}
    }
    see_to(app, serving, question, tried, told).await
}

/// Writes down that an answer is owed, and says whether it is.
async fn journal(app: Arc<App>, owed: Owed, exchange: Arc<Exchange>, ends: Instant) -> bool {
    let deadline = ends.max(Instant::now()) + JOURNAL_TAKES_MAX;
    let write = async |id| {
        app.late.store.owe(id, owed, deadline).await?;
        exchange.under_way.let_go();
        Ok(())
    };
    let written = exchange.journal.write(write).await;
    if let Err(why) = &written {
        app.late.tell("A late reply could not be written down, so its tries are left open", why);
    }
    written.is_ok()
}

/// Waits for what there is to tell, however long it takes.
async fn given(app: &Arc<App>, serving: &Arc<Serving>, question: &Question, tried: &Try) -> Outcome {
    let told = tried.outcome().await;
    see_to(app, serving, question, tried, told).await
}

/// Sees to what follows the answer that a try is given, before it is given.
async fn see_to(app: &Arc<App>, serving: &Arc<Serving>, question: &Question, tried: &Try, told: Told) -> Outcome {
    if let Told::First(Some(answer)) = &told {
        if tried.number > 1 {
            serving.chain.count_late(LateStep::NextTry);
        }
        if tried.arrived.elapsed() >= serving.account.late.window {
            // WeChat is about to hang up: it may be lost, or be given to the next try as well.
            serving.chain.count_late(LateStep::Edge);
        }
        if !answer.rest.is_empty() {
            let followed = deliver::rest(app.clone(), question.clone(), tried.exchange().clone(), answer.clone());
            // What is kept has to be there before its user can ask for it.
            _ = Outliving::new(app.tasks.track_future(followed)).await;
        }
    }
    told.outcome()
}

fn is_last(tried: &Try, late: &config::Late) -> bool {
    let age = tried.exchange().age_at(tried.arrived);
    tried.number >= TRIES_MAX || age >= late.window * 2 || late.held() <= age + late.window
}

impl Owed {
    /// What is written down of a message, of which WeChat may send another try.
    fn of(question: &Question, exchange: &Exchange) -> Self {
        let age_ms = u64::try_from(exchange.age_at(Instant::now()).as_millis()).unwrap_or(u64::MAX);
        Self {
            account: question.message.account.clone(),
            openid: question.message.from_user.clone(),
            xml: String::from_utf8_lossy(&question.xml).into_owned(),
            is_sealed: question.is_sealed,
            arrived_ms: now_ms().saturating_sub(age_ms),
            attempt: question.attempt,
            tries: exchange.tries(),
            is_asked_for: false,
            is_for_next_try: true,
            reply: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Deliver},
        exchange::Before,
    };

    const PUSH: &str = "<xml><ToUserName>gh</ToUserName><FromUserName>o1</FromUserName><CreateTime>1</CreateTime>\
                        <MsgType>text</MsgType><Content>hi</Content><MsgId>7</MsgId></xml>";

    const SECOND: Duration = Duration::from_secs(1);

    /// The settings of an account that has none.
    fn defaults() -> config::Late {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[accounts.main]\ntoken = \"secret7\"\n").unwrap();
        let late = Config::load(file.path()).unwrap().accounts[0].late.clone();
        assert_eq!((late.deliver, late.window.as_millis(), late.hold.as_secs()), (Deliver::Auto, 4_500, 14));
        late
    }

    /// A message of which the host before this one had so many tries, of this age.
    fn left(tries: u32, age: Duration) -> Arc<Exchange> {
        let before = Before { age, tries: Some(tries), is_asked_for: false };
        Exchange::resumed(Instant::now(), before, Journal::default())
    }

    /// Whether a try that comes so long after `exchange` began here is the last.
    fn is_last_after(exchange: &Arc<Exchange>, after: Duration) -> bool {
        is_last(&exchange.begin(exchange.began + after), &defaults())
    }

    #[test]
    fn the_third_try_is_the_last_or_one_that_comes_as_late() {
        let message = Exchange::new(Instant::now());
        assert_eq!([0, 5, 10].map(|seconds| is_last_after(&message, SECOND * seconds)), [false, false, true]);
        let one_went_astray = Exchange::new(Instant::now());
        assert_eq!([0, 10].map(|seconds| is_last_after(&one_went_astray, SECOND * seconds)), [false, true]);
        let came_twice = Exchange::new(Instant::now());
        assert_eq!([0, 0, 0].map(|seconds| is_last_after(&came_twice, SECOND * seconds)), [false, false, true]);
    }

    #[test]
    fn tries_and_age_are_counted_on_over_a_restart() {
        let message = left(1, SECOND);
        assert_eq!([4, 9].map(|seconds| is_last_after(&message, SECOND * seconds)), [false, true]);
        assert!(is_last_after(&left(2, SECOND * 7), SECOND * 3), "it is the third");
        assert!(is_last_after(&left(1, SECOND * 7), SECOND * 3), "the second met no host");
        let owed = Owed::of(&Question::read("main", PUSH).unwrap(), &left(2, SECOND * 600));
        let age_s = now_ms().saturating_sub(owed.arrived_ms) / 1_000;
        assert!((600..700).contains(&age_s) && owed.tries == 2, "{owed:?}");
    }

    #[test]
    fn no_try_is_waited_for_that_cannot_come() {
        let late = defaults();
        let seconds = [0, 5, 10, 15, 60].map(|age| late.grace(SECOND * age).as_secs());
        assert_eq!(seconds, [9, 9, 5, 0, 0]);
    }
}
