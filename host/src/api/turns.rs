//! How many calls are on their way at once: for one account, and for all of them.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use super::ApiError;

/// Where the calls of one account take their turns.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    pub(super) account: Arc<Semaphore>,
    /// Those of an account's turns that calls for visitors of its pages may have.
    pub(super) visitors: Arc<Semaphore>,
    pub(super) host: Arc<Semaphore>,
}

/// The right to be on the way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _visitors: Option<OwnedSemaphorePermit>,
    _account: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

const NEVER_CLOSED: &str = "no semaphore of these is ever closed";

impl Turns {
    /// Waits for a turn. First the account's: who waits for their own account takes no place from others.
    pub(super) async fn take(&self, deadline: Instant) -> Result<Turn, ApiError> {
        timeout_at(deadline.into(), self.next(None)).await.map_err(|_| ApiError::NoTurn)
    }

    /// Waits for a turn on behalf of a visitor. Anybody may be one: together they leave half of the account's turns to its bot.
    pub(super) async fn take_for_visitor(&self, deadline: Instant) -> Result<Turn, ApiError> {
        let taken = timeout_at(deadline.into(), async {
            let visitors = self.visitors.clone().acquire_owned().await.expect(NEVER_CLOSED);
            self.next(Some(visitors)).await
        });
        taken.await.map_err(|_| ApiError::NoTurn)
    }

    async fn next(&self, visitors: Option<OwnedSemaphorePermit>) -> Turn {
        let account = self.account.clone().acquire_owned().await.expect(NEVER_CLOSED);
        let host = self.host.clone().acquire_owned().await.expect(NEVER_CLOSED);
        Turn { _visitors: visitors, _account: account, _host: host }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn semaphore(permits: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(permits))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn an_account_that_waits_for_itself_takes_no_place_from_others() {
        let host = semaphore(2);
        let slow = Turns { account: semaphore(1), visitors: semaphore(1), host: host.clone() };
        let other = Turns { account: semaphore(1), visitors: semaphore(1), host };
        let _first = slow.take(soon()).await.unwrap();
        assert!(matches!(slow.take(soon()).await, Err(ApiError::NoTurn)));
        assert!(other.take(soon()).await.is_ok());
    }

    #[tokio::test]
    async fn visitors_who_wait_for_each_other_take_no_turn_from_the_bot() {
        let turns = Turns { account: semaphore(2), visitors: semaphore(1), host: semaphore(2) };
        let _first = turns.take_for_visitor(soon()).await.unwrap();
        assert!(matches!(turns.take_for_visitor(soon()).await, Err(ApiError::NoTurn)));
        assert!(turns.take(soon()).await.is_ok());
    }
}
