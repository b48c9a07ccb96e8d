//! What was owed when the host ended is taken up when it starts.

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use aviary_wechat::xml;
use tracing::{info, warn};

use super::{Call, fetch::STORE_TAKES_MAX};
use crate::{
    app::App,
    dedupe::Key,
    deliver,
    plugin::question::Question,
    store::late::{Id, Owed},
};

/// How often a message is asked about at most: one that brings the host down each time must not do so for ever.
/// Not after a few: a host may be killed again and again for reasons that are not the message's.
const ATTEMPTS_MAX: u32 = 10;

/// Tries that came before: WeChat sends a message that was put off no more, and if it does, that try is the last.
const TRIES_BEFORE: u32 = 2;

/// Takes up everything that is owed, before anything new comes.
pub async fn all(app: &Arc<App>) {
    // Nothing else is done yet: it may take its time.
    let owed = match app.late.store.owed(Instant::now() + STORE_TAKES_MAX * 30).await {
        Ok(owed) => owed,
        Err(why) => {
            app.late.tell("What is owed from before the start cannot be read", &why);
            return;
        }
    };
    if !owed.is_empty() {
        info!("{} messages from before the start are still to be answered", owed.len());
    }
    for (id, owed) in owed {
        one(app, id, owed).await;
    }
}

async fn one(app: &Arc<App>, id: Id, mut owed: Owed) {
    let (account, openid) = (owed.account.clone(), owed.openid.clone());
    if let Some(parts) = owed.reply.take() {
        return deliver::resume(app, &account, &openid, parts, id, owed.arrived_ms).await;
    }
    if owed.attempt >= ATTEMPTS_MAX {
        let why = format!("the host ended {ATTEMPTS_MAX} times while its plugins were asked");
        return deliver::bury(app, &account, &openid, Vec::new(), Some(id), &why).await;
    }
    owed.attempt += 1;
    if let Err(why) = app.late.store.update_owed(id, &owed, Instant::now() + STORE_TAKES_MAX).await {
        app.late.tell("The attempts at a message could not be counted", &why);
    }
    if let Err(why) = ask_again(app, id, &owed).await {
        warn!(account = %account, "A message from before the start cannot be answered: {why:#}");
        deliver::bury(app, &account, &openid, Vec::new(), Some(id), &format!("{why:#}")).await;
    }
}

async fn ask_again(app: &Arc<App>, id: Id, owed: &Owed) -> anyhow::Result<()> {
    let live = app.live();
    let serving = live.named(&owed.account).context("its account is not there any more")?;
    let root = xml::parse(owed.xml.as_bytes())?;
    let question = Question {
        is_sealed: owed.is_sealed,
        attempt: owed.attempt,
        ..Question::read(&owed.account, owed.xml.clone())?
    };
    let key = Key::of(&question.message, &root);
    let Some((slot, exchange)) = app.dedupe.resume(key, TRIES_BEFORE, Instant::now()) else { return Ok(()) };
    exchange.journal.resume(id).await;
    // Its user was told to ask for it, or will be.
    exchange.awaited.begin(app.late.users.enter(&owed.account, &owed.openid));
    let call = Call::new(app, serving, question, slot, exchange);
    app.tasks.spawn(async move { drop(call.run().await) });
    Ok(())
}
