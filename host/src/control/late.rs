//! What users are still owed, and what could not be delivered: told to the operator, tried again, or dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{json, refusal};
use crate::{
    app::App,
    deliver::{self, Again},
    plugin::bindings::Reply,
    store::{
        Unavailable,
        late::{Counts, Dead, Id, Owed},
    },
};

/// How long the store may take to answer an operator, who has time.
const STORE_TAKES_MAX: Duration = Duration::from_secs(30);

/// How many owed messages, and how many dead letters, are told one by one, the oldest first: there may be a hundred thousand.
const TOLD_MAX: usize = 1_000;

/// What users are owed, and what was given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Late {
    /// How many messages are late and not written down: WeChat's tries of them are not over.
    #[serde(default)]
    pub under_way: u64,
    /// How much is written down of each kind.
    pub counts: Counts,
    /// The oldest messages that are owed an answer.
    pub owed: Vec<OwedMessage>,
    /// The oldest dead letters, in the order they died.
    pub dead: Vec<DeadLetter>,
}

/// A message that is owed an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwedMessage {
    pub account: String,
    /// The user as the log names them.
    pub user: String,
    /// When it came, in ms since 1970.
    pub since_ms: u64,
    /// How often its plugins were asked.
    pub attempt: u32,
    pub waits_for: WaitsFor,
}

/// Whom an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitsFor {
    /// A plugin is still at it.
    Plugin,
    /// The reply is there, and WeChat has yet to accept it.
    Wechat,
}

/// A reply that could not be delivered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: Id,
    pub account: String,
    /// The user as the log names them.
    pub user: String,
    /// The types of its parts, as WeChat names them; empty if it never came to a reply.
    pub reply: Vec<String>,
    /// What WeChat said, and what to do about it.
    pub why: String,
    /// When it was given up, in ms since 1970.
    pub died_ms: u64,
}

/// What is to be done with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterDeed {
    /// Deliver it again.
    Retry,
    /// Forget it.
    Drop,
}

/// Which dead letters it is to be done with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterOrder {
    /// None: all of them.
    pub id: Option<Id>,
}

/// What became of the dead letters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LettersDone {
    /// How many it was done with.
    pub done: usize,
    /// Those it was not done with, and why.
    pub left: Vec<LetterLeft>,
}

/// A dead letter that stays one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LetterLeft {
    pub id: Id,
    pub why: String,
}

pub(super) async fn tell(State(app): State<Arc<App>>) -> Response {
    match overview(&app).await {
        Ok(late) => json(StatusCode::OK, &late),
        Err(why) => unavailable(&why),
    }
}

pub(super) async fn take_order(
    State(app): State<Arc<App>>,
    UrlPath(deed): UrlPath<LetterDeed>,
    body: Bytes,
) -> Response {
    let order: LetterOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("this is no order: {error}")),
    };
    // A task of its own: what was begun is finished, whether or not somebody still waits for the answer.
    match tokio::spawn(async move { carry_out(&app, deed, order).await }).await {
        Ok(Ok(Some(done))) => json(StatusCode::OK, &done),
        Ok(Ok(None)) => {
            let id = order.id.unwrap_or_default();
            refusal(StatusCode::NOT_FOUND, format!("there is no dead letter {id}; `aviary late` lists what there is"))
        }
        Ok(Err(why)) => unavailable(&why),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn overview(app: &Arc<App>) -> Result<Late, Unavailable> {
    let (store, deadline) = (&app.late.store, Instant::now() + STORE_TAKES_MAX);
    let under_way = app.under_way();
    let counts = app.owes().await?;
    let (names, also_names) = (app.clone(), app.clone());
    let owed = store.tell_owed(TOLD_MAX, move |_, owed| OwedMessage::of(&names, &owed), deadline).await?;
    let dead = store.tell_dead(TOLD_MAX, move |id, dead| DeadLetter::of(&also_names, id, &dead), deadline).await?;
    Ok(Late { under_way, counts, owed, dead })
}

/// Returns none if the letter that was named is not there.
async fn carry_out(app: &Arc<App>, deed: LetterDeed, order: LetterOrder) -> Result<Option<LettersDone>, Unavailable> {
    let mut ids = app.late.store.dead_ids(Instant::now() + STORE_TAKES_MAX).await?;
    ids.retain(|id| order.id.is_none_or(|wanted| *id == wanted));
    if ids.is_empty() && order.id.is_some() {
        return Ok(None);
    }
    let mut done = LettersDone::default();
    for id in ids {
        match carry_out_one(app, deed, id).await {
            Ok(None) => done.done += 1,
            Ok(Some(why)) => done.left.push(LetterLeft { id, why }),
            Err(why) => {
                // What was done until now is told.
                let why = format!("{why}; those behind it were not looked at");
                done.left.push(LetterLeft { id, why });
                break;
            }
        }
    }
    Ok(Some(done))
}

/// Returns why a letter stays, if it does.
async fn carry_out_one(app: &Arc<App>, deed: LetterDeed, id: Id) -> Result<Option<String>, Unavailable> {
    let (store, deadline) = (&app.late.store, Instant::now() + STORE_TAKES_MAX);
    let again = match deed {
        LetterDeed::Drop if store.unbury(id, deadline).await?.is_some() => return Ok(None),
        LetterDeed::Drop => Again::Gone,
        LetterDeed::Retry => match store.dead_letter(id, deadline).await? {
            Some(letter) => deliver::again(app, id, letter).await?,
            None => Again::Gone,
        },
    };
    Ok(why_not(again))
}

/// Why a letter is not delivered again.
fn why_not(again: Again) -> Option<String> {
    match again {
        Again::Begun => None,
        Again::Gone => Some("it was taken out meanwhile".to_owned()),
        Again::NoReply => {
            Some("it never came to a reply, so there is nothing to send; `aviary late drop` removes it".to_owned())
        }
        Again::NoAccount(account) => Some(format!("account `{account}` is not there any more")),
    }
}

fn unavailable(why: &Unavailable) -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, format!("what is owed cannot be read or changed now: {why}"))
}

impl OwedMessage {
    fn of(app: &App, owed: &Owed) -> Self {
        Self {
            account: owed.account.clone(),
            user: app.user_name(&owed.openid).to_string(),
            since_ms: owed.arrived_ms,
            attempt: owed.attempt,
            waits_for: if owed.reply.is_some() { WaitsFor::Wechat } else { WaitsFor::Plugin },
        }
    }
}

impl DeadLetter {
    fn of(app: &App, id: Id, dead: &Dead) -> Self {
        Self {
            id,
            account: dead.account.clone(),
            user: app.user_name(&dead.openid).to_string(),
            reply: dead.reply.iter().map(|part| type_of(part).to_owned()).collect(),
            why: dead.why.clone(),
            died_ms: dead.died_ms,
        }
    }
}

fn type_of(reply: &Reply) -> &str {
    match reply {
        Reply::Text(_) => "text",
        Reply::Image(_) => "image",
        Reply::Voice(_) => "voice",
        Reply::Video(_) => "video",
        Reply::Music(_) => "music",
        Reply::News(_) => "news",
        Reply::TransferCustomerService(_) => "transfer_customer_service",
        Reply::Nothing => "nothing",
        Reply::Other(other) => &other.msg_type,
    }
}
