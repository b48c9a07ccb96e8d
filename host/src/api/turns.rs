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
    pub(super) host: Arc<Semaphore>,
}

/// The right to be on the way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _account: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

impl Turns {
    /// Waits for a turn. First the account's: who waits for their own account takes no place from others.
    pub(super) async fn take(&self, deadline: Instant) -> Result<Turn, ApiError> {
        const NEVER_CLOSED: &str = "no semaphore of these is ever closed";
        let taken = timeout_at(deadline.into(), async {
            let account = self.account.clone().acquire_owned().await.expect(NEVER_CLOSED);
            let host = self.host.clone().acquire_owned().await.expect(NEVER_CLOSED);
            Turn { _account: account, _host: host }
        });
        taken.await.map_err(|_| ApiError::NoTurn)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_account_that_waits_for_itself_takes_no_place_from_others() {
        let (slow, host) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(2)));
        let slow = Turns { account: slow, host: host.clone() };
        let other = Turns { account: Arc::new(Semaphore::new(1)), host };
        let soon = || Instant::now() + Duration::from_millis(20);
        let _first = slow.take(soon()).await.unwrap();
        assert!(matches!(slow.take(soon()).await, Err(ApiError::NoTurn)));
        assert!(other.take(soon()).await.is_ok());
    }
}
