//! The tokens of the account: two kinds that know nothing of each other.

use std::{collections::HashSet, time::Duration, time::Instant};

use super::{ACCESS_TOKEN, refusal};
use serde_json::{Value, json};

/// From which rest of its life on a stable token is renewed when somebody asks.
const RENEWED_BEFORE_S: u64 = 300;

#[derive(Debug)]
pub(super) struct Tokens {
    stable: Option<(String, Instant)>,
    classic: Option<(String, Instant)>,
    /// Those that came to their end, for which WeChat says another code than for those that were replaced.
    ended: HashSet<String>,
    made: usize,
    pub(super) expires_in_s: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { stable: None, classic: None, ended: HashSet::new(), made: 0, expires_in_s: 345 }
    }
}

impl Tokens {
    /// `stable_token`: the same for everybody, with what is left of its life.
    pub(super) fn stable(&mut self) -> Value {
        let left = self.stable.as_ref().map_or(0, |(_, end)| left_s(*end));
        if left <= RENEWED_BEFORE_S.min(self.expires_in_s / 2) {
            self.force();
        }
        given(self.stable.as_ref())
    }

    /// A new stable token; the one before it is good no more.
    pub(super) fn force(&mut self) -> Value {
        let new = self.new_token(ACCESS_TOKEN);
        self.stable = Some(new);
        given(self.stable.as_ref())
    }

    /// `token`: a new one each time; the one before it is good no more.
    pub(super) fn classic(&mut self) -> Value {
        let new = self.new_token("57_classic-access_token");
        self.classic = Some(new);
        given(self.classic.as_ref())
    }

    pub(super) fn end_all(&mut self) {
        let ended = [self.stable.take(), self.classic.take()];
        self.ended.extend(ended.into_iter().flatten().map(|(token, _)| token));
    }

    /// Why WeChat does not take a token, if it does not.
    pub(super) fn refusal_of(&self, token: Option<&str>) -> Option<Value> {
        let Some(token) = token else { return Some(refusal(41001, "access_token missing")) };
        let mut known = [&self.stable, &self.classic].into_iter().flatten();
        match known.find(|(known, _)| known == token) {
            Some((_, end)) if left_s(*end) > 0 => None,
            Some(_) => Some(refusal(42001, "access_token expired")),
            None if self.ended.contains(token) => Some(refusal(42001, "access_token expired")),
            None => Some(refusal(40001, "invalid credential, access_token is invalid or not latest")),
        }
    }

    fn new_token(&mut self, name: &str) -> (String, Instant) {
        self.made += 1;
        let token = if self.made == 1 { name.to_owned() } else { format!("{name}-{}", self.made) };
        (token, Instant::now() + Duration::from_secs(self.expires_in_s))
    }
}

fn given(token: Option<&(String, Instant)>) -> Value {
    let (token, end) = token.expect("it was made");
    json!({ "access_token": token, "expires_in": left_s(*end) })
}

/// Whole seconds, rounded up.
fn left_s(end: Instant) -> u64 {
    let left = end.saturating_duration_since(Instant::now());
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
