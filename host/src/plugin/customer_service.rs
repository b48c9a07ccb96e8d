//! `aviary:bot/customer-service`: messages besides the reply, to those whom the grant names.

use super::{
    bindings::aviary::bot::customer_service::{Content, Error, Host, Options},
    guest::Guest,
    wechat_api::Told,
};
use crate::config::CustomerServiceGrant;

impl Host for Guest {
    async fn send(&mut self, openid: String, content: Content, options: Options) -> Result<(), Error> {
        self.check_recipient(&openid).map_err(Error::Denied)?;
        let (api, deadline) = self.wechat_api()?;
        let sent = api.send_with(&openid, &content, &options, deadline).await;
        sent.map_err(|error| self.told(error).into())
    }

    async fn typing(&mut self, openid: String, typing: bool) -> Result<(), Error> {
        self.check_recipient(&openid).map_err(Error::Denied)?;
        let (api, deadline) = self.wechat_api()?;
        let shown = api.typing(&openid, typing, deadline).await;
        shown.map_err(|error| self.told(error).into())
    }
}

impl Guest {
    /// Refuses a user whom the grant does not reach. What is only played needs no grant.
    fn check_recipient(&self, openid: &str) -> Result<(), String> {
        let is_sender = !openid.is_empty() && self.at_work_for().is_some_and(|(_, user)| user == openid);
        match self.settings.grants.customer_service {
            _ if self.services.apis.are_played() => Ok(()),
            Some(CustomerServiceGrant::Anyone) => Ok(()),
            Some(CustomerServiceGrant::Sender) if is_sender => Ok(()),
            Some(CustomerServiceGrant::Sender) => Err(format!(
                "plugin `{}` may send to the user whom it answers only; for others it needs `customer_service = \"anyone\"` in \
                 its grants",
                self.plugin
            )),
            None => {
                Err(format!("{}; if it is to have it: customer_service = \"sender\"", self.denied("customer_service")))
            }
        }
    }
}

impl From<Told> for Error {
    fn from(told: Told) -> Self {
        match told {
            Told::Denied(text) => Self::Denied(text),
            Told::Invalid(text) => Self::Invalid(text),
            Told::Refused(code, message) => Self::Refused((code, message)),
            Told::Unreachable(text) => Self::Unreachable(text),
        }
    }
}
