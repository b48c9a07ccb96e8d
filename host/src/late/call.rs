//! The call behind a message: it waits for its turn, asks the plugins, and sees to it that their reply reaches the user.

use std::{
    future::ready,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    time::{sleep, timeout_at},
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{error, warn};

use super::{Way, fetch, leaving, untold};
use crate::{
    app::{App, Serving},
    dedupe::{Key, Slot},
    deliver,
    dispatch::{self, expects_words},
    exchange::{Answer, Exchange, Fate, Outcome},
    metrics::LateStep,
    plugin::{
        bindings::{Body, Reply},
        question::Question,
    },
    reply::parts,
    user_queue::{Full, Place},
};

/// What is to be done for one message.
#[derive(Debug)]
pub struct Call {
    pub question: Question,
    rest: Rest,
    slot: Slot,
    place: Result<Place, Full>,
    how: How,
}

/// How a message comes by its reply.
#[derive(Debug)]
enum How {
    /// The plugins are asked.
    Ask,
    /// It is a fetch word, and takes what is kept; else the plugins are asked.
    Fetch,
    /// It was made before the host was started.
    Made(Parts),
}

/// A reply as one message can hold it, and what follows it.
type Parts = (Reply, Vec<Reply>);

impl Call {
    /// Takes the message's place in its user's queue.
    pub fn new(app: &Arc<App>, serving: &Serving, question: Question, slot: Slot, exchange: Arc<Exchange>) -> Self {
        let question = Question { late_reply: app.late.may_be_late(serving), ..question };
        let message = &question.message;
        let is_fetch = matches!(&message.body, Body::Text(text) if serving.account.late.is_fetch_word(&text.content));
        let place = app.late.queues.join(&message.account, &message.from_user);
        let (app, in_flight) = (app.clone(), app.tasks.token());
        let rest = Rest { app, question: question.clone(), exchange, key: slot.key, outcome: None, in_flight };
        Self { question, rest, slot, place, how: if is_fetch { How::Fetch } else { How::Ask } }
    }

    /// The same of a message whose plugins replied before the host was started: nobody is asked.
    pub fn replied(self, parts: Vec<Reply>) -> Self {
        let mut parts = parts.into_iter();
        let made = parts.next().map(|reply| (reply, parts.collect()));
        Self { how: made.map_or(How::Ask, How::Made), ..self }
    }

    /// Makes the reply and tells every try. A host that stops meanwhile leaves the message to the next one, in case the stop
    /// does not wait so long.
    pub async fn run(self) -> Afterwards {
        let Self { question, rest, slot, place, how } = self;
        let (app, exchange) = (rest.app.clone(), rest.exchange.clone());
        let mut afterwards = Afterwards(Some(rest));
        let mut answer = pin!(answer(&app, &question, &exchange, place, how));
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            () = leaving::when_stopped(&app, &question, &exchange) => answer.await,
        };
        if let Some(rest) = &mut afterwards.0 {
            rest.outcome = outcome.clone();
        }
        slot.publish(outcome);
        afterwards
    }
}

/// What is still to be done when the plugins are. Dropped, it is done in a task of its own: then nobody waits here any more.
#[derive(Debug)]
pub struct Afterwards(Option<Rest>);

#[derive(Debug)]
struct Rest {
    app: Arc<App>,
    question: Question,
    exchange: Arc<Exchange>,
    key: Key,
    outcome: Outcome,
    /// A host that stops waits for the message until what is owed for it is written down.
    in_flight: TaskTrackerToken,
}

impl Afterwards {
    /// Says that the first try was given what came of the call. That was all, unless something is written down.
    pub fn end(mut self) {
        if let Some(rest) = self.0.take_if(|rest| rest.exchange.journal.close_blank()) {
            given(&rest.app, &rest.question, rest.outcome.as_deref());
            rest.exchange.place.let_go();
        }
    }
}

impl Drop for Afterwards {
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        if thread::panicking() {
            runtime.spawn(rest.give_up());
        } else {
            runtime.spawn(rest.see_to());
        }
    }
}

impl Rest {
    /// Waits until a try was given the reply, or delivers it otherwise.
    async fn see_to(self) {
        let Self { app, question, exchange, key, outcome, in_flight } = self;
        let _ending = app.ending.token();
        let account = &question.message.account;
        let has_rest = outcome.as_ref().is_some_and(|answer| !answer.rest.is_empty());
        let mut fate = pin!(exchange.fate(outcome.clone(), || next_try(&app, &question, &exchange)));
        let fate = tokio::select! {
            biased;
            fate = &mut fate => fate,
            // Where only WeChat's next try is awaited, nothing is in flight. A stop ends that, and waits for what follows.
            () = ready(()) => {
                drop(in_flight);
                fate.await
            }
        };
        let _in_flight = app.tasks.token();
        match fate {
            Fate::Missed(answer) if is_left(&app, &exchange, &answer) => {
                let row = exchange.journal.close().await;
                leaving::reply(&app, &question, &exchange, &answer, row).await;
                exchange.place.let_go();
            }
            Fate::Owed(answer) | Fate::Missed(answer) => owed(&app, &question, &exchange, &answer).await,
            Fate::Told => {
                if let Some(id) = exchange.journal.close().await {
                    deliver::settle(&app, account, id).await;
                }
                given(&app, &question, outcome.as_deref());
                // What follows a reply keeps the place until it is there, too.
                if !has_rest {
                    exchange.place.let_go();
                }
            }
        }
        exchange.awaited.let_go();
        app.dedupe.settle(&key);
    }

    /// Ends a message whose call panicked. Its tries were told that there is no reply; a user who was put off gets none, and
    /// the operator reads of it.
    async fn give_up(self) {
        let Self { app, question, exchange, key, .. } = self;
        let account = &question.message.account;
        error!(%account, "A message stays unanswered: the host itself failed at it, which is a bug; see standard error");
        bury(&app, &question, &exchange, "the host itself failed while its plugins were asked").await;
        exchange.place.let_go();
        exchange.awaited.let_go();
        app.dedupe.settle(&key);
    }
}

/// Is over when WeChat's next try would have come. None comes to a host that stops, and none is waited for where the user asks for
/// a reply that was owed by the host before this one.
async fn next_try(app: &App, question: &Question, exchange: &Exchange) {
    let (account, openid) = (&question.message.account, &question.message.from_user);
    let age = exchange.age_at(Instant::now());
    let grace = app.live().named(account).map(|serving| serving.account.late.grace(age)).unwrap_or_default();
    let asked = app.late.users.asked(account, openid).filter(|_| exchange.awaited.is_held());
    tokio::select! {
        () = sleep(grace) => {}
        () = app.stopping.cancelled() => {}
        () = async { asked.unwrap_or_default().cancelled().await } => {}
    }
}

/// Whether a reply is for the try that comes to the next host. What its user fetched or was told to ask for is kept as it is.
fn is_left(app: &App, exchange: &Exchange, answer: &Answer) -> bool {
    let is_reply = answer.fetched.is_none() && answer.reply != Reply::Nothing;
    app.stopping.is_cancelled() && is_reply && !exchange.is_asked_for()
}

/// Sees to what follows from it that a try was given an answer.
fn given(app: &Arc<App>, question: &Question, answer: Option<&Answer>) {
    let Some(answer) = answer else { return };
    if let Some(part) = answer.fetched {
        fetch::shown(app, &question.message, part);
    }
    if let Some(id) = answer.tells_of {
        let told = untold::given(app.clone(), question.message.account.clone(), id);
        tokio::spawn(app.ending.track_future(told));
    }
}

/// Delivers what no try was given. What only tells of something kept is told with the next answer.
async fn owed(app: &Arc<App>, question: &Question, exchange: &Exchange, answer: &Answer) {
    let id = exchange.journal.close().await;
    let (account, openid) = (&question.message.account, &question.message.from_user);
    if let Some(kept) = answer.tells_of {
        app.late.untold.untell(account, openid, kept);
    }
    match answer.fetched {
        Some(part) => fetch::put_back(app, part),
        None if answer.reply == Reply::Nothing => exchange.place.let_go(),
        None => return deliver::late(app, question, exchange, answer, id).await,
    }
    if let Some(id) = id {
        deliver::settle(app, account, id).await;
    }
}

async fn answer(
    app: &Arc<App>,
    question: &Question,
    exchange: &Exchange,
    place: Result<Place, Full>,
    how: How,
) -> Outcome {
    let message = &question.message;
    let serving = app.live().named(&message.account)?.clone();
    let deadline = serving.account.late.ends(exchange.began);
    if matches!(how, How::Fetch) {
        let kept = Box::pin(fetch::next(app, question, exchange));
        if let Ok(Some(outcome)) = timeout_at(deadline.into(), kept).await {
            return outcome;
        }
    }
    match turn(place, deadline).await {
        Ok(place) => exchange.place.hold(place),
        // A reply that is made already is not lost for want of a turn.
        Err(_) if matches!(how, How::Made(_)) => {}
        Err(why) => {
            warn!(account = %message.account, "A message stays unanswered: {why}");
            serving.chain.count_unanswered();
            bury(app, question, exchange, why).await;
            return None;
        }
    }
    let split = |reply| parts::split(reply, serving.account.late.more_text.len());
    let parts = match how {
        How::Made(parts) => Some(parts),
        How::Ask | How::Fetch => ask(app, question, exchange, deadline).await.map(split),
    };
    let answer = match parts {
        Some(parts) => Some(in_parts(app, &serving, question, parts).await),
        None => None,
    };
    tell_of_kept(app, &serving, question, exchange, answer).map(Arc::new)
}

/// Makes a message that will not be answered a dead letter, if it is owed an answer.
async fn bury(app: &App, question: &Question, exchange: &Exchange, why: &str) {
    if let Some(id) = exchange.journal.close().await {
        let (account, openid) = (&question.message.account, &question.message.from_user);
        deliver::bury(app, account, openid, Vec::new(), Some(id), why).await;
    }
}

/// Waits for a message's turn in its user's queue.
async fn turn(place: Result<Place, Full>, deadline: Instant) -> Result<Place, &'static str> {
    let mut place = place.map_err(|Full| "its user has too many under way")?;
    let turn = timeout_at(deadline.into(), place.turn()).await;
    turn.map_err(|_| "those of its user before it took all of its time")?;
    Ok(place)
}

/// Tells a user with their answer, while a try can be given it, that another reply is kept for them of which they do not know.
fn tell_of_kept(
    app: &App,
    serving: &Serving,
    question: &Question,
    exchange: &Exchange,
    answer: Option<Answer>,
) -> Option<Answer> {
    let (message, late) = (&question.message, &serving.account.late);
    let is_in_vain = app.late.untold.is_empty() || !late.tells_of_kept() || exchange.settled().is_some();
    if is_in_vain || !expects_words(&message.body) || !untold::has_room(answer.as_ref(), &late.kept_text) {
        return answer;
    }
    match app.late.untold.tell(&message.account, &message.from_user, |id| app.late.fetching.has(id)) {
        Some(id) => Some(untold::with(answer, &late.kept_text, id)),
        None => answer,
    }
}

/// Asks the plugins.
async fn ask(app: &App, question: &Question, exchange: &Exchange, deadline: Instant) -> Option<Reply> {
    let message = &question.message;
    let Ok(live) = timeout_at(deadline.into(), app.ready()).await else {
        let why = "the plugins are still being loaded";
        warn!(account = %message.account, "A message stays unanswered: {why}");
        bury(app, question, exchange, why).await;
        app.live().named(&message.account)?.chain.count_unanswered();
        return None;
    };
    // An account that is gone by now has nobody to ask.
    let serving = live.named(&message.account)?;
    let dispatch = dispatch::run(&serving.chain, question, deadline).await;
    // The next host may find it there.
    let is_unasked = app.stopping.is_cancelled() && dispatch.is_unasked;
    if is_unasked && leaving::unasked(app, serving, question, exchange).await {
        return None;
    }
    app.tell_message(message, &dispatch, exchange.began.elapsed());
    dispatch.reply
}

/// Makes an answer of a reply that may be longer than one message.
async fn in_parts(app: &App, serving: &Serving, question: &Question, (reply, rest): Parts) -> Answer {
    let late = &serving.account.late;
    if rest.is_empty() {
        return Answer::of(reply);
    }
    serving.chain.count_late(LateStep::InParts);
    let way = app.late.ways.of(serving, &question.message.from_user, Instant::now() + late.window);
    match Box::pin(way).await {
        Some(Way::CustomerService) => Answer { rest, is_rest_sent: true, ..Answer::of(reply) },
        Some(Way::NextTry | Way::Barred) | None => {
            Answer { rest, closing: late.more_text.clone(), ..Answer::of(reply) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::{config::Config, store::late::Owed};

    const PUSH: &str = "<xml><ToUserName>gh</ToUserName><FromUserName>o1</FromUserName><CreateTime>1</CreateTime>\
                        <MsgType>text</MsgType><Content>hi</Content><MsgId>7</MsgId></xml>";

    /// A message whose user was put off, with its row in the store.
    async fn put_off(app: &Arc<App>) -> Rest {
        let question = Question::read("main", PUSH).unwrap();
        let exchange = Exchange::new(Instant::now());
        let owed = Owed::of(&question, &exchange);
        let later = Instant::now() + Duration::from_secs(60);
        exchange.journal.write(async |id| app.late.store.owe(id, owed, later).await).await.unwrap();
        exchange.place.hold(app.late.queues.join("main", "o1").unwrap());
        exchange.begin(Instant::now()).end(|| None);
        let key = Key::of(&question.message, &aviary_wechat::xml::parse(PUSH.as_bytes()).unwrap());
        let in_flight = app.tasks.token();
        Rest { app: app.clone(), question, exchange, key, outcome: None, in_flight }
    }

    /// A bug of the host's ends the call of a message that is owed: it does not stay owed until the next start, nor does its
    /// user wait behind it.
    #[tokio::test]
    async fn a_call_that_panics_leaves_a_dead_letter_and_holds_up_nobody() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("aviary.toml");
        std::fs::write(&file, "[accounts.main]\ntoken = \"secret7\"\n").unwrap();
        let app = App::new(Config::load(&file).unwrap(), Path::new("unused")).unwrap();
        let afterwards = Afterwards(Some(put_off(&app).await));
        let call = tokio::spawn(async move {
            let _afterwards = afterwards;
            panic!("this test wants one");
        });
        assert!(call.await.unwrap_err().is_panic());
        app.tasks.close();
        tokio::time::timeout(Duration::from_secs(60), app.tasks.wait()).await.unwrap();
        let counts = app.owes().await.unwrap();
        assert_eq!((counts.owed, counts.dead), (0, 1));
        let mut next = app.late.queues.join("main", "o1").unwrap();
        tokio::time::timeout(Duration::from_secs(60), next.turn()).await.unwrap();
    }
}
