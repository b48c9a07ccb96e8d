//! `aviary:bot/kv`: not granted by this version, so no bucket is ever opened.

use wasmtime::component::Resource;

use super::{
    bindings::aviary::bot::kv::{Bucket, Error, Host, HostBucket, Scope},
    guest::Guest,
};

impl Host for Guest {
    async fn open(&mut self, _: Scope) -> Result<Resource<Bucket>, Error> {
        Err(Error::Denied(self.denied("kv")))
    }
}

impl HostBucket for Guest {
    async fn get(&mut self, _: Resource<Bucket>, _: String) -> Result<Option<Vec<u8>>, Error> {
        Err(Error::Denied(self.denied("kv")))
    }

    async fn set(&mut self, _: Resource<Bucket>, _: String, _: Vec<u8>, _: Option<u32>) -> Result<(), Error> {
        Err(Error::Denied(self.denied("kv")))
    }

    async fn delete(&mut self, _: Resource<Bucket>, _: String) -> Result<(), Error> {
        Err(Error::Denied(self.denied("kv")))
    }

    async fn increment(&mut self, _: Resource<Bucket>, _: String, _: i64, _: Option<u32>) -> Result<i64, Error> {
        Err(Error::Denied(self.denied("kv")))
    }

    async fn compare_and_set(
        &mut self,
        _: Resource<Bucket>,
        _: String,
        _: Option<Vec<u8>>,
        _: Option<Vec<u8>>,
        _: Option<u32>,
    ) -> Result<bool, Error> {
        Err(Error::Denied(self.denied("kv")))
    }

    async fn keys(&mut self, _: Resource<Bucket>, _: String, _: Option<String>, _: u32) -> Result<Vec<String>, Error> {
        Err(Error::Denied(self.denied("kv")))
    }

    async fn drop(&mut self, _: Resource<Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}
