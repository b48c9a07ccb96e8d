//! The thread that writes: whatever waits goes into one transaction, and is answered when that is durable.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use redb::Database;

use super::{
    embedded::{Shared, panicked},
    kv,
};

/// How many writes go into one transaction. More would save no flush worth having, and let the first wait for the last.
const GROUP_MAX: usize = 512;

/// How long a transaction goes on taking writes: large values take longer than small ones.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);

/// How long to leave a disk alone that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes until the queue is closed and empty.
pub(super) fn run(shared: &Shared) {
    // At once: what ran out while the host was down.
    let mut upkeep = Some(Instant::now());
    while shared.queue.wait(upkeep) {
        let group = || shared.with(|database| write_group(database, shared));
        upkeep = match catch_unwind(AssertUnwindSafe(group)).unwrap_or_else(|_| Err(panicked())) {
            Ok(next) => next,
            Err(error) => {
                shared.tell("written", &error);
                recover(shared);
                Some(Instant::now() + RETRY_AFTER)
            }
        };
    }
}

/// Opens the database again. While that fails, whoever wants to write waits, as long as its deadline allows.
fn recover(shared: &Shared) {
    if let Err(error) = shared.reopen() {
        shared.tell("opened again", &error);
        shared.queue.pause(Instant::now() + RETRY_AFTER);
    }
}

/// Carries out what waits, and some upkeep. Returns when upkeep is due next.
fn write_group(database: &Database, shared: &Shared) -> Result<Option<Instant>, redb::Error> {
    let mut transaction = database.begin_write()?;
    // Whoever chooses the values may choose them so that a crash in mid-commit is taken for a finished one, if there is
    // one flush for both; and after a crash, the file is ready at once, however large.
    transaction.set_quick_repair(true);
    let begun = Instant::now();
    let mut answers = Vec::new();
    while answers.len() < GROUP_MAX && begun.elapsed() < GROUP_TIME_MAX {
        let Some(op) = shared.queue.pop() else { break };
        answers.push(op(&transaction)?);
    }
    let sweep = kv::sweep(&transaction)?;
    if answers.is_empty() && sweep.removed == 0 {
        transaction.abort()?;
    } else {
        transaction.commit()?;
    }
    answers.into_iter().for_each(|answer| answer());
    Ok(sweep.next.map(|after| Instant::now() + after))
}
