//! `/pages/NAME/PLUGIN/…`: a plugin's own pages.
//!
//! What a plugin learns of a request is a short list of headers, and who the visitor is, in headers that only the host can
//! set. Cookies stay here. What comes back is a short list of headers, too, under a policy that keeps one plugin's pages from
//! acting on those of others (`spoken`): they all have one origin, and the visitor's cookies go to each.

mod places;
mod spoken;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header},
    response::Response,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout_at;

pub use self::places::Places;
use self::{
    places::{Place, Sent},
    spoken::Asked,
};
use super::{Answer, Visit, html, problem::Problem, session::Session};
use crate::{
    app::Serving,
    config::PagesGrant,
    dispatch::{Said, Step},
    outlive::Outliving,
    plugin::{
        Call, Plugin,
        page::{Page, Visitor},
        record::Held,
    },
};

/// What a visitor's request may do.
pub const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// What a plugin is told of a request, beside the host's own headers.
const TOLD: [HeaderName; 8] = [
    header::HOST,
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::ORIGIN,
    header::USER_AGENT,
];

/// A visitor's request, on its way to the plugin. It goes on if the visitor does not wait for it.
struct Asking {
    serving: Arc<Serving>,
    plugin: Arc<Plugin>,
    request: Request<Bytes>,
    visitor: Arc<Visitor>,
    asked: Asked,
    answer_bytes_max: usize,
    /// What a plugin may count on.
    timeout: Duration,
    deadline: Instant,
    place: Place,
}

/// Answers with a plugin's page.
pub async fn answer(visit: &Visit<'_>, name: &str, body: Body, arrived: Instant) -> Answer {
    let settings = &visit.live.config.pages;
    let deadline = arrived + settings.timeout;
    let live = timeout_at(deadline.into(), visit.app.ready()).await.map_err(|_| Problem::NotReady)?;
    let serving = live.named(&visit.serving.account.name).unwrap_or(visit.serving);
    let (plugin, grant) = plugin(serving, name).ok_or_else(|| Problem::nowhere(visit.head.uri.path()))??;
    let base = base(&serving.account.name, name);
    if let Some(address) = otherwise_spelled(&visit.head.uri, &base) {
        return Ok(html::redirect(StatusCode::PERMANENT_REDIRECT, &address));
    }
    if !visit.head.method.is_safe() {
        visit.same_site()?;
    }
    let found = visit.session().await?;
    let session = found.as_ref().map(|found| &found.session);
    let body = taken(visit, plugin, body, deadline).await?;
    let places = &visit.app.web.places;
    let place = places.take(&plugin.account, &plugin.name, settings.answers_max).ok_or(Problem::Busy)?;
    let openid = session.map(|session| session.openid.clone()).unwrap_or_default();
    let asking = Asking {
        request: request(visit, &serving.account.name, &base, session, body),
        visitor: Arc::new(Visitor { account: serving.account.name.as_str().into(), openid }),
        asked: Asked {
            domain: visit.domain.to_owned(),
            domains: serving.account.pages.domains.clone(),
            method: visit.head.method.clone(),
            path: visit.head.uri.path().to_owned(),
            base,
            grant,
        },
        serving: serving.clone(),
        plugin: plugin.clone(),
        answer_bytes_max: settings.answer_bytes_max,
        timeout: settings.timeout,
        deadline,
        place,
    };
    let running = Outliving::new(visit.app.tasks.track_future(asking.run()));
    let (page, place) = running.await.map_err(|_| Problem::Plugin { plugin: name.to_owned() })??;
    Ok(response(page, place))
}

/// Finds the plugin that serves these pages, and what it may do there.
fn plugin<'a>(serving: &'a Serving, name: &str) -> Option<Result<(&'a Arc<Plugin>, PagesGrant), Problem>> {
    let plugin = serving.chain.plugins.iter().find(|plugin| *plugin.name == *name && plugin.code.has_pages())?;
    let not_granted = || Problem::NotGranted { plugin: name.to_owned() };
    Some(plugin.settings.grants.pages.ok_or_else(not_granted).map(|grant| (plugin, grant)))
}

/// Where the plugin's pages begin.
fn base(account: &str, plugin: &str) -> String {
    format!("/pages/{account}/{}/", utf8_percent_encode(plugin, super::place::SEGMENT))
}

/// A page's one address, if it was asked for by another. Without the slash behind the plugin's name, what the page links to would
/// be looked for one step higher; with the name in another spelling, its policy would not fit.
fn otherwise_spelled(uri: &Uri, base: &str) -> Option<String> {
    if uri.path().starts_with(base) {
        return None;
    }
    // "", "pages", the account, the plugin, the rest.
    let rest = uri.path().splitn(5, '/').nth(4).unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{base}{rest}{query}"))
}

/// Takes the whole of what the visitor sends. What has a body takes a place while it comes: those that have none never wait for
/// those that send slowly.
async fn taken(visit: &Visit<'_>, plugin: &Plugin, body: Body, deadline: Instant) -> Result<Bytes, Problem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let settings = &visit.live.config.pages;
    let place = visit.app.web.arriving.take(&plugin.account, &plugin.name, settings.answers_max);
    let _place = place.ok_or(Problem::Busy)?;
    read(body, settings.body_bytes_max, deadline).await
}

async fn read(body: Body, bytes_max: usize, deadline: Instant) -> Result<Bytes, Problem> {
    match timeout_at(deadline.into(), Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::TooLarge { bytes_max }),
        _ => Err(Problem::Body),
    }
}

/// Makes the request that the plugin sees.
fn request(visit: &Visit<'_>, account: &str, base: &str, session: Option<&Session>, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = visit.head.method.clone();
    // A name in the address would go before the one in `Host`, which is one of the account's.
    *request.uri_mut() = visit.head.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    for name in TOLD {
        if let Some(value) = visit.head.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    request.headers_mut().extend(introduction(account, base, session));
    request
}

/// What the host says of the visitor. No header of the visitor's own has such a name: only those of a list are passed on.
fn introduction(account: &str, base: &str, session: Option<&Session>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut say = |name: &'static str, value: &str| {
        // Percent-encoded where it is not ours: a nickname may have any character.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    say("aviary-account", account);
    say("aviary-base", base);
    if let Some(session) = session {
        say("aviary-openid", &session.openid);
        say("aviary-scope", &session.scope);
        if let Some(union_id) = &session.union_id {
            say("aviary-unionid", union_id);
        }
        if let Some(profile) = &session.profile {
            say("aviary-nickname", &utf8_percent_encode(&profile.nickname, NON_ALPHANUMERIC).to_string());
        }
    }
    headers
}

impl Asking {
    /// Asks the plugin, counts and tells what it did.
    async fn run(self) -> Result<(Page, Place), Problem> {
        let Self { serving, plugin, visitor, asked, .. } = self;
        let name = plugin.name.to_string();
        let now = Instant::now();
        let admitted = plugin.record.admit_visitor(&visitor.openid, now).map_err(|held| match held {
            Held::Quarantined => Problem::Quarantined { plugin: name.clone() },
            Held::PerUser => Problem::PerUser { plugin: name.clone() },
        })?;
        let call = plugin.serve(self.request, &visitor, self.answer_bytes_max, self.deadline).await;
        let Call { answer, duration, waited, memory_bytes, output } = call;
        let (outcome, page) = match answer.and_then(|page| Ok(spoken::checked(page, &asked)?)) {
            Ok(page) => (Ok(Said::Served), Some(page)),
            Err(failure) => (Err(failure), None),
        };
        let step = Step { plugin: plugin.name.clone(), outcome, duration, waited, memory_bytes, output };
        let told = serving.chain.tell(&step, &visitor.account, &visitor.openid);
        admitted.settle(&step, &told, expected(&plugin, self.timeout));
        page.map(|page| (page, self.place)).ok_or(Problem::Plugin { plugin: name })
    }
}

/// The time that a plugin may count on, if the visitor takes none of it.
fn expected(plugin: &Plugin, timeout: Duration) -> Duration {
    match plugin.settings.limits.timeout_ms {
        0 => timeout,
        own => timeout.min(Duration::from_millis(own)),
    }
}

fn response(page: Page, place: Place) -> Response {
    let mut response = Response::new(Body::new(Sent::new(page.body, place)));
    *response.status_mut() = page.status;
    *response.headers_mut() = page.headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_address() {
        let spelled = |address: &str| otherwise_spelled(&address.parse().unwrap(), "/pages/main/check-in/");
        assert_eq!(spelled("/pages/main/check-in/a/b?c=d"), None);
        for (address, wanted) in [
            ("/pages/main/check-in", "/pages/main/check-in/"),
            ("/pages/main/check-in?from=menu", "/pages/main/check-in/?from=menu"),
            ("/pages/main/check%2Din", "/pages/main/check-in/"),
            ("/pages/main/%63heck-in/a/b?c=d", "/pages/main/check-in/a/b?c=d"),
        ] {
            assert_eq!(spelled(address).as_deref(), Some(wanted), "{address}");
        }
    }
}
