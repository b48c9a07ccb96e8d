//! The rows behind plugins' keys, inside one transaction.
//!
//! A row's value is the time it runs out (milliseconds since 1970 in 8 bytes, 0 for never), then the plugin's own bytes.
//! `EXPIRY` has every row that runs out in the order of that time; `USAGE` what each owner keeps. The three change together.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable, StorageError, Table, TableDefinition, WriteTransaction};

use super::{
    Error, Quota,
    space::{self, Space},
};

/// Row → time and value.
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("kv");

/// Time and row.
const EXPIRY: TableDefinition<'_, &[u8], ()> = TableDefinition::new("kv_expiry");

/// Owner → bytes and keys.
const USAGE: TableDefinition<'_, &[u8], (u64, u64)> = TableDefinition::new("kv_usage");

/// How many bytes a time takes.
const TIME_BYTES: usize = size_of::<u64>();

/// The rows of one owner, to be changed.
pub(super) struct Rows<'t> {
    tables: Tables<'t>,
    quota: Quota,
    now_ms: u64,
    owner: &'t [u8],
}

struct Tables<'t> {
    entries: Table<'t, &'static [u8], &'static [u8]>,
    expiry: Table<'t, &'static [u8], ()>,
    usage: Table<'t, &'static [u8], (u64, u64)>,
}

/// What a key holds.
struct Entry {
    expires_ms: u64,
    value: Vec<u8>,
}

/// What an owner keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) keys: u64,
}

impl Entry {
    fn parse(bytes: &[u8]) -> Result<Self, redb::Error> {
        let (time, value) = bytes.split_first_chunk().ok_or_else(|| damaged("a value"))?;
        Ok(Self { expires_ms: u64::from_be_bytes(*time), value: value.to_vec() })
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&self.expires_ms.to_be_bytes(), self.value.as_slice()].concat()
    }

    fn is_live(&self, now_ms: u64) -> bool {
        is_live(self.expires_ms, now_ms)
    }

    /// What it takes of the quota, with its key.
    fn usage(&self, key: &[u8]) -> Usage {
        Usage { bytes: (key.len() + self.value.len()) as u64, keys: 1 }
    }
}

fn is_live(expires_ms: u64, now_ms: u64) -> bool {
    expires_ms == 0 || now_ms < expires_ms
}

/// Makes the tables if they are not there: a read needs them.
pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    Tables::open(transaction).map(|_| ())
}

/// Returns a live row's value.
pub(super) fn get(transaction: &ReadTransaction, row: &[u8], now_ms: u64) -> Result<Option<Vec<u8>>, redb::Error> {
    let entry = transaction.open_table(ENTRIES)?.get(row)?.map(|bytes| Entry::parse(bytes.value())).transpose()?;
    Ok(entry.filter(|entry| entry.is_live(now_ms)).map(|entry| entry.value))
}

/// Lists live keys of a space that begin with `prefix`, those after `after`.
pub(super) fn keys(
    transaction: &ReadTransaction,
    space: &Space,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    now_ms: u64,
) -> Result<Vec<String>, redb::Error> {
    let within = space.row(prefix);
    let first = match after {
        Some(after) if after >= prefix => Bound::Excluded(space.row(after)),
        _ => Bound::Included(within.clone()),
    };
    let entries = transaction.open_table(ENTRIES)?;
    let mut found = Vec::new();
    for entry in entries.range::<&[u8]>((first.as_ref().map(Vec::as_slice), Bound::Unbounded))? {
        let (row, bytes) = entry?;
        if found.len() == limit || !row.value().starts_with(&within) {
            break;
        }
        if is_live(expires_ms(bytes.value())?, now_ms) {
            found.push(space.key(row.value()).ok_or_else(|| damaged("a key"))?.to_owned());
        }
    }
    Ok(found)
}

/// Removes rows that have run out, at most so many. Returns how many it were, and when the next one runs out.
pub(super) fn sweep(
    transaction: &WriteTransaction,
    now_ms: u64,
    removed_max: usize,
) -> Result<(usize, Option<u64>), redb::Error> {
    let mut tables = Tables::open(transaction)?;
    let mut removed = 0;
    loop {
        let Some(due) = tables.expiry.first()?.map(|(due, _)| due.value().to_vec()) else { return Ok((removed, None)) };
        let (time, row) = due.split_first_chunk::<TIME_BYTES>().ok_or_else(|| damaged("a time"))?;
        let expires_ms = u64::from_be_bytes(*time);
        if is_live(expires_ms, now_ms) || removed == removed_max {
            return Ok((removed, Some(expires_ms)));
        }
        let (owner, _) = space::split(row).ok_or_else(|| damaged("a row"))?;
        tables.replace(owner, row, None)?;
        removed += 1;
    }
}

impl<'t> Rows<'t> {
    /// Opens the rows for an operation of their owner.
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        owner: &'t [u8],
        quota: Quota,
        now_ms: u64,
    ) -> Result<Self, redb::Error> {
        Ok(Self { tables: Tables::open(transaction)?, quota, now_ms, owner })
    }

    /// Sets a row, for so many seconds or for good.
    pub(super) fn set(
        &mut self,
        row: &[u8],
        value: &[u8],
        ttl_s: Option<u32>,
    ) -> Result<Result<(), Error>, redb::Error> {
        let entry = Entry { expires_ms: self.expires_ms(ttl_s), value: value.to_vec() };
        self.put(row, &entry)
    }

    /// Removes a row, if it is there.
    pub(super) fn remove(&mut self, row: &[u8]) -> Result<(), redb::Error> {
        self.tables.replace(self.owner, row, None)
    }

    /// Adds to a row's number.
    pub(super) fn increment(
        &mut self,
        row: &[u8],
        delta: i64,
        ttl_s: Option<u32>,
    ) -> Result<Result<i64, Error>, redb::Error> {
        let live = self.live(row)?;
        let sum = match number(live.as_ref()).and_then(|number| number.checked_add(delta).ok_or(Error::Overflow)) {
            Ok(sum) => sum,
            Err(error) => return Ok(Err(error)),
        };
        let expires_ms = live.map_or_else(|| self.expires_ms(ttl_s), |entry| entry.expires_ms);
        let entry = Entry { expires_ms, value: sum.to_string().into_bytes() };
        Ok(self.put(row, &entry)?.map(|()| sum))
    }

    /// Sets or removes a row if its value is the expected one, and says whether it did.
    pub(super) fn compare_and_set(
        &mut self,
        row: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        ttl_s: Option<u32>,
    ) -> Result<Result<bool, Error>, redb::Error> {
        let live = self.live(row)?;
        if live.as_ref().map(|entry| entry.value.as_slice()) != expected {
            return Ok(Ok(false));
        }
        match value {
            Some(value) => Ok(self.set(row, value, ttl_s)?.map(|()| true)),
            None => {
                self.remove(row)?;
                Ok(Ok(true))
            }
        }
    }

    fn live(&self, row: &[u8]) -> Result<Option<Entry>, redb::Error> {
        Ok(self.tables.entry(row)?.filter(|entry| entry.is_live(self.now_ms)))
    }

    /// Puts an entry, unless the quota has no room for it.
    fn put(&mut self, row: &[u8], entry: &Entry) -> Result<Result<(), Error>, redb::Error> {
        let before = self.tables.usage(self.owner)?;
        let after = self.tables.usage_with(self.owner, row, Some(entry))?;
        if let Err(full) = self.quota.allows(before, after) {
            return Ok(Err(full));
        }
        self.tables.replace(self.owner, row, Some(entry))?;
        Ok(Ok(()))
    }

    fn expires_ms(&self, ttl_s: Option<u32>) -> u64 {
        ttl_s.map_or(0, |ttl_s| self.now_ms.saturating_add(u64::from(ttl_s) * 1_000))
    }
}

impl Quota {
    /// Whether usage may change so. It may always shrink: a quota may have been lowered since.
    fn allows(&self, before: Usage, after: Usage) -> Result<(), Error> {
        if after.keys > self.keys && after.keys > before.keys {
            return Err(Error::FullOfKeys { keys_max: self.keys });
        }
        if after.bytes > self.bytes && after.bytes > before.bytes {
            return Err(Error::FullOfBytes { bytes_max: self.bytes });
        }
        Ok(())
    }
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            expiry: transaction.open_table(EXPIRY)?,
            usage: transaction.open_table(USAGE)?,
        })
    }

    fn entry(&self, row: &[u8]) -> Result<Option<Entry>, redb::Error> {
        self.entries.get(row)?.map(|bytes| Entry::parse(bytes.value())).transpose()
    }

    fn usage(&self, owner: &[u8]) -> Result<Usage, redb::Error> {
        let usage = self.usage.get(owner)?.map(|usage| usage.value());
        Ok(usage.map_or_else(Usage::default, |(bytes, keys)| Usage { bytes, keys }))
    }

    /// What an owner would keep with this entry in a row, or without one.
    fn usage_with(&self, owner: &[u8], row: &[u8], entry: Option<&Entry>) -> Result<Usage, redb::Error> {
        let (_, key) = space::split(row).ok_or_else(|| damaged("a row"))?;
        let usage = |entry: Option<&Entry>| entry.map_or_else(Usage::default, |entry| entry.usage(key));
        let (all, old, new) = (self.usage(owner)?, usage(self.entry(row)?.as_ref()), usage(entry));
        Ok(Usage {
            bytes: (all.bytes + new.bytes).saturating_sub(old.bytes),
            keys: (all.keys + new.keys).saturating_sub(old.keys),
        })
    }

    /// Puts an entry in the place of what a row held, or nothing.
    fn replace(&mut self, owner: &[u8], row: &[u8], entry: Option<&Entry>) -> Result<(), redb::Error> {
        let usage = self.usage_with(owner, row, entry)?;
        match usage {
            Usage { keys: 0, .. } => drop(self.usage.remove(owner)?),
            Usage { bytes, keys } => drop(self.usage.insert(owner, (bytes, keys))?),
        }
        let old = match entry {
            Some(entry) => self.entries.insert(row, entry.to_bytes().as_slice())?,
            None => self.entries.remove(row)?,
        };
        let old_expires_ms = old.map(|old| expires_ms(old.value())).transpose()?.unwrap_or(0);
        if old_expires_ms != 0 {
            self.expiry.remove(due(old_expires_ms, row).as_slice())?;
        }
        if let Some(Entry { expires_ms: time @ 1.., .. }) = entry {
            self.expiry.insert(due(*time, row).as_slice(), ())?;
        }
        Ok(())
    }
}

/// A row in the order of the time it runs out.
fn due(expires_ms: u64, row: &[u8]) -> Vec<u8> {
    [&expires_ms.to_be_bytes(), row].concat()
}

fn expires_ms(bytes: &[u8]) -> Result<u64, redb::Error> {
    bytes.first_chunk().map(|time| u64::from_be_bytes(*time)).ok_or_else(|| damaged("a value"))
}

fn number(entry: Option<&Entry>) -> Result<i64, Error> {
    let Some(entry) = entry else { return Ok(0) };
    str::from_utf8(&entry.value).ok().and_then(|digits| digits.parse().ok()).ok_or(Error::NotANumber)
}

/// What is not as we write it.
fn damaged(what: &str) -> redb::Error {
    StorageError::Corrupted(format!("{what} of `kv` is cut short")).into()
}
