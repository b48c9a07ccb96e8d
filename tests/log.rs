//! What the host logs while a test runs.

use std::{
    cell::RefCell,
    io::{self, Write},
    marker::PhantomData,
    sync::LazyLock,
};

/// The log of this thread, from level `info` on, with how often a file is tried again, for as long as this is held. Only for tests on one thread: those of
/// `#[tokio::test]` without a flavor.
pub struct Log {
    stays_on_its_thread: PhantomData<*const ()>,
}

const LEVELS: &str = "info,aviary_host::plugin::set=debug";

thread_local! {
    static WRITTEN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// One subscriber for all threads: tracing asks a subscriber of one thread only about what that thread logged first.
static SUBSCRIBED: LazyLock<()> = LazyLock::new(|| {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Writer).with_env_filter(LEVELS).finish();
    tracing::subscriber::set_global_default(subscriber).expect("no test sets another");
    tracing::callsite::rebuild_interest_cache();
});

impl Log {
    /// Begins to listen.
    pub fn capture() -> Self {
        LazyLock::force(&SUBSCRIBED);
        WRITTEN.set(Some(Vec::new()));
        Self { stays_on_its_thread: PhantomData }
    }

    /// The lines that hold these words.
    pub fn lines(&self, words: &str) -> Vec<String> {
        let written = WRITTEN.with_borrow(|written| written.clone().unwrap_or_default());
        let text = String::from_utf8(written).expect("the log is text");
        text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    /// How many messages were dispatched to the end.
    pub fn dispatched(&self) -> usize {
        self.lines(" answered user ").len()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        WRITTEN.set(None);
    }
}

/// Writes to the log of whatever thread it is used on, if that thread has one.
struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WRITTEN.with_borrow_mut(|written| written.iter_mut().for_each(|written| written.extend(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
