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
            // A reply that misses the window is not delivered in another way yet.
            late_reply: false,
            attempt: 1,
        }
    }
}
