//! How a call is repeated when WeChat says that it is busy (-1).

use std::time::{Duration, Instant};

/// How often a call is sent in all.
const TRIES_MAX: u32 = 4;

/// How long the first pause is; each one is three times the one before it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The pauses of one call.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    tries: u32,
}

impl BackOff {
    /// Counts a try that met a busy WeChat. Returns how long to wait before the next; nothing if it was the last, or the time
    /// is over by then.
    pub(super) fn pause(&mut self, deadline: Instant) -> Option<Duration> {
        self.tries += 1;
        let pause = FIRST_PAUSE * 3_u32.pow(self.tries - 1);
        (self.tries < TRIES_MAX && Instant::now() + pause < deadline).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_with_the_tries_or_the_time() {
        let (mut back_off, later) = (BackOff::default(), Instant::now() + Duration::from_secs(60));
        let pauses: Vec<_> = (0..4).map(|_| back_off.pause(later).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(200), Some(600), Some(1_800), None]);
        assert_eq!(BackOff::default().pause(Instant::now() + Duration::from_millis(100)), None);
    }
}
