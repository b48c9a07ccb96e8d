//! `/me/NAME`: the visitor's own profile, as a page and as JSON, and the way out.

use std::time::Instant;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};
use tracing::{info, warn};
use url::Url;

use super::{
    Again, Answer, Trouble, Visit,
    cookie::{self, session_name},
    html,
    language::Language,
    login::{self, link},
    now_s,
    problem::Problem,
    session::{Found, Session},
};
use crate::{
    api::{Api, ApiError, Profile},
    config::Scope,
};

/// How long before its end an access_token is not relied on any more, in s.
const ACCESS_SPARE_S: u64 = 60;

/// How long a profile that could not be renewed is shown as it is, in s: not every visitor is to wait for a WeChat that is down.
const ASK_AGAIN_S: u64 = 60;

/// Shows the profile; who is not signed in goes to sign in.
pub async fn page(visit: &Visit<'_>) -> Answer {
    let account = &visit.serving.account.name;
    let Some(found) = visit.session().await? else {
        return Ok(html::redirect(StatusCode::FOUND, &link(account, Scope::UserInfo, &home(account))));
    };
    let found = current(visit, found).await?;
    Ok(html::private(shown(&found.session, account, visit.language)))
}

/// The same as JSON.
pub async fn json(visit: &Visit<'_>) -> Answer {
    let account = &visit.serving.account.name;
    let signed_out = || Trouble::from(Problem::SignedOut).with(again(account));
    let found = visit.session().await?.ok_or_else(signed_out)?;
    let found = current(visit, found).await?;
    Ok(html::json(StatusCode::OK, &told(&found.session)))
}

/// Ends the session, and goes back to where one can sign in.
pub async fn sign_out(visit: &Visit<'_>) -> Answer {
    visit.same_site()?;
    let account = &visit.serving.account.name;
    if let Some(found) = visit.session().await? {
        visit.app.web.sessions.close(&visit.serving.account, &found, &visit.live.config.oauth).await?;
        let user = visit.app.user_name(&found.session.openid);
        info!(%account, %user, "User {user} signed out of account `{account}`");
    }
    let (title, button) = visit.language.choose(("您已退出登录", "重新登录"), ("You are signed out", "Sign in"));
    let content = maud::html! {
        h1 { (title) }
        a.button href=(again(account).href) { (button) }
    };
    let mut response = html::page(StatusCode::OK, visit.language, title, &content);
    remove_cookie(&mut response, account);
    Ok(response)
}

fn remove_cookie(response: &mut Response, account: &str) {
    response.headers_mut().append(header::SET_COOKIE, cookie::write(&session_name(account), "", 0));
    // Pages that the browser kept must not come back by its back button.
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\""));
}

fn home(account: &str) -> String {
    format!("/me/{account}")
}

fn again(account: &str) -> Again {
    Again { href: link(account, Scope::UserInfo, &home(account)) }
}

/// Asks WeChat once more if the profile is old. WeChat's failure leaves what is there, for a while without asking again; only its
/// refusal ends the session.
async fn current(visit: &Visit<'_>, mut found: Found) -> Result<Found, Trouble> {
    let (settings, account) = (&visit.live.config.oauth, &visit.serving.account);
    let age_s = now_s().saturating_sub(found.session.fetched_s);
    if found.session.profile.is_none() || age_s < settings.profile.as_secs() {
        return Ok(found);
    }
    let api = login::api(visit.serving)?;
    match fetched(api, &mut found.session, visit.language, login::deadline(settings.timeout)).await {
        Ok(()) => {}
        Err(error) if is_over(&error) => {
            visit.app.web.sessions.close(account, &found, settings).await?;
            return Err(Trouble::from(Problem::Ended(error)).with(again(&account.name)));
        }
        Err(error) => {
            let name = &account.name;
            warn!(account = %name, "A visitor's profile stays as it was {age_s} s ago: {error}");
            found.session.fetched_s = (now_s() + ASK_AGAIN_S).saturating_sub(settings.profile.as_secs());
        }
    }
    visit.app.web.sessions.renew(account, &mut found, settings).await?;
    Ok(found)
}

/// Fetches the profile with an access_token that is good: the one that is there, if WeChat still takes it, or another. All of it
/// is done by `deadline`.
async fn fetched(api: &Api, session: &mut Session, language: Language, deadline: Instant) -> Result<(), ApiError> {
    let is_fresh = session.access_until_s > now_s() + ACCESS_SPARE_S;
    let is_good = is_fresh
        && match api.check_authorization(&session.access_token, &session.openid, deadline).await {
            Ok(()) => true,
            Err(ApiError::Refused { .. }) => false,
            Err(error) => return Err(error),
        };
    if !is_good {
        let authorization = api.refresh_authorization(&session.refresh_token, deadline).await?;
        session.access_until_s = now_s().saturating_add(authorization.expires_in.as_secs());
        session.access_token = authorization.access_token;
        session.refresh_token = authorization.refresh_token;
    }
    let profile = api.profile(&session.access_token, &session.openid, language.wechat(), deadline).await?;
    session.profile = Some(profile);
    session.fetched_s = now_s();
    Ok(())
}

/// Whether WeChat says that the visitor's authorisation has ended: refresh_token invalid or over, or taken back.
fn is_over(error: &ApiError) -> bool {
    matches!(error.code(), Some(40030 | 42002 | 42007 | 48001 | 40003))
}

fn shown(session: &Session, account: &str, language: Language) -> Response {
    let profile = session.profile.clone().unwrap_or_default();
    let title = language.choose("我的资料", "My profile");
    let name =
        if profile.nickname.is_empty() { language.choose("微信用户", "WeChat user") } else { &profile.nickname };
    let sign_out = format!("/me/{account}/sign-out");
    let content = maud::html! {
        div.who {
            @if let Some(picture) = picture(&profile) { img src=(picture) alt="" referrerpolicy="no-referrer"; }
            h1 { (name) }
        }
        dl {
            @for (label, value) in rows(&profile, language) { div { dt { (label) } dd { (value) } } }
            div { dt { "OpenID" } dd.id { (session.openid) } }
            @if let Some(id) = &session.union_id { div { dt { "UnionID" } dd.id { (id) } } }
        }
        @if session.profile.is_none() {
            a.button href=(again(account).href) { (language.choose("显示完整资料", "Show my full profile")) }
        }
        form method="post" action=(sign_out) {
            button.button.quiet type="submit" { (language.choose("退出登录", "Sign out")) }
        }
        (html::veil())
    };
    html::page(StatusCode::OK, language, title, &content)
}

/// What a profile says, as far as it says something.
fn rows(profile: &Profile, language: Language) -> Vec<(&'static str, String)> {
    let sex = match profile.sex {
        1 => language.choose("男", "male"),
        2 => language.choose("女", "female"),
        _ => "",
    };
    let rows = [
        (language.choose("性别", "Sex"), sex.to_owned()),
        (language.choose("国家", "Country"), profile.country.clone()),
        (language.choose("省份", "Province"), profile.province.clone()),
        (language.choose("城市", "City"), profile.city.clone()),
        (language.choose("特权", "Privileges"), profile.privilege.join(", ")),
    ];
    rows.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// The visitor's picture, if it is one of WeChat's.
fn picture(profile: &Profile) -> Option<String> {
    let mut url = Url::parse(&profile.headimgurl).ok()?;
    if url.scheme() == "http" {
        url.set_scheme("https").ok()?;
    }
    let is_wechats = url.scheme() == "https" && url.host_str().is_some_and(|host| host.ends_with(".qlogo.cn"));
    is_wechats.then(|| url.into())
}

fn told(session: &Session) -> Value {
    let mut told = match &session.profile {
        Some(profile) => serde_json::to_value(profile).expect("a profile is JSON"),
        None => json!({}),
    };
    told["openid"] = json!(session.openid);
    told["unionid"] = json!(session.union_id);
    told["scope"] = json!(session.scope);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_picture_of_wechats_is_shown() {
        let of = |url: &str| picture(&Profile { headimgurl: url.into(), ..Profile::default() });
        assert_eq!(of("http://thirdwx.qlogo.cn/mmopen/a/46").as_deref(), Some("https://thirdwx.qlogo.cn/mmopen/a/46"));
        assert_eq!(of("https://wx.qlogo.cn/a").as_deref(), Some("https://wx.qlogo.cn/a"));
        for url in ["", "/a", "https://evil.example/a.qlogo.cn", "https://evilqlogo.cn/", "javascript:alert(1)"] {
            assert_eq!(of(url), None, "{url}");
        }
    }
}
