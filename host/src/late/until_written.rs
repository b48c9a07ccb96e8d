//! Writes that must not be lost: the disks of small machines stall for seconds, and full ones are made room on.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Late, fetch::WRITE_TAKES_MAX};
use crate::store::Unavailable;

/// How long a store that did not write is left alone.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Late {
    /// Writes, and again until it is written; once more at most when the host stops. Tells the operator `what` it means that
    /// it is not.
    ///
    /// What the store wrote without saying so in time is written twice, which is better than not at all.
    pub async fn until_written<T, F>(
        &self,
        stopping: &CancellationToken,
        what: &'static str,
        write: impl Fn(Instant) -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, Unavailable>>,
    {
        loop {
            let was_stopping = stopping.is_cancelled();
            match write(Instant::now() + WRITE_TAKES_MAX).await {
                Ok(written) => return Some(written),
                Err(why) => self.tell(what, &why),
            }
            if was_stopping {
                return None;
            }
            // Cut short where the host stops.
            _ = timeout(AGAIN_AFTER, stopping.cancelled()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::Store;

    /// A store that fails so often, and how often it was asked.
    async fn written(failures: u32, stopping: &CancellationToken) -> (Option<()>, u32) {
        let asked = Cell::new(0);
        let write = |_| {
            asked.set(asked.get() + 1);
            let is_written = asked.get() > failures;
            async move { if is_written { Ok(()) } else { Err(Unavailable::Failed) } }
        };
        let written = Late::new(Store::scratch()).until_written(stopping, "It is not written", write).await;
        (written, asked.get())
    }

    #[tokio::test]
    async fn a_write_is_repeated_until_the_store_takes_it() {
        assert_eq!(written(0, &CancellationToken::new()).await, (Some(()), 1));
        assert_eq!(written(2, &CancellationToken::new()).await, (Some(()), 3));
    }

    #[tokio::test]
    async fn a_host_that_stops_tries_no_more_than_once() {
        let stopping = CancellationToken::new();
        stopping.cancel();
        assert_eq!(written(u32::MAX, &stopping).await, (None, 1));
    }
}
