//! What follows a call: whoever was not given its reply is delivered it otherwise, and what was written down is removed.

use std::{future::ready, pin::pin, sync::Arc, thread, time::Instant};

use tokio::{runtime::Handle, time::sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::error;

use super::{fetch, leaving, untold};
use crate::{
    app::App,
    dedupe::Key,
    deliver,
    exchange::{Answer, Exchange, Fate, Outcome},
    plugin::{bindings::Reply, question::Question},
};

/// What is still to be done when the plugins are. Dropped, it is done in a task of its own: then nobody waits here any more.
#[derive(Debug)]
pub struct Afterwards(Option<Rest>);

/// What it takes to do that.
#[derive(Debug)]
pub struct Rest {
    pub app: Arc<App>,
    pub question: Question,
    pub exchange: Arc<Exchange>,
    pub key: Key,
    pub outcome: Outcome,
    /// A host that stops waits for the message until what is owed for it is written down.
    pub in_flight: TaskTrackerToken,
}

impl Afterwards {
    pub fn new(rest: Rest) -> Self {
        Self(Some(rest))
    }

    /// Says what came of the call.
    pub fn replied(&mut self, outcome: Outcome) {
        if let Some(rest) = &mut self.0 {
            rest.outcome = outcome;
        }
    }

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
                // What a user fetched is kept still.
                if outcome.as_ref().is_some_and(|answer| answer.fetched.is_none()) {
                    exchange.go_under_way(&app.late.under_way);
                }
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
        exchange.under_way.let_go();
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
        exchange.under_way.let_go();
        exchange.place.let_go();
        exchange.awaited.let_go();
        app.dedupe.settle(&key);
    }
}

/// Is over when WeChat's next try would have come. None comes to a host that stops, and none is waited for where the user
/// asks for a reply that was owed by the host before this one.
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

/// Makes a message that will not be answered a dead letter, if it is owed an answer.
pub async fn bury(app: &App, question: &Question, exchange: &Exchange, why: &str) {
    if let Some(id) = exchange.journal.close().await {
        let (account, openid) = (&question.message.account, &question.message.from_user);
        deliver::bury(app, account, openid, Vec::new(), Some(id), why).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

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
