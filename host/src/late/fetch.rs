//! What is kept for a user goes out when they ask for it, before anything of theirs that still waits.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    app::App,
    exchange::{Answer, Exchange, Outcome},
    metrics::LateStep,
    plugin::question::Question,
    store::late::{Id, Kept},
};

/// How long a part that was fetched stays in the store: as long as WeChat may send the message that fetched it again. A host
/// that crashes meanwhile has it still.
const FETCHED_STAYS: Duration = Duration::from_secs(30);

/// How long the store may take.
pub const STORE_TAKES_MAX: Duration = Duration::from_secs(2);

/// The parts that were fetched, and are not for whoever asks next.
#[derive(Debug, Default)]
pub struct Fetched(Mutex<HashSet<Id>>);

/// Takes the next part that is kept for the user who sent a fetch word. Waits for what is still being made for them. `None`:
/// there is nothing, and it is an ordinary text.
pub async fn next(app: &Arc<App>, question: &Question, exchange: &Exchange) -> Option<Outcome> {
    let (account, openid) = (&question.message.account, &question.message.from_user);
    loop {
        let over = app.late.users.over(account, openid);
        let mut told = over.as_ref().map(|over| Box::pin(over.notified()));
        // From before the look: what ends in between is not missed.
        told.iter_mut().for_each(|told| _ = told.as_mut().enable());
        if let Some(part) = take(app, account, openid).await {
            return Some(Some(Arc::new(part)));
        }
        // Its own tries run out, too: then this word is over, and the next one may fetch.
        let told = told?;
        tokio::select! {
            () = told => {}
            () = exchange.put_off() => return Some(None),
        }
    }
}

async fn take(app: &Arc<App>, account: &str, openid: &str) -> Option<Answer> {
    let deadline = Instant::now() + STORE_TAKES_MAX;
    let kept = match app.late.store.kept(account, openid, deadline).await {
        Ok(kept) => kept,
        Err(why) => {
            app.late.tell("A kept reply could not be looked for", &why);
            return None;
        }
    };
    let (id, Kept { reply, has_more, .. }) = kept.into_iter().find(|(id, _)| app.late.fetched.insert(*id))?;
    let live = app.live();
    let serving = live.named(account)?;
    serving.chain.count_late(LateStep::Fetched);
    tokio::spawn(forget_later(app.clone(), account.to_owned(), id));
    let closing = if has_more { serving.account.late.more_text.clone() } else { String::new() };
    Some(Answer { closing, ..Answer::of(reply) })
}

async fn forget_later(app: Arc<App>, account: String, id: Id) {
    sleep(FETCHED_STAYS).await;
    forget(&app, &account, vec![id]).await;
    app.late.fetched.lock().remove(&id);
}

/// Forgets at once what was fetched: for a host that stops.
pub async fn forget_all(app: &App) {
    let ids: Vec<_> = app.late.fetched.lock().iter().copied().collect();
    if !ids.is_empty() {
        forget(app, "", ids).await;
    }
}

async fn forget(app: &App, account: &str, ids: Vec<Id>) {
    let deadline = Instant::now() + STORE_TAKES_MAX;
    if let Err(why) = app.late.store.drop_kept(account, ids, deadline).await {
        app.late.tell("A kept reply that its user has seen stays in the store", &why);
    }
}

impl Fetched {
    /// Takes a part; false if somebody did before.
    fn insert(&self, id: Id) -> bool {
        self.lock().insert(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Id>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
