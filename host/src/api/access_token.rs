//! The token that every other call needs, as all who call one account's API share it.
//!
//! It is fetched when it is first needed, once however many need it, and again before it ends; and when WeChat refuses it, once
//! for all who were refused. A fetch goes on when the call that began it is given up: with the older `token` the one before it
//! is invalid from then on, so that the new one must not be lost.

mod fetch;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout_at};
use tracing::{debug, warn};

use super::ApiError;
use crate::{refusal::OnceAMinute, secret::Secret};
pub(super) use fetch::Source;

/// How long before its end a token is renewed. From then on WeChat gives a new one to whoever asks, and takes both.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// How often at most a token is renewed that is still good: one of which little is left, and that WeChat gives again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// How long no fetch follows one that failed; each time it fails again, twice as long.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How long that is at most: an operator who has set things right waits no longer.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often a new stable token may be asked for in a day, and how long apart; from WeChat's page about it.
const FORCED_PER_DAY_MAX: usize = 20;
const FORCED_APART: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// An access_token, and how long it is good.
#[derive(Clone, Debug)]
pub struct AccessToken {
    pub token: Secret,
    /// What was left of its two hours when it was fetched. WeChat gives everybody the same stable one until shortly before its
    /// end.
    pub expires_in: Duration,
    renewed_at: Instant,
    ends_at: Instant,
}

impl AccessToken {
    fn new(token: Secret, fetched: Instant, life: Duration) -> Self {
        let renewed_after = life.saturating_sub(RENEWED_BEFORE).max(RENEWAL_PAUSE.min(life / 2));
        Self { token, expires_in: life, renewed_at: fetched + renewed_after, ends_at: fetched + life }
    }

    fn is_same(&self, other: &Self) -> bool {
        // Both came from WeChat: nobody learns anything from the time that it takes.
        self.token.expose() == other.token.expose()
    }
}

/// The token of one account.
#[derive(Debug, Default)]
pub(super) struct ManagedToken {
    state: Mutex<State>,
    told: OnceAMinute<()>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<AccessToken>,
    /// The fetch that is on its way; it ends as this says.
    fetch: Option<watch::Receiver<Option<Fetched>>>,
    failed: Option<Failed>,
    /// When new stable tokens were asked for, within a day.
    forced: VecDeque<Instant>,
}

/// Fetches that failed in a row.
#[derive(Debug)]
struct Failed {
    times: u32,
    since: Instant,
    /// When the next one may follow.
    until: Instant,
    /// Why the last one failed.
    error: ApiError,
}

/// That no access_token could be fetched the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoToken {
    /// How long ago the first of the fetches failed that failed since, in s.
    pub since_s: u64,
    /// What WeChat said, and what to do about it.
    pub why: String,
}

type Fetched = Result<AccessToken, ApiError>;

impl ManagedToken {
    /// Returns a token that is good, as far as is known.
    pub(super) async fn current(self: &Arc<Self>, source: &Source, deadline: Instant) -> Fetched {
        let now = Instant::now();
        let fetch = {
            let mut state = self.state();
            match state.token.clone() {
                Some(token) if now < token.renewed_at => return Ok(token),
                Some(token) if now < token.ends_at => {
                    // It is good for minutes yet, so nobody waits for the next one; a failure is told in the log.
                    _ = self.begin(&mut state, source, None, now);
                    return Ok(token);
                }
                _ => self.begin(&mut state, source, None, now)?,
            }
        };
        ended(fetch, deadline).await
    }

    /// Returns another token than one that WeChat refused as `refusal` says: the one that somebody has fetched since, or a new
    /// one.
    pub(super) async fn instead_of(
        self: &Arc<Self>,
        refused: AccessToken,
        refusal: &ApiError,
        source: &Source,
        deadline: Instant,
    ) -> Fetched {
        let now = Instant::now();
        let fetch = {
            let mut state = self.state();
            if let Some(newer) = state.token.as_ref().filter(|token| !token.is_same(&refused)) {
                return Ok(newer.clone());
            }
            state.token = None;
            self.tell_refused(source, refusal, now);
            self.begin(&mut state, source, Some(refused), now)?
        };
        ended(fetch, deadline).await
    }

    /// Why there is none that is good, if the last fetch failed.
    pub(super) fn missing(&self, now: Instant) -> Option<NoToken> {
        let state = self.state();
        if state.token.as_ref().is_some_and(|token| now < token.ends_at) {
            return None;
        }
        state.failed.as_ref().map(|Failed { since, error, .. }| NoToken {
            since_s: now.saturating_duration_since(*since).as_secs(),
            why: error.advised(),
        })
    }

    /// Begins a fetch, unless one is on its way or failed just now.
    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        source: &Source,
        refused: Option<AccessToken>,
        now: Instant,
    ) -> Result<watch::Receiver<Option<Fetched>>, ApiError> {
        // One whose task is gone without a word would never end.
        if let Some(fetch) = state.fetch.as_ref().filter(|fetch| fetch.has_changed().is_ok()) {
            return Ok(fetch.clone());
        }
        if let Some(Failed { until, error, .. }) = state.failed.as_ref().filter(|failed| now < failed.until) {
            debug!(account = %source.account, "No access_token is fetched for {} ms", (*until - now).as_millis());
            return Err(error.clone());
        }
        let (sender, receiver) = watch::channel(None);
        state.fetch = Some(receiver.clone());
        let (own, source) = (self.clone(), source.clone());
        tokio::spawn(async move {
            let fetched = own.fetch(&source, refused).await;
            own.end(&source, &fetched);
            sender.send_replace(Some(fetched));
        });
        Ok(receiver)
    }

    /// Fetches a token. Where WeChat gives the one again that it has just refused, a new one is asked for, as often as it allows.
    async fn fetch(&self, source: &Source, refused: Option<AccessToken>) -> Fetched {
        let fetched = source.fetch().await?;
        let is_refused = refused.is_some_and(|refused| refused.is_same(&fetched));
        match is_refused && source.may_force && self.may_force(Instant::now()) {
            true => source.fetch_new().await,
            false => Ok(fetched),
        }
    }

    /// Whether a new stable token may be asked for now; if so, it counts.
    fn may_force(&self, now: Instant) -> bool {
        let forced = &mut self.state().forced;
        forced.retain(|then| now.saturating_duration_since(*then) < DAY);
        let is_apart = forced.back().is_none_or(|last| now.saturating_duration_since(*last) >= FORCED_APART);
        let may = is_apart && forced.len() < FORCED_PER_DAY_MAX;
        if may {
            forced.push_back(now);
        }
        may
    }

    fn end(&self, source: &Source, fetched: &Fetched) {
        let mut state = self.state();
        state.fetch = None;
        source.metrics.iter().for_each(|metrics| metrics.token(fetched.is_ok()));
        let account = &source.account;
        match fetched {
            Ok(token) => {
                debug!(%account, "A new access_token is good for {} s", token.expires_in.as_secs());
                state.token = Some(token.clone());
                state.failed = None;
            }
            Err(error) => {
                let now = Instant::now();
                let (times, since) = state.failed.as_ref().map_or((0, now), |failed| (failed.times, failed.since));
                let pause = FAILURE_PAUSE.saturating_mul(1 << times.min(16)).min(FAILURE_PAUSE_MAX);
                let advised = error.advised();
                warn!(%account, "The access_token of account `{account}` cannot be fetched: {advised}");
                state.failed = Some(Failed { times: times + 1, since, until: now + pause, error: error.clone() });
            }
        }
    }

    fn tell_refused(&self, source: &Source, refusal: &ApiError, now: Instant) {
        if self.told.turn((), now).is_some() {
            let account = &source.account;
            warn!(
                %account,
                "The access_token of account `{account}` was good no more ({}), and another is fetched; if this comes again and \
                 again, another program makes it invalid: let it use `stable_token`",
                refusal.code().unwrap_or_default()
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of a fetch.
async fn ended(mut fetch: watch::Receiver<Option<Fetched>>, deadline: Instant) -> Fetched {
    let limit = deadline.saturating_duration_since(Instant::now());
    match timeout_at(deadline.into(), fetch.wait_for(Option::is_some)).await {
        Ok(Ok(fetched)) => fetched.clone().expect("it was waited for"),
        Ok(Err(_)) => Err(ApiError::Unreachable("the fetch of the access_token ended without a word".into())),
        Err(_) => Err(ApiError::Timeout { limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_five_minutes_before_its_end() {
        let now = Instant::now();
        let renewed_after = |life| {
            let token = AccessToken::new("t".into(), now, Duration::from_secs(life));
            token.renewed_at.duration_since(now).as_secs()
        };
        assert_eq!([7_200, 345, 300, 60, 5, 0].map(renewed_after), [6_900, 45, 10, 10, 2, 0]);
    }

    #[test]
    fn new_stable_tokens_are_asked_for_as_often_as_wechat_allows() {
        let (token, start) = (ManagedToken::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(token.may_force(start) && !token.may_force(after(29)) && token.may_force(after(30)));
        for count in 2..20 {
            assert!(token.may_force(after(30 * count)), "{count}");
        }
        assert!(!token.may_force(after(3_600)));
        assert!(token.may_force(after(86_400)) && !token.may_force(after(86_429)));
    }

    /// What asks a WeChat that gives tokens so, as a conversation file writes it.
    fn source(answer: &str) -> Source {
        let file = format!("! POST https://api.weixin.qq.com/cgi-bin/stable_token -> 200 {answer}\n");
        let egress = crate::egress::Egress::played(crate::conversation::Conversation::parse(&file).unwrap().exchanges);
        Source {
            account: "main".into(),
            app_id: "wx1".into(),
            app_secret: "hidden7".into(),
            kind: crate::config::TokenKind::Stable,
            may_force: true,
            endpoint: crate::api::exchange::Endpoint::played(egress),
            metrics: None,
        }
    }

    #[tokio::test]
    async fn while_a_token_is_renewed_the_one_that_is_still_good_is_used() {
        let (managed, now) = (Arc::new(ManagedToken::default()), Instant::now());
        let old = AccessToken { renewed_at: now, ..AccessToken::new("old".into(), now, DAY) };
        managed.state().token = Some(old);
        let never = source("{} after 600s");
        let token = managed.current(&never, now + DAY).await.unwrap();
        assert_eq!(token.token.expose(), "old");
        tokio::task::yield_now().await;
        let is_on_its_way = |fetch: &watch::Receiver<_>| matches!(fetch.has_changed(), Ok(false));
        assert!(managed.state().fetch.as_ref().is_some_and(is_on_its_way));
    }

    #[tokio::test]
    async fn a_token_that_somebody_else_replaced_already_is_not_fetched_again() {
        let (managed, now) = (Arc::new(ManagedToken::default()), Instant::now());
        let token = |name: &str| AccessToken::new(name.into(), now, DAY);
        managed.state().token = Some(token("new"));
        let source = source("{\"access_token\":\"newest\",\"expires_in\":7200}");
        let refusal = ApiError::Refused { code: 40_001, message: String::new() };
        let instead = async |of| managed.instead_of(token(of), &refusal, &source, now + DAY).await.unwrap();
        assert_eq!(instead("old").await.token.expose(), "new");
        assert_eq!(instead("new").await.token.expose(), "newest");
    }

    #[test]
    fn debugging_shows_no_token() {
        let token = AccessToken::new("hidden7".into(), Instant::now(), Duration::ZERO);
        assert!(!format!("{token:?}").contains("hidden7"));
    }
}
