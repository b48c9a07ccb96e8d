//! What is held for a message until it is over, by whichever of its parts sees it over.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A place for one value whose end tells others to go on.
#[derive(Debug)]
pub struct Held<T>(Mutex<Option<T>>);

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Held<T> {
    /// Holds a value, and lets go of the one before it.
    pub fn hold(&self, value: T) {
        let before = self.lock().replace(value);
        drop(before);
    }

    /// Whether there is a value.
    pub fn is_held(&self) -> bool {
        self.lock().is_some()
    }

    /// Hands the value over, if it is still there.
    pub fn take(&self) -> Option<T> {
        self.lock().take()
    }

    /// Lets go of the value, outside the lock: its end may do much.
    pub fn let_go(&self) {
        drop(self.take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        // An option is always whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
