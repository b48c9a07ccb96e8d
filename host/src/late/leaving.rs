//! What a host that stops leaves to the one that is started next: messages of which no try was told anything yet.
//!
//! WeChat sends them again, but not for ever, and their plugins would be asked twice.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{fetch::WRITE_TAKES_MAX, waiting_words};
use crate::{
    app::{App, Serving},
    exchange::{Answer, Exchange},
    plugin::question::Question,
    store::late::{Id, Owed, new_id},
};

/// How long a message may go on after the stop began, before it is written down: most are over by then.
const OVER_WITHIN: Duration = Duration::from_millis(100);

/// Writes a message down if the host stops while its plugins are asked: should the stop not wait so long, they are asked
/// again by the next host, though none of WeChat's tries may be left for it. Costs nothing where they are done at once: then
/// it is not polled.
pub async fn when_stopped(app: &App, question: &Question, exchange: &Exchange) {
    // However little time a stop has, it waits for this.
    let _leaving = app.leaving.token();
    app.stopping.cancelled().await;
    sleep(OVER_WITHIN).await;
    let (owed, deadline) = (Owed::of(question, exchange), Instant::now() + WRITE_TAKES_MAX);
    if let Err(why) = exchange.journal.leave(async |id| app.late.store.owe(id, owed, deadline).await).await {
        app.late.tell("A message that is being answered could not be left to the next host", &why);
    }
}

/// Leaves a message to the next host whose webhook is not there, before the user reads that nobody answers them: they are put
/// off if a try is open. Returns whether it is left.
pub async fn unasked(app: &App, serving: &Serving, question: &Question, exchange: &Exchange) -> bool {
    let is_told = exchange.is_open();
    let words = waiting_words(app, serving, question).filter(|_| is_told);
    let message = Owed::of(question, exchange);
    let owed = Owed { is_asked_for: words.is_some(), is_for_next_try: !is_told, ..message };
    let deadline = Instant::now() + WRITE_TAKES_MAX;
    if let Err(why) = exchange.journal.write(async |id| app.late.store.owe(id, owed, deadline).await).await {
        app.late.tell("A message whose webhook is not there could not be left to the next host", &why);
        return false;
    }
    exchange.put_off_with(words);
    exchange.journal.hand_over().await;
    true
}

/// Writes a reply down that no try was given, in the message's row if it has one: WeChat's next try gets it from the next host.
pub async fn reply(app: &App, question: &Question, exchange: &Exchange, answer: &Answer, row: Option<Id>) {
    let owed = Owed { reply: Some(answer.parts()), ..Owed::of(question, exchange) };
    let deadline = Instant::now() + WRITE_TAKES_MAX;
    if let Err(why) = app.late.store.owe(row.unwrap_or_else(new_id), owed, deadline).await {
        let what = match row {
            Some(_) => "A reply could not be left to the next host, which will ask for it again",
            None => "A reply could not be left to the next host, and is lost unless WeChat sends its message once more",
        };
        app.late.tell(what, &why);
    }
}
