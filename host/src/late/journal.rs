//! Whether a message is written down as owed: from before its user is put off until its answer has arrived.

use tokio::sync::Mutex;

use crate::store::{Unavailable, late::Id};

/// One message's row in the store. It is written once, however many tries want it, and not any more once the message is over.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Page>);

#[derive(Clone, Copy, Debug, Default)]
enum Page {
    #[default]
    Blank,
    Written(Id),
    Closed,
}

impl Journal {
    /// The journal of a message that was written down before the host was started.
    pub async fn resume(&self, id: Id) {
        *self.0.lock().await = Page::Written(id);
    }

    /// Lets the message be written down, unless it is already or is over.
    ///
    /// # Errors
    /// Those of `write`.
    pub async fn write(&self, write: impl Future<Output = Result<Id, Unavailable>>) -> Result<(), Unavailable> {
        let mut page = self.0.lock().await;
        if matches!(*page, Page::Blank) {
            *page = Page::Written(write.await?);
        }
        Ok(())
    }

    /// Ends the journal, and returns the row that is left to be removed.
    pub async fn close(&self) -> Option<Id> {
        match std::mem::replace(&mut *self.0.lock().await, Page::Closed) {
            Page::Written(id) => Some(id),
            Page::Blank | Page::Closed => None,
        }
    }

    /// Ends the journal if nobody ever wrote to it, as is so for nearly every message, and returns whether that was so.
    pub fn close_blank(&self) -> bool {
        match self.0.try_lock() {
            Ok(mut page) if matches!(*page, Page::Blank) => {
                *page = Page::Closed;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_written_down_once_and_not_after_its_end() {
        let journal = Journal::default();
        let never = async || -> Result<Id, Unavailable> { panic!("it is written down") };
        journal.write(async { Ok(7) }).await.unwrap();
        journal.write(never()).await.unwrap();
        assert!(!journal.close_blank());
        assert_eq!((journal.close().await, journal.close().await), (Some(7), None));
        journal.write(never()).await.unwrap();

        let journal = Journal::default();
        assert!(journal.close_blank());
        journal.write(never()).await.unwrap();
    }

    #[tokio::test]
    async fn what_could_not_be_written_can_be_tried_again() {
        let journal = Journal::default();
        assert_eq!(journal.write(async { Err(Unavailable::Failed) }).await, Err(Unavailable::Failed));
        journal.write(async { Ok(1) }).await.unwrap();
        assert_eq!(journal.close().await, Some(1));
    }
}
