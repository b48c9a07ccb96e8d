//! `/pages/NAME/PLUGIN/…`: a plugin's own pages.
//!
//! What a plugin learns of a request is a short list of headers, and who the visitor is, in headers that only the host can
//! set. Cookies stay here. What comes back is a short list of headers, too, under a policy that keeps one plugin's pages from
//! acting on those of others: they all have one origin, and the visitor's cookies go to each.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, SizeHint};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout_at;

use super::{Answer, Visit, html, problem::Problem, return_url, session::Session};
use crate::{
    app::Serving,
    config::PagesGrant,
    dispatch::{Said, Step},
    plugin::{
        Call, Plugin,
        page::{NoPage, Page, Visitor},
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

/// What a plugin may say of its answer. Cookies are not among it: they would be those of the whole domain.
const ALLOWED: [HeaderName; 11] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LANGUAGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::RETRY_AFTER,
    header::VARY,
];

/// How much of a page is handed to the connection at once: what is not sent yet counts as on its way.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// Pages that are being made or on their way.
#[derive(Clone, Debug, Default)]
pub struct OnTheirWay(Arc<AtomicUsize>);

/// The place of one of them.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

/// A page on its way. Its place is free when it is gone.
struct Sent {
    page: Bytes,
    _place: Place,
}

/// Answers with a plugin's page.
pub async fn answer(visit: &Visit<'_>, name: &str, body: Body, arrived: Instant) -> Answer {
    let settings = &visit.live.config.pages;
    let place = visit.app.web.on_their_way.take(settings.answers_max).ok_or(Problem::Busy)?;
    let deadline = arrived + settings.timeout;
    let live = timeout_at(deadline.into(), visit.app.ready()).await.map_err(|_| Problem::NotReady)?;
    let serving = live.named(&visit.serving.account.name).unwrap_or(visit.serving);
    let (plugin, grant) = plugin(serving, name).ok_or_else(|| nowhere(visit))??;
    let base = base(&serving.account.name, name);
    if visit.head.uri.path().len() < base.len() {
        // Without the slash at its end, what the page links to would be looked for one step higher.
        return Ok(html::redirect(StatusCode::PERMANENT_REDIRECT, &base));
    }
    if !visit.head.method.is_safe() {
        visit.same_site()?;
    }
    let found = visit.session().await?;
    let session = found.as_ref().map(|found| &found.session);
    let body = read(body, settings.body_bytes_max, deadline).await?;
    let request = request(visit, &serving.account.name, &base, session, body);
    let openid = session.map(|session| session.openid.clone()).unwrap_or_default();
    let visitor = Arc::new(Visitor { account: serving.account.name.as_str().into(), openid });
    let page = asked(serving, plugin, request, &visitor, settings.answer_bytes_max, deadline).await?;
    Ok(response(visit, page, grant, &base, place))
}

/// Finds the plugin that serves these pages, and what it may do there.
fn plugin<'a>(serving: &'a Serving, name: &str) -> Option<Result<(&'a Plugin, PagesGrant), Problem>> {
    let plugin = serving.chain.plugins.iter().find(|plugin| *plugin.name == *name && plugin.code.has_pages())?;
    let not_granted = || Problem::NotGranted { plugin: name.to_owned() };
    Some(plugin.settings.grants.pages.ok_or_else(not_granted).map(|grant| (&**plugin, grant)))
}

fn nowhere(visit: &Visit<'_>) -> Problem {
    Problem::Nowhere { path: visit.head.uri.path().to_owned() }
}

/// Where the plugin's pages begin.
fn base(account: &str, plugin: &str) -> String {
    format!("/pages/{account}/{}/", utf8_percent_encode(plugin, super::place::SEGMENT))
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
    *request.uri_mut() = visit.head.uri.clone();
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

/// Asks the plugin, counts and tells what it did.
async fn asked(
    serving: &Serving,
    plugin: &Plugin,
    request: Request<Bytes>,
    visitor: &Arc<Visitor>,
    answer_bytes_max: usize,
    deadline: Instant,
) -> Result<Page, Problem> {
    let name = plugin.name.to_string();
    let now = Instant::now();
    let admitted = plugin.record.admit(&visitor.openid, now).map_err(|held| match held {
        Held::Quarantined => Problem::Quarantined { plugin: name.clone() },
        Held::PerUser => Problem::PerUser { plugin: name.clone() },
    })?;
    let call = plugin.serve(request, visitor, answer_bytes_max, deadline).await;
    let Call { answer, duration, waited, memory_bytes, output } = call;
    let answer = answer.and_then(|page| checked(page, serving));
    let (outcome, page) = match answer {
        Ok(page) => (Ok(Said::Served), Some(page)),
        Err(failure) => (Err(failure), None),
    };
    let step = Step { plugin: plugin.name.clone(), outcome, duration, waited, memory_bytes, output };
    let told = serving.chain.tell(&step, &visitor.account, &visitor.openid);
    admitted.settle(&step, &told, deadline.saturating_duration_since(now));
    page.ok_or(Problem::Plugin { plugin: name })
}

/// Holds a page that leads on to the account's own domains.
fn checked(page: Page, serving: &Serving) -> Result<Page, crate::plugin::Failure> {
    let Some(location) = page.headers.get(header::LOCATION) else { return Ok(page) };
    let domains = &serving.account.pages.domains;
    let domain = domains.first().map(String::as_str).unwrap_or_default();
    let is_ours = location.to_str().is_ok_and(|location| return_url::is_within(location, domain, domains));
    if is_ours { Ok(page) } else { Err(NoPage::LeadsAway.into()) }
}

fn response(visit: &Visit<'_>, page: Page, grant: PagesGrant, base: &str, place: Place) -> Response {
    let mut headers = HeaderMap::new();
    for name in ALLOWED {
        for value in page.headers.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    // Beside a policy of the plugin's own, which can only be narrower: a browser keeps to both.
    headers.append(header::CONTENT_SECURITY_POLICY, policy(visit.domain, base, grant));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    html::guard(&mut headers);
    let mut response = Response::new(Body::new(Sent { page: page.body, _place: place }));
    *response.status_mut() = page.status;
    *response.headers_mut() = headers;
    response
}

/// What a plugin's page may do: show what is the plugin's own, pictures from anywhere, and send forms to the plugin.
fn policy(domain: &str, base: &str, PagesGrant { scripts }: PagesGrant) -> HeaderValue {
    let own = format!("https://{domain}{base}");
    let scripts = match scripts {
        true => format!(
            "script-src {own} 'unsafe-inline' https://res.wx.qq.com https://res2.wx.qq.com; connect-src {own} \
             https://{domain}/jssdk/; "
        ),
        false => String::new(),
    };
    let policy = format!(
        "default-src 'none'; {scripts}style-src {own} 'unsafe-inline'; img-src {own} https: data:; font-src {own}; media-src \
         {own} https:; form-action {own}; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::try_from(policy).expect("domains and paths are ASCII")
}

impl OnTheirWay {
    fn take(&self, answers_max: usize) -> Option<Place> {
        let place = Place(self.0.clone());
        (self.0.fetch_add(1, Ordering::Relaxed) < answers_max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let length = self.page.len().min(FRAME_BYTES_MAX);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.page.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.page.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.page.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_no_scripts_unless_they_are_granted_and_sends_forms_to_its_own_plugin() {
        let of = |scripts| {
            let policy = policy("a.example", "/pages/main/shop/", PagesGrant { scripts });
            policy.to_str().unwrap().to_owned()
        };
        assert!(!of(false).contains("script-src") && of(false).contains("default-src 'none'"));
        assert!(of(false).contains("form-action https://a.example/pages/main/shop/;"));
        assert!(
            of(true).contains("script-src https://a.example/pages/main/shop/ 'unsafe-inline' https://res.wx.qq.com")
        );
    }

    #[test]
    fn a_place_is_free_again_when_the_page_is_gone() {
        let places = OnTheirWay::default();
        let (first, second) = (places.take(2), places.take(2));
        assert!(first.is_some() && second.is_some() && places.take(2).is_none());
        drop(first);
        assert!(places.take(2).is_some());
    }
}
