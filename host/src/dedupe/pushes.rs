//! The pushes of the last minutes, oldest first, each found by its message and by its signature.
//!
//! There is one for every push, so little is kept of each: a row, and for each way to find it a number in a table.

use std::{collections::VecDeque, hash::BuildHasher};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Key;

/// A push that is remembered.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
pub(super) struct Push {
    /// When its lifetime began, in tenths of a second after the memory's start.
    pub since: u32,
    pub key: Key,
    /// What it was signed with; 0 where that does not matter, or came before.
    pub signature: u64,
    /// Whether its message is found by it: not by a later try.
    pub is_first: bool,
}

/// Rows, and two tables of their numbers.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    rows: Rows,
    by_key: HashTable<u32>,
    by_signature: HashTable<u32>,
    /// Quick is enough, and it has a seed of its own: digests are spread already, and WeChat signs what they are of.
    hasher: DefaultHashBuilder,
}

/// Rows are numbered in the order in which they came. The numbers wrap: there are never so many at once.
#[derive(Debug, Default)]
struct Rows {
    rows: VecDeque<Push>,
    oldest: u32,
}

impl Rows {
    fn row(&self, number: u32) -> &Push {
        &self.rows[number.wrapping_sub(self.oldest) as usize]
    }

    fn key(&self, number: u32) -> Key {
        self.row(number).key
    }

    fn signature(&self, number: u32) -> u64 {
        self.row(number).signature
    }
}

impl Pushes {
    pub(super) fn len(&self) -> usize {
        self.rows.rows.len()
    }

    /// Returns how many messages they are of.
    pub(super) fn messages(&self) -> usize {
        self.by_key.len()
    }

    /// Whether one is of this message.
    pub(super) fn has(&self, key: Key) -> bool {
        self.by_key.find(self.hasher.hash_one(key), |&number| self.rows.key(number) == key).is_some()
    }

    /// Returns the message that came with this signature.
    pub(super) fn signed(&self, signature: u64) -> Option<Key> {
        let is_it = |&number: &u32| self.rows.signature(number) == signature;
        self.by_signature.find(self.hasher.hash_one(signature), is_it).map(|&number| self.rows.key(number))
    }

    pub(super) fn oldest(&self) -> Option<Push> {
        self.rows.rows.front().copied()
    }

    pub(super) fn add(&mut self, push: Push) {
        let Self { rows, by_key, by_signature, hasher } = self;
        // What wraps is all right: nobody has memory for so many rows.
        let number = rows.oldest.wrapping_add(rows.rows.len() as u32);
        rows.rows.push_back(push);
        let Push { key, signature, is_first, .. } = push;
        if is_first {
            by_key.insert_unique(hasher.hash_one(key), number, |&number| hasher.hash_one(rows.key(number)));
        }
        if signature != 0 {
            let hash = hasher.hash_one(signature);
            by_signature.insert_unique(hash, number, |&number| hasher.hash_one(rows.signature(number)));
        }
    }

    pub(super) fn forget_oldest(&mut self) {
        let Some(Push { key, signature, .. }) = self.rows.rows.pop_front() else { return };
        let number = self.rows.oldest;
        self.rows.oldest = number.wrapping_add(1);
        for (table, hash) in
            [(&mut self.by_key, self.hasher.hash_one(key)), (&mut self.by_signature, self.hasher.hash_one(signature))]
        {
            if let Ok(entry) = table.find_entry(hash, |other| *other == number) {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(n: u8, signature: u64) -> Push {
        Push { since: 0, key: Key([n; 16]), signature, is_first: true }
    }

    #[test]
    fn each_is_found_by_message_and_signature_until_it_is_forgotten() {
        // The numbers wrap on the way.
        let rows = Rows { oldest: u32::MAX - 20, ..Rows::default() };
        let mut pushes = Pushes { rows, ..Pushes::default() };
        for n in 1..=50 {
            pushes.add(push(n, u64::from(n)));
        }
        for n in 1..=50 {
            assert!((n..=50).all(|n| pushes.has(Key([n; 16])) && pushes.signed(u64::from(n)) == Some(Key([n; 16]))));
            assert_eq!(pushes.messages(), usize::from(51 - n));
            pushes.forget_oldest();
            assert!(!pushes.has(Key([n; 16])) && pushes.signed(u64::from(n)).is_none());
        }
        assert_eq!(pushes.len(), 0);
    }

    #[test]
    fn a_later_try_does_not_make_its_message_forgotten() {
        let mut pushes = Pushes::default();
        pushes.add(Push { is_first: false, ..push(1, 1) });
        assert!(!pushes.has(Key([1; 16])));
        pushes.add(push(1, 2));
        pushes.forget_oldest();
        assert!(pushes.has(Key([1; 16])));
        assert_eq!(pushes.signed(1), None);
        assert_eq!(pushes.signed(2), Some(Key([1; 16])));
    }

    #[test]
    fn an_unsigned_push_has_no_signature() {
        let mut pushes = Pushes::default();
        pushes.add(push(1, 0));
        assert_eq!(pushes.signed(0), None);
    }
}
