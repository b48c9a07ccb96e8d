//! `aviary:bot/customer-service`: not granted by this version, so every call is denied.

use super::{
    bindings::aviary::bot::customer_service::{Content, Error, Host, Options},
    guest::Guest,
};

impl Host for Guest {
    async fn send(&mut self, _: String, _: Content, _: Options) -> Result<(), Error> {
        Err(Error::Denied(self.denied("customer_service")))
    }

    async fn typing(&mut self, _: String, _: bool) -> Result<(), Error> {
        Err(Error::Denied(self.denied("customer_service")))
    }
}
