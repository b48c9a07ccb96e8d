//! Work that is done where it is awaited, and goes on if nobody awaits it any more.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// A future that outlives whoever polls it: dropped before its end, it moves into a task of its own.
///
/// A handler's future is dropped as soon as its peer hangs up, but what a plugin does for a message must go on, since the
/// next try joins it. A task from the beginning would do, too; it costs a message as much as a small plugin does, and only
/// few messages need one. As in a task, a panic ends the work and not whoever awaits it.
#[derive(Debug)]
pub struct Outliving<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

/// The work ended in a panic, of which standard error has been told.
#[derive(Debug)]
pub struct Panicked;

impl<F: Future<Output: Send> + Send + 'static> Outliving<F> {
    /// Begins when it is first polled.
    pub fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Outliving<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut().expect("it is not polled after its end");
        // What it leaves half-done is dropped with it.
        let polled = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        };
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Outliving<F> {
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    #[tokio::test]
    async fn what_is_awaited_to_its_end_gives_its_output() {
        assert!(matches!(Outliving::new(async { 7 }).await, Ok(7)));
    }

    #[tokio::test]
    async fn what_nobody_awaits_any_more_goes_on() {
        let ((go, gone), (done, seen)) = (oneshot::channel(), oneshot::channel());
        let work = Outliving::new(async { done.send(gone.await) });
        assert!(timeout(Duration::ZERO, work).await.is_err());
        go.send(7).unwrap();
        assert_eq!(seen.await, Ok(Ok(7)));
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_who_awaits_it() {
        let work = Outliving::new(async { panic!("this test wants one") });
        assert!(work.await.is_err());
    }

    #[tokio::test]
    async fn what_was_never_polled_is_done_all_the_same() {
        let (done, seen) = oneshot::channel();
        drop(Outliving::new(async { done.send(()) }));
        assert_eq!(seen.await, Ok(()));
    }
}
