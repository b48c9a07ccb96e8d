//! The thread that writes: whatever waits goes into one transaction, and is answered when that is durable.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use redb::Database;
use tracing::{error, info};

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
    let mut trouble = None;
    // At once: what ran out while the host was down.
    let mut upkeep = Some(Instant::now());
    while shared.queue.wait(upkeep) {
        let group = || shared.with(|database| write_group(database, shared));
        match catch_unwind(AssertUnwindSafe(group)).unwrap_or_else(|_| Err(panicked())) {
            Ok(Group { committed, next }) => {
                upkeep = next;
                if committed && trouble.take().is_some() {
                    info!("The store writes to {} again", shared.place());
                }
            }
            Err(error) => {
                recover(shared, &error, &mut trouble);
                upkeep = Some(Instant::now());
            }
        }
    }
}

/// Opens the database again. While that fails, whoever wants to write waits, as long as its deadline allows. A trouble that
/// lasts is told once.
fn recover(shared: &Shared, error: &redb::Error, trouble: &mut Option<String>) {
    let reopened = shared.reopen();
    let what = match &reopened {
        Ok(()) => error.to_string(),
        Err(why) => why.to_string(),
    };
    if trouble.as_ref() != Some(&what) {
        let place = shared.place();
        error!("The store could not write to {place}, and told the plugins so; it goes on trying: {what}");
        *trouble = Some(what);
    }
    if reopened.is_err() {
        shared.queue.pause(Instant::now() + RETRY_AFTER);
    }
}

/// What came of one transaction.
struct Group {
    /// Whether there was anything to write.
    committed: bool,
    /// When upkeep is due next.
    next: Option<Instant>,
}

/// Carries out what waits, and some upkeep.
fn write_group(database: &Database, shared: &Shared) -> Result<Group, redb::Error> {
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
    let committed = !answers.is_empty() || sweep.removed > 0;
    if committed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    answers.into_iter().for_each(|answer| answer());
    Ok(Group { committed, next: sweep.next.map(|after| Instant::now() + after) })
}
