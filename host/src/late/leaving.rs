//! What a host that stops leaves to the one that is started next: messages of which no try was told anything yet.
//!
//! WeChat sends them again, but not for ever, and their plugins would be asked twice.

use std::{sync::Arc, time::Instant};

use tokio::runtime::Handle;

use super::fetch::WRITE_TAKES_MAX;
use crate::{
    app::App,
    exchange::{Answer, Exchange},
    plugin::question::Question,
    store::late::{Id, Owed, new_id},
};

/// Holds a message whose plugins are asked while its first try waits. Dropped before it is told that they are done, since they
/// take long or WeChat hung up, it sees to it that a stop leaves the message to the next host.
#[derive(Debug)]
pub struct Unfinished(Option<(Arc<App>, Question, Arc<Exchange>)>);

impl Unfinished {
    pub fn new(app: &Arc<App>, question: &Question, exchange: &Arc<Exchange>) -> Self {
        Self(Some((app.clone(), question.clone(), exchange.clone())))
    }

    /// Says that the plugins are done.
    pub fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        if let (Some((app, question, exchange)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(when_stopped(app, question, exchange));
        }
    }
}

/// Writes a message down if the host stops while its plugins are asked: should the stop not wait so long, they are asked again by
/// the next host, though none of WeChat's tries may be left for it.
async fn when_stopped(app: Arc<App>, question: Question, exchange: Arc<Exchange>) {
    tokio::select! {
        biased;
        () = exchange.over() => return,
        () = app.stopping.cancelled() => {}
    }
    let _in_flight = app.tasks.token();
    let (owed, deadline) = (Owed::of(&question, exchange.began), Instant::now() + WRITE_TAKES_MAX);
    if let Err(why) = exchange.journal.leave(async |id| app.late.store.owe(id, owed, deadline).await).await {
        app.late.tell("A message that is being answered could not be left to the next host", &why);
    }
}

/// Writes a reply down that no try was given, in the message's row if it has one: WeChat's next try gets it from the next host.
pub async fn reply(app: &App, question: &Question, exchange: &Exchange, answer: &Answer, row: Option<Id>) {
    let message = Owed::of(question, exchange.began);
    let owed = Owed { is_for_next_try: true, reply: Some(answer.parts()), ..message };
    let deadline = Instant::now() + WRITE_TAKES_MAX;
    if let Err(why) = app.late.store.owe(row.unwrap_or_else(new_id), owed, deadline).await {
        app.late.tell("A reply could not be left to the next host, which will ask for it again", &why);
    }
}
