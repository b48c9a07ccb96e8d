//! Log lines on their way to standard error: many in one system call where nobody is watching.

use std::{
    io::{self, IsTerminal, Write},
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line of everyday work may wait for others. A warning waits for nothing, and takes along what does.
const WAIT: Duration = Duration::from_millis(20);

/// So much is written at once, however short the wait was.
const WAITING_BYTES_MAX: usize = 64 << 10;

static WAITING: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static ARRIVED: Condvar = Condvar::new();

/// Writes what waits. For the end of the process: nothing else does it then.
pub fn flush() {
    write(&mut waiting());
}

/// Standard error, for the lines of `tracing`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    /// A person wants each line when it is said.
    is_watched: bool,
}

impl Lines {
    /// Starts the thread that writes what has waited.
    pub(super) fn start() -> io::Result<Self> {
        let is_watched = io::stderr().is_terminal();
        if !is_watched {
            thread::Builder::new().name("log".into()).spawn(write_for_ever)?;
        }
        Ok(Self { is_watched })
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { is_urgent: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { is_urgent: self.is_watched || *metadata.level() <= Level::WARN }
    }
}

/// One event.
#[derive(Debug)]
pub(super) struct Line {
    is_urgent: bool,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = waiting();
        let is_first = waiting.is_empty();
        waiting.extend_from_slice(bytes);
        if self.is_urgent || waiting.len() >= WAITING_BYTES_MAX {
            write(&mut waiting);
        } else if is_first {
            ARRIVED.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_for_ever() {
    loop {
        let waiting = ARRIVED.wait_while(waiting(), |waiting| waiting.is_empty());
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
        thread::sleep(WAIT);
        flush();
    }
}

/// Writes under the lock, so that lines keep their order.
fn write(waiting: &mut Vec<u8>) {
    // Nobody is left to be told that the log cannot be written.
    let _ = io::stderr().write_all(waiting);
    waiting.clear();
    // A burst need not keep its memory.
    if waiting.capacity() > WAITING_BYTES_MAX {
        drop(mem::take(waiting));
    }
}

/// Bytes are appended whole or not at all, so a panic elsewhere leaves nothing half-done.
fn waiting() -> MutexGuard<'static, Vec<u8>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}
