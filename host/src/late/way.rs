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

/// What WeChat refuses for this one user, who said nothing for too long, got enough or left: the account itself may send.
const ABOUT_THE_USER: [i64; 4] = [45_015, 45_047, 43_004, 43_019];

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

/// What is known of the accounts with `deliver = "auto"`. WeChat is asked once for each, and again after a restart or when
/// the account's AppID or AppSecret changed.
#[derive(Debug, Default)]
pub struct Ways {
    accounts: StdMutex<HashMap<String, Arc<Known>>>,
    told: OnceAMinute<String>,
}

#[derive(Debug)]
struct Known {
    /// Of which account at WeChat it is known: AppID and AppSecret.
    identity: u64,
    way: Mutex<Option<Way>>,
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
        if way.is_some() {
            return *way;
        }
        let told = api.typing(openid, true, deadline).await;
        *way = self.learn(&account.name, told.as_ref().err());
        *way
    }

    /// Whether a reply whose user was put off is sent, and not kept until they ask. Where that is not known or may change, whoever
    /// was not told to ask must get it all the same, if WeChat takes it.
    pub async fn is_sent(&self, serving: &Serving, openid: &str, is_asked_for: bool, deadline: Instant) -> bool {
        match self.of(serving, openid, deadline).await {
            Some(Way::CustomerService) => true,
            Some(Way::NextTry) => false,
            Some(Way::Barred) | None => !is_asked_for,
        }
    }

    /// Whether an account's late replies are known to be sent as customer-service messages.
    pub fn is_by_customer_service(&self, serving: &Serving) -> bool {
        let known = || self.known(&serving.account).way.try_lock().is_ok_and(|way| *way == Some(Way::CustomerService));
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
        if !matches!(*way, Some(Way::NextTry | Way::Barred)) {
            *way = self.learn(&account.name, Some(error));
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
                warn!(
                    account = %name,
                    "Late replies of account `{name}` go out by WeChat's next try, and what misses that is kept: WeChat does \
                     not let it send customer-service messages ({}); it is asked again after a restart", error.advised()
                );
                Some(if code == NO_RIGHT { Way::NextTry } else { Way::Barred })
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
