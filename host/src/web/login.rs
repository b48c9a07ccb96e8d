//! `/oauth/NAME/login` and `/oauth/NAME/callback`: from a link to a session, by way of WeChat's page.
//!
//! The link makes a `state` (`state`) and gives the browser a number to remember. WeChat's page sends the visitor back with the
//! state and a code. If both belong to that browser and were not used (`logins`), the code is exchanged for who the visitor is,
//! which is kept here (`session`); the browser gets a cookie and goes where the link wanted it to go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use tracing::{info, warn};

use super::{
    Again, Answer, Trouble, Visit,
    cookie::{self, BROWSER, session_name},
    html,
    keys::{hex, random, unhex},
    language::Language,
    logins::{Claim, Outcome},
    now_s,
    problem::Problem,
    return_url,
    session::{Found, Opened, Session},
    state::{self, BadState, Login},
};
use crate::{
    api::{Api, ApiError, Authorization, Profile},
    app::{App, Serving},
    config::Scope,
    query::Query,
    secret::Secret,
};

/// WeChat's page that asks for consent. It takes its parameters in one order only, and the fragment belongs to it.
const AUTHORIZE_URL: &str = "https://open.weixin.qq.com/connect/oauth2/authorize";

/// The longest code; WeChat's have 32 characters.
const CODE_BYTES_MAX: usize = 512;

/// How long the browser is known, in s: longer than any login takes, so that who comes too late is told so.
const BROWSER_S: u64 = 86_400;

/// Answers the link: the visitor goes to WeChat's page, by way of the domain where the login is to end.
pub async fn begin(visit: &Visit<'_>, query: &Query<'_>) -> Answer {
    let (account, pages) = (&visit.serving.account, &visit.serving.account.pages);
    let scope = match query.optional("scope") {
        None => pages.scope,
        Some(word) => Scope::ALL.into_iter().find(|(known, _)| *known == word).ok_or(Problem::Scope)?.1,
    };
    let home = format!("/me/{}", account.name);
    let return_url = return_url::parse(query.optional("to").unwrap_or(&home), visit.domain, &pages.domains)
        .ok_or_else(|| Problem::ReturnUrl { account: account.name.clone() })?;
    if let Some(domain) = return_url.host_str().filter(|domain| *domain != visit.domain) {
        // Cookies are one domain's: who signs in here is a stranger there.
        let there = format!("https://{domain}{}", link(&account.name, scope, return_url.as_str()));
        return Ok(html::redirect(StatusCode::FOUND, &there));
    }
    let known = browser(visit).map(str::to_owned);
    let browser = known.unwrap_or_else(|| hex(&random::<16>()));
    visit.app.web.keys.rotate().await;
    let login = login(visit, &browser, scope, return_url.as_str());
    let lives = visit.live.config.oauth.login;
    let state = state::sign(&visit.app.web.keys, &login, now_s(), lives);
    let mut response = html::redirect(StatusCode::FOUND, &authorize_url(&login, &state));
    set_cookie(&mut response, cookie::write(BROWSER, &browser, BROWSER_S));
    Ok(response)
}

/// Answers WeChat's page: the visitor is signed in and goes on, or reads why not.
pub async fn finish(visit: &Visit<'_>, query: &Query<'_>) -> Answer {
    let account = &visit.serving.account;
    let to = query.optional("to").unwrap_or_default();
    let return_url = return_url::parse(to, visit.domain, &account.pages.domains)
        .ok_or_else(|| Trouble::from(Problem::Forged).with(again(account.pages.scope, "", &account.name)))?;
    let text = query.optional("state").unwrap_or_default();
    let scope = state::scope(text).unwrap_or(account.pages.scope);
    let again = again(scope, return_url.as_str(), &account.name);
    let outcome = answered(visit, query, text, scope, return_url.as_str()).await;
    let opened = outcome.map_err(|problem| Trouble { problem, again: Some(again) })?;
    let mut response = html::redirect(StatusCode::SEE_OTHER, return_url.as_str());
    let lives_s = visit.live.config.oauth.session.as_secs();
    set_cookie(&mut response, cookie::write(&session_name(&account.name), &opened.cookie, lives_s));
    Ok(response)
}

fn login<'a>(visit: &'a Visit<'_>, browser: &'a str, scope: Scope, return_url: &'a str) -> Login<'a> {
    let account = &visit.serving.account;
    let app_id = account.app_id.as_deref().unwrap_or_default();
    Login { account: &account.name, app_id, domain: visit.domain, browser, scope, return_url }
}

async fn answered(visit: &Visit<'_>, query: &Query<'_>, state: &str, scope: Scope, return_url: &str) -> Outcome {
    let (app, settings) = (visit.app, &visit.live.config.oauth);
    let browser = browser(visit).ok_or(Problem::NoBrowser)?;
    let login = login(visit, browser, scope, return_url);
    let state = state::verify(&app.web.keys, &login, state, now_s()).map_err(|bad| match bad {
        BadState::Forged => Problem::Forged,
        BadState::Expired => Problem::Expired,
    })?;
    // Without a code there is nothing to exchange, and so nothing to remember: the state stays this browser's.
    let code = query.optional("code").filter(|code| !code.is_empty()).ok_or(Problem::Denied)?;
    if code.len() > CODE_BYTES_MAX {
        return Err(Problem::Forged.into());
    }
    let joined = match app.web.logins.claim(state, code, now_s(), settings.logins_max) {
        Claim::Again(joined) => joined,
        Claim::Used => return Err(Problem::Used.into()),
        Claim::Full => return Err(Problem::LoginsFull.into()),
        Claim::First(slot) => {
            let joined = slot.join();
            let (app, serving, code, language) =
                (app.clone(), visit.serving.clone(), Secret::from(code), visit.language);
            let before = visit.session().await.unwrap_or_default();
            // A browser that goes away must not leave a code half exchanged: the second answer waits for it.
            app.tasks.clone().spawn(async move {
                let outcome = sign_in(&app, &serving, &code, scope, language).await;
                if let (Ok(_), Some(before)) = (&outcome, before) {
                    close(&app, &serving, &before).await;
                }
                slot.publish(outcome.map_err(Arc::new));
            });
            joined
        }
    };
    joined.outcome().await
}

/// Ends the session that the browser had before: each has one. What the store cannot end now ends in time.
async fn close(app: &App, serving: &Serving, before: &Found) {
    if let Err(problem) = app.web.sessions.close(&serving.account, before, &app.live().config.oauth).await {
        warn!(account = %serving.account.name, "The session before a new one stays open: {problem}");
    }
}

/// Finds out who the visitor is, and opens their session.
async fn sign_in(
    app: &App,
    serving: &Serving,
    code: &Secret,
    scope: Scope,
    language: Language,
) -> Result<Opened, Problem> {
    let (account, live) = (&serving.account, app.live());
    let settings = &live.config.oauth;
    let api = api(serving)?;
    let authorization =
        api.exchange_code(code, deadline(settings.timeout)).await.map_err(|error| match is_about_code(&error) {
            true => Problem::Code(error),
            false => Problem::Api { error },
        })?;
    if authorization.is_snapshot {
        return Err(Problem::Snapshot);
    }
    let profile = match scope {
        Scope::Base => None,
        Scope::UserInfo => Some(profile(api, &authorization, language, deadline(settings.timeout)).await?),
    };
    let session = Session::new(&authorization, profile);
    let opened = app.web.sessions.open(account, &session, settings).await?;
    let (user, scope) = (app.user_name(&session.openid), scope.word());
    info!(account = %account.name, %user, "User {user} signed in to account `{}` ({scope})", account.name);
    Ok(opened)
}

async fn profile(
    api: &Api,
    authorization: &Authorization,
    language: Language,
    deadline: Instant,
) -> Result<Profile, Problem> {
    if !authorization.scope.split(',').any(|scope| scope == Scope::UserInfo.word()) {
        return Err(Problem::LessScope);
    }
    let fetched = api.profile(&authorization.access_token, &authorization.openid, language.wechat(), deadline).await;
    fetched.map_err(|error| match error.code() {
        // api unauthorized: the scope is not there, whatever was said before.
        Some(48001) => Problem::LessScope,
        _ => Problem::Api { error },
    })
}

/// The account's API.
pub(super) fn api(serving: &Serving) -> Result<&Api, Problem> {
    serving.api.as_ref().ok_or_else(|| Problem::NoDomains { account: serving.account.name.clone() })
}

/// Until when a call may take, with the patience of a visitor.
pub(super) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout
}

/// Whether WeChat refused the code itself: invalid, missing, used, or over.
fn is_about_code(error: &ApiError) -> bool {
    matches!(error.code(), Some(40029 | 41008 | 40163 | 42003))
}

/// The cookie of the browser, if it is one that we gave it.
fn browser<'a>(visit: &Visit<'a>) -> Option<&'a str> {
    cookie::read(&visit.head.headers, BROWSER).filter(|browser| unhex::<16>(browser).is_some())
}

fn set_cookie(response: &mut Response, cookie: HeaderValue) {
    response.headers_mut().append(header::SET_COOKIE, cookie);
}

/// A link to begin a login.
pub(super) fn link(account: &str, scope: Scope, to: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!("&to={}", encoded(to)) };
    format!("/oauth/{account}/login?scope={}{to}", scope.word())
}

fn again(scope: Scope, to: &str, account: &str) -> Again {
    Again { href: link(account, scope, to) }
}

fn authorize_url(login: &Login<'_>, state: &str) -> String {
    let Login { account, app_id, domain, return_url, scope, .. } = login;
    let callback = format!("https://{domain}/oauth/{account}/callback?to={}", encoded(return_url));
    let (callback, scope) = (encoded(&callback), scope.word());
    format!(
        "{AUTHORIZE_URL}?appid={app_id}&redirect_uri={callback}&response_type=code&scope={scope}&state={state}#wechat_redirect"
    )
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_stand_in_wechats_order() {
        let login = Login {
            account: "main",
            app_id: "wx1",
            domain: "shop.example.com",
            browser: "b",
            scope: Scope::UserInfo,
            return_url: "https://shop.example.com/a?b=c&d#e",
        };
        assert_eq!(
            authorize_url(&login, "S"),
            "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wx1&redirect_uri=https%3A%2F%2Fshop.example.com%2Foauth%2F\
             main%2Fcallback%3Fto%3Dhttps%253A%252F%252Fshop.example.com%252Fa%253Fb%253Dc%2526d%2523e&response_type=code&\
             scope=snsapi_userinfo&state=S#wechat_redirect"
        );
    }
}
