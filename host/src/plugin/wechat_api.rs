//! `aviary:bot/wechat-api`: not granted by this version, so every call is denied.

use super::{
    bindings::aviary::bot::wechat_api::{Error, Host, Media},
    guest::Guest,
};

impl Host for Guest {
    async fn call(
        &mut self,
        _: String,
        _: String,
        _: Vec<(String, String)>,
        _: Option<String>,
    ) -> Result<String, Error> {
        Err(Error::Denied(self.denied("wechat_api")))
    }

    async fn upload(&mut self, _: String, _: Vec<(String, String)>, _: String, _: Media) -> Result<String, Error> {
        Err(Error::Denied(self.denied("wechat_api")))
    }

    async fn download(&mut self, _: String, _: Vec<(String, String)>) -> Result<Media, Error> {
        Err(Error::Denied(self.denied("wechat_api")))
    }
}
