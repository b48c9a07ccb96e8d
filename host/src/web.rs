//! Pages that visitors open inside WeChat, on the public listener beside the webhook.
//!
//! | path | what |
//! |---|---|
//! | `/oauth/NAME/login`, `/oauth/NAME/callback` | the login (`login`) |
//! | `/me/NAME`, `/me/NAME.json`, `/me/NAME/sign-out` | the visitor's own profile (`profile`) |
//! | `/pages/NAME/PLUGIN/…` | what a plugin serves (`plugin_page`) |
//! | `/jssdk/NAME` | signatures for the JS-SDK (`jssdk`) |
//! | `/MP_verify_….txt` | what WeChat wants to find before it takes a domain |
//!
//! `NAME` is the account's. A request that gets nothing is a `Problem`: one line for the operator, a page for the visitor.

mod cookie;
mod html;
mod jssdk;
mod keys;
mod language;
mod login;
mod logins;
mod place;
mod plugin_page;
mod problem;
mod profile;
mod return_url;
mod session;
mod state;

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, header, request::Parts},
    response::Response,
};
use serde_json::json;
use tracing::{info, warn};

use self::{
    jssdk::Tickets,
    keys::Keys,
    language::Language,
    logins::Logins,
    place::Place,
    plugin_page::Places,
    problem::Problem,
    session::{Found, Sessions},
};
use crate::{
    app::{App, Live, Serving},
    config::Config,
    foreign::quoted,
    private_dir::PrivateDir,
    query::Query,
    refusal::OnceAMinute,
    store::Store,
    webhook,
};

/// What the pages share.
#[derive(Debug)]
pub struct Web {
    keys: Keys,
    logins: Logins,
    sessions: Sessions,
    /// Bodies of requests to plugins' pages that are arriving.
    arriving: Places,
    places: Places,
    tickets: Tickets,
    /// Which problem of which account was told of lately; of requests to none, the account is empty.
    told: OnceAMinute<(String, &'static str)>,
}

/// A visitor's request to an account's pages, under one of the account's names.
#[derive(Debug)]
struct Visit<'a> {
    app: &'a Arc<App>,
    live: &'a Arc<Live>,
    serving: &'a Arc<Serving>,
    /// The one of the account's domains that the visitor sees.
    domain: &'a str,
    language: Language,
    head: &'a Parts,
}

/// What a visitor gets.
type Answer = Result<Response, Trouble>;

/// Why a visitor gets nothing, and where they can try again.
#[derive(Debug)]
struct Trouble {
    problem: Arc<Problem>,
    again: Option<Again>,
}

/// A link to another try, on this host.
#[derive(Debug)]
struct Again {
    href: String,
}

impl Web {
    /// Opens what the pages need. Sessions are kept in `store`.
    ///
    /// # Errors
    /// When the keys cannot be read or made.
    pub fn open(config: &Config, store: &Store) -> anyhow::Result<Self> {
        let keys = Keys::open(PrivateDir::open(config.data_dir.join("keys"))?)?;
        let sessions = Sessions::new(store.clone(), keys.clone());
        Ok(Self {
            keys,
            logins: Logins::default(),
            sessions,
            arriving: Places::default(),
            places: Places::default(),
            tickets: Tickets::default(),
            told: OnceAMinute::default(),
        })
    }

    fn tell(&self, app: &App, account: &str, problem: &Problem) {
        app.records.metrics.refused(problem.cause());
        let Some(unsaid) = self.told.turn((account.to_owned(), problem.cause()), Instant::now()) else { return };
        let status = problem.status().as_u16();
        let more = if unsaid > 0 { format!(" ({unsaid} more of this kind in between)") } else { String::new() };
        match (account, problem.is_usual()) {
            ("", true) => info!(status, "A visitor got {status}: {problem}{more}"),
            ("", false) => warn!(status, "A visitor got {status}: {problem}{more}"),
            (_, true) => info!(account, status, "A visitor of account `{account}` got {status}: {problem}{more}"),
            (_, false) => warn!(account, status, "A visitor of account `{account}` got {status}: {problem}{more}"),
        }
    }
}

/// Answers a request on the public listener: a page, or else the webhook.
pub async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let Some(place) = Place::of(request.uri().path()) else {
        return webhook::handle(State(app), request).await;
    };
    let live = app.live();
    if let Place::VerifyFile(name) = &place {
        return match live.verify_file(name) {
            Some(content) => html::text(content.to_owned()),
            None => webhook::handle(State(app), request).await,
        };
    }
    let (is_json, language) = (place.is_json(), Language::of(request.headers()));
    // There are as many names as accounts: a stranger's own is none.
    let account = place.account().filter(|name| live.named(name).is_some()).unwrap_or_default().to_owned();
    // In a box, as all that few messages need: their future is as large as the largest of its parts, and is moved.
    match Box::pin(answer(&app, &live, place, request, language)).await {
        Ok(response) => response,
        Err(trouble) => {
            app.web.tell(&app, &account, &trouble.problem);
            if is_json { told(&trouble) } else { shown(&trouble, language) }
        }
    }
}

async fn answer(app: &Arc<App>, live: &Arc<Live>, place: Place, request: Request, language: Language) -> Answer {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let nowhere = || Problem::nowhere(head.uri.path());
    let serving = live.named(place.account().ok_or_else(nowhere)?).ok_or_else(nowhere)?;
    let visit = Visit { app, live, serving, domain: domain(serving, &head)?, language, head: &head };
    let query = Query::parse(head.uri.query().unwrap_or_default());
    match place {
        Place::Login(_) => login::begin(visit.method(&[Method::GET])?, &query).await,
        Place::Callback(_) => login::finish(visit.method(&[Method::GET])?, &query).await,
        Place::Profile(_) => profile::page(visit.method(&[Method::GET])?).await,
        Place::ProfileJson(_) => profile::json(visit.method(&[Method::GET])?).await,
        Place::Signature(_) => jssdk::answer(visit.method(&[Method::GET])?, &query).await,
        Place::SignOut(_) => profile::sign_out(visit.method(&[Method::POST])?).await,
        Place::Page { plugin, .. } => {
            plugin_page::answer(visit.method(&plugin_page::METHODS)?, &plugin, body, arrived).await
        }
        Place::VerifyFile(_) | Place::Nowhere => Err(nowhere().into()),
    }
}

/// Finds the name that the visitor sees among the account's own: nothing is answered under another.
fn domain<'a>(serving: &'a Serving, head: &Parts) -> Result<&'a str, Problem> {
    let account = &serving.account;
    if !account.pages.are_on() {
        return Err(Problem::NoDomains { account: account.name.clone() });
    }
    let mut hosts = head.headers.get_all(header::HOST).into_iter();
    let host = hosts.next().filter(|_| hosts.next().is_none()).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.strip_suffix(":443").unwrap_or(host);
    let domain = account.pages.domains.iter().find(|domain| domain.eq_ignore_ascii_case(host));
    domain.map(String::as_str).ok_or_else(|| Problem::Domain { account: account.name.clone() })
}

impl Visit<'_> {
    /// Goes on if the request has one of these methods.
    fn method(&self, allowed: &'static [Method]) -> Result<&Self, Problem> {
        match allowed.contains(&self.head.method) {
            true => Ok(self),
            false => Err(Problem::Method { method: quoted(self.head.method.as_str()), allowed }),
        }
    }

    /// The visitor's session in this account, if they are signed in.
    async fn session(&self) -> Result<Option<Found>, Problem> {
        let account = &self.serving.account;
        let cookie = cookie::read(&self.head.headers, &cookie::session_name(&account.name));
        self.app.web.sessions.find(account, cookie, &self.live.config.oauth).await
    }

    /// Goes on if a page of ours sent the request. The cookies stay behind where another site sends it (`SameSite`); this
    /// holds off other names below the same domain, too.
    fn same_site(&self) -> Result<(), Problem> {
        let text = |name: &str| self.head.headers.get(name).and_then(|value| value.to_str().ok());
        let is_ours = match text("origin") {
            Some(origin) => origin.strip_prefix("https://").is_some_and(|host| host == self.domain),
            None => text("sec-fetch-site") == Some("same-origin"),
        };
        if is_ours { Ok(()) } else { Err(Problem::CrossSite) }
    }
}

impl Trouble {
    fn with(self, again: Again) -> Self {
        Self { again: Some(again), ..self }
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self { problem: Arc::new(problem), again: None }
    }
}

fn shown(trouble: &Trouble, language: Language) -> Response {
    let (title, text) = trouble.problem.words(language);
    let content = maud::html! {
        h1 { (title) }
        p { (text) }
        @if let Some(Again { href }) = &trouble.again {
            a.button href=(href) { (language.choose("重新登录", "Sign in again")) }
        }
    };
    with_allow(html::page(trouble.problem.status(), language, title, &content), &trouble.problem)
}

fn told(trouble: &Trouble) -> Response {
    let login = trouble.again.as_ref().map(|again| &again.href);
    let told = json!({ "error": trouble.problem.cause(), "login": login });
    with_allow(html::json(trouble.problem.status(), &told), &trouble.problem)
}

/// Says which methods have a meaning there, where one had none.
fn with_allow(mut response: Response, problem: &Problem) -> Response {
    if let Problem::Method { allowed, .. } = problem {
        let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let allowed = HeaderValue::try_from(allowed.join(", ")).expect("methods are ASCII");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Seconds since 1970 by our clock.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
