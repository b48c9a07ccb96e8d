//! How long a connection waits for its caller: little for the header of a request, long between two of them.
//!
//! hyper has one bound for both. Whoever keeps connections open for later, as every proxy does, would find them closed, at
//! times in the very moment in which it sends a message.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::config;

/// What a connection is at.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// A header has begun, or the first one is awaited.
    Header { since: Instant },
    /// A request is being answered; its own deadline holds.
    Busy,
    /// All requests are answered.
    Idle { since: Instant },
}

/// What a connection is at, for its stream and for what answers its requests. Both run in one task.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<Phase>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Phase::Header { since: Instant::now() })))
    }

    /// Says that a request is there.
    pub(super) fn asked(&self) {
        *self.phase() = Phase::Busy;
    }

    /// Says that its answer is there.
    pub(super) fn answered(&self) {
        *self.phase() = Phase::Idle { since: Instant::now() };
    }

    /// Says that something was read.
    fn read(&self) {
        let mut phase = self.phase();
        if let Phase::Idle { .. } = *phase {
            *phase = Phase::Header { since: Instant::now() };
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that ends with an error where its caller takes too long.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: Pin<Box<S>>,
    progress: Progress,
    settings: config::Listener,
    /// Rings too early where it was not set anew: it is only when it rings, and not with every request.
    alarm: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, settings: &config::Listener) -> Self {
        let alarm = Box::pin(sleep(settings.header_timeout));
        Self { stream: Box::pin(stream), progress: Progress::new(), settings: settings.clone(), alarm }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Ready when the caller took too long.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let phase = *self.progress.phase();
            let due = match phase {
                Phase::Header { since } => since + self.settings.header_timeout,
                Phase::Idle { since } => since + self.settings.idle_timeout,
                // hyper does not read again when the answer is there: the alarm makes it, and then it is known how long the
                // connection has been idle.
                Phase::Busy => Instant::now() + self.settings.idle_timeout,
            };
            if self.alarm.deadline() > due {
                self.alarm.as_mut().reset(due);
            }
            ready!(self.alarm.as_mut().poll(context));
            if self.alarm.deadline() == due {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

impl<S: AsyncRead> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.stream.as_mut().poll_read(context, buffer) {
            Poll::Pending => self.poll_timeout(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
            read => {
                self.progress.read();
                read
            }
        }
    }
}

impl<S: AsyncWrite> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, parts)
    }
}
