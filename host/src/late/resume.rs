//! What was owed when the host ended is taken up when it starts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use aviary_wechat::xml;
use tracing::{info, warn};

use super::{Call, Journal, TRIES_COME_FOR, fetch::WRITE_TAKES_MAX, untold};
use crate::{
    app::App,
    dedupe::Key,
    deliver,
    exchange::{Before, Exchange},
    plugin::{bindings::Body, question::Question},
    store::{
        late::{Id, Owed},
        now_ms,
    },
};

/// How often a message is asked about at most: one that brings the host down each time must not do so for ever.
/// Not after a few: a host may be killed again and again for reasons that are not the message's.
const ATTEMPTS_MAX: u32 = 10;

/// How many rows are written at once.
const ROWS_AT_ONCE_MAX: usize = 500;

/// Takes up everything that is owed, before anything new comes. What takes long goes on by itself: WeChat waits.
pub async fn all(app: &Arc<App>) {
    let mut owed = match app.late.store.owed(Instant::now() + WRITE_TAKES_MAX).await {
        Ok(owed) => owed,
        Err(why) => {
            app.late.tell("What is owed from before the start cannot be read", &why);
            return;
        }
    };
    if !owed.is_empty() {
        info!("Messages from before the start that are still to be answered: {}", owed.len());
    }
    // A user's messages in their order: what one waits for stands before it in the queue.
    owed.sort_by_key(|(id, owed)| (owed.arrived_ms, *id));
    count_attempts(app, &mut owed).await;
    tokio::spawn(untold::recall(app.clone()));
    for (id, owed) in owed {
        let (account, openid) = (owed.account.clone(), owed.openid.clone());
        if let Err(why) = one(app, id, owed) {
            warn!(%account, "A message from before the start cannot be answered: {why:#}");
            let app = app.clone();
            let bury = async move {
                deliver::bury(&app, &account, &openid, Vec::new(), Some(id), &format!("{why:#}")).await;
            };
            tokio::spawn(bury);
        }
    }
}

/// Writes down that the plugins are asked once more, before they are.
async fn count_attempts(app: &App, owed: &mut [(Id, Owed)]) {
    owed.iter_mut().filter(|(_, owed)| owed.reply.is_none()).for_each(|(_, owed)| owed.attempt += 1);
    let asked: Vec<_> = owed.iter().filter(|(_, owed)| owed.reply.is_none()).cloned().collect();
    for rows in asked.chunks(ROWS_AT_ONCE_MAX) {
        if let Err(why) = app.late.store.update_owed(rows, Instant::now() + WRITE_TAKES_MAX).await {
            app.late.tell("The attempts at a message could not be counted", &why);
        }
    }
}

fn one(app: &Arc<App>, id: Id, mut owed: Owed) -> anyhow::Result<()> {
    match owed.reply.take() {
        // Where its account is gone, no try comes, and the reply becomes a dead letter.
        Some(parts) if may_be_told(&owed) && app.live().named(&owed.account).is_some() => {
            take_up(app, id, &owed, |call| call.replied(parts))
        }
        Some(parts) => {
            claim(app, &owed);
            // If there are too many, it does not wait for the others.
            let place = app.late.queues.join(&owed.account, &owed.openid).ok();
            // Who was told to ask, and does before it is kept, waits for that.
            let awaited = owed.is_asked_for.then(|| app.late.users.enter(&owed.account, &owed.openid));
            let resumed = deliver::resume(app.clone(), id, owed, parts, place);
            tokio::spawn(async move {
                resumed.await;
                drop(awaited);
            });
            Ok(())
        }
        None if owed.attempt > ATTEMPTS_MAX => {
            anyhow::bail!("the host ended {ATTEMPTS_MAX} times while its plugins were asked")
        }
        None => take_up(app, id, &owed, |call| call),
    }
}

/// Lets a try that comes of a message whose reply is on its way ask nobody again.
fn claim(app: &App, owed: &Owed) {
    let read = || anyhow::Ok((Question::read(&owed.account, owed.xml.clone())?, xml::parse(owed.xml.as_bytes())?));
    // What follows a reply, and a dead letter, have no message.
    let Ok((question, root)) = read() else { return };
    // Dropped, the slot says that there is nothing more to tell.
    drop(app.dedupe.resume(Key::of(&question.message, &root), Exchange::new(Instant::now())));
}

/// Goes on with a message where WeChat's next try may still join it.
fn take_up(app: &Arc<App>, id: Id, owed: &Owed, how: impl FnOnce(Call) -> Call) -> anyhow::Result<()> {
    let live = app.live();
    let serving = live.named(&owed.account).context("its account is not there any more")?;
    let root = xml::parse(owed.xml.as_bytes())?;
    let question = Question {
        is_sealed: owed.is_sealed,
        attempt: owed.attempt,
        ..Question::read(&owed.account, owed.xml.clone())?
    };
    let tries = may_be_told(owed).then_some(owed.tries);
    let before = Before { age: age(owed), tries, is_asked_for: owed.is_asked_for };
    let exchange = Exchange::resumed(Instant::now(), before, Journal::written(id));
    let key = Key::of(&question.message, &root);
    // Nothing new came yet, and each message has one row.
    let slot = app.dedupe.resume(key, exchange.clone()).context("it was written down twice")?;
    let is_fetch =
        matches!(&question.message.body, Body::Text(text) if serving.account.late.is_fetch_word(&text.content));
    // Who asks for it gets it, also if they were told nothing. A fetch word is no reply that another one could wait for.
    if (owed.is_asked_for || tries.is_some()) && !is_fetch {
        exchange.awaited.hold(app.late.users.enter(&owed.account, &owed.openid));
    }
    let call = how(Call::new(app, serving, question, slot, exchange));
    tokio::spawn(async move { drop(call.run().await) });
    Ok(())
}

/// Whether a try may come that is given the reply.
fn may_be_told(owed: &Owed) -> bool {
    owed.is_for_next_try && age(owed) < TRIES_COME_FOR
}

fn age(owed: &Owed) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(owed.arrived_ms))
}
