//! Shows that something takes long, to whoever sits at the terminal.

use std::{
    io::{IsTerminal, Write},
    pin::pin,
    time::Duration,
};

use tokio::time::{Instant, timeout};

/// What is done sooner is not worth a word.
const BRIEF: Duration = Duration::from_millis(500);

/// How often a terminal is told how long it has taken.
const STEP: Duration = Duration::from_secs(1);

/// Waits for work, and says on standard error what it is and how long it takes, unless it is brief.
pub(super) async fn shown<T>(what: &str, work: impl Future<Output = T>) -> T {
    let (mut work, started) = (pin!(work), Instant::now());
    if let Ok(done) = timeout(BRIEF, &mut work).await {
        return done;
    }
    let mut stderr = std::io::stderr();
    let is_terminal = stderr.is_terminal();
    // Who cannot be told has to do without.
    let _ = write!(stderr, "{what} …");
    loop {
        let done = timeout(STEP, &mut work).await;
        let seconds = started.elapsed().as_secs_f64();
        match done {
            Ok(done) => {
                let _ = writeln!(
                    stderr,
                    "{} {seconds:.1} s",
                    if is_terminal { format!("\r{what} …") } else { String::new() }
                );
                return done;
            }
            Err(_) if is_terminal => _ = write!(stderr, "\r{what} … {seconds:.0} s").and_then(|()| stderr.flush()),
            Err(_) => {}
        }
    }
}
