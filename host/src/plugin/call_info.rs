//! `aviary:bot/call-info`: what the host knows about this very call. It needs no grant.

use std::time::Instant;

use super::{
    bindings::aviary::bot::call_info::{Host, Info},
    guest::Guest,
};

impl Host for Guest {
    async fn current(&mut self) -> Info {
        let time_left = self.deadline.saturating_duration_since(Instant::now());
        Info {
            time_left_ms: u32::try_from(time_left.as_millis()).unwrap_or(u32::MAX),
            late_reply: self.question.as_ref().is_some_and(|question| question.late_reply),
            attempt: self.question.as_ref().map_or(1, |question| question.attempt),
        }
    }
}
