//! Waiting no longer than until a deadline, for what is mostly there already.

use std::{future::poll_fn, mem, pin::pin, task::Poll, time::Instant};

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
    if let Some(output) = at_once.await {
        return Ok(output);
    }
    // Asked again at once, a guest that yields would go on, and nobody else would have had a turn.
    let mut was_just_asked = true;
    let later = poll_fn(|context| match mem::take(&mut was_just_asked) {
        true => Poll::Pending,
        false => future.as_mut().poll(context),
    });
    timeout_at(deadline.into(), later).await
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        task::{Context, Waker},
        time::Duration,
    };

    use tokio::{sync::oneshot, task::yield_now};

    use super::*;

    #[test]
    fn what_is_there_needs_no_timer() {
        // Outside of a runtime there are none.
        let mut done = pin!(before(Instant::now(), async { 7 }));
        let polled = done.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(7))));
    }

    #[tokio::test]
    async fn what_takes_time_has_it_until_the_deadline() {
        let (sender, receiver) = oneshot::channel();
        let waiting = tokio::spawn(before(Instant::now() + Duration::from_secs(60), receiver));
        yield_now().await;
        sender.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(Ok(7)));
        assert!(before(Instant::now(), pending::<()>()).await.is_err());
    }

    #[tokio::test]
    async fn who_yields_is_asked_again_when_the_others_had_their_turn() {
        let mut polls = 0;
        let mut yielding = pin!(before(
            Instant::now() + Duration::from_secs(60),
            poll_fn(|_| {
                polls += 1;
                if polls == 1 { Poll::Pending } else { Poll::Ready(()) }
            })
        ));
        let mut context = Context::from_waker(Waker::noop());
        assert!(yielding.as_mut().poll(&mut context).is_pending());
        assert!(yielding.as_mut().poll(&mut context).is_ready());
    }
}
