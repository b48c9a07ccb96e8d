//! `aviary:bot/http`: not granted by this version, so every call is denied.

use super::{
    bindings::aviary::bot::http::{Error, Host, Request, Response},
    guest::Guest,
};

impl Host for Guest {
    async fn send(&mut self, _: Request) -> Result<Response, Error> {
        Err(Error::Denied(self.denied("http")))
    }
}
