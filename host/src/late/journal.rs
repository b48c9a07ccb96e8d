//! Whether a message is written down as owed: from before its user is put off until its answer has arrived.

use tokio::sync::Mutex;

use crate::store::{
    Unavailable,
    late::{Id, new_id},
};

/// One message's row in the store. It is written once, however many tries want it, and not any more once the message is over.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Page>);

#[derive(Clone, Copy, Debug, Default)]
enum Page {
    #[default]
    Blank,
    /// The store did not say in time whether it is there, or it was written before its user was told anything.
    Unsure(Id),
    Written(Id),
    Closed,
}

impl Journal {
    /// The journal of a message that was written down before the host was started.
    pub fn written(id: Id) -> Self {
        Self(Mutex::new(Page::Written(id)))
    }

    /// Lets the message be written down in the row that is named, unless it is already or is over.
    ///
    /// # Errors
    /// Those of `write`. The row may be there all the same, and is removed with the others then.
    pub async fn write(&self, write: impl AsyncFnOnce(Id) -> Result<(), Unavailable>) -> Result<(), Unavailable> {
        let mut page = self.0.lock().await;
        let id = match *page {
            Page::Blank => new_id(),
            Page::Unsure(id) => id,
            Page::Written(_) | Page::Closed => return Ok(()),
        };
        *page = Page::Unsure(id);
        write(id).await?;
        *page = Page::Written(id);
        Ok(())
    }

    /// Lets the message be written down before its user is told anything, unless it is already or is over. Once they are, it is
    /// written anew in that row.
    ///
    /// # Errors
    /// Those of `write`, as above.
    pub async fn leave(&self, write: impl AsyncFnOnce(Id) -> Result<(), Unavailable>) -> Result<(), Unavailable> {
        let mut page = self.0.lock().await;
        if matches!(*page, Page::Blank) {
            let id = new_id();
            *page = Page::Unsure(id);
            write(id).await?;
        }
        Ok(())
    }

    /// Ends the journal, and returns the row that is left to be removed.
    pub async fn close(&self) -> Option<Id> {
        match std::mem::replace(&mut *self.0.lock().await, Page::Closed) {
            Page::Unsure(id) | Page::Written(id) => Some(id),
            Page::Blank | Page::Closed => None,
        }
    }

    /// Ends the journal and leaves its row to the next host.
    pub async fn hand_over(&self) {
        *self.0.lock().await = Page::Closed;
    }

    /// Whether nobody ever wrote to it, nor does so now.
    pub fn is_blank(&self) -> bool {
        self.0.try_lock().is_ok_and(|page| matches!(*page, Page::Blank))
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

    async fn never(_: Id) -> Result<(), Unavailable> {
        panic!("it is written down")
    }

    #[tokio::test]
    async fn a_message_is_written_down_once_and_not_after_its_end() {
        let journal = Journal::default();
        journal.write(async |_| Ok(())).await.unwrap();
        journal.write(never).await.unwrap();
        assert!(!journal.close_blank());
        assert!(journal.close().await.is_some());
        assert_eq!(journal.close().await, None);
        journal.write(never).await.unwrap();

        let journal = Journal::default();
        assert!(journal.close_blank());
        journal.write(never).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_left_to_the_next_host_is_written_anew_once_its_user_was_told() {
        let (journal, mut ids) = (Journal::default(), Vec::new());
        let note = async |id| {
            ids.push(id);
            Ok(())
        };
        journal.leave(note).await.unwrap();
        journal.leave(never).await.unwrap();
        let note = async |id| {
            ids.push(id);
            Ok(())
        };
        journal.write(note).await.unwrap();
        journal.leave(never).await.unwrap();
        assert_eq!(ids[0], ids[1]);
        assert_eq!(journal.close().await, Some(ids[0]));
    }

    #[tokio::test]
    async fn what_is_handed_over_is_not_removed() {
        let journal = Journal::default();
        journal.write(async |_| Ok(())).await.unwrap();
        journal.hand_over().await;
        assert_eq!(journal.close().await, None);
    }

    #[tokio::test]
    async fn what_may_have_been_written_is_written_again_in_its_place_and_removed_in_the_end() {
        let (journal, mut ids) = (Journal::default(), Vec::new());
        for said in [Err(Unavailable::Late), Ok(())] {
            let write = async |id| {
                ids.push(id);
                said
            };
            assert_eq!(journal.write(write).await, said);
            assert!(!journal.close_blank());
        }
        assert_eq!(ids[0], ids[1]);
        assert_eq!(journal.close().await, Some(ids[0]));
    }
}
