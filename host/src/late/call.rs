//! The call behind a message: it waits for its turn, asks the plugins, and sees to it that their reply reaches the user.

use std::{pin::pin, sync::Arc, time::Instant};

use tracing::warn;

use super::{
    Way,
    afterwards::{Afterwards, Rest, bury},
    fetch, leaving, untold,
};
use crate::{
    app::{App, Serving},
    deadline::before,
    dedupe::Slot,
    dispatch::{self, expects_words},
    exchange::{Answer, Exchange, Outcome},
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
        let mut afterwards = Afterwards::new(rest);
        let mut answer = pin!(answer(&app, &question, &exchange, place, how));
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            () = leaving::when_stopped(&app, &question, &exchange) => answer.await,
        };
        afterwards.replied(outcome.clone());
        slot.publish(outcome);
        afterwards
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
        if let Ok(Some(outcome)) = before(deadline, kept).await {
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

/// Waits for a message's turn in its user's queue.
async fn turn(place: Result<Place, Full>, deadline: Instant) -> Result<Place, &'static str> {
    let mut place = place.map_err(|Full| "its user has too many under way")?;
    let turn = before(deadline, place.turn()).await;
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
    let Ok(live) = before(deadline, app.ready()).await else {
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
