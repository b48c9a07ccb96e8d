//! The APIs of all accounts of a host: what their calls share, and what outlives a reload.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{
    Api,
    access_token::{ManagedToken, Source},
    exchange::Endpoint,
    turns::Turns,
};
use crate::{
    config::{Account, Config, Http, TokenKind, WechatApi},
    egress::Egress,
    metrics::Metrics,
    secret::Secret,
};

/// Gives accounts their APIs. Cheap to clone: all clones share tokens, turns and connections.
#[derive(Clone, Debug)]
pub enum Apis {
    /// Those of WeChat.
    Wechat(Arc<Registry>),
    /// For all accounts, what a conversation file plays.
    Played(Egress),
}

/// What the APIs of one host share.
#[derive(Debug)]
pub struct Registry {
    egress: Egress,
    /// Where calls are counted; nothing for a command that nobody watches.
    metrics: Option<Metrics>,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: Http,
    settings: WechatApi,
    calls: Arc<Semaphore>,
    lines: HashMap<Key, Line>,
}

/// What makes two accounts one to WeChat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    app_id: String,
    secret_hash: [u8; 32],
    base_url: String,
    kind: TokenKind,
}

/// What the calls of one account at WeChat share.
#[derive(Debug)]
struct Line {
    token: Arc<ManagedToken>,
    calls: Arc<Semaphore>,
    /// Of these, those for visitors.
    visitors: Arc<Semaphore>,
}

impl Line {
    fn new(token: Arc<ManagedToken>, calls_max: usize) -> Self {
        let [calls, visitors] = [calls_max, calls_max.div_ceil(2)].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { token, calls, visitors }
    }
}

impl Apis {
    /// The APIs of a host that serves.
    pub fn new(config: &Config, metrics: Metrics) -> Self {
        Self::of_wechat(config, Some(metrics))
    }

    /// The APIs for one command, which may run beside a host: it takes the stable token that the host has, too, and makes none
    /// invalid.
    pub fn of_command(config: &Config) -> Self {
        Self::of_wechat(config, None)
    }

    fn of_wechat(config: &Config, metrics: Option<Metrics>) -> Self {
        let (http, settings) = (config.http.clone(), config.wechat_api.clone());
        let egress = Egress::network(&settings.http(&http));
        let calls = Arc::new(Semaphore::new(settings.calls_max));
        let shared = Mutex::new(Shared { http, settings, calls, lines: HashMap::new() });
        Self::Wechat(Arc::new(Registry { egress, metrics, shared }))
    }

    /// Follows a change of the settings: the APIs that are given from now on have them. Tokens stay.
    pub fn configure(&self, config: &Config) {
        if let Self::Wechat(registry) = self {
            registry.configure(config);
        }
    }

    /// Whether nothing reaches WeChat.
    pub fn are_played(&self) -> bool {
        matches!(self, Self::Played(_))
    }

    /// Returns an account's API; none for an account without AppID or AppSecret.
    pub fn of(&self, account: &Account) -> Option<Api> {
        match self {
            Self::Wechat(registry) => registry.of(account),
            Self::Played(egress) => Some(Api::played(egress.clone())),
        }
    }
}

impl Registry {
    fn configure(&self, config: &Config) {
        self.egress.configure(&config.wechat_api.http(&config.http));
        let known: HashSet<Key> = config.accounts.iter().filter_map(|account| Some(self.key(account)?.0)).collect();
        let mut shared = self.shared();
        shared.lines.retain(|key, _| known.contains(key));
        if shared.settings.calls_max != config.wechat_api.calls_max {
            shared.calls = Arc::new(Semaphore::new(config.wechat_api.calls_max));
        }
        if shared.settings.calls_per_account_max != config.wechat_api.calls_per_account_max {
            let calls_max = config.wechat_api.calls_per_account_max;
            shared.lines.values_mut().for_each(|line| *line = Line::new(line.token.clone(), calls_max));
        }
        (shared.http, shared.settings) = (config.http.clone(), config.wechat_api.clone());
    }

    fn of(&self, account: &Account) -> Option<Api> {
        let (key, app_secret) = self.key(account)?;
        let mut shared = self.shared();
        let Shared { http, settings, calls, lines } = &mut *shared;
        let endpoint = Endpoint::new(self.egress.clone(), &key.base_url, http, settings);
        let source = Source {
            account: account.name.as_str().into(),
            app_id: key.app_id.clone(),
            app_secret,
            kind: key.kind,
            may_force: self.is_host(),
            endpoint,
            metrics: self.metrics.as_ref().map(|metrics| metrics.api(&account.name)),
        };
        let line = lines.entry(key).or_insert_with(|| Line::new(Arc::default(), settings.calls_per_account_max));
        let turns = Turns { account: line.calls.clone(), visitors: line.visitors.clone(), host: calls.clone() };
        Some(Api::network(source, line.token.clone(), turns))
    }

    fn key(&self, account: &Account) -> Option<(Key, Secret)> {
        let (app_id, app_secret) = (account.app_id.clone()?, account.app_secret.clone()?);
        // A command's own fetch of the other kind would make the host's token invalid; the stable one stands beside it.
        let kind = if self.is_host() { account.token_kind } else { TokenKind::Stable };
        let secret_hash = Sha256::digest(app_secret.expose()).into();
        Some((Key { app_id, secret_hash, base_url: account.api_base_url.to_string(), kind }, app_secret))
    }

    fn is_host(&self) -> bool {
        self.metrics.is_some()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Each change is whole before anything could panic.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::load;

    const TWO: &str = "[accounts.a]\npath = \"/a\"\ntoken = \"abc\"\napp_id = \"wx1\"\napp_secret = \"hidden7\"\n\
                       [accounts.b]\npath = \"/b\"\ntoken = \"abc\"\napp_id = \"wx1\"\napp_secret = \"hidden7\"\n";

    fn token(apis: &Apis, config: &Config, index: usize) -> Arc<ManagedToken> {
        apis.of(&config.accounts[index]).unwrap().0.token.clone().unwrap().1
    }

    #[test]
    fn two_accounts_of_one_app_id_have_one_token_and_keep_it_across_reloads() {
        let config = load(TWO);
        let apis = Apis::new(&config, Metrics::new(0));
        let before = token(&apis, &config, 0);
        assert!(Arc::ptr_eq(&before, &token(&apis, &config, 1)));
        let changed = load(&format!("{TWO}[wechat_api]\ncalls_per_account_max = 1\ntimeout_ms = 100\n"));
        apis.configure(&changed);
        assert!(Arc::ptr_eq(&before, &token(&apis, &changed, 0)));
        let api = apis.of(&changed.accounts[0]).unwrap();
        assert_eq!((api.timeout().as_millis(), api.0.turns.as_ref().unwrap().account.available_permits()), (100, 1));
    }

    #[test]
    fn another_secret_is_another_token_and_what_is_gone_is_forgotten() {
        let config = load(TWO);
        let apis = Apis::new(&config, Metrics::new(0));
        let before = token(&apis, &config, 0);
        let changed = load(&TWO.replace("hidden7", "hidden8"));
        apis.configure(&changed);
        assert!(!Arc::ptr_eq(&before, &token(&apis, &changed, 0)));
        let Apis::Wechat(registry) = &apis else { unreachable!("it was made for WeChat") };
        assert_eq!(registry.shared().lines.len(), 1);
    }

    #[test]
    fn a_command_takes_the_stable_token_whatever_the_host_does_and_forces_none() {
        let config = load(&TWO.replace("[accounts.b]", "access_token_from = \"token\"\n[accounts.b]"));
        let source = |apis: &Apis| apis.of(&config.accounts[0]).unwrap().0.token.clone().unwrap().0;
        let host = source(&Apis::new(&config, Metrics::new(0)));
        assert_eq!((host.kind, host.may_force), (TokenKind::Classic, true));
        let command = source(&Apis::of_command(&config));
        assert_eq!((command.kind, command.may_force), (TokenKind::Stable, false));
    }

    #[test]
    fn an_account_without_a_secret_has_no_api_and_debugging_shows_none() {
        let config = load(&TWO.replacen("app_secret = \"hidden7\"\n", "", 1));
        let apis = Apis::new(&config, Metrics::new(0));
        assert!(apis.of(&config.accounts[0]).is_none());
        let api = apis.of(&config.accounts[1]);
        assert!(api.is_some() && !format!("{api:?}{apis:?}").contains("hidden7"));
    }
}
