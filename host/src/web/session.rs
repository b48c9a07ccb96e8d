//! Sessions: who a visitor is. The browser has a random number that we signed; all else stays here, in the store.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    keys::{Keys, Purpose, hex, random, unhex},
    now_s,
    problem::Problem,
};
use crate::{
    api::{Authorization, Profile},
    config::{Account, OAuth},
    secret::Secret,
    store::{
        Store,
        kv::{Bucket, Error, Quota, Space},
    },
};

/// How long the store may take while a visitor waits.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// What one session may take in the store at most: tokens have some hundred bytes, a profile's texts have their bounds.
const SESSION_BYTES_MAX: u64 = 32 << 10;

/// What stands between the number and its signature.
const SEPARATOR: char = '.';

/// Where the sessions of all accounts are.
#[derive(Clone, Debug)]
pub struct Sessions {
    store: Store,
    keys: Keys,
}

/// What the host knows of a visitor who is signed in.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Session {
    pub openid: String,
    pub union_id: Option<String>,
    /// What was authorised, in WeChat's words.
    pub scope: String,
    /// There if it was authorised.
    pub profile: Option<Profile>,
    #[serde(with = "kept")]
    pub access_token: Secret,
    /// When the access_token is over, in seconds since 1970.
    pub access_until_s: u64,
    #[serde(with = "kept")]
    pub refresh_token: Secret,
    pub opened_s: u64,
    /// When the profile was fetched.
    pub fetched_s: u64,
}

/// A session that was found, and what is needed to change it.
#[derive(Clone, Debug)]
pub struct Found {
    pub session: Session,
    key: String,
    stored: Vec<u8>,
}

/// What a browser gets when a session is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The cookie's value.
    pub cookie: String,
}

/// Tokens as they lie in the store, which belongs to the host alone.
mod kept {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::secret::Secret;

    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::from)
    }
}

impl Sessions {
    /// Keeps sessions in a store.
    pub fn new(store: Store, keys: Keys) -> Self {
        Self { store, keys }
    }

    /// Opens a session for a visitor who signed in.
    pub async fn open(&self, account: &Account, session: &Session, settings: &OAuth) -> Result<Opened, Problem> {
        let id = hex(&random::<16>());
        let signature = self.keys.sign(Purpose::Session, &parts(account, &id));
        let (bucket, lives_s) = (self.bucket(account, settings), session.left_s(settings));
        let set = bucket.set(&key(&id), session.stored(), Some(lives_s), deadline()).await;
        set.map_err(|error| problem(error, account, settings))?;
        Ok(Opened { cookie: format!("{id}{SEPARATOR}{signature}") })
    }

    /// Finds the session of a cookie. One that we did not sign costs the store nothing.
    pub async fn find(
        &self,
        account: &Account,
        cookie: Option<&str>,
        settings: &OAuth,
    ) -> Result<Option<Found>, Problem> {
        let Some((id, signature)) = cookie.and_then(|cookie| cookie.split_once(SEPARATOR)) else { return Ok(None) };
        if unhex::<16>(id).is_none() || !self.keys.verify(Purpose::Session, &parts(account, id), signature) {
            return Ok(None);
        }
        let key = key(id);
        let got = self.bucket(account, settings).get(&key, deadline()).await;
        let Some(stored) = got.map_err(|error| problem(error, account, settings))? else { return Ok(None) };
        // What an earlier version wrote in another form is over.
        let session = serde_json::from_slice::<Session>(&stored).ok();
        // `session_s` may have been lowered since.
        let session = session.filter(|session| session.left_s(settings) > 0);
        Ok(session.map(|session| Found { session, key, stored }))
    }

    /// Keeps what changed, unless the session was closed or changed meanwhile.
    pub async fn renew(&self, account: &Account, found: &mut Found, settings: &OAuth) -> Result<(), Problem> {
        let (new, lives_s) = (found.session.stored(), found.session.left_s(settings).max(1));
        let old = Some(std::mem::replace(&mut found.stored, new.clone()));
        let bucket = self.bucket(account, settings);
        let set = bucket.compare_and_set(&found.key, old, Some(new), Some(lives_s), deadline()).await;
        set.map(drop).map_err(|error| problem(error, account, settings))
    }

    /// Ends a session: its cookie is worth nothing any more.
    pub async fn close(&self, account: &Account, found: &Found, settings: &OAuth) -> Result<(), Problem> {
        let deleted = self.bucket(account, settings).delete(&found.key, deadline()).await;
        deleted.map_err(|error| problem(error, account, settings))
    }

    fn bucket(&self, account: &Account, settings: &OAuth) -> Bucket {
        let keys = settings.sessions_max;
        Bucket::new(
            self.store.clone(),
            Space::of_sessions(&account.name),
            Quota { bytes: keys * SESSION_BYTES_MAX, keys },
        )
    }
}

impl Session {
    /// The session of a visitor whose code was exchanged now.
    pub fn new(authorization: &Authorization, profile: Option<Profile>) -> Self {
        let now_s = now_s();
        Self {
            openid: authorization.openid.clone(),
            union_id: authorization.union_id.clone().or_else(|| profile.as_ref()?.unionid.clone()),
            scope: authorization.scope.clone(),
            profile,
            access_token: authorization.access_token.clone(),
            access_until_s: now_s.saturating_add(authorization.expires_in.as_secs()),
            refresh_token: authorization.refresh_token.clone(),
            opened_s: now_s,
            fetched_s: now_s,
        }
    }

    fn left_s(&self, settings: &OAuth) -> u32 {
        let until_s = self.opened_s + settings.session.as_secs();
        u32::try_from(until_s.saturating_sub(now_s())).unwrap_or(u32::MAX)
    }

    fn stored(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has only texts for keys")
    }
}

/// What is signed. A session is the account's under its AppID: the openids of another are other people.
fn parts<'a>(account: &'a Account, id: &'a str) -> [&'a str; 3] {
    [&account.name, account.app_id.as_deref().unwrap_or_default(), id]
}

/// The key of a session. Who reads the store learns no cookie.
fn key(id: &str) -> String {
    hex(&Sha256::digest(id))
}

fn deadline() -> Instant {
    Instant::now() + STORE_TIMEOUT
}

fn problem(error: Error, account: &Account, settings: &OAuth) -> Problem {
    match error {
        Error::FullOfBytes { .. } | Error::FullOfKeys { .. } => {
            Problem::SessionsFull { account: account.name.clone(), sessions_max: settings.sessions_max }
        }
        error => Problem::Store(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{config::fixture::load, private_dir::PrivateDir};

    fn settings() -> OAuth {
        load("[accounts.main]\ntoken = \"abc\"\n[oauth]\nsession_s = 1000\nsessions_max = 100\n").oauth
    }

    fn account(name: &str, app_id: &str) -> Arc<Account> {
        let toml = format!("[accounts.{name}]\ntoken = \"abc\"\napp_id = \"{app_id}\"\n");
        load(&toml).accounts.remove(0)
    }

    fn main_account() -> Arc<Account> {
        account("main", "wx0123456789abcdef")
    }

    fn sessions() -> Sessions {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(PrivateDir::open(dir.path().join("keys")).unwrap()).unwrap();
        Sessions::new(Store::scratch(), keys)
    }

    fn session() -> Session {
        let authorization = Authorization {
            openid: "oA".into(),
            union_id: None,
            scope: "snsapi_userinfo".into(),
            access_token: "access7".into(),
            expires_in: Duration::from_secs(7_200),
            refresh_token: "refresh7".into(),
            is_snapshot: false,
        };
        let profile = Profile { nickname: "小明".into(), unionid: Some("u1".into()), ..Profile::default() };
        Session::new(&authorization, Some(profile))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cookie_finds_its_session_in_its_account_and_shows_nothing_of_it() {
        let (sessions, settings) = (sessions(), settings());
        let opened = sessions.open(&main_account(), &session(), &settings).await.unwrap();
        let found = sessions.find(&main_account(), Some(&opened.cookie), &settings).await.unwrap().unwrap();
        assert_eq!((found.session.openid.as_str(), found.session.union_id.as_deref()), ("oA", Some("u1")));
        assert_eq!(found.session.refresh_token.expose(), "refresh7");
        // Neither in another account, nor in this one once it has another AppID.
        for other in [account("other", "wx0123456789abcdef"), account("main", "wx9999999999abcdef")] {
            assert!(sessions.find(&other, Some(&opened.cookie), &settings).await.unwrap().is_none());
        }
        for hidden in ["oA", "access7", "refresh7", "u1"] {
            assert!(!opened.cookie.contains(hidden));
        }
        assert!(!format!("{:?}", found.session).contains("refresh7"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cookie_that_we_did_not_sign_is_none() {
        let (sessions, settings) = (sessions(), settings());
        let opened = sessions.open(&main_account(), &session(), &settings).await.unwrap();
        let (id, signature) = opened.cookie.split_once('.').unwrap();
        let other = sessions.open(&main_account(), &session(), &settings).await.unwrap();
        let other = other.cookie.split_once('.').unwrap().1;
        for cookie in
            ["", ".", id, &format!("{id}."), &format!("{id}.{other}"), &format!("{}.{signature}", "0".repeat(32))]
        {
            assert!(sessions.find(&main_account(), Some(cookie), &settings).await.unwrap().is_none(), "{cookie}");
        }
        assert!(sessions.find(&main_account(), None, &settings).await.unwrap().is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_that_was_closed_is_not_brought_back() {
        let (sessions, settings) = (sessions(), settings());
        let opened = sessions.open(&main_account(), &session(), &settings).await.unwrap();
        let mut found = sessions.find(&main_account(), Some(&opened.cookie), &settings).await.unwrap().unwrap();
        sessions.close(&main_account(), &found, &settings).await.unwrap();
        found.session.fetched_s += 1;
        sessions.renew(&main_account(), &mut found, &settings).await.unwrap();
        assert!(sessions.find(&main_account(), Some(&opened.cookie), &settings).await.unwrap().is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_ends_in_time_also_when_the_time_is_shortened() {
        let (sessions, settings) = (sessions(), settings());
        let old = Session { opened_s: now_s() - 500, ..session() };
        let opened = sessions.open(&main_account(), &old, &settings).await.unwrap();
        assert!(sessions.find(&main_account(), Some(&opened.cookie), &settings).await.unwrap().is_some());
        let shorter = OAuth { session: Duration::from_secs(400), ..settings };
        assert!(sessions.find(&main_account(), Some(&opened.cookie), &shorter).await.unwrap().is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn when_all_places_are_taken_the_setting_to_raise_is_named() {
        let (sessions, settings) = (sessions(), OAuth { sessions_max: 1, ..settings() });
        sessions.open(&main_account(), &session(), &settings).await.unwrap();
        let error = sessions.open(&main_account(), &session(), &settings).await.unwrap_err().to_string();
        assert!(error.contains("`oauth.sessions_max` is 1"), "{error}");
        // Another account has its own.
        sessions.open(&account("other", "wx0123456789abcdef"), &session(), &settings).await.unwrap();
    }
}
