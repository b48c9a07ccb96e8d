//! Users for whom a reply is kept of which nobody told them: WeChat was answered `success`, and then did not take it. WeChat leaves
//! no way to write to them before they write again, so they read of it with what they are answered then.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{exchange::Answer, plugin::bindings::Reply, reply::TEXT_BYTES_MAX};

/// Stands between a reply and what is told with it.
const BETWEEN: &str = "\n\n";

/// How many users are remembered. Where a whole account may not send any more, the others are told nothing.
const USERS_MAX: usize = 100_000;

/// Those users. They are forgotten when the host ends; what is kept for them is not.
#[derive(Debug, Default)]
pub struct Untold {
    users: Mutex<HashSet<u64>>,
    /// Whether there are any: nearly always there are none, and no message should wait for another's look.
    are_any: AtomicBool,
    hasher: RandomState,
}

impl Untold {
    /// Says that something is kept for a user who does not know of it.
    pub fn enter(&self, account: &str, openid: &str) {
        let mut users = self.users();
        if users.len() < USERS_MAX {
            users.insert(self.hasher.hash_one((account, openid)));
            self.are_any.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nobody has to be told anything.
    pub fn is_empty(&self) -> bool {
        !self.are_any.load(Ordering::Relaxed)
    }

    /// Says that a user is told now. Returns whether there was anything to tell.
    pub fn leave(&self, account: &str, openid: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut users = self.users();
        let was_there = users.remove(&self.hasher.hash_one((account, openid)));
        self.are_any.store(!users.is_empty(), Ordering::Relaxed);
        was_there
    }

    fn users(&self) -> MutexGuard<'_, HashSet<u64>> {
        // Every change leaves the set whole.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
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

/// An answer with which its user reads `text`, too.
pub fn with(answer: Option<Answer>, text: &str) -> Answer {
    match answer {
        Some(answer) if answer.reply != Reply::Nothing => Answer { closing: format!("{BETWEEN}{text}"), ..answer },
        _ => Answer::of(Reply::Text(text.to_owned())),
    }
}

/// Whether an answer tells of something kept, and not of more of its own.
pub fn is_told_by(answer: &Answer) -> bool {
    !answer.closing.is_empty() && answer.rest.is_empty() && answer.fetched.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Answer {
        Answer::of(Reply::Text(text.to_owned()))
    }

    #[test]
    fn a_user_is_told_once_and_only_who_has_something_kept() {
        let untold = Untold::default();
        assert!(untold.is_empty() && !untold.leave("main", "o1"));
        untold.enter("main", "o1");
        untold.enter("main", "o1");
        assert!(!untold.is_empty() && !untold.leave("main", "o2") && !untold.leave("other", "o1"));
        assert!(untold.leave("main", "o1") && !untold.leave("main", "o1") && untold.is_empty());
    }

    #[test]
    fn it_stands_behind_a_text_that_has_room_or_in_the_place_of_silence() {
        assert_eq!(*with(Some(said("hi")), "(more)").shown(), Reply::Text("hi\n\n(more)".into()));
        for silence in [None, Some(Answer::of(Reply::Nothing))] {
            assert!(has_room(silence.as_ref(), "(more)"));
            assert_eq!(*with(silence, "(more)").shown(), Reply::Text("(more)".into()));
        }
        let closed = Answer { closing: "(read on)".into(), ..said("hi") };
        let long = said(&"x".repeat(TEXT_BYTES_MAX - 7));
        for full in [closed, long, Answer::of(Reply::Image("m".into()))] {
            assert!(!has_room(Some(&full), "(more)"), "{full:?}");
        }
        assert!(is_told_by(&with(Some(said("hi")), "(more)")) && !is_told_by(&said("hi")));
    }
}
