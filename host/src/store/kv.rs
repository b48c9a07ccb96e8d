//! Plugins' keys: what a plugin keeps in an account, for all of its users or for one of them.
//!
//! A [`Bucket`] is the only way to a key, and every row begins with the bucket's [`Space`]: whatever key a guest names, it
//! stays inside. What a bucket may hold is its plugin's [`Quota`], kept exactly (`rows`).

mod rows;
pub(super) mod space;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{ReadTransaction, WriteTransaction};

pub use space::Space;

use self::rows::Rows;
use super::{Store, Unavailable, now_ms};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// How many keys one listing returns at most.
pub const LISTED_MAX: u32 = 1_000;

/// How many keys that have run out one listing passes over at most: upkeep removes them within seconds.
const PASSED_OVER_MAX: usize = 10_000;

/// How many keys one round of upkeep removes at most: the writes that wait behind it should not notice.
const SWEPT_MAX: usize = 500;

/// How long to let keys run out, so that many are removed at once.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long upkeep may sleep: somebody may set the clock.
const SWEEP_WITHIN: Duration = Duration::from_secs(60);

/// What one plugin may keep in one account, all of its users together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Keys and values together, in bytes.
    pub bytes: u64,
    pub keys: u64,
}

/// The keys of one plugin in one account: those of all users, or those of one.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Store,
    space: Arc<Space>,
    quota: Quota,
}

/// Why an operation was not carried out. The text is for a plugin's author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the plugin's keys and values have {} MiB, which is all it may keep; `mib` of its `kv` grant sets more", .bytes_max >> 20)]
    FullOfBytes { bytes_max: u64 },
    #[error("the plugin has {keys_max} keys, which is all it may keep; `keys` of its `kv` grant sets more")]
    FullOfKeys { keys_max: u64 },
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes, and this one has {bytes}")]
    KeyLength { bytes: usize },
    #[error("a value has at most {VALUE_BYTES_MAX} bytes, and this one has {bytes}")]
    ValueLength { bytes: usize },
    #[error("the key's value is not a number of 64 bits in decimal digits")]
    NotANumber,
    #[error("the sum is beyond a number of 64 bits")]
    Overflow,
    #[error("a key lives for 1 second at least; `delete` removes it")]
    NoTime,
    #[error("a list has 1 to {LISTED_MAX} keys, and {limit} were asked for")]
    Limit { limit: u32 },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What a round of upkeep came to.
pub(super) struct Sweep {
    pub(super) removed: usize,
    /// When the next one is due.
    pub(super) next: Option<Duration>,
}

impl Bucket {
    /// Names a bucket. Nothing is read or made.
    pub fn new(store: Store, space: Space, quota: Quota) -> Self {
        Self { store, space: space.into(), quota }
    }

    /// Returns a key's value.
    pub async fn get(&self, key: &str, deadline: Instant) -> Result<Option<Vec<u8>>, Error> {
        let row = self.row(key)?;
        self.read(deadline, move |transaction| rows::get(transaction, &row, now_ms())).await
    }

    /// Sets a key, for so many seconds or for good.
    pub async fn set(&self, key: &str, value: Vec<u8>, ttl_s: Option<u32>, deadline: Instant) -> Result<(), Error> {
        let row = self.row(key)?;
        check_value(&value)?;
        check_ttl(ttl_s)?;
        self.write(row.len() + value.len(), deadline, move |rows| rows.set(&row, &value, ttl_s)).await
    }

    /// Removes a key, if it is there.
    pub async fn delete(&self, key: &str, deadline: Instant) -> Result<(), Error> {
        let row = self.row(key)?;
        self.write(row.len(), deadline, move |rows| Ok(Ok(rows.remove(&row)?))).await
    }

    /// Adds to a number, 0 if the key is absent, and returns the sum. The time counts only when the key is new.
    pub async fn increment(&self, key: &str, delta: i64, ttl_s: Option<u32>, deadline: Instant) -> Result<i64, Error> {
        let row = self.row(key)?;
        check_ttl(ttl_s)?;
        self.write(row.len(), deadline, move |rows| rows.increment(&row, delta, ttl_s)).await
    }

    /// Sets a key if its value is `expected`, nothing standing for an absent key, and says whether it did.
    pub async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        ttl_s: Option<u32>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let row = self.row(key)?;
        value.as_deref().map_or(Ok(()), check_value)?;
        check_ttl(ttl_s)?;
        let length = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        if length(&expected) > VALUE_BYTES_MAX {
            // No key holds so much.
            return Ok(false);
        }
        let bytes = row.len() + length(&expected) + length(&value);
        let op = move |rows: &mut Rows<'_>| rows.compare_and_set(&row, expected.as_deref(), value.as_deref(), ttl_s);
        self.write(bytes, deadline, op).await
    }

    /// Lists keys that begin with `prefix`, in the order of their bytes, after the key `after`.
    pub async fn keys(
        &self,
        prefix: String,
        after: Option<String>,
        limit: u32,
        deadline: Instant,
    ) -> Result<Vec<String>, Error> {
        if !(1..=LISTED_MAX).contains(&limit) {
            return Err(Error::Limit { limit });
        }
        let space = self.space.clone();
        let op = move |transaction: &ReadTransaction| {
            rows::keys(transaction, &space, &prefix, after.as_deref(), limit as usize, now_ms())
        };
        self.read(deadline, op).await?
    }

    fn row(&self, key: &str) -> Result<Vec<u8>, Error> {
        match key.len() {
            1..=KEY_BYTES_MAX => Ok(self.space.row(key)),
            bytes => Err(Error::KeyLength { bytes }),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        deadline: Instant,
        op: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.store {
            Store::Embedded(embedded) => Ok(embedded.read(deadline, op).await?),
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        deadline: Instant,
        op: impl FnOnce(&mut Rows<'_>) -> Result<Result<T, Error>, redb::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (space, quota) = (self.space.clone(), self.quota);
        let op =
            move |transaction: &WriteTransaction| op(&mut Rows::open(transaction, space.owner(), quota, now_ms())?);
        match &self.store {
            Store::Embedded(embedded) => embedded.write(self.space.lane(), bytes, deadline, op).await?,
        }
    }
}

fn check_value(value: &[u8]) -> Result<(), Error> {
    if value.len() <= VALUE_BYTES_MAX { Ok(()) } else { Err(Error::ValueLength { bytes: value.len() }) }
}

fn check_ttl(ttl_s: Option<u32>) -> Result<(), Error> {
    if ttl_s == Some(0) { Err(Error::NoTime) } else { Ok(()) }
}

/// Makes what the operations need.
pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    rows::make_tables(transaction)
}

/// Removes some of the keys that have run out.
pub(super) fn sweep(transaction: &WriteTransaction) -> Result<Sweep, redb::Error> {
    let now_ms = now_ms();
    let (removed, next_ms) = rows::sweep(transaction, now_ms, SWEPT_MAX)?;
    let next = next_ms.map(|next_ms| match next_ms.saturating_sub(now_ms) {
        0 => Duration::ZERO,
        after_ms => Duration::from_millis(after_ms).clamp(SWEEP_EVERY, SWEEP_WITHIN),
    });
    Ok(Sweep { removed, next })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const WIDE: Quota = Quota { bytes: u64::MAX, keys: u64::MAX };

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn bucket(store: &Store) -> Bucket {
        Bucket::new(store.clone(), Space::shared("main", "notes"), WIDE)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_and_values_have_bounds() {
        let bucket = bucket(&Store::scratch());
        let longest = "k".repeat(KEY_BYTES_MAX);
        bucket.set(&longest, vec![1; VALUE_BYTES_MAX], Some(u32::MAX), later()).await.unwrap();
        assert_eq!(bucket.get(&longest, later()).await.unwrap().unwrap().len(), VALUE_BYTES_MAX);
        let too_long = longest + "k";
        for (key, bytes) in [("", 0), (too_long.as_str(), 513)] {
            let refused = Error::KeyLength { bytes };
            assert_eq!(bucket.get(key, later()).await, Err(refused.clone()));
            assert_eq!(bucket.set(key, vec![], None, later()).await, Err(refused.clone()));
            assert_eq!(bucket.delete(key, later()).await, Err(refused.clone()));
            assert_eq!(bucket.increment(key, 1, None, later()).await, Err(refused.clone()));
            assert_eq!(bucket.compare_and_set(key, None, None, None, later()).await, Err(refused));
        }
        let value = vec![1; VALUE_BYTES_MAX + 1];
        let refused = Error::ValueLength { bytes: VALUE_BYTES_MAX + 1 };
        assert_eq!(bucket.set("a", value.clone(), None, later()).await, Err(refused.clone()));
        assert_eq!(bucket.compare_and_set("a", None, Some(value), None, later()).await, Err(refused));
        assert_eq!(bucket.set("a", vec![], Some(0), later()).await, Err(Error::NoTime));
        assert_eq!(bucket.increment("a", 1, Some(0), later()).await, Err(Error::NoTime));
        assert_eq!(bucket.compare_and_set("a", None, None, Some(0), later()).await, Err(Error::NoTime));
        for limit in [0, LISTED_MAX + 1] {
            assert_eq!(bucket.keys(String::new(), None, limit, later()).await, Err(Error::Limit { limit }));
        }
        assert_eq!(bucket.keys(String::new(), None, LISTED_MAX, later()).await.unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_clone_is_the_same_store_and_it_outlives_them_in_its_file() {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        bucket(&store).set("a", b"x".to_vec(), None, later()).await.unwrap();
        assert_eq!(bucket(&store.clone()).get("a", later()).await, Ok(Some(b"x".to_vec())));
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(bucket(&store).get("a", later()).await, Ok(Some(b"x".to_vec())));
        // Scratch stores have nothing in common.
        assert_eq!(bucket(&Store::scratch()).get("a", later()).await, Ok(None));
    }

    #[tokio::test]
    async fn what_no_key_can_hold_is_never_the_expected_value() {
        let store = Store::scratch();
        assert_eq!(bucket(&store).get("a", later()).await, Ok(None));
        // From now on every write fails, so what is answered was not queued.
        store.close().await;
        let set = async |bytes| bucket(&store).compare_and_set("a", Some(vec![0; bytes]), None, None, later()).await;
        assert_eq!(set(VALUE_BYTES_MAX + 1).await, Ok(false));
        assert_eq!(set(VALUE_BYTES_MAX).await, Err(Unavailable::Failed.into()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn counting_at_once_from_many_tasks_loses_nothing() {
        const TASKS: i64 = 50;
        const EACH: i64 = 20;
        let store = Store::scratch();
        let count = |bucket: Bucket| async move {
            for _ in 0..EACH {
                bucket.increment("n", 1, None, later()).await.unwrap();
            }
        };
        let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(count(bucket(&store)))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(bucket(&store).increment("n", 0, None, later()).await, Ok(TASKS * EACH));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_ran_out_is_removed_by_itself() {
        let store = Store::scratch();
        let full = Quota { bytes: u64::MAX, keys: 1 };
        let bucket = Bucket::new(store, Space::shared("main", "notes"), full);
        bucket.set("a", vec![], Some(1), later()).await.unwrap();
        let deadline = later();
        while let Err(error) = bucket.set("b", vec![], None, deadline).await {
            assert_eq!(error, Error::FullOfKeys { keys_max: 1 });
            assert!(Instant::now() < deadline, "it is not removed");
            tokio::task::yield_now().await;
        }
    }
}
