//! Since when a webhook cannot be connected to. One that is being restarted is back soon; while one is down for good, nobody's
//! message waits for it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A webhook's absence.
#[derive(Debug)]
pub(super) struct Away {
    /// How long it may last for a message to wait for its end.
    patience: Duration,
    since: Mutex<Option<Instant>>,
}

/// What a connection says that could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// It was there before.
    First,
    /// It may be back soon.
    Again,
    /// It was not there for so long that nothing speaks for its being back soon.
    ForLong,
}

impl Away {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, since: Mutex::default() }
    }

    /// Says that a connection could not be made at this moment.
    pub(super) fn missed(&self, now: Instant) -> Missed {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match *since {
            None => {
                *since = Some(now);
                Missed::First
            }
            Some(since) if now.saturating_duration_since(since) < self.patience => Missed::Again,
            Some(_) => Missed::ForLong,
        }
    }

    /// Whether none could be made the last time.
    pub(super) fn is_so(&self) -> bool {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Says that one could be made.
    pub(super) fn met(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_whole_patience_nobody_waits_until_it_was_met() {
        let (away, start) = (Away::new(Duration::from_secs(9)), Instant::now());
        let missed = |seconds| away.missed(start + Duration::from_secs(seconds));
        assert_eq!(
            [0, 1, 8, 9, 99].map(missed),
            [Missed::First, Missed::Again, Missed::Again, Missed::ForLong, Missed::ForLong]
        );
        assert!(away.is_so());
        away.met();
        assert!(!away.is_so());
        assert_eq!([100, 101].map(missed), [Missed::First, Missed::Again]);
    }
}
