//! Step 9: a reply that missed its tries reaches its user all the same: as a customer-service message, or kept until they ask.
//!
//! What is still to be sent is in the store before it is sent, and goes when WeChat has accepted it. What cannot be delivered
//! ends as a dead letter, which `aviary late` shows.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    api::{ApiError, customer_service::content_of},
    app::App,
    exchange::Answer,
    late::{NO_RIGHT, Way, fetch::STORE_TAKES_MAX},
    metrics::LateStep,
    plugin::{bindings::Reply, question::Question},
    store::{
        Unavailable,
        late::{Dead, Id, Kept, Owed, new_id},
        now_ms,
    },
};

/// How long one message may take to be sent, WeChat's being busy and a new token included.
const SEND_TAKES_MAX: Duration = Duration::from_secs(30);

/// How long to leave WeChat alone after a send that may work later; it doubles each time.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// How long after a reply what follows it is sent: the reply is to be read first.
const AFTER_REPLY: Duration = Duration::from_millis(500);

/// The user cannot be sent to now, but can still ask.
const NOT_TO_THIS_USER_NOW: [i64; 2] = [45_015, 45_047];

/// Whose a reply is, and where it is written down.
struct Debt {
    account: String,
    openid: String,
    /// Its row among what is owed.
    id: Option<Id>,
    parts: VecDeque<Reply>,
    /// When it began to be owed, in ms since 1970.
    since_ms: u64,
}

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

/// What a send that failed means.
enum Verdict {
    Later,
    Keep,
    Never,
}

/// Delivers a reply whose tries were put off, or never came. `id` is where its message is written down, if it is.
pub async fn late(app: &Arc<App>, account: &str, openid: &str, parts: Vec<Reply>, id: Option<Id>) {
    begin(app, Debt::new(account, openid, id, parts, now_ms())).await;
}

/// Goes on delivering what was being sent when the host ended; its message came at `since_ms`.
pub async fn resume(app: &Arc<App>, account: &str, openid: &str, parts: Vec<Reply>, id: Id, since_ms: u64) {
    begin(app, Debt::new(account, openid, Some(id), parts, since_ms)).await;
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
    let mut debt = Debt::new(&account, &openid, None, reply.clone(), now_ms());
    let (store, deadline) = (&app.late.store, Instant::now() + STORE_TAKES_MAX);
    let id = new_id();
    store.owe(id, debt.owed(reply), deadline).await?;
    match store.unbury(letter, Instant::now() + STORE_TAKES_MAX).await {
        Ok(Some(_)) => {
            debt.id = Some(id);
            begin(app, debt).await;
            Ok(Again::Begun)
        }
        Ok(None) => {
            settle(app, &account, id).await;
            Ok(Again::Gone)
        }
        Err(why) => {
            settle(app, &account, id).await;
            Err(why)
        }
    }
}

/// Delivers what follows a reply that a try is given.
pub async fn rest(app: Arc<App>, question: Question, answer: Arc<Answer>) {
    let (account, openid) = (&question.message.account, &question.message.from_user);
    let mut debt = Debt::new(account, openid, None, answer.rest.clone(), now_ms());
    if !answer.is_rest_sent {
        return keep(&app, debt).await;
    }
    debt.write_down(&app).await;
    tokio::spawn(async move {
        sleep(AFTER_REPLY).await;
        send(app, debt).await;
    });
}

/// Forgets a message that is owed nothing any more.
pub async fn settle(app: &App, account: &str, id: Id) {
    if let Err(why) = app.late.store.settle(account, id, Instant::now() + STORE_TAKES_MAX).await {
        app.late.tell("An answered message stays written down as owed, and is answered again after a restart", &why);
    }
}

/// Gives a reply up.
pub async fn bury(app: &App, account: &str, openid: &str, reply: Vec<Reply>, id: Option<Id>, why: &str) {
    warn!(%account, "A late reply of account `{account}` was not delivered: {why}; see `aviary late`");
    if let Some(serving) = app.live().named(account) {
        serving.chain.count_late(LateStep::Dead);
    }
    let (account, openid) = (account.to_owned(), openid.to_owned());
    let dead = Dead { account, openid, reply, why: why.to_owned(), died_ms: now_ms() };
    if let Err(why) = app.late.store.bury(id, dead, Instant::now() + STORE_TAKES_MAX).await {
        app.late.tell("A dead letter could not be written down", &why);
    }
}

async fn begin(app: &Arc<App>, mut debt: Debt) {
    let live = app.live();
    let Some(serving) = live.named(&debt.account) else {
        return debt.bury(app, "its account is not there any more").await;
    };
    match app.late.ways.of(serving, &debt.openid, Instant::now() + SEND_TAKES_MAX).await {
        Way::NextTry => keep(app, debt).await,
        Way::CustomerService => {
            debt.write_down(app).await;
            // It is on disk: a host that stops need not wait for it.
            tokio::spawn(send(app.clone(), debt));
        }
    }
}

/// Sends the parts of a reply, each until WeChat has accepted it.
async fn send(app: Arc<App>, mut debt: Debt) {
    let mut back_off = BACK_OFF;
    while let Some(part) = debt.parts.front().cloned() {
        if app.tasks.is_closed() && debt.id.is_some() {
            // It is written down, and the host that is started next sends it.
            return;
        }
        let live = app.live();
        let Some((serving, api)) = live.named(&debt.account).and_then(|serving| Some((serving, serving.api.clone()?)))
        else {
            return debt.bury(&app, "its account is not there any more, or has no AppSecret").await;
        };
        let content = match content_of(&part) {
            Ok(content) => content,
            Err(why) => {
                warn!(account = %debt.account, "A late reply is kept until its user asks: it {why}");
                return keep(&app, debt).await;
            }
        };
        match api.send(&debt.openid, &content, Instant::now() + SEND_TAKES_MAX).await {
            Ok(()) => {
                debt.parts.pop_front();
                serving.chain.count_late(LateStep::CustomerService);
                info!(account = %debt.account, "A late reply of account `{}` was sent by customer service", debt.account);
                back_off = BACK_OFF;
                debt.write_down(&app).await;
            }
            Err(error) => match verdict(&error) {
                Verdict::Keep => {
                    warn!(account = %debt.account, "A late reply is kept until its user asks: {}", error.advised());
                    if error.code() == Some(NO_RIGHT) {
                        app.late.ways.refuse(&serving.account, &error).await;
                    }
                    return keep(&app, debt).await;
                }
                Verdict::Later if debt.age() < serving.account.late.keep => {
                    serving.chain.count_late(LateStep::SentAgain);
                    sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
                Verdict::Later => {
                    return debt.bury(&app, &format!("kept too long; at last: {}", error.advised())).await;
                }
                Verdict::Never => return debt.bury(&app, &error.advised()).await,
            },
        }
    }
}

fn verdict(error: &ApiError) -> Verdict {
    match error.code() {
        Some(NO_RIGHT) => Verdict::Keep,
        Some(code) if NOT_TO_THIS_USER_NOW.contains(&code) => Verdict::Keep,
        // The operator can mend these: the secret, the whitelist.
        Some(40_013 | 40_125 | 40_164 | 40_243 | 89_503 | 89_506 | 89_507) => Verdict::Later,
        _ if error.may_pass() => Verdict::Later,
        _ => Verdict::Never,
    }
}

/// Keeps what is left of a reply for its user.
async fn keep(app: &App, debt: Debt) {
    let live = app.live();
    let Some(serving) = live.named(&debt.account) else {
        return debt.bury(app, "its account is not there any more").await;
    };
    let keep_ms = u64::try_from(serving.account.late.keep.as_millis()).unwrap_or(u64::MAX);
    let (until_ms, last) = (now_ms().saturating_add(keep_ms), debt.parts.len().saturating_sub(1));
    let kept = |(index, reply)| Kept {
        account: debt.account.clone(),
        openid: debt.openid.clone(),
        reply,
        has_more: index < last,
        until_ms,
    };
    let parts = debt.parts.iter().cloned().enumerate().map(kept).collect();
    match app.late.store.keep(debt.id, parts, Instant::now() + STORE_TAKES_MAX).await {
        Ok(()) => serving.chain.count_late(LateStep::Kept),
        Err(why) => app.late.tell("A late reply could not be kept for its user", &why),
    }
}

impl Debt {
    fn new(account: &str, openid: &str, id: Option<Id>, parts: Vec<Reply>, since_ms: u64) -> Self {
        Self { account: account.to_owned(), openid: openid.to_owned(), id, parts: parts.into(), since_ms }
    }

    /// Writes down what is left to be sent, so that a crash sends no part twice but the one that was on its way. When nothing
    /// is left, the row goes.
    async fn write_down(&mut self, app: &App) {
        let (parts, deadline): (Vec<Reply>, _) =
            (self.parts.iter().cloned().collect(), Instant::now() + STORE_TAKES_MAX);
        let store = &app.late.store;
        let written = match self.id {
            Some(id) if parts.is_empty() => return settle(app, &self.account, id).await,
            None if parts.is_empty() => return,
            Some(id) => store.update_parts(id, &self.account, parts, deadline).await,
            // Also if it comes late: then it is removed all the same.
            None => store.owe(*self.id.insert(new_id()), self.owed(parts), deadline).await,
        };
        if let Err(why) = written {
            app.late.tell("A late reply is sent without having been written down", &why);
        }
    }

    /// A row that needs no message, for its plugins are done.
    fn owed(&self, parts: Vec<Reply>) -> Owed {
        Owed {
            account: self.account.clone(),
            openid: self.openid.clone(),
            xml: String::new(),
            is_sealed: false,
            arrived_ms: self.since_ms,
            attempt: 1,
            reply: Some(parts),
        }
    }

    fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.since_ms))
    }

    async fn bury(self, app: &App, why: &str) {
        bury(app, &self.account, &self.openid, self.parts.into(), self.id, why).await;
    }
}
