//! Step 9: a reply that missed its tries reaches its user all the same: as a customer-service message, or kept until they ask.
//!
//! What is still to be sent is in the store before it is sent, and goes when WeChat has accepted it. What cannot be delivered
//! ends as a dead letter, which `aviary late` shows.

mod backlog;
mod debt;
mod verdict;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub use self::backlog::Backlog;
use self::{
    debt::Debt,
    verdict::{Verdict, verdict},
};
use crate::{
    api::customer_service::content_of,
    app::App,
    exchange::{Answer, Exchange},
    late::fetch::WRITE_TAKES_MAX,
    metrics::LateStep,
    plugin::{bindings::Reply, question::Question},
    store::{
        Unavailable,
        late::{Dead, Id, Owed, new_id},
        now_ms,
    },
    user_queue::Place,
};

/// How long one message may take to be sent, WeChat's being busy and a new token included.
const SEND_TAKES_MAX: Duration = Duration::from_secs(30);

/// How long to leave WeChat alone after a send that may work later; it doubles each time.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// How long after a reply what follows it is sent: the reply is to be read first.
const AFTER_REPLY: Duration = Duration::from_millis(500);

/// How many parts of a text are sent; what follows is kept until its user asks. WeChat takes five messages after one of the
/// user's and three after a click, and would refuse the others (45047) without a word to the user.
/// <https://developers.weixin.qq.com/doc/service/api/customer/message/api_sendcustommessage>
const PARTS_SENT_MAX: usize = 3;

/// What became of an operator's wish to deliver a dead letter again.
#[derive(Debug)]
pub enum Again {
    Begun,
    /// Somebody else took it out meanwhile.
    Gone,
    /// It never came to a reply.
    NoReply,
    /// Nobody can send it: its account is not there any more.
    NoAccount(String),
}

/// Delivers a reply whose tries were put off, or never came. `id` is where its message is written down, if it is.
pub async fn late(app: &Arc<App>, question: &Question, exchange: &Exchange, answer: &Answer, id: Option<Id>) {
    let (account, openid) = (&question.message.account, &question.message.from_user);
    let debt = Debt {
        place: exchange.place.take(),
        is_asked_for: exchange.is_asked_for(),
        ..Debt::new(account, openid, id, answer.parts(), now_ms())
    };
    begin(app, debt).await;
}

/// Goes on delivering what was being sent when the host ended, in its user's order and with others of that time.
pub async fn resume(app: Arc<App>, id: Id, owed: Owed, parts: Vec<Reply>, place: Option<Place>) {
    let mut debt = Debt {
        place,
        is_asked_for: owed.is_asked_for,
        ..Debt::new(&owed.account, &owed.openid, Some(id), parts, owed.arrived_ms)
    };
    debt.turn(&app.late.backlog).await;
    begin(&app, debt).await;
}

/// Delivers a dead letter again. It is owed before it is taken out, so that a crash between loses nothing.
///
/// # Errors
/// [`Unavailable`], and then it is a dead letter still.
pub async fn again(app: &Arc<App>, letter: Id, dead: Dead) -> Result<Again, Unavailable> {
    let Dead { account, openid, reply, .. } = dead;
    if reply.is_empty() {
        return Ok(Again::NoReply);
    }
    if app.live().named(&account).is_none() {
        return Ok(Again::NoAccount(account));
    }
    let mut debt = Debt::new(&account, &openid, Some(new_id()), reply, now_ms());
    if let Err(why) = debt.owe(app).await {
        // It may be there all the same.
        debt.settle(app).await;
        return Err(why);
    }
    match app.late.store.unbury(letter, Instant::now() + WRITE_TAKES_MAX).await {
        Ok(Some(_)) => {
            let app = app.clone();
            tokio::spawn(async move {
                debt.turn(&app.late.backlog).await;
                begin(&app, debt).await;
            });
            Ok(Again::Begun)
        }
        Ok(None) => {
            debt.settle(app).await;
            Ok(Again::Gone)
        }
        Err(why) => {
            debt.settle(app).await;
            Err(why)
        }
    }
}

/// Delivers what follows a reply that a try is given.
pub async fn rest(app: Arc<App>, question: Question, exchange: Arc<Exchange>, answer: Arc<Answer>) {
    let (account, openid) = (&question.message.account, &question.message.from_user);
    let _under_way = app.late.under_way.enter();
    let rest = Debt::new(account, openid, None, answer.rest.clone(), now_ms());
    let is_asked_for = !answer.is_rest_sent;
    let mut debt = Debt { place: exchange.place.take(), is_begun: true, is_asked_for, ..rest };
    if !answer.is_rest_sent {
        return debt.keep(&app).await;
    }
    debt.write_down(&app).await;
    tokio::spawn(async move {
        sleep(AFTER_REPLY).await;
        send(app, debt).await;
    });
}

/// Forgets a message that is owed nothing any more.
pub async fn settle(app: &App, account: &str, id: Id) {
    let what = "An answered message stays written down as owed, and is answered again after a restart";
    let settle = |deadline| app.late.store.settle(account, id, deadline);
    app.late.until_written(&app.stopping, what, settle).await;
}

/// Gives a reply up.
pub async fn bury(app: &App, account: &str, openid: &str, reply: Vec<Reply>, id: Option<Id>, why: &str) {
    warn!(%account, "A late reply of account `{account}` was not delivered: {why}; see `aviary late`");
    if let Some(serving) = app.live().named(account) {
        serving.chain.count_late(LateStep::Dead);
    }
    let (account, openid) = (account.to_owned(), openid.to_owned());
    let dead = Dead { account, openid, reply, why: why.to_owned(), died_ms: now_ms() };
    let bury = |deadline| app.late.store.bury(id, dead.clone(), deadline);
    app.late.until_written(&app.stopping, "A dead letter could not be written down", bury).await;
}

async fn begin(app: &Arc<App>, mut debt: Debt) {
    let live = app.live();
    let Some(serving) = live.named(&debt.account) else { return debt.bury(app, NO_ACCOUNT).await };
    let is_fetched = debt.is_asked_for && !app.late.ways.is_by_customer_service(serving);
    if app.stopping.is_cancelled() && !is_fetched {
        // The host that is started next goes on with it. What its user has to ask for can be had from this one still.
        return debt.write_down(app).await;
    }
    let deadline = Instant::now() + SEND_TAKES_MAX;
    if app.late.ways.is_sent(serving, &debt.openid, debt.is_asked_for, deadline).await {
        debt.write_down(app).await;
        tokio::spawn(send(app.clone(), debt));
    } else {
        debt.keep(app).await;
    }
}

const NO_ACCOUNT: &str = "its account is not there any more";

/// Sends the parts of a reply, each until WeChat has accepted it.
async fn send(app: Arc<App>, mut debt: Debt) {
    let mut back_off = BACK_OFF;
    while let Some(part) = debt.parts.front().cloned() {
        // A host that stops waits until what WeChat accepted, or what is kept of it, is written down: else the next one would
        // send it again.
        let in_flight = app.tasks.token();
        if app.stopping.is_cancelled() {
            // It is on disk, and the host that is started next sends it.
            return;
        }
        debt.keep_behind(&app, PARTS_SENT_MAX).await;
        match send_part(&app, &debt, &part).await {
            Sent::Accepted => {
                debt.parts.pop_front();
                debt.is_begun = true;
                debt.write_down(&app).await;
                back_off = BACK_OFF;
            }
            Sent::Later => {
                debt.step_aside();
                drop(in_flight);
                // Cut short where the host stops.
                _ = timeout(back_off, app.stopping.cancelled()).await;
                back_off = (back_off * 2).min(BACK_OFF_MAX);
            }
            Sent::Kept(why) => {
                warn!(account = %debt.account, "A late reply is kept until its user asks: {why}");
                return debt.keep(&app).await;
            }
            Sent::Dead(why) => return debt.bury(&app, &why).await,
        }
    }
    info!(account = %debt.account, "A late reply of account `{}` was sent by customer service", debt.account);
}

/// What became of an attempt to send a part.
enum Sent {
    Accepted,
    Later,
    Kept(String),
    Dead(String),
}

async fn send_part(app: &App, debt: &Debt, part: &Reply) -> Sent {
    let live = app.live();
    let Some(serving) = live.named(&debt.account) else { return Sent::Dead(NO_ACCOUNT.to_owned()) };
    let Some(api) = &serving.api else { return Sent::Kept("its account has no `app_secret`".to_owned()) };
    let content = match content_of(part) {
        Ok(content) => content,
        Err(why) => return Sent::Kept(format!("it {why}")),
    };
    let Err(error) = api.send(&debt.openid, &content, Instant::now() + SEND_TAKES_MAX).await else {
        serving.chain.count_late(LateStep::CustomerService);
        return Sent::Accepted;
    };
    app.late.ways.refuse(&serving.account, &error).await;
    match verdict(&error) {
        Verdict::Later if debt.age() < serving.account.late.keep => {
            serving.chain.count_late(LateStep::SentAgain);
            app.late.tell_unsent(&debt.account, &error);
            Sent::Later
        }
        Verdict::Later => Sent::Dead(format!("kept too long; at last: {}", error.advised())),
        Verdict::Keep => Sent::Kept(error.advised()),
        Verdict::Never => Sent::Dead(error.advised()),
    }
}
