//! The call behind a message: it waits for its turn, asks the plugins, and sees to it that their reply reaches the user.

use std::{sync::Arc, time::Instant};

use tokio::{runtime::Handle, time::timeout_at};
use tracing::warn;

use super::{Way, fetch};
use crate::{
    app::{App, Serving},
    dedupe::{Key, Slot},
    deliver, dispatch,
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
    app: Arc<App>,
    pub question: Question,
    exchange: Arc<Exchange>,
    slot: Slot,
    place: Result<Place, Full>,
    is_fetch: bool,
    arrived: Instant,
}

impl Call {
    /// Takes the message's place in its user's queue.
    pub fn new(app: &Arc<App>, serving: &Serving, question: Question, slot: Slot, exchange: Arc<Exchange>) -> Self {
        let message = &question.message;
        let is_fetch = matches!(&message.body, Body::Text(text) if serving.account.late.is_fetch_word(&text.content));
        let place = app.late.queues.join(&message.account, &message.from_user);
        let arrived = exchange.began;
        Self { app: app.clone(), question, exchange, slot, place, is_fetch, arrived }
    }

    /// Makes the reply and tells every try.
    pub async fn run(self) -> Afterwards {
        let Self { app, question, exchange, slot, place, is_fetch, arrived } = self;
        let key = slot.key;
        let outcome = answer(&app, &question, &exchange, place, is_fetch, arrived).await;
        slot.publish(outcome.clone());
        Afterwards(Some(Rest { app, question, exchange, key, outcome }))
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
}

impl Afterwards {
    /// Says that the first try was given what came of the call. That was all, unless something is written down.
    pub fn end(mut self) {
        if self.0.as_ref().is_some_and(|rest| rest.exchange.journal.close_blank()) {
            self.0 = None;
        }
    }
}

impl Drop for Afterwards {
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        if let (Some(rest), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // A host that stops need not wait: what is owed is written down, and WeChat sends again what no try was given.
            runtime.spawn(rest.see_to());
        }
    }
}

impl Rest {
    /// Waits until a try was given the reply, or delivers it otherwise.
    async fn see_to(self) {
        let Self { app, question, exchange, key, outcome } = self;
        let (account, openid) = (&question.message.account, &question.message.from_user);
        let grace = app.live().named(account).map(|serving| serving.account.late.grace());
        match exchange.fate(outcome, grace.unwrap_or_default()).await {
            Fate::Owed(answer) => {
                deliver::late(&app, account, openid, answer.parts(), exchange.journal.close().await).await
            }
            Fate::Told => {
                if let Some(id) = exchange.journal.close().await {
                    deliver::settle(&app, account, id).await;
                }
            }
        }
        exchange.awaited.end();
        app.dedupe.settle(&key);
    }
}

async fn answer(
    app: &Arc<App>,
    question: &Question,
    exchange: &Exchange,
    place: Result<Place, Full>,
    is_fetch: bool,
    arrived: Instant,
) -> Outcome {
    if is_fetch && let Some(outcome) = fetch::next(app, question, exchange).await {
        return outcome;
    }
    let message = &question.message;
    let serving = app.live().named(&message.account)?.clone();
    let deadline = serving.account.late.ends(arrived);
    let Ok(mut place) = place else {
        warn!(account = %message.account, "A message stays unanswered: its user has too many under way");
        serving.chain.count_unanswered();
        return None;
    };
    if timeout_at(deadline.into(), place.turn()).await.is_err() {
        warn!(account = %message.account, "A message stays unanswered: those of its user before it took all of its time");
        serving.chain.count_unanswered();
        return None;
    }
    let reply = ask(app, question, deadline, arrived).await?;
    Some(Arc::new(in_parts(app, &serving, question, reply).await))
}

/// Asks the plugins.
async fn ask(app: &App, question: &Question, deadline: Instant, arrived: Instant) -> Option<Reply> {
    let message = &question.message;
    let Ok(live) = timeout_at(deadline.into(), app.ready()).await else {
        warn!(account = %message.account, "A message stays unanswered: the plugins are still being loaded");
        app.live().named(&message.account)?.chain.count_unanswered();
        return None;
    };
    // An account that is gone by now has nobody to ask.
    let serving = live.named(&message.account)?;
    let dispatch = dispatch::run(&serving.chain, question, deadline).await;
    app.tell_message(message, &dispatch, arrived.elapsed());
    dispatch.reply
}

/// Makes an answer of a reply that may be longer than one message.
async fn in_parts(app: &App, serving: &Serving, question: &Question, reply: Reply) -> Answer {
    let late = &serving.account.late;
    let (reply, rest) = parts::split(reply, late.more_text.len());
    if rest.is_empty() {
        return Answer::of(reply);
    }
    serving.chain.count_late(LateStep::InParts);
    let way = app.late.ways.of(serving, &question.message.from_user, Instant::now() + late.window).await;
    match way {
        Way::CustomerService => Answer { rest, is_rest_sent: true, ..Answer::of(reply) },
        Way::NextTry => Answer { rest, closing: late.more_text.clone(), ..Answer::of(reply) },
    }
}
