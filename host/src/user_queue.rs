//! Messages of one user are answered in order, those of different users side by side.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::{DefaultHashBuilder, HashMap, hash_map::Entry};
use tokio::sync::oneshot;

/// How many messages of one user may be under way at once: the one that is being answered, and those behind it. People send a
/// thought in ten short lines while a slow bot is at the first; more comes from somebody who does not wait for answers. Each
/// holds a parsed push and no sandbox.
pub const MESSAGES_MAX: usize = 16;

/// Users are spread over so many locks: a message takes one twice, and two cores should seldom meet.
const SHARDS: usize = 16;

/// The queues of all users. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct UserQueues {
    shards: Arc<[Mutex<Shard>; SHARDS]>,
    /// Seeded anew at each start: two users whose hashes meet share a queue in this run only. One signature brings one message,
    /// so that nobody can try many openids.
    hasher: DefaultHashBuilder,
}

/// The users who are being answered, each with the messages that wait behind.
type Shard = HashMap<u64, VecDeque<oneshot::Sender<()>>>;

/// A message's place in its user's queue. Dropped, the next one has its turn.
#[derive(Debug)]
pub struct Place {
    queues: UserQueues,
    user: u64,
    /// Told when it is this message's turn; none from the time it was.
    waits: Option<oneshot::Receiver<()>>,
}

/// As many messages of the user as there may be are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl UserQueues {
    /// Takes a place behind the user's other messages.
    pub fn join(&self, account: &str, openid: &str) -> Result<Place, Full> {
        let user = self.hasher.hash_one((account, openid));
        let waits = match self.shard(user).entry(user) {
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                None
            }
            Entry::Occupied(waiting) if waiting.get().len() + 1 >= MESSAGES_MAX => return Err(Full),
            Entry::Occupied(mut waiting) => {
                let (sender, receiver) = oneshot::channel();
                waiting.get_mut().push_back(sender);
                Some(receiver)
            }
        };
        Ok(Place { queues: self.clone(), user, waits })
    }

    fn shard(&self, user: u64) -> MutexGuard<'_, Shard> {
        // Every change leaves a shard whole. The remainder is a place in the array.
        self.shards[(user % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for this message's turn.
    pub async fn turn(&mut self) {
        if let Some(waits) = &mut self.waits {
            // A turn is passed on or the message is the first: the sender is not dropped without a word.
            let _ = waits.await;
            self.waits = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.queues.shard(self.user);
        let has_turn = self.waits.as_mut().is_none_or(|waits| waits.try_recv().is_ok());
        // Closed behind the lock: whoever passes its turn on finds this one gone.
        self.waits = None;
        let Some(waiting) = shard.get_mut(&self.user).filter(|_| has_turn) else { return };
        while let Some(next) = waiting.pop_front() {
            if next.send(()).is_ok() {
                return;
            }
        }
        shard.remove(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn is_its_turn(place: &mut Place) -> bool {
        matches!(pin!(place.turn()).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
    }

    fn users(queues: &UserQueues) -> usize {
        queues.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn one_users_messages_have_their_turns_in_the_order_they_came() {
        let queues = UserQueues::default();
        let mut places: Vec<_> = (0..3).map(|_| queues.join("main", "小明").unwrap()).collect();
        assert_eq!(places.iter_mut().map(is_its_turn).collect::<Vec<_>>(), [true, false, false]);
        places.remove(0);
        assert_eq!(places.iter_mut().map(is_its_turn).collect::<Vec<_>>(), [true, false]);
        places.remove(0);
        assert!(is_its_turn(&mut places[0]));
    }

    #[test]
    fn users_do_not_wait_for_each_other_nor_accounts_for_accounts() {
        let queues = UserQueues::default();
        let _others = [queues.join("main", "小明").unwrap(), queues.join("main", "小明").unwrap()];
        assert!(is_its_turn(&mut queues.join("main", "小红").unwrap()));
        assert!(is_its_turn(&mut queues.join("other", "小明").unwrap()));
    }

    #[test]
    fn a_message_that_is_given_up_is_passed_over() {
        let queues = UserQueues::default();
        let first = queues.join("main", "小明").unwrap();
        let (second, third) = (queues.join("main", "小明").unwrap(), queues.join("main", "小明").unwrap());
        let mut fourth = queues.join("main", "小明").unwrap();
        drop(second);
        assert!(!is_its_turn(&mut fourth));
        // It has its turn by now, and has not looked.
        drop(first);
        drop(third);
        assert!(is_its_turn(&mut fourth));
    }

    #[test]
    fn a_queue_is_bounded_and_leaves_nothing_behind() {
        let queues = UserQueues::default();
        let places: Vec<_> = (0..MESSAGES_MAX).map(|_| queues.join("main", "小明").unwrap()).collect();
        assert_eq!(queues.join("main", "小明").unwrap_err(), Full);
        queues.join("main", "小红").unwrap();
        drop(places);
        assert_eq!(users(&queues), 0);
        queues.join("main", "小明").unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_waits_for_ever_however_many_come_and_go() {
        let queues = UserQueues::default();
        let message = |queues: UserQueues, number: usize| async move {
            let Ok(mut place) = queues.join("main", &format!("o{}", number % 5)) else { return };
            if !number.is_multiple_of(3) {
                place.turn().await;
            }
        };
        let tasks: Vec<_> = (0..5_000).map(|number| tokio::spawn(message(queues.clone(), number))).collect();
        for task in tasks {
            tokio::time::timeout(std::time::Duration::from_secs(60), task).await.unwrap().unwrap();
        }
        assert_eq!(users(&queues), 0);
    }
}
