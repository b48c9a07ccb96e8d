//! Answers of WeChat to logins: each counts once. WeChat opens the callback twice now and then; the second joins the first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{problem::Problem, session::Opened, state::State};

/// What came of a login.
pub type Outcome = Result<Opened, Arc<Problem>>;

/// The states that were used, until they are over.
#[derive(Debug, Default)]
pub struct Logins(Mutex<BTreeMap<State, Used>>);

#[derive(Debug)]
struct Used {
    /// The hash of the code that came with it.
    code: [u8; 32],
    outcome: watch::Receiver<Option<Outcome>>,
}

/// What an answer is to do.
#[derive(Debug)]
pub enum Claim {
    /// It is the first with its state: exchange the code, and say what came of it.
    First(Slot),
    /// The same answer once more: it gets what the first one gets.
    Again(Joined),
    /// Its state was used with another code.
    Used,
    /// No more states can be remembered, and so none can be used.
    Full,
}

/// The right and duty to say what came of a login. Dropped without a word, it tells that something broke.
#[derive(Debug)]
pub struct Slot(watch::Sender<Option<Outcome>>);

/// A place beside the first answer.
#[derive(Debug)]
pub struct Joined(watch::Receiver<Option<Outcome>>);

impl Logins {
    /// Takes an answer with a verified state. A used one is forgotten when it is over, for then nobody takes it any more.
    pub fn claim(&self, state: State, code: &str, now_s: u64, logins_max: usize) -> Claim {
        let code: [u8; 32] = Sha256::digest(code).into();
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while states.first_key_value().is_some_and(|(oldest, _)| oldest.expires_s <= now_s) {
            states.pop_first();
        }
        if states.len() >= logins_max {
            // A code that WeChat refused is worth nothing to anybody: strangers cannot fill this with made-up ones.
            states.retain(|_, used| !used.has_failed());
        }
        match states.get(&state) {
            Some(used) if used.code == code => Claim::Again(Joined(used.outcome.clone())),
            Some(_) => Claim::Used,
            None if states.len() >= logins_max => Claim::Full,
            None => {
                let (sender, outcome) = watch::channel(None);
                states.insert(state, Used { code, outcome });
                Claim::First(Slot(sender))
            }
        }
    }
}

impl Used {
    fn has_failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Err(_)))
    }
}

impl Slot {
    /// Tells everybody what came of it.
    pub fn publish(self, outcome: Outcome) {
        self.0.send_replace(Some(outcome));
    }

    /// A place to hear it at.
    pub fn join(&self) -> Joined {
        Joined(self.0.subscribe())
    }
}

impl Joined {
    /// Waits for what came of it.
    pub async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(Arc::new(Problem::Broken))),
            Err(_) => Err(Arc::new(Problem::Broken)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 1_000;

    fn state(nonce: u8, expires_s: u64) -> State {
        State { expires_s, nonce: [nonce; 16] }
    }

    fn opened() -> Opened {
        Opened { cookie: "c".into() }
    }

    #[tokio::test]
    async fn the_same_answer_twice_is_one_exchange_with_one_result() {
        let logins = Logins::default();
        let Claim::First(slot) = logins.claim(state(1, 10), "code", 1, MANY) else { panic!("it is new") };
        let Claim::Again(early) = logins.claim(state(1, 10), "code", 1, MANY) else { panic!("it joins") };
        slot.publish(Ok(opened()));
        let Claim::Again(late) = logins.claim(state(1, 10), "code", 9, MANY) else { panic!("it joins") };
        assert_eq!(early.outcome().await.unwrap().cookie, "c");
        assert_eq!(late.outcome().await.unwrap().cookie, "c");
    }

    #[test]
    fn a_state_counts_for_one_code() {
        let logins = Logins::default();
        let _first = logins.claim(state(1, 10), "code", 1, MANY);
        assert!(matches!(logins.claim(state(1, 10), "other", 1, MANY), Claim::Used));
    }

    #[tokio::test]
    async fn an_exchange_that_breaks_is_told_to_who_waits() {
        let logins = Logins::default();
        let Claim::First(slot) = logins.claim(state(1, 10), "code", 1, MANY) else { panic!("it is new") };
        let joined = slot.join();
        drop(slot);
        assert!(matches!(*joined.outcome().await.unwrap_err(), Problem::Broken));
    }

    #[test]
    fn when_no_more_can_be_remembered_none_is_taken_until_some_are_over() {
        let logins = Logins::default();
        let _slots = [1, 2].map(|nonce| logins.claim(state(nonce, 10 + u64::from(nonce)), "code", 1, 2));
        assert!(matches!(logins.claim(state(3, 20), "code", 10, 2), Claim::Full));
        assert!(matches!(logins.claim(state(3, 20), "code", 11, 2), Claim::First(_)));
        assert!(matches!(logins.claim(state(2, 12), "code", 11, 2), Claim::Again(_)));
    }

    #[test]
    fn codes_that_wechat_refused_keep_no_login_out() {
        let logins = Logins::default();
        for nonce in [1, 2] {
            let Claim::First(slot) = logins.claim(state(nonce, 10), "made up", 1, 2) else { panic!("there is room") };
            slot.publish(Err(Arc::new(Problem::Broken)));
        }
        let Claim::First(slot) = logins.claim(state(3, 10), "code", 1, 2) else { panic!("there is room") };
        slot.publish(Ok(opened()));
        assert!(matches!(logins.claim(state(3, 10), "code", 1, 1), Claim::Again(_)));
        assert!(matches!(logins.claim(state(4, 10), "code", 1, 1), Claim::Full));
    }
}
