//! `state`: what a login's answer has to bring back, so that nobody can make one up, keep one, or give one to somebody else.
//!
//! It is all in what travels: a login that is begun and left costs the host nothing.

use std::time::Duration;

use super::keys::{Keys, Purpose, hex, random, unhex};
use crate::config::Scope;

/// What a login is about. All of it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub account: &'a str,
    /// The account's AppID: with another, it is another account.
    pub app_id: &'a str,
    /// Under which of the account's domains it began.
    pub domain: &'a str,
    /// The cookie of the browser in which it began.
    pub browser: &'a str,
    pub scope: Scope,
    /// Where it leads in the end.
    pub return_url: &'a str,
}

/// A state that was signed by us for this login, in this browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// When it is over, in seconds since 1970. First, so that states stand in the order of their ends.
    pub expires_s: u64,
    pub nonce: [u8; 16],
}

/// Why a state is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadState {
    /// We did not sign it, or for something else.
    Forged,
    Expired,
}

/// How a state looks: WeChat takes letters and digits, 128 at most. 32 digits of chance, 8 of time, the scope, the signature.
const NONCE: std::ops::Range<usize> = 0..32;
const EXPIRES: std::ops::Range<usize> = 32..40;
const SCOPE: usize = 40;
const SIGNATURE: std::ops::Range<usize> = 41..105;

/// Makes the state of a login that begins now.
pub fn sign(keys: &Keys, login: &Login<'_>, now_s: u64, lives: Duration) -> String {
    let expires_s = u32::try_from(now_s + lives.as_secs()).unwrap_or(u32::MAX);
    let (nonce, expires) = (hex(&random::<16>()), format!("{expires_s:08x}"));
    let signature = keys.sign(Purpose::State, &parts(login, &nonce, &expires));
    format!("{nonce}{expires}{}{signature}", letter(login.scope))
}

/// Reads which scope a state says that it is about. It counts only once the state is verified.
pub fn scope(text: &str) -> Option<Scope> {
    match text.as_bytes().get(SCOPE)? {
        b'b' => Some(Scope::Base),
        b'u' => Some(Scope::UserInfo),
        _ => None,
    }
}

/// Takes a state that WeChat brought back.
pub fn verify(keys: &Keys, login: &Login<'_>, text: &str, now_s: u64) -> Result<State, BadState> {
    if text.len() != SIGNATURE.end || !text.is_ascii() {
        return Err(BadState::Forged);
    }
    let (nonce, expires, signature) = (&text[NONCE], &text[EXPIRES], &text[SIGNATURE]);
    if !keys.verify(Purpose::State, &parts(login, nonce, expires), signature) {
        return Err(BadState::Forged);
    }
    // What we signed has this form.
    let nonce = unhex(nonce).ok_or(BadState::Forged)?;
    let expires_s = u64::from_str_radix(expires, 16).map_err(|_| BadState::Forged)?;
    if now_s >= expires_s { Err(BadState::Expired) } else { Ok(State { expires_s, nonce }) }
}

fn letter(scope: Scope) -> char {
    match scope {
        Scope::Base => 'b',
        Scope::UserInfo => 'u',
    }
}

fn parts<'a>(login: &Login<'a>, nonce: &'a str, expires: &'a str) -> [&'a str; 8] {
    [login.account, login.app_id, login.domain, login.browser, login.scope.word(), login.return_url, nonce, expires]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_dir::PrivateDir;

    const LOGIN: Login<'_> = Login {
        account: "main",
        app_id: "wx1",
        domain: "shop.example.com",
        browser: "b1",
        scope: Scope::UserInfo,
        return_url: "https://shop.example.com/me/main",
    };

    const LIVES: Duration = Duration::from_secs(600);

    fn keys() -> Keys {
        let dir = tempfile::tempdir().unwrap();
        Keys::open(PrivateDir::open(dir.path().join("keys")).unwrap()).unwrap()
    }

    #[test]
    fn a_state_is_what_wechat_takes() {
        let state = sign(&keys(), &LOGIN, 1_700_000_000, LIVES);
        assert!(state.len() <= 128 && state.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{state}");
        assert_eq!(scope(&state), Some(Scope::UserInfo));
    }

    #[test]
    fn a_state_is_good_for_its_own_login_until_it_is_over() {
        let keys = keys();
        let state = sign(&keys, &LOGIN, 1_700_000_000, LIVES);
        let verified = verify(&keys, &LOGIN, &state, 1_700_000_599).unwrap();
        assert_eq!(verified.expires_s, 1_700_000_600);
        assert_eq!(verify(&keys, &LOGIN, &state, 1_700_000_600), Err(BadState::Expired));
        for other in [
            Login { account: "other", ..LOGIN },
            Login { app_id: "wx2", ..LOGIN },
            Login { domain: "evil.example.com", ..LOGIN },
            Login { browser: "b2", ..LOGIN },
            Login { scope: Scope::Base, ..LOGIN },
            Login { return_url: "https://evil.example.com/", ..LOGIN },
        ] {
            assert_eq!(verify(&keys, &other, &state, 1_700_000_001), Err(BadState::Forged), "{other:?}");
        }
    }

    #[test]
    fn no_character_of_a_state_can_be_changed() {
        let keys = keys();
        let state = sign(&keys, &LOGIN, 1_700_000_000, LIVES);
        for at in 0..state.len() {
            let other = if &state[at..=at] == "0" { "1" } else { "0" };
            let changed = format!("{}{other}{}", &state[..at], &state[at + 1..]);
            // The scope is read before, and stands in `login`.
            let login = Login { scope: scope(&changed).unwrap_or(Scope::Base), ..LOGIN };
            assert_eq!(verify(&keys, &login, &changed, 1_700_000_001), Err(BadState::Forged), "{changed}");
        }
        for text in ["", "0", &state[1..], &format!("{state}0"), "状".repeat(35).as_str()] {
            assert_eq!(verify(&keys, &LOGIN, text, 1_700_000_001), Err(BadState::Forged));
        }
    }

    #[test]
    fn no_two_logins_share_a_state() {
        let keys = keys();
        let [one, other] = [0; 2].map(|_| sign(&keys, &LOGIN, 1_700_000_000, LIVES));
        assert_ne!(one, other);
    }
}
