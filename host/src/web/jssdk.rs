//! `/jssdk/NAME`: signatures with which a page of the account's own may use WeChat's JS-SDK.
//!
//! What is signed is the page's address, with a ticket that stays here.
//! <https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/JS-SDK.html>

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aviary_wechat::signature::sign_jssdk;
use axum::http::StatusCode;
use serde_json::json;
use tokio::time::timeout_at;

use super::{
    Answer, Visit, html,
    keys::{hex, random},
    login, now_s,
    problem::Problem,
    return_url,
};
use crate::{api::ApiError, app::Serving, config::Account, query::Query, secret::Secret};

/// How long before its end a ticket is not used any more: a page may wait before it uses its signature.
const SPARE: Duration = Duration::from_secs(300);

/// The longest address that is signed.
const URL_BYTES_MAX: usize = 2_048;

/// How long no fetch follows one that failed, however many visitors come.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// The tickets of all accounts, fetched when they are needed: WeChat gives few of them a day.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<HashMap<String, Arc<Line>>>);

/// One account's ticket. Who needs it while it is fetched waits for it.
type Line = tokio::sync::Mutex<Option<Ticket>>;

#[derive(Clone, Debug)]
struct Ticket {
    /// What came of fetching it.
    fetched: Result<Secret, ApiError>,
    /// Until when that counts.
    until: Instant,
    /// Whose it is: another AppID, or another API, has another.
    owner: String,
}

/// Signs the address in `url`.
pub async fn answer(visit: &Visit<'_>, query: &Query<'_>) -> Answer {
    // A page of another site could not read the answer, and has no use for it.
    let from = visit.head.headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    if !matches!(from, None | Some("same-origin" | "none")) {
        return Err(Problem::CrossSite.into());
    }
    let account = &visit.serving.account;
    let url = query.optional("url").unwrap_or_default();
    let is_ours = url.len() <= URL_BYTES_MAX
        && url.starts_with("https://")
        && return_url::within(url, &format!("https://{}/", visit.domain), &account.pages.domains).is_some();
    if !is_ours {
        return Err(Problem::NotOurPage { account: account.name.clone() }.into());
    }
    let ticket = visit.app.web.tickets.of(visit.serving, visit.live.config.oauth.timeout).await?;
    let (nonce, timestamp) = (hex(&random::<8>()), now_s().to_string());
    let signature = sign_jssdk(ticket.expose(), &nonce, &timestamp, url);
    let config = json!({ "appId": account.app_id, "timestamp": timestamp, "nonceStr": nonce, "signature": signature });
    Ok(html::json(StatusCode::OK, &config))
}

impl Tickets {
    /// Returns an account's ticket: the one that is there, if it is good for a while.
    async fn of(&self, serving: &Serving, timeout: Duration) -> Result<Secret, Problem> {
        let (account, deadline) = (&serving.account, login::deadline(timeout));
        // Whoever fetches it may take as long; then those behind are out of time, too, and none of them asks WeChat again.
        let line = timeout_at(deadline.into(), self.line(&account.name).lock_owned()).await;
        let mut line = line.map_err(|_| Problem::Api { error: ApiError::Timeout { limit: timeout } })?;
        let (now, owner) = (Instant::now(), owner(account));
        let known = line.as_ref().filter(|ticket| ticket.until > now && ticket.owner == owner);
        let fetched = match known {
            Some(ticket) => ticket.fetched.clone(),
            None => {
                let (fetched, lasts) = match login::api(serving)?.jsapi_ticket(deadline).await {
                    Ok((ticket, expires_in)) => (Ok(ticket), expires_in.saturating_sub(SPARE)),
                    // The host's own want of a turn says nothing of WeChat.
                    Err(error @ ApiError::NoTurn) => return Err(Problem::Api { error }),
                    Err(error) => (Err(error), FAILURE_PAUSE),
                };
                *line = Some(Ticket { fetched: fetched.clone(), until: Instant::now() + lasts, owner });
                fetched
            }
        };
        fetched.map_err(|error| Problem::Api { error })
    }

    /// There are as many as accounts ever had pages.
    fn line(&self, account: &str) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(account.to_owned()).or_default().clone()
    }
}

fn owner(account: &Account) -> String {
    format!("{} {}", account.app_id.as_deref().unwrap_or_default(), account.api_base_url)
}
