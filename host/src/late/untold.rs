//! Replies that are kept for users who know nothing of them: WeChat was answered `success`, and then did not take the reply. It
//! leaves no way to write to these users before they write again, so they read of it with what they are answered then.
//!
//! The store knows which these are. Here they are found without asking it, since nearly no message meets one.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::fetch::WRITE_TAKES_MAX;
use crate::{
    app::App,
    exchange::Answer,
    plugin::bindings::Reply,
    reply::TEXT_BYTES_MAX,
    store::{late::Id, now_ms},
};

/// Stands between a reply and what is told with it.
const BETWEEN: &str = "\n\n";

/// How many replies are remembered. Where a whole account may not send any more, the users of the others are told nothing.
const REPLIES_MAX: usize = 100_000;

/// Those replies, by their users.
#[derive(Debug, Default)]
pub struct Untold {
    users: Mutex<Users>,
    /// Whether somebody is still to be told: nearly always there is nobody, and no message should wait for another's look.
    is_any_untold: AtomicBool,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Users {
    replies: HashMap<u64, Vec<Unread>>,
    /// How many there are, and how many of them nobody told of.
    count: usize,
    untold: usize,
}

/// A kept reply, until its user has read it.
#[derive(Clone, Copy, Debug)]
struct Unread {
    id: Id,
    /// When it is given up, in ms since 1970.
    until_ms: u64,
    /// When its user was told of it, in ms since 1970.
    told_ms: Option<u64>,
}

impl Untold {
    /// Says that a reply is kept until then for a user who does not know of it.
    pub fn enter(&self, account: &str, openid: &str, id: Id, until_ms: u64) {
        self.change(account, openid, |replies| replies.push(Unread { id, until_ms, told_ms: None }));
    }

    /// Whether everybody knows of what is kept for them.
    pub fn is_empty(&self) -> bool {
        !self.is_any_untold.load(Ordering::Relaxed)
    }

    /// Says that a user is told now of one more reply that they do not know of, and returns which. Those that are on their
    /// way to them are passed over.
    pub fn tell(&self, account: &str, openid: &str, is_on_its_way: impl Fn(Id) -> bool) -> Option<Id> {
        let now_ms = now_ms();
        let is_next =
            |reply: &&mut Unread| reply.told_ms.is_none() && now_ms < reply.until_ms && !is_on_its_way(reply.id);
        self.change(account, openid, |replies| {
            let reply = replies.iter_mut().find(is_next)?;
            reply.told_ms = Some(now_ms);
            Some(reply.id)
        })
    }

    /// Says that they were not told of it after all.
    pub fn untell(&self, account: &str, openid: &str, id: Id) {
        self.change(account, openid, |replies| {
            replies.iter_mut().filter(|reply| reply.id == id).for_each(|reply| reply.told_ms = None);
        });
    }

    /// Which replies a user was told of, and when, in ms since 1970.
    pub fn told(&self, account: &str, openid: &str) -> HashMap<Id, u64> {
        let users = self.users();
        let replies = users.replies.get(&self.user(account, openid)).into_iter().flatten();
        replies.filter_map(|reply| Some((reply.id, reply.told_ms?))).collect()
    }

    /// Says that a user has a reply, or that it is kept for them no more.
    pub fn leave(&self, account: &str, openid: &str, id: Id) {
        self.change(account, openid, |replies| replies.retain(|reply| reply.id != id));
    }

    /// Forgets what was given up by now.
    pub fn forget_past(&self, now_ms: u64) {
        let mut users = self.users();
        users.replies.retain(|_, replies| {
            replies.retain(|reply| now_ms < reply.until_ms);
            !replies.is_empty()
        });
        users.count = users.replies.values().map(Vec::len).sum();
        users.untold = users.replies.values().map(|replies| untold_of(replies)).sum();
        self.is_any_untold.store(users.untold > 0, Ordering::Relaxed);
    }

    /// Changes what there is for one user.
    fn change<T>(&self, account: &str, openid: &str, change: impl FnOnce(&mut Vec<Unread>) -> T) -> T {
        let user = self.user(account, openid);
        let mut users = self.users();
        let mut replies = users.replies.remove(&user).unwrap_or_default();
        users.count -= replies.len();
        users.untold -= untold_of(&replies);
        let changed = change(&mut replies);
        // What is too much is not remembered.
        replies.truncate(REPLIES_MAX - users.count);
        users.count += replies.len();
        users.untold += untold_of(&replies);
        self.is_any_untold.store(users.untold > 0, Ordering::Relaxed);
        if !replies.is_empty() {
            users.replies.insert(user, replies);
        }
        changed
    }

    fn user(&self, account: &str, openid: &str) -> u64 {
        self.hasher.hash_one((account, openid))
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        // Every change leaves the map whole.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn untold_of(replies: &[Unread]) -> usize {
    replies.iter().filter(|reply| reply.told_ms.is_none()).count()
}

/// Says that a reply is kept for a user who does not know of it, where the account tells of such replies.
pub fn enter(app: &App, account: &str, openid: &str, id: Id, until_ms: u64) {
    if app.live().named(account).is_some_and(|serving| serving.account.late.tells_of_kept()) {
        app.late.untold.enter(account, openid, id, until_ms);
    }
}

/// Learns from the store of whom the host before this one did not tell.
pub async fn recall(app: Arc<App>) {
    match app.late.store.untold(Instant::now() + WRITE_TAKES_MAX).await {
        Ok(replies) => {
            for reply in replies.iter().filter(|reply| !app.late.fetching.has(reply.id)) {
                enter(&app, &reply.account, &reply.openid, reply.id, reply.until_ms);
            }
        }
        Err(why) => app.late.tell("Users who know nothing of a kept reply could not be looked for", &why),
    }
}

/// Writes down that a try was given an answer that tells of a reply: else the next host would tell of it again.
pub async fn given(app: Arc<App>, account: String, id: Id) {
    if let Err(why) = app.late.store.tell_of(&account, id, Instant::now() + WRITE_TAKES_MAX).await {
        app.late.tell("That a user knows of a kept reply could not be written down", &why);
    }
}

/// Whether a user can read `text` with an answer, or in place of silence.
pub fn has_room(answer: Option<&Answer>, text: &str) -> bool {
    match answer {
        None => true,
        // What closes it names the word, too.
        Some(answer) if !answer.closing.is_empty() => false,
        Some(Answer { reply: Reply::Text(reply), rest, .. }) => {
            rest.is_empty() && reply.len() + BETWEEN.len() + text.len() <= TEXT_BYTES_MAX
        }
        Some(answer) => answer.reply == Reply::Nothing,
    }
}

/// An answer with which its user reads in `text` of the reply `id`.
pub fn with(answer: Option<Answer>, text: &str, id: Id) -> Answer {
    let answer = answer.unwrap_or_else(|| Answer::of(Reply::Nothing));
    let between = if answer.reply == Reply::Nothing { "" } else { BETWEEN };
    Answer { closing: format!("{between}{text}"), tells_of: Some(id), ..answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Answer {
        Answer::of(Reply::Text(text.to_owned()))
    }

    fn tell(untold: &Untold, openid: &str) -> Option<Id> {
        untold.tell("main", openid, |_| false)
    }

    #[test]
    fn a_user_is_told_of_each_reply_once_and_only_of_their_own() {
        let untold = Untold::default();
        assert!(untold.is_empty() && tell(&untold, "o1").is_none());
        untold.enter("main", "o1", 1, u64::MAX);
        untold.enter("main", "o1", 2, u64::MAX);
        assert!(!untold.is_empty() && tell(&untold, "o2").is_none());
        assert_eq!(untold.tell("other", "o1", |_| false), None);
        assert_eq!([tell(&untold, "o1"), tell(&untold, "o1"), tell(&untold, "o1")], [Some(1), Some(2), None]);
        assert!(untold.is_empty() && untold.told("main", "o1").len() == 2);
        untold.untell("main", "o1", 1);
        assert_eq!([tell(&untold, "o1"), tell(&untold, "o1")], [Some(1), None]);
    }

    #[test]
    fn nobody_is_told_of_what_they_have_or_are_just_given_or_can_have_no_more() {
        let untold = Untold::default();
        let in_the_future = now_ms() + 60_000;
        for (id, until_ms) in [(1, 1), (2, in_the_future), (3, in_the_future)] {
            untold.enter("main", "o1", id, until_ms);
        }
        untold.leave("main", "o1", 2);
        assert_eq!(untold.tell("main", "o1", |id| id == 3), None);
        assert_eq!(tell(&untold, "o1"), Some(3));
        untold.forget_past(in_the_future);
        assert!(untold.is_empty() && untold.users().replies.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let untold = Untold::default();
        for number in 0..=REPLIES_MAX {
            untold.enter("main", &format!("o{}", number % 7), number as Id, u64::MAX);
        }
        assert_eq!(untold.users().count, REPLIES_MAX);
        untold.leave("main", "o0", 0);
        untold.enter("main", "o8", 1, u64::MAX);
        assert_eq!(tell(&untold, "o8"), Some(1));
    }

    #[test]
    fn it_stands_behind_a_text_that_has_room_or_in_the_place_of_silence() {
        assert_eq!(*with(Some(said("hi")), "(more)", 1).shown(), Reply::Text("hi\n\n(more)".into()));
        for silence in [None, Some(Answer::of(Reply::Nothing))] {
            assert!(has_room(silence.as_ref(), "(more)"));
            let told = with(silence, "(more)", 1);
            assert_eq!((&*told.shown(), &told.reply), (&Reply::Text("(more)".into()), &Reply::Nothing));
        }
        let closed = Answer { closing: "(read on)".into(), ..said("hi") };
        let long = said(&"x".repeat(TEXT_BYTES_MAX - 7));
        for full in [closed, long, Answer::of(Reply::Image("m".into()))] {
            assert!(!has_room(Some(&full), "(more)"), "{full:?}");
        }
    }
}
