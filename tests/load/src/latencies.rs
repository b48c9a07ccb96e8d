//! How long answers took.

use std::time::Duration;

/// Every latency of a run, to the nanosecond; the generator bounds how many there are.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// Adds one answer's.
    pub fn add(&mut self, latency: Duration) {
        self.0.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds another connection's.
    pub fn merge(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// How many answers there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them, one after another: over the time they were measured in, how many messages were under way at once.
    pub fn total(&self) -> Duration {
        self.0.iter().copied().map(Duration::from_nanos).sum()
    }

    /// Returns the latency that `percent` of the answers did not exceed; zero if there were none.
    pub fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        Duration::from_nanos(self.0.get(rank - 1).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_latency_that_was_measured() {
        let mut latencies = Latencies::default();
        (1..=200).rev().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        assert_eq!(latencies.percentile(50), Duration::from_millis(100));
        assert_eq!(latencies.percentile(99), Duration::from_millis(198));
        assert_eq!(latencies.percentile(100), Duration::from_millis(200));
    }

    #[test]
    fn few_answers_have_percentiles_too() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(99), Duration::ZERO);
        latencies.add(Duration::from_millis(7));
        assert_eq!(latencies.percentile(1), Duration::from_millis(7));
        assert_eq!(latencies.percentile(99), Duration::from_millis(7));
    }
}
