//! The rows behind plugins' keys, inside one transaction.
//!
//! A row's value is the time it runs out (milliseconds since 1970 in 8 bytes, 0 for never), then the plugin's own bytes.
//! `EXPIRY` has every row that runs out in the order of that time; `USAGE` what each owner keeps. The three change together.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable, StorageError, Table, TableDefinition, WriteTransaction};

use super::{
    Error, PASSED_OVER_MAX, Quota,
    space::{self, Space},
};
use crate::store::Unavailable;

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

/// What is about to happen to a row.
struct Change<'a> {
    owner: &'a [u8],
    row: &'a [u8],
    /// What comes into it; nothing: it goes.
    entry: Option<&'a Entry>,
    /// When what is there now runs out; 0 for never, or if nothing is there.
    old_expires_ms: u64,
    before: Usage,
    after: Usage,
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
}

impl Usage {
    /// What one key takes.
    fn of(key: &[u8], value_bytes: usize) -> Self {
        Self { bytes: (key.len() + value_bytes) as u64, keys: 1 }
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

/// Lists live keys of a space that begin with `prefix`, those after `after`. Where too many have run out in between, it says
/// so rather than leave out what comes behind them.
pub(super) fn keys(
    transaction: &ReadTransaction,
    space: &Space,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    now_ms: u64,
) -> Result<Result<Vec<String>, Error>, redb::Error> {
    let within = space.row(prefix);
    let first = match after {
        Some(after) if after >= prefix => Bound::Excluded(space.row(after)),
        _ => Bound::Included(within.clone()),
    };
    let entries = transaction.open_table(ENTRIES)?;
    let (mut found, mut passed_over) = (Vec::new(), 0);
    for entry in entries.range::<&[u8]>((first.as_ref().map(Vec::as_slice), Bound::Unbounded))? {
        let (row, bytes) = entry?;
        if found.len() == limit || !row.value().starts_with(&within) {
            break;
        }
        if is_live(expires_ms(bytes.value())?, now_ms) {
            found.push(space.key(row.value()).ok_or_else(|| damaged("a key"))?.to_owned());
            continue;
        }
        passed_over += 1;
        if passed_over > PASSED_OVER_MAX {
            return Ok(Err(Unavailable::Sweeping.into()));
        }
    }
    Ok(Ok(found))
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
        let change = tables.change(owner, row, None)?;
        tables.carry_out(&change)?;
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
        let change = self.tables.change(self.owner, row, None)?;
        self.tables.carry_out(&change)
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
        let change = self.tables.change(self.owner, row, Some(entry))?;
        if let Err(full) = self.quota.allows(change.before, change.after) {
            return Ok(Err(full));
        }
        self.tables.carry_out(&change)?;
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

    /// Prepares to put an entry in the place of what a row holds, or nothing.
    fn change<'a>(&self, owner: &'a [u8], row: &'a [u8], entry: Option<&'a Entry>) -> Result<Change<'a>, redb::Error> {
        let (_, key) = space::split(row).ok_or_else(|| damaged("a row"))?;
        let (mut old_expires_ms, mut old) = (0, Usage::default());
        if let Some(bytes) = self.entries.get(row)? {
            old_expires_ms = expires_ms(bytes.value())?;
            old = Usage::of(key, bytes.value().len() - TIME_BYTES);
        }
        let new = entry.map_or_else(Usage::default, |entry| Usage::of(key, entry.value.len()));
        let before = self.usage(owner)?;
        let after = Usage {
            bytes: (before.bytes + new.bytes).saturating_sub(old.bytes),
            keys: (before.keys + new.keys).saturating_sub(old.keys),
        };
        Ok(Change { owner, row, entry, old_expires_ms, before, after })
    }

    fn carry_out(&mut self, change: &Change<'_>) -> Result<(), redb::Error> {
        let Change { owner, row, entry, old_expires_ms, after: Usage { bytes, keys }, .. } = *change;
        match keys {
            0 => drop(self.usage.remove(owner)?),
            _ => drop(self.usage.insert(owner, (bytes, keys))?),
        }
        if old_expires_ms != 0 {
            self.expiry.remove(due(old_expires_ms, row).as_slice())?;
        }
        match entry {
            Some(entry) => drop(self.entries.insert(row, entry.to_bytes().as_slice())?),
            None => drop(self.entries.remove(row)?),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use redb::{Database, ReadableDatabase, ReadableTableMetadata, backends::InMemoryBackend};

    use super::*;

    const WIDE: Quota = Quota { bytes: u64::MAX, keys: u64::MAX };

    /// A database in memory and a clock that stands where the test puts it.
    struct Fixture {
        database: Database,
        space: Space,
        quota: Quota,
        now_ms: u64,
    }

    impl Fixture {
        fn new(quota: Quota) -> Self {
            let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
            let transaction = database.begin_write().unwrap();
            make_tables(&transaction).unwrap();
            transaction.commit().unwrap();
            Self { database, space: Space::shared("main", "notes"), quota, now_ms: 1_000_000 }
        }

        fn write<T>(&self, op: impl FnOnce(&mut Rows<'_>) -> Result<T, redb::Error>) -> T {
            let transaction = self.database.begin_write().unwrap();
            let rows = Rows::open(&transaction, self.space.owner(), self.quota, self.now_ms);
            let outcome = op(&mut rows.unwrap()).unwrap();
            transaction.commit().unwrap();
            outcome
        }

        fn set(&self, key: &str, value: &str, ttl_s: Option<u32>) -> Result<(), Error> {
            self.write(|rows| rows.set(&self.space.row(key), value.as_bytes(), ttl_s))
        }

        fn increment(&self, key: &str, delta: i64, ttl_s: Option<u32>) -> Result<i64, Error> {
            self.write(|rows| rows.increment(&self.space.row(key), delta, ttl_s))
        }

        fn compare_and_set(&self, key: &str, expected: Option<&str>, value: Option<&str>) -> Result<bool, Error> {
            let (expected, value) = (expected.map(str::as_bytes), value.map(str::as_bytes));
            self.write(|rows| rows.compare_and_set(&self.space.row(key), expected, value, None))
        }

        fn remove(&self, key: &str) {
            self.write(|rows| rows.remove(&self.space.row(key)));
        }

        fn get(&self, key: &str) -> Option<String> {
            let transaction = self.database.begin_read().unwrap();
            let value = get(&transaction, &self.space.row(key), self.now_ms).unwrap();
            value.map(|value| String::from_utf8(value).unwrap())
        }

        fn keys(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
            let transaction = self.database.begin_read().unwrap();
            keys(&transaction, &self.space, prefix, after, limit, self.now_ms).unwrap().unwrap()
        }

        fn sweep(&self, removed_max: usize) -> (usize, Option<u64>) {
            let transaction = self.database.begin_write().unwrap();
            let swept = sweep(&transaction, self.now_ms, removed_max).unwrap();
            transaction.commit().unwrap();
            swept
        }

        fn usage(&self) -> Usage {
            let transaction = self.database.begin_write().unwrap();
            Tables::open(&transaction).unwrap().usage(self.space.owner()).unwrap()
        }

        /// How many rows each table has.
        fn rows(&self) -> [u64; 3] {
            let transaction = self.database.begin_read().unwrap();
            [
                transaction.open_table(ENTRIES).unwrap().len().unwrap(),
                transaction.open_table(EXPIRY).unwrap().len().unwrap(),
                transaction.open_table(USAGE).unwrap().len().unwrap(),
            ]
        }
    }

    #[test]
    fn a_key_is_gone_at_the_moment_it_runs_out() {
        let mut store = Fixture::new(WIDE);
        store.set("session", "x", Some(2)).unwrap();
        store.now_ms += 1_999;
        assert_eq!((store.get("session").as_deref(), store.keys("", None, 9).len()), (Some("x"), 1));
        store.now_ms += 1;
        assert_eq!((store.get("session"), store.keys("", None, 9).len()), (None, 0));
        assert_eq!(store.compare_and_set("session", None, Some("new")), Ok(true));
        assert_eq!(store.get("session").as_deref(), Some("new"));
        // What was set for good does not run out with what was there before.
        store.now_ms += 1_000_000;
        assert_eq!((store.sweep(9), store.rows()), ((0, None), [1, 0, 1]));
    }

    #[test]
    fn setting_a_key_again_sets_its_time_again() {
        let mut store = Fixture::new(WIDE);
        store.set("a", "x", Some(1)).unwrap();
        store.set("a", "x", Some(10)).unwrap();
        store.set("b", "x", Some(1)).unwrap();
        store.set("b", "x", None).unwrap();
        store.now_ms += 2_000;
        assert_eq!(store.keys("", None, 9), ["a", "b"]);
        store.now_ms += 10_000;
        assert_eq!(store.keys("", None, 9), ["b"]);
    }

    #[test]
    fn a_counters_time_counts_only_when_it_is_new() {
        let mut store = Fixture::new(WIDE);
        assert_eq!(store.increment("n", 1, Some(10)), Ok(1));
        store.now_ms += 9_000;
        assert_eq!(store.increment("n", 5, Some(10)), Ok(6));
        store.now_ms += 1_000;
        assert_eq!(store.get("n"), None);
        // It ran out but is not removed yet: it is new all the same.
        assert_eq!(store.increment("n", -2, Some(10)), Ok(-2));
        store.now_ms += 9_999;
        assert_eq!(store.get("n").as_deref(), Some("-2"));
    }

    #[test]
    fn a_counter_is_a_number_in_digits_and_stays_one() {
        let store = Fixture::new(WIDE);
        store.set("n", "41", None).unwrap();
        assert_eq!(store.increment("n", 1, None), Ok(42));
        assert_eq!(store.get("n").as_deref(), Some("42"));
        store.set("n", &i64::MAX.to_string(), None).unwrap();
        assert_eq!(store.increment("n", 1, None), Err(Error::Overflow));
        assert_eq!(store.increment("n", i64::MIN, None), Ok(-1));
        for text in ["", " 1", "1.0", "x", "99999999999999999999"] {
            store.set("n", text, None).unwrap();
            assert_eq!(store.increment("n", 1, None), Err(Error::NotANumber), "{text:?}");
            assert_eq!(store.get("n").as_deref(), Some(text));
        }
    }

    #[test]
    fn compare_and_set_changes_only_what_is_as_expected() {
        let store = Fixture::new(WIDE);
        assert_eq!(store.compare_and_set("a", Some(""), Some("x")), Ok(false));
        assert_eq!(store.compare_and_set("a", None, None), Ok(true));
        assert_eq!(store.compare_and_set("a", None, Some("x")), Ok(true));
        assert_eq!(store.compare_and_set("a", None, Some("y")), Ok(false));
        assert_eq!(store.compare_and_set("a", Some("y"), None), Ok(false));
        assert_eq!(store.get("a").as_deref(), Some("x"));
        assert_eq!(store.compare_and_set("a", Some("x"), Some("")), Ok(true));
        assert_eq!(store.get("a").as_deref(), Some(""));
        assert_eq!(store.compare_and_set("a", Some(""), None), Ok(true));
        assert_eq!((store.get("a"), store.rows()), (None, [0, 0, 0]));
    }

    #[test]
    fn keys_are_listed_in_byte_order_from_a_cursor_on() {
        let store = Fixture::new(WIDE);
        for key in ["b", "a/2", "a/10", "a", "a/\u{10ffff}", "天", "A"] {
            store.set(key, "", None).unwrap();
        }
        let all = ["A", "a", "a/10", "a/2", "a/\u{10ffff}", "b", "天"];
        assert_eq!(store.keys("", None, 100), all);
        assert_eq!(store.keys("", None, 2), &all[..2]);
        assert_eq!(store.keys("", Some("a"), 2), &all[2..4]);
        assert_eq!(store.keys("", Some(""), 100), all);
        assert_eq!(store.keys("a/", None, 100), &all[2..5]);
        assert_eq!(store.keys("a/", Some("a/2"), 100), &all[4..5]);
        // A cursor need not be a key, nor have the prefix.
        assert_eq!(store.keys("a/", Some("a/1"), 1), &all[2..3]);
        assert_eq!(store.keys("a/", Some("A"), 1), &all[2..3]);
        assert_eq!(store.keys("a/", Some("b"), 100), [""; 0]);
        assert_eq!(store.keys("c", None, 100), [""; 0]);
    }

    #[test]
    fn owners_and_users_see_only_their_own() {
        let mut store = Fixture::new(WIDE);
        let spaces = [
            Space::shared("main", "notes"),
            Space::shared("main", "other"),
            Space::shared("shop", "notes"),
            Space::of_user("main", "notes", "oAnn"),
            Space::of_user("main", "notes", "oBob"),
        ];
        for (index, space) in spaces.iter().enumerate() {
            store.space = space.clone();
            store.set("k", &index.to_string(), None).unwrap();
        }
        for (index, space) in spaces.iter().enumerate() {
            store.space = space.clone();
            assert_eq!(store.get("k"), Some(index.to_string()));
            assert_eq!(store.keys("", None, 100), ["k"]);
        }
        store.remove("k");
        store.space = spaces[3].clone();
        assert_eq!(store.get("k").as_deref(), Some("3"));
    }

    #[test]
    fn a_listing_passes_over_only_so_many_keys_that_have_run_out() {
        let mut store = Fixture::new(WIDE);
        store.write(|rows| {
            (0..=PASSED_OVER_MAX).try_for_each(|n| rows.set(&store.space.row(&format!("a{n}")), b"", Some(1)).map(drop))
        });
        store.set("b", "", None).unwrap();
        store.now_ms += 1_000;
        let transaction = store.database.begin_read().unwrap();
        let listed = |after| keys(&transaction, &store.space, "", after, 9, store.now_ms).unwrap();
        assert_eq!(listed(None), Err(Unavailable::Sweeping.into()));
        assert_eq!(listed(Some("a0")), Ok(vec!["b".to_owned()]));
    }

    #[test]
    fn a_quota_counts_all_users_of_a_plugin_together_and_no_other_plugin() {
        let mut store = Fixture::new(Quota { bytes: 1_000, keys: 2 });
        let [ann, bob] = ["oAnn", "oBob"].map(|user| Space::of_user("main", "notes", user));
        store.set("a", "", None).unwrap();
        store.space = ann;
        store.set("a", "", None).unwrap();
        store.space = bob;
        assert_eq!(store.set("a", "", None), Err(Error::FullOfKeys { keys_max: 2 }));
        assert_eq!(store.increment("a", 1, None), Err(Error::FullOfKeys { keys_max: 2 }));
        assert_eq!(store.compare_and_set("a", None, Some("")), Err(Error::FullOfKeys { keys_max: 2 }));
        store.space = Space::shared("main", "other");
        store.set("a", "", None).unwrap();
        store.space = Space::shared("main", "notes");
        store.remove("a");
        store.set("b", "", None).unwrap();
    }

    #[test]
    fn an_overwrite_counts_what_it_adds_and_a_lowered_quota_takes_nothing_away() {
        let mut store = Fixture::new(Quota { bytes: 10, keys: 9 });
        store.set("a", "123456789", None).unwrap();
        assert_eq!(store.usage(), Usage { bytes: 10, keys: 1 });
        store.set("a", "987654321", None).unwrap();
        assert_eq!(store.set("a", "1234567890", None), Err(Error::FullOfBytes { bytes_max: 10 }));
        assert_eq!(store.set("b", "", None), Err(Error::FullOfBytes { bytes_max: 10 }));
        store.quota.bytes = 5;
        store.set("a", "12345678", None).unwrap();
        assert_eq!(store.set("a", "123456789", None), Err(Error::FullOfBytes { bytes_max: 5 }));
        assert_eq!(store.get("a").as_deref(), Some("12345678"));
    }

    #[test]
    fn what_ran_out_is_removed_in_rounds_and_then_counts_no_more() {
        let mut store = Fixture::new(WIDE);
        for number in 0..25 {
            store.set(&format!("k{number}"), "x", Some(1 + number / 20)).unwrap();
        }
        store.set("stays", "x", None).unwrap();
        assert_eq!(store.sweep(10), (0, Some(store.now_ms + 1_000)));
        store.now_ms += 1_000;
        assert_eq!((store.sweep(15).0, store.usage().keys), (15, 11));
        assert_eq!(store.sweep(15), (5, Some(store.now_ms + 1_000)));
        store.now_ms += 1_000;
        assert_eq!(store.sweep(15), (5, None));
        assert_eq!((store.usage(), store.rows()), (Usage { bytes: 6, keys: 1 }, [1, 0, 1]));
    }

    /// Numbers that look random and are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn throw(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    #[test]
    fn the_account_of_usage_stays_exact_whatever_happens() {
        let mut store = Fixture::new(Quota { bytes: 60, keys: 6 });
        let mut dice = Dice(7);
        // What ought to be there: value and time of every key that was not removed, run out or not.
        let mut model: BTreeMap<String, (String, u64)> = BTreeMap::new();
        for step in 0..3_000 {
            let key = "abcdefgh"[..1 + usize::try_from(dice.throw(8)).unwrap()].to_owned();
            let digits = u32::try_from(dice.throw(12)).unwrap();
            let value = dice.throw(10_u64.pow(digits)).to_string();
            let ttl_s = (dice.throw(2) == 0).then(|| 1 + u32::try_from(dice.throw(3)).unwrap());
            let expires_ms = ttl_s.map_or(0, |ttl_s| store.now_ms + u64::from(ttl_s) * 1_000);
            let live = model.get(&key).filter(|(_, expires_ms)| is_live(*expires_ms, store.now_ms)).cloned();
            match dice.throw(5) {
                0 | 1 => {
                    if store.set(&key, &value, ttl_s).is_ok() {
                        model.insert(key, (value, expires_ms));
                    }
                }
                2 => {
                    if let Ok(sum) = store.increment(&key, 7, ttl_s) {
                        model.insert(key, (sum.to_string(), live.map_or(expires_ms, |(_, before)| before)));
                    }
                }
                3 => {
                    store.remove(&key);
                    model.remove(&key);
                }
                _ => {
                    store.now_ms += dice.throw(900);
                    store.sweep(3);
                    // The model removes the three that ran out first, too.
                    let mut due: Vec<_> = model.iter().map(|(key, (_, time))| (*time, key.clone())).collect();
                    due.retain(|(time, _)| !is_live(*time, store.now_ms));
                    due.sort();
                    due.iter().take(3).for_each(|(_, key)| _ = model.remove(key));
                }
            }
            let bytes: usize = model.iter().map(|(key, (value, _))| key.len() + value.len()).sum();
            assert_eq!(store.usage(), Usage { bytes: bytes as u64, keys: model.len() as u64 }, "step {step}");
            let timed = model.values().filter(|(_, time)| *time != 0).count();
            assert_eq!(store.rows()[..2], [model.len() as u64, timed as u64], "step {step}");
            let live = model.iter().filter(|(_, (_, time))| is_live(*time, store.now_ms)).map(|(key, _)| key.clone());
            assert_eq!(store.keys("", None, 100), live.collect::<Vec<_>>(), "step {step}");
        }
    }
}
