//! Waiting no longer than until a deadline, for what is mostly there already.

use std::{future::poll_fn, pin::pin, task::Poll, time::Instant};

use tokio::time::{error::Elapsed, timeout_at};

/// What `tokio::time::timeout_at` does, with a timer only where there is something to wait for. A message that is answered at
/// once would make five of them, and all timers of a process count their users in one place, for which its threads wait.
///
/// # Errors
///
/// At `deadline`, if the future is not done by then.
pub async fn before<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let at_once = poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    });
    match at_once.await {
        Some(output) => Ok(output),
        None => timeout_at(deadline.into(), future).await,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;

    #[test]
    fn what_is_there_needs_no_timer() {
        // Outside of a runtime there are none.
        let mut done = pin!(before(Instant::now(), async { 7 }));
        let polled = done.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(7))));
    }

    #[tokio::test]
    async fn what_takes_time_has_it_until_the_deadline() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(before(Instant::now() + Duration::from_secs(60), receiver));
        sender.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(Ok(7)));
        assert!(before(Instant::now(), pending::<()>()).await.is_err());
    }
}
