//! `aviary:bot/kv`: what a plugin keeps between messages, as far as its grant allows.

use std::time::{Duration, Instant};

use wasmtime::component::Resource;
use wasmtime_wasi::TrappableError;

use super::{
    bindings::aviary::bot::kv::{Error, Host, HostBucket, Scope},
    guest::Guest,
};
use crate::store::kv::{self, Bucket, Space};

/// How long an operation may take. Shorter than a call's time, so that a guest can say something when the store is slow.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a guest is told when an operation was not carried out, or the trap that ends it.
pub(super) type Refusal = TrappableError<Error>;

impl Host for Guest {
    async fn open(&mut self, scope: Scope) -> Result<Resource<Bucket>, Refusal> {
        let Some(grant) = &self.settings.grants.kv else {
            return Err(Error::Denied(format!("{}; if it is to have it: kv = true", self.denied("kv"))).into());
        };
        let Some((account, user)) = self.at_work_for() else {
            return Err(Error::Invalid("nobody is being answered, so the keys are nobody's".to_owned()).into());
        };
        let plugin = &self.plugin;
        let space = match scope {
            Scope::Plugin => Space::shared(account, plugin),
            Scope::User if user.is_empty() => {
                let text = "the message comes from no user, or the visitor is not signed in";
                return Err(Error::Invalid(text.to_owned()).into());
            }
            Scope::User => Space::of_user(account, plugin, user),
        };
        let bucket = Bucket::new(self.services.store.clone(), space, grant.quota());
        self.table.push(bucket).map_err(TrappableError::trap)
    }

    fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<Error> {
        refusal.downcast()
    }
}

impl HostBucket for Guest {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Refusal> {
        let (bucket, deadline) = self.bucket(&bucket)?;
        told(bucket.get(&key, deadline).await)
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
        ttl_s: Option<u32>,
    ) -> Result<(), Refusal> {
        let (bucket, deadline) = self.bucket(&bucket)?;
        told(bucket.set(&key, value, ttl_s, deadline).await)
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), Refusal> {
        let (bucket, deadline) = self.bucket(&bucket)?;
        told(bucket.delete(&key, deadline).await)
    }

    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
        ttl_s: Option<u32>,
    ) -> Result<i64, Refusal> {
        let (bucket, deadline) = self.bucket(&bucket)?;
        told(bucket.increment(&key, delta, ttl_s, deadline).await)
    }

    async fn compare_and_set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        ttl_s: Option<u32>,
    ) -> Result<bool, Refusal> {
        let (bucket, deadline) = self.bucket(&bucket)?;
        told(bucket.compare_and_set(&key, expected, value, ttl_s, deadline).await)
    }

    async fn keys(
        &mut self,
        bucket: Resource<Bucket>,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>, Refusal> {
        let (bucket, deadline) = self.bucket(&bucket)?;
        told(bucket.keys(prefix, after, limit, deadline).await)
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl Guest {
    /// The bucket behind a handle, and until when it may be waited for.
    fn bucket(&self, bucket: &Resource<Bucket>) -> Result<(&Bucket, Instant), Refusal> {
        let deadline = self.deadline.min(Instant::now() + TIMEOUT);
        Ok((self.table.get(bucket).map_err(TrappableError::trap)?, deadline))
    }
}

/// Puts an outcome into the contract's words.
fn told<T>(outcome: Result<T, kv::Error>) -> Result<T, Refusal> {
    outcome.map_err(|error| {
        let text = error.to_string();
        let error = match error {
            kv::Error::FullOfBytes { .. } | kv::Error::FullOfKeys { .. } => Error::Full(text),
            kv::Error::Unavailable(_) => Error::Unavailable(text),
            _ => Error::Invalid(text),
        };
        error.into()
    })
}
