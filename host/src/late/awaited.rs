//! Users who were put off and whose reply is still being made: when one asks for it, that is no new question.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::now_ms;

/// The users who were put off. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct PutOffUsers {
    users: Arc<Mutex<HashMap<u64, Waiting>>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How many of the user's messages are being answered so.
    messages: usize,
    /// When the last of them was put off, in ms since 1970.
    since_ms: u64,
    /// Told when one of them is over.
    over: Arc<Notify>,
    /// Cancelled when the user asks.
    asked: CancellationToken,
}

/// That one message of a user is awaited. Dropped, it is over, and what came of it can be fetched.
#[derive(Debug)]
pub struct Wait {
    users: PutOffUsers,
    user: u64,
}

impl PutOffUsers {
    /// Says that a user was put off.
    pub fn enter(&self, account: &str, openid: &str) -> Wait {
        let user = self.hasher.hash_one((account, openid));
        let mut users = self.users();
        let waiting = users.entry(user).or_default();
        waiting.messages += 1;
        waiting.since_ms = now_ms();
        drop(users);
        Wait { users: self.clone(), user }
    }

    /// When the last of a user's messages was put off, if there are any, and what is told when one of them is over.
    pub fn over(&self, account: &str, openid: &str) -> Option<(u64, Arc<Notify>)> {
        let user = self.hasher.hash_one((account, openid));
        self.users().get(&user).map(|waiting| (waiting.since_ms, waiting.over.clone()))
    }

    /// Says that a user asks for what is being made for them.
    pub fn ask(&self, account: &str, openid: &str) {
        if let Some(asked) = self.asked(account, openid) {
            asked.cancel();
        }
    }

    /// What is cancelled when a user asks, if they were put off.
    pub fn asked(&self, account: &str, openid: &str) -> Option<CancellationToken> {
        let user = self.hasher.hash_one((account, openid));
        self.users().get(&user).map(|waiting| waiting.asked.clone())
    }

    fn users(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        // Every change leaves the map whole.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut users = self.users.users();
        if let Entry::Occupied(mut waiting) = users.entry(self.user) {
            waiting.get_mut().messages -= 1;
            waiting.get().over.notify_waiters();
            if waiting.get().messages == 0 {
                waiting.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_is_told_when_a_message_is_over() {
        let users = PutOffUsers::default();
        assert!(users.over("main", "o1").is_none());
        let first = users.enter("main", "o1");
        let second = users.enter("main", "o1");
        let (_, over) = users.over("main", "o1").unwrap();
        let told = over.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        drop(first);
        timeout(Duration::from_secs(60), told).await.unwrap();
        assert!(users.over("main", "o1").is_some() && users.over("main", "o2").is_none());
        drop(second);
        assert!(users.over("main", "o1").is_none());
    }
}
