//! `aviary:bot/wechat-api`: the calls of WeChat's API that the grant names, under a token that the guest never sees.

use std::time::Instant;

use super::{
    bindings::aviary::bot::wechat_api::{Error, Host, Media},
    guest::Guest,
};
use crate::{
    api::{self, Api, ApiError, Field, Form, Method, check_path},
    config::{WechatApiGrant, gives_secrets},
    egress::Waits,
};

/// How the host adds the token to a call: a guest that wrote it, too, could call for another account.
const TOKEN_PARAMETER: &str = "access_token";

/// Why a call came to nothing, in the words that the interfaces of the contract share.
pub(super) enum Told {
    Denied(String),
    Invalid(String),
    Refused(i32, String),
    Unreachable(String),
}

/// Names and values, as the guest gives them.
type Query = Vec<(String, String)>;

impl Host for Guest {
    async fn call(
        &mut self,
        method: String,
        path: String,
        query: Query,
        body: Option<String>,
    ) -> Result<String, Error> {
        let method =
            Method::parse(&method).ok_or_else(|| Error::Invalid("the method is neither GET nor POST".into()))?;
        self.check_call(method, &path, &query)?;
        let (api, deadline) = self.wechat_api()?;
        let body = body.map(|body| written(method, body)).transpose()?;
        let answer = api.call(method, &path, &query, body, deadline).await;
        answer.map_err(|error| self.told(error).into())
    }

    async fn upload(&mut self, path: String, query: Query, field: String, media: Media) -> Result<String, Error> {
        self.check_call(Method::Post, &path, &query)?;
        let (api, deadline) = self.wechat_api()?;
        let file = Some((media.file_name, media.content_type));
        let form = Form::new(vec![Field { name: field, file, data: media.data }]).map_err(Error::Invalid)?;
        let answer = api.upload(&path, &query, form, deadline).await;
        answer.map_err(|error| self.told(error).into())
    }

    async fn download(&mut self, path: String, query: Query) -> Result<Media, Error> {
        self.check_call(Method::Get, &path, &query)?;
        let (api, deadline) = self.wechat_api()?;
        let answer = api.fetch(Method::Get, &path, &query, None, deadline).await;
        let answer = answer.map_err(|error| Error::from(self.told(error)))?;
        let file_name = answer.file_name.unwrap_or_default();
        Ok(Media { file_name, content_type: answer.content_type, data: answer.body })
    }
}

impl Guest {
    /// Refuses a call that makes no sense, or that the grants do not allow. What is only played needs no grant.
    fn check_call(&self, method: Method, path: &str, query: &[(String, String)]) -> Result<(), Error> {
        check_path(path).map_err(|reason| Error::Invalid(format!("the path {reason}")))?;
        if query.iter().any(|(name, _)| name.eq_ignore_ascii_case(TOKEN_PARAMETER)) {
            return Err(Error::Invalid(format!("`{TOKEN_PARAMETER}` is the host's to add")));
        }
        let (plugin, method_name) = (&self.plugin, method.as_str());
        if gives_secrets(path) {
            let text =
                format!("plugin `{plugin}` may not call {path}: it gives out tokens or tickets, which no plugin gets");
            return Err(Error::Denied(text));
        }
        match self.services.apis.are_played() || WechatApiGrant::allow(&self.settings.grants.wechat_api, method, path) {
            true => Ok(()),
            false => Err(Error::Denied(format!(
                "{} for {method_name} {path}; if it is to have it: wechat_api = [\"{method_name} {path}\"]",
                self.denied("wechat_api")
            ))),
        }
    }

    /// The account's API for one more call, and when that ends: a little before the guest's own time, so that it can say
    /// something.
    pub(super) fn wechat_api(&mut self) -> Result<(Api, Instant), Told> {
        let calls_max = self.settings.limits.wechat_calls_max;
        if self.wechat_calls >= calls_max {
            let plugin = &self.plugin;
            return Err(Told::Denied(format!(
                "plugin `{plugin}` may call WeChat {calls_max} times for one message or page (`limits.wechat_calls_max`)"
            )));
        }
        self.wechat_calls += 1;
        let none = || {
            let account = self.at_work_for().map_or("main", |(account, _)| account);
            Told::Unreachable(format!(
                "account `{account}` has no `app_id` or no `app_secret`, so that WeChat's API is not used"
            ))
        };
        let api = self.api.clone().ok_or_else(none)?;
        Ok((api, Waits::of_call(self.deadline, None).deadline))
    }

    /// Puts an error of the API into the contract's words.
    pub(super) fn told(&self, error: ApiError) -> Told {
        if let Some(api) = &self.api {
            api.tell_refused(&self.plugin, &error);
        }
        match error {
            ApiError::Refused { code, message } => Told::Refused(i32::try_from(code).unwrap_or(i32::MAX), message),
            ApiError::NotPlayed(reason) => Told::Denied(format!("plugin `{}` {reason}", self.plugin)),
            ApiError::Invalid(reason) => Told::Invalid(reason),
            error @ ApiError::TooLarge(_) => Told::Invalid(error.to_string()),
            error => Told::Unreachable(error.to_string()),
        }
    }
}

/// Makes a body fit to be sent. One that is no JSON is refused, and one that a GET would leave behind.
fn written(method: Method, body: String) -> Result<String, Error> {
    if method == Method::Get {
        return Err(Error::Invalid("a GET has no body".into()));
    }
    api::in_raw_utf8(body).map_err(|error| Error::Invalid(format!("the body is no JSON: {error}")))
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
