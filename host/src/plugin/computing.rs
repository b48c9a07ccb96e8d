//! Computing time: what a guest keeps a thread busy for. It does not grow while the guest waits, nor while the machine lets
//! somebody else run.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

/// From which limit on the first poll is measured by the cheap clock. Most calls are done with it, and a system call for each would
/// be too much; it ends at the first tick, unless somebody else had the processor meanwhile, for less than this.
const CHEAP_MIN: Duration = Duration::from_millis(200);

/// A guest computed longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedUp;

/// Polls a guest until it is done, or has computed longer than `limit`. It yields at every tick of its engine's clock, which is
/// when this looks; what is one instruction to it, such as filling much memory, shows only afterwards.
///
/// # Errors
///
/// The time is used up, whether the guest was done with that or not.
pub(super) async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, UsedUp> {
    let mut future = pin!(future);
    let mut computed = Duration::ZERO;
    let mut is_cheap = limit >= CHEAP_MIN;
    poll_fn(|context| {
        let stopwatch = if std::mem::take(&mut is_cheap) { Stopwatch::cheap() } else { Stopwatch::exact() };
        let polled = future.as_mut().poll(context);
        computed += stopwatch.elapsed();
        if computed > limit { Poll::Ready(Err(UsedUp)) } else { polled.map(Ok) }
    })
    .await
}

/// Measures what this thread does.
enum Stopwatch {
    /// By the clock on the wall, which somebody else may have used meanwhile.
    Cheap(Instant),
    /// By the thread's own clock.
    Exact(Duration),
}

impl Stopwatch {
    fn cheap() -> Self {
        Self::Cheap(Instant::now())
    }

    fn exact() -> Self {
        Self::Exact(thread_time())
    }

    fn elapsed(self) -> Duration {
        match self {
            Self::Cheap(started) => started.elapsed(),
            Self::Exact(started) => thread_time().saturating_sub(started),
        }
    }
}

/// How long this thread has been at work.
fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Keeps the thread busy for so long, and then lets others run.
    async fn compute(time: Duration) {
        let started = thread_time();
        while thread_time() < started + time {}
        tokio::task::yield_now().await;
    }

    #[tokio::test]
    async fn one_that_computes_on_and_on_is_ended() {
        let endless = async {
            loop {
                compute(2 * MS).await;
            }
        };
        assert_eq!(within(50 * MS, endless).await, Err::<(), _>(UsedUp));
    }

    #[tokio::test]
    async fn one_that_was_done_too_late_is_told_so() {
        assert_eq!(within(MS, compute(5 * MS)).await, Err(UsedUp));
    }

    #[tokio::test]
    async fn waiting_is_no_computing_in_however_many_pieces() {
        let waiting = async {
            for _ in 0..100 {
                sleep(2 * MS).await;
            }
        };
        assert_eq!(within(100 * MS, waiting).await, Ok(()));
    }
}
