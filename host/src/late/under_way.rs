//! Late messages that stand in no row of the store: WeChat's tries of them are not over, or what was made of them is just being
//! written down. The operator is told how many they are, so that none is anywhere else, but for those of a store that fails.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How many they are. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct UnderWay(Arc<AtomicU64>);

/// That one message is among them, until this is dropped.
#[derive(Debug)]
pub struct OnItsWay(UnderWay);

impl UnderWay {
    /// Says that a message is late.
    pub fn enter(&self) -> OnItsWay {
        self.0.fetch_add(1, Ordering::Relaxed);
        OnItsWay(self.clone())
    }

    /// How many there are. Whoever asks the store as well asks here first: what is written down meanwhile is counted twice then,
    /// and not missed.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
