//! What one call may take of the host's memory, counted as the guest asks for it.

use wasmtime::ResourceLimiter;

/// Counts a guest's memories and tables, and refuses what goes beyond the plugin's limits.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes_max: usize,
    table_elements_max: usize,
    /// All linear memories together. Memories only ever grow, so this is also the peak.
    memory_bytes: usize,
    table_elements: usize,
    /// Whether a growth was refused: what follows is most likely the guest's own abort.
    memory_refused: bool,
}

impl Limiter {
    pub(super) fn new(memory_bytes_max: usize, table_elements_max: usize) -> Self {
        Self { memory_bytes_max, table_elements_max, memory_bytes: 0, table_elements: 0, memory_refused: false }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(super) fn memory_bytes_max(&self) -> usize {
        self.memory_bytes_max
    }

    pub(super) fn memory_refused(&self) -> bool {
        self.memory_refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        let fits = total <= self.memory_bytes_max;
        if fits {
            self.memory_bytes = total;
        } else {
            self.memory_refused = true;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        let fits = total <= self.table_elements_max;
        if fits {
            self.table_elements = total;
        }
        Ok(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_of_a_guest_count_together() {
        let mut limiter = Limiter::new(100, 10);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.memory_refused());
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert!(limiter.memory_refused());
        assert_eq!(limiter.memory_bytes(), 100);
    }

    #[test]
    fn a_refused_table_growth_is_not_counted() {
        let mut limiter = Limiter::new(100, 10);
        assert!(!limiter.table_growing(0, 11, None).unwrap());
        assert!(limiter.table_growing(0, 10, None).unwrap());
    }
}
