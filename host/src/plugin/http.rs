//! `aviary:bot/http`: one request, one whole answer, to the hosts of the plugin's `http` grant.

use std::time::{Duration, Instant};

use super::{
    bindings::aviary::bot::http::{Error, Host, Request, Response},
    guest::Guest,
};
use crate::{
    config::HttpGrant,
    egress::{self, Egress, NoAnswer, Owner, Waits, request},
};

impl Host for Guest {
    async fn send(&mut self, request: Request) -> Result<Response, Error> {
        let (egress, settings) = (self.services.egress.clone(), self.settings.clone());
        let answer = exchange(&egress, &self.owner(), &settings.grants.http, self.deadline, request).await;
        answer.map_err(|error| match error {
            NoAnswer::Denied(reason) => Error::Denied(self.denied_http(&reason)),
            NoAnswer::Invalid(reason) => Error::Invalid(reason),
            NoAnswer::Timeout => Error::Timeout,
            NoAnswer::TooLarge(bytes_max) => Error::TooLarge(bytes_max),
            NoAnswer::Unreachable(reason) | NoAnswer::Lost(reason) => Error::Unreachable(reason),
        })
    }
}

async fn exchange(
    egress: &Egress,
    owner: &Owner,
    grants: &[HttpGrant],
    deadline: Instant,
    asked: Request,
) -> Result<Response, NoAnswer> {
    let Request { method, url, headers, body, timeout_ms } = asked;
    let request = egress::Request::new(&method, &url, request::headers(headers)?, request::whole(body))?;
    let timeout = timeout_ms.map(|ms| Duration::from_millis(ms.into()));
    let waits = Waits::of_call(deadline, timeout);
    let answer = egress.send(Some(owner), grants, request, waits).await?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    let (status, headers) = (answer.status.as_u16(), headers.collect());
    Ok(Response { status, headers, body: answer.body.whole().await?.bytes })
}

impl Guest {
    /// Says which grant a request lacks, to the guest and now and then to the operator.
    fn denied_http(&self, reason: &str) -> String {
        self.services.egress.tell_denied(&self.plugin, reason);
        format!("plugin `{}` {reason}", self.plugin)
    }
}
