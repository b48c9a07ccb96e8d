//! What a user is still to be sent, and how far that is written down.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    NO_ACCOUNT,
    backlog::{Backlog, Turn},
    bury, settle,
};
use crate::{
    app::App,
    late::{fetch::WRITE_TAKES_MAX, untold},
    metrics::LateStep,
    plugin::bindings::Reply,
    reply::parts,
    store::{
        Unavailable,
        late::{Id, Keeping, Kept, Owed, new_id},
        now_ms,
    },
    user_queue::Place,
};

/// Whose a reply is, and where it is written down.
pub(super) struct Debt {
    pub account: String,
    pub openid: String,
    /// Its row among what is owed.
    pub id: Option<Id>,
    pub parts: VecDeque<Reply>,
    /// When it began to be owed, in ms since 1970.
    pub since_ms: u64,
    /// Whether its user was told to ask for it.
    pub is_asked_for: bool,
    /// Whether its user has the beginning: this is what follows.
    pub is_begun: bool,
    /// Its place in its user's queue, and its turn among those of before, until WeChat was asked to take it.
    pub place: Option<Place>,
    pub turn: Option<Turn>,
}

impl Debt {
    pub(super) fn new(account: &str, openid: &str, id: Option<Id>, parts: Vec<Reply>, since_ms: u64) -> Self {
        Self {
            account: account.to_owned(),
            openid: openid.to_owned(),
            id,
            parts: parts.into(),
            since_ms,
            is_asked_for: false,
            is_begun: false,
            place: None,
            turn: None,
        }
    }

    /// Waits until it is its turn: behind what its user is owed from before it, and behind others of that time.
    pub(super) async fn turn(&mut self, backlog: &Backlog) {
        if let Some(place) = &mut self.place {
            place.turn().await;
        }
        self.turn = backlog.turn(&self.account).await;
    }

    /// Lets others go first: nobody knows when WeChat will take it.
    pub(super) fn step_aside(&mut self) {
        self.place = None;
        self.turn = None;
    }

    /// Writes down what is left to be sent, so that a crash sends no part twice but the one that was on its way. When nothing
    /// is left, the row goes.
    pub(super) async fn write_down(&mut self, app: &App) {
        if self.parts.is_empty() {
            return self.settle(app).await;
        }
        let (parts, deadline) = (self.parts.iter().cloned().collect(), Instant::now() + WRITE_TAKES_MAX);
        let written = match self.id {
            Some(id) => app.late.store.update_parts(id, &self.account, parts, deadline).await,
            None => self.owe(app).await,
        };
        if let Err(why) = written {
            app.late.tell("A late reply is sent without having been written down", &why);
        }
    }

    /// Writes it down in a row of its own, which needs no message: its plugins are done.
    pub(super) async fn owe(&mut self, app: &App) -> Result<(), Unavailable> {
        let owed = Owed {
            account: self.account.clone(),
            openid: self.openid.clone(),
            xml: String::new(),
            is_sealed: false,
            arrived_ms: self.since_ms,
            attempt: 1,
            tries: 0,
            is_asked_for: self.is_asked_for,
            is_for_next_try: false,
            reply: Some(self.parts.iter().cloned().collect()),
        };
        // Its name is known also if the store says so too late: then it is removed all the same.
        let id = *self.id.get_or_insert_with(new_id);
        app.late.store.owe(id, owed, Instant::now() + WRITE_TAKES_MAX).await
    }

    /// Takes its row out, if it has one.
    pub(super) async fn settle(&self, app: &App) {
        if let Some(id) = self.id {
            settle(app, &self.account, id).await;
        }
    }

    /// Keeps what is left of it for its user, in place of its row.
    pub(super) async fn keep(self, app: &App) {
        self.keep_all_but(app, &[]).await;
    }

    /// Keeps it for its user; what is `left` in its row is sent.
    async fn keep_all_but(self, app: &App, left: &[Reply]) {
        let live = app.live();
        let Some(serving) = live.named(&self.account) else { return self.bury(app, NO_ACCOUNT).await };
        let keep_ms = u64::try_from(serving.account.late.keep.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now_ms().saturating_add(keep_ms);
        let parts = self.kept_until(until_ms);
        let keep = |deadline| app.late.store.keep(self.id, left.to_vec(), parts.clone(), deadline);
        let what = "A late reply could not be kept for its user";
        let kept = app.late.until_written(&app.stopping, what, keep).await;
        let Some(Keeping { first, given_up }) = kept else { return };
        serving.chain.count_late(LateStep::Kept);
        if !self.is_asked_for {
            untold::enter(app, &self.account, &self.openid, first, until_ms);
        }
        given_up.into_iter().for_each(|id| app.late.untold.leave(&self.account, &self.openid, id));
    }

    /// What is left of it as it is kept.
    fn kept_until(&self, until_ms: u64) -> Vec<Kept> {
        let (now_ms, last) = (now_ms(), self.parts.len().saturating_sub(1));
        let kept = |(index, reply): (usize, &Reply)| Kept {
            account: self.account.clone(),
            openid: self.openid.clone(),
            reply: reply.clone(),
            has_more: index < last,
            shown_ms: if self.is_begun && index == 0 { now_ms } else { 0 },
            until_ms,
            is_untold: !self.is_asked_for && index == 0,
        };
        self.parts.iter().enumerate().map(kept).collect()
    }

    /// Keeps the parts behind the first `sent_max` for their user, who reads at the end of those that there are more.
    pub(super) async fn keep_behind(&mut self, app: &App, sent_max: usize) {
        let live = app.live();
        let Some(serving) = live.named(&self.account).filter(|_| self.parts.len() > sent_max) else { return };
        let parts = self.parts.split_off(sent_max).into();
        if let Some(last) = self.parts.pop_back() {
            self.parts.push_back(parts::closed(last, &serving.account.late.more_text));
        }
        let behind = Self::new(&self.account, &self.openid, self.id, parts, self.since_ms);
        let behind = Self { is_begun: true, is_asked_for: true, ..behind };
        behind.keep_all_but(app, self.parts.make_contiguous()).await;
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.since_ms))
    }

    pub(super) async fn bury(self, app: &App, why: &str) {
        bury(app, &self.account, &self.openid, self.parts.into(), self.id, why).await;
    }
}
