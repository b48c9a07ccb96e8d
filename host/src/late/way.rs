//! By which way an account's late replies go, and how that is found out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, time::timeout_at};
use tracing::{info, warn};

use crate::{
    api::ApiError,
    app::Serving,
    config::{Account, Deliver},
    refusal::OnceAMinute,
};

/// The account may not send customer-service messages at all.
pub const NO_RIGHT: i64 = 48_001;

/// WeChat does not let this machine call its API.
const NOT_IN_WHITELIST: i64 = 40_164;

/// What WeChat refuses for this one user, who said nothing for too long, got enough, sees already that somebody types, or
/// left: the account itself may send.
const ABOUT_THE_USER: [i64; 6] = [45_015, 45_047, 45_080, 45_081, 43_004, 43_019];

/// How long this machine counts as shut out before WeChat is asked again: the operator lets it in meanwhile.
const BARRED_FOR: Duration = Duration::from_secs(600);

/// How long WeChat may take to say what an account may.
const ASKING_TAKES_MAX: Duration = Duration::from_secs(2);

/// By which way a reply goes that missed its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    CustomerService,
    NextTry,
    /// As long as the operator has not let this machine in: by the next try. What was put off before is sent after that.
    Barred,
}

/// What is known of the accounts with `deliver = "auto"`. WeChat is asked once for each, and again after a restart, when the
/// account's AppID or AppSecret changed, and after a while where it does not let this machine in.
#[derive(Debug, Default)]
pub struct Ways {
    accounts: StdMutex<HashMap<String, Arc<Known>>>,
    told: OnceAMinute<String>,
}

#[derive(Debug)]
struct Known {
    /// Of which account at WeChat it is known: AppID and AppSecret.
    identity: u64,
    /// The way, and since when it is known.
    way: Mutex<Option<(Way, Instant)>>,
}

impl Way {
    /// Whether nothing else is to be expected when it was so for so long.
    fn holds_after(self, age: Duration) -> bool {
        self != Self::Barred || age < BARRED_FOR
    }
}

impl Ways {
    /// Returns the way of an account's late replies. Where WeChat has to be asked, by showing the user that the bot is typing,
    /// nothing is known if no answer is there by `deadline`.
    pub async fn of(&self, serving: &Serving, openid: &str, deadline: Instant) -> Option<Way> {
        let account = &serving.account;
        let Some(api) = &serving.api else { return Some(Way::NextTry) };
        match account.late.deliver {
            Deliver::CustomerService => return Some(Way::CustomerService),
            Deliver::NextTry => return Some(Way::NextTry),
            Deliver::Auto => {}
        }
        let deadline = deadline.min(Instant::now() + ASKING_TAKES_MAX);
        let known = self.known(account);
        // Whoever comes while WeChat is asked waits for the same answer.
        let Ok(mut way) = timeout_at(deadline.into(), known.way.lock()).await else { return None };
        if let Some((known, since)) = *way
            && known.holds_after(since.elapsed())
        {
            return Some(known);
        }
        let told = api.typing(openid, true, deadline).await;
        let learnt = self.learn(&account.name, told.as_ref().err());
        *way = learnt.map(|way| (way, Instant::now()));
        learnt
    }

    /// Whether a reply whose user was put off is sent, and not kept until they ask. Where that is not known or may change,
    /// whoever was not told to ask must get it all the same, if WeChat takes it.
    pub async fn is_sent(&self, serving: &Serving, openid: &str, is_asked_for: bool, deadline: Instant) -> bool {
        match self.of(serving, openid, deadline).await {
            Some(Way::CustomerService) => true,
            Some(Way::NextTry) => false,
            Some(Way::Barred) | None => !is_asked_for,
        }
    }

    /// Whether an account's late replies are known to be sent as customer-service messages.
    pub fn is_by_customer_service(&self, serving: &Serving) -> bool {
        let is_so = |way: &Option<(Way, Instant)>| matches!(way, Some((Way::CustomerService, _)));
        let known = || self.known(&serving.account).way.try_lock().is_ok_and(|way| is_so(&way));
        match serving.account.late.deliver {
            Deliver::NextTry => false,
            Deliver::CustomerService => serving.api.is_some(),
            Deliver::Auto => serving.api.is_some() && known(),
        }
    }

    /// Remembers that WeChat does not let an account send, if that is what a refused send says.
    pub async fn refuse(&self, account: &Account, error: &ApiError) {
        let is_refused = matches!(error.code(), Some(NO_RIGHT | NOT_IN_WHITELIST));
        if account.late.deliver != Deliver::Auto || !is_refused {
            return;
        }
        let known = self.known(account);
        let mut way = known.way.lock().await;
        if !matches!(*way, Some((Way::NextTry | Way::Barred, _))) {
            *way = self.learn(&account.name, Some(error)).map(|way| (way, Instant::now()));
        }
    }

    /// Says what an answer means for all of an account's messages, and tells the operator.
    fn learn(&self, name: &str, refused: Option<&ApiError>) -> Option<Way> {
        let about_the_account = |error: &&ApiError| !error.code().is_some_and(|code| ABOUT_THE_USER.contains(&code));
        let Some(error) = refused.filter(about_the_account) else {
            info!(account = %name, "Late replies of account `{name}` go out as customer-service messages");
            return Some(Way::CustomerService);
        };
        match error.code() {
            Some(code @ (NO_RIGHT | NOT_IN_WHITELIST)) => {
                let (way, again) = match code {
                    NO_RIGHT => (Way::NextTry, "after a restart"),
                    _ => (Way::Barred, "in ten minutes"),
                };
                warn!(
                    account = %name,
                    "Late replies of account `{name}` go out by WeChat's next try, and what misses that is kept: WeChat does \
                     not let it send customer-service messages ({}); it is asked again {again}", error.advised()
                );
                Some(way)
            }
            _ => {
                if self.told.turn(name.to_owned(), Instant::now()).is_some() {
                    warn!(
                        account = %name,
                        "Whether account `{name}` may send customer-service messages is not known yet, so late replies go out \
                         by WeChat's next try: {}", error.advised()
                    );
                }
                None
            }
        }
    }

    fn known(&self, account: &Account) -> Arc<Known> {
        let identity = identity(account);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        match accounts.get(&account.name).filter(|known| known.identity == identity) {
            Some(known) => known.clone(),
            None => {
                let known = Arc::new(Known { identity, way: Mutex::default() });
                accounts.insert(account.name.clone(), known.clone());
                known
            }
        }
    }
}

/// Which account at WeChat it is, in this run of the host.
fn identity(account: &Account) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    account.app_id.hash(&mut hasher);
    account.app_secret.as_ref().map(|secret| secret.expose()).hash(&mut hasher);
    account.api_base_url.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_user_says_that_the_account_may() {
        let learnt = |code| Ways::default().learn("main", Some(&ApiError::Refused { code, message: String::new() }));
        assert_eq!(ABOUT_THE_USER.map(learnt), [Some(Way::CustomerService); 6]);
        assert_eq!([48_001, 40_164, -1].map(learnt), [Some(Way::NextTry), Some(Way::Barred), None]);
    }

    #[test]
    fn only_what_the_operator_can_mend_is_asked_again() {
        let after = |age| [Way::CustomerService, Way::NextTry, Way::Barred].map(|way| way.holds_after(age));
        assert_eq!(after(BARRED_FOR / 2), [true; 3]);
        assert_eq!(after(BARRED_FOR), [true, true, false]);
    }
}
