//! How many pages are being made or on their way to visitors.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::egress::Owner;

/// How much of a page is handed to the connection at once: what is not sent yet counts as on its way.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// Pages that are being made or on their way, by plugin.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<HashMap<Owner, usize>>>);

/// The place of one of them. It is free when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    owner: Owner,
}

/// A page on its way. Its place is free when it is gone.
pub struct Sent {
    page: Bytes,
    _place: Place,
}

impl Places {
    /// Takes one of `answers_max` places; of one plugin's at most half, so that one that is slow leaves room for the others.
    pub fn take(&self, account: &Arc<str>, plugin: &Arc<str>, answers_max: usize) -> Option<Place> {
        let owner = Owner { account: account.clone(), plugin: plugin.clone() };
        let mut taken = self.lock();
        let own = taken.get(&owner).copied().unwrap_or_default();
        if taken.values().sum::<usize>() >= answers_max || own >= answers_max.div_ceil(2) {
            return None;
        }
        taken.insert(owner.clone(), own + 1);
        Some(Place { places: self.clone(), owner })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, usize>> {
        // Every change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.owner) {
            Some(own) if *own > 1 => *own -= 1,
            _ => _ = taken.remove(&self.owner),
        }
    }
}

impl Sent {
    /// Sends a page that has a place.
    pub fn new(page: Bytes, place: Place) -> Self {
        Self { page, _place: place }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.page.len().min(FRAME_BYTES_MAX);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.page.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.page.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.page.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, plugin: &str, answers_max: usize) -> Option<Place> {
        places.take(&"main".into(), &plugin.into(), answers_max)
    }

    #[test]
    fn a_place_is_free_again_when_the_page_is_gone() {
        let places = Places::default();
        let (first, second) = (take(&places, "a", 2), take(&places, "b", 2));
        assert!(first.is_some() && second.is_some() && take(&places, "c", 2).is_none());
        drop(first);
        assert!(take(&places, "c", 2).is_some());
        drop(second);
        assert!(places.lock().is_empty());
    }

    #[test]
    fn one_plugin_has_half_of_the_places_at_most() {
        let places = Places::default();
        let taken: Vec<Place> = std::iter::from_fn(|| take(&places, "slow", 5)).collect();
        assert_eq!(taken.len(), 3);
        assert!(take(&places, "other", 5).is_some());
        assert!(take(&Places::default(), "alone", 1).is_some(), "one place is for whoever comes");
    }
}
