//! Step 5: one message is dispatched once. WeChat sends a message up to three times; the second and third try are led to the
//! first one's exchange here.

mod pushes;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aviary_wechat::xml::Element;
use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use self::pushes::{Push, Pushes};
use crate::{
    exchange::{Exchange, Outcome, Try},
    plugin::bindings::{Message, Reply},
};

/// How long a reply is kept for WeChat's next tries, which come within 15 s.
const REPLY_KEPT: Duration = Duration::from_secs(30);

/// Names a message of an account, however often it is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 16]);

impl Key {
    /// With a `MsgId`: (account, MsgId, FromUserName, CreateTime), because a MsgId alone repeats across users. Without:
    /// the account and all that the message says, because two events may come in one second.
    pub fn of(message: &Message, root: &Element) -> Self {
        let mut hasher = Hasher::new();
        hasher.part(&message.account);
        match message.msg_id {
            // So short that, as a rule, it is one block of SHA-256. No element has an empty name, as this seems to have.
            Some(msg_id) => {
                hasher.part("");
                hasher.number(msg_id);
                hasher.number(message.create_time);
                hasher.part(&message.from_user);
            }
            // A console in compatible mode may send another ciphertext with every try, to an account in plain mode, too.
            None => {
                root.children.iter().filter(|child| child.name != "Encrypt").for_each(|child| hasher.element(child));
            }
        }
        hasher.finish()
    }
}

/// Hashes parts so that no two lists of parts are the same bytes.
struct Hasher(Sha256);

impl Hasher {
    fn new() -> Self {
        Self(Sha256::new())
    }

    /// Hashes a text, and where it ends: no UTF-8 has this byte.
    fn part(&mut self, part: &str) {
        self.0.update(part);
        self.0.update([0xff]);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    /// Hashes a whole tree; `xml::DEPTH_MAX` bounds the recursion.
    fn element(&mut self, element: &Element) {
        self.part(&element.name);
        self.part(&element.text);
        self.number(element.children.len() as u64);
        element.children.iter().for_each(|child| self.element(child));
    }

    fn finish(self) -> Key {
        let mut key = [0; 16];
        key.copy_from_slice(&self.0.finalize()[..16]);
        Key(key)
    }
}

/// What a push is, when it arrives.
#[derive(Debug)]
pub enum Claim {
    /// Nobody saw it before: dispatch it, and publish what comes of it.
    First(Slot, Try),
    /// It is being dispatched: wait for the same outcome.
    Again(Try),
    /// It is over, and this is what every further try is given.
    Over(Option<Reply>),
    /// Its signature already came with another message: somebody replays it.
    Replayed,
}

/// The messages of the last minutes. Cheap to clone: all clones are one memory.
#[derive(Clone, Debug)]
pub struct Dedupe {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug)]
struct Memory {
    /// Messages that are being answered, or were answered so lately that a try may still come for the reply.
    recent: HashMap<Key, Entry>,
    /// All of them, to be forgotten in the order they came. Those that are here alone are of before: a try now is answered
    /// `success`. In plain mode, where the signature does not cover the body, it is good for the message it came with.
    pushes: Pushes,
    /// Whose reply is to be forgotten, and since when it is kept, in tenths of a second after the start.
    replies: VecDeque<(u32, Key)>,
    started: Instant,
    lifetime: Duration,
    keys_max: usize,
}

#[derive(Debug)]
enum Entry {
    /// Whose call, or whose tries, are not all over.
    Open(Arc<Exchange>),
    /// What its tries were given, and nothing else of its answer: for half a minute there is one for every message.
    Over(Option<Box<Reply>>),
}

impl Dedupe {
    /// Remembers up to `keys_max` pushes, each for `lifetime`.
    pub fn new(keys_max: usize, lifetime: Duration) -> Self {
        let memory = Memory {
            recent: HashMap::new(),
            pushes: Pushes::default(),
            replies: VecDeque::new(),
            started: Instant::now(),
            lifetime,
            keys_max,
        };
        Self { memory: Arc::new(Mutex::new(memory)) }
    }

    /// Changes the bounds, for what comes from now on.
    pub fn resize(&self, keys_max: usize, lifetime: Duration) {
        let mut memory = self.lock();
        memory.keys_max = keys_max;
        memory.lifetime = lifetime;
    }

    /// Returns how many messages it remembers.
    pub fn remembered(&self) -> usize {
        self.lock().pushes.messages()
    }

    /// Says whether a message is new. `signature`, given in plain mode only, is good for one message. A message signed
    /// `ahead` of our clock is remembered so much longer, as it could be pushed again so much later.
    pub fn claim(&self, key: Key, signature: Option<&str>, now: Instant, ahead: Duration) -> Claim {
        let mut memory = self.lock();
        memory.forget(now);
        let signature = signature.map(short).unwrap_or_default();
        if memory.is_replayed(signature, key) {
            return Claim::Replayed;
        }
        let again = match memory.recent.get(&key) {
            Some(Entry::Open(exchange)) => Some(Claim::Again(exchange.begin(now))),
            Some(Entry::Over(reply)) => Some(Claim::Over(reply.as_deref().cloned())),
            None => memory.pushes.has(key).then_some(Claim::Over(None)),
        };
        memory.remember(key, signature, again.is_none(), now + ahead);
        again.unwrap_or_else(|| {
            let exchange = Exchange::new(now);
            let tried = exchange.begin(now);
            Claim::First(memory.open(key, exchange, now), tried)
        })
    }

    /// Takes up a message that was owed an answer when the host ended. None if it is there already.
    pub fn resume(&self, key: Key, exchange: Arc<Exchange>) -> Option<Slot> {
        let mut memory = self.lock();
        if memory.recent.contains_key(&key) {
            return None;
        }
        let now = exchange.began;
        memory.remember(key, 0, true, now);
        Some(memory.open(key, exchange, now))
    }

    /// Keeps no more of a message that is over than what its tries are told.
    pub fn settle(&self, key: &Key) {
        let mut memory = self.lock();
        if let Some(entry) = memory.recent.get_mut(key)
            && let Entry::Open(exchange) = entry
            && let Some(outcome) = exchange.settled()
        {
            *entry = Entry::Over(outcome.map(|answer| Box::new(answer.shown().into_owned())));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

/// Every change below leaves the memory whole, so a panic elsewhere does not spoil it.
fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tenths_of(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() / 100).unwrap_or(u32::MAX)
}

/// The first 64 bits of a signature that was verified: nobody can choose them.
fn short(signature: &str) -> u64 {
    signature.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

impl Memory {
    /// Begins the memory of a message.
    fn open(&mut self, key: Key, exchange: Arc<Exchange>, now: Instant) -> Slot {
        self.recent.insert(key, Entry::Open(exchange.clone()));
        let tenths = self.tenths(now);
        self.replies.push_back((tenths, key));
        Slot { key, exchange }
    }

    /// Whether a signature came with another message before.
    fn is_replayed(&self, signature: u64, key: Key) -> bool {
        self.pushes.signed(signature).is_some_and(|bound| bound != key)
    }

    /// Remembers a push from `since` on: its message if it is the first of it, and its signature if that is new.
    fn remember(&mut self, key: Key, signature: u64, is_first: bool, since: Instant) {
        let is_signed_anew = signature != 0 && self.pushes.signed(signature).is_none();
        if is_first || is_signed_anew {
            let since = self.tenths(since);
            self.pushes.add(Push { since, key, signature: if is_signed_anew { signature } else { 0 }, is_first });
        }
    }

    /// Tenths of a second since the start; u32 holds those of 13 years.
    fn tenths(&self, at: Instant) -> u32 {
        tenths_of(at.saturating_duration_since(self.started))
    }

    fn forget(&mut self, now: Instant) {
        let tenths = self.tenths(now);
        while let Some(&(since, key)) = self.replies.front()
            && tenths.saturating_sub(since) >= tenths_of(REPLY_KEPT)
        {
            self.replies.pop_front();
            match self.recent.get(&key) {
                Some(entry) if !entry.is_over() => self.replies.push_back((tenths, key)),
                Some(_) => drop(self.recent.remove(&key)),
                None => {}
            }
        }
        let lifetime = tenths_of(self.lifetime);
        while let Some(oldest) = self.pushes.oldest()
            && (tenths.saturating_sub(oldest.since) >= lifetime || self.pushes.len() > self.keys_max)
        {
            self.pushes.forget_oldest();
            let (key, is_first) = (oldest.key, oldest.is_first);
            // A call that still runs keeps its claim: its tries are still to come.
            if is_first && self.recent.get(&key).is_some_and(|entry| !entry.is_over()) {
                self.pushes.add(Push { since: tenths, ..oldest });
                break;
            }
            if is_first {
                self.recent.remove(&key);
            }
        }
    }
}

impl Entry {
    fn is_over(&self) -> bool {
        match self {
            Self::Open(exchange) => exchange.settled().is_some(),
            Self::Over(_) => true,
        }
    }
}

/// The right and duty to say what became of a message. Dropped without a word, the message counts as unanswered, so that
/// no try waits for ever.
#[derive(Debug)]
pub struct Slot {
    /// Of which message.
    pub key: Key,
    exchange: Arc<Exchange>,
}

impl Slot {
    /// Tells every try, those that wait and those to come.
    pub fn publish(self, outcome: Outcome) {
        self.exchange.publish(outcome);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Whatever was published stands.
        self.exchange.publish(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Answer;

    const LIFETIME: Duration = Duration::from_secs(630);

    fn key(n: u8) -> Key {
        Key([n; 16])
    }

    fn said(text: &str) -> Outcome {
        Some(Arc::new(Answer::of(Reply::Text(text.into()))))
    }

    fn first(claim: Claim) -> Slot {
        match claim {
            Claim::First(slot, _) => slot,
            other => panic!("expected the first claim, got {other:?}"),
        }
    }

    /// A claim of what was signed by a clock like ours.
    fn claim(dedupe: &Dedupe, key: Key, signature: Option<&str>, now: Instant) -> Claim {
        dedupe.claim(key, signature, now, Duration::ZERO)
    }

    async fn again(claim: Claim) -> Outcome {
        match claim {
            Claim::Again(again) => again.outcome().await.outcome(),
            Claim::Over(reply) => reply.map(|reply| Arc::new(Answer::of(reply))),
            other => panic!("expected a joined claim, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn tries_that_wait_and_tries_to_come_get_the_first_ones_outcome() {
        let (dedupe, now) = (Dedupe::new(100, LIFETIME), Instant::now());
        let slot = first(claim(&dedupe, key(1), None, now));
        let waiting = tokio::spawn(again(claim(&dedupe, key(1), None, now)));
        slot.publish(said("hi"));
        assert_eq!(waiting.await.unwrap(), said("hi"));
        assert!(matches!(claim(&dedupe, key(1), None, now), Claim::Again(_)));
        dedupe.settle(&key(1));
        assert!(matches!(claim(&dedupe, key(1), None, now), Claim::Over(_)));
        assert_eq!(again(claim(&dedupe, key(1), None, now + Duration::from_secs(10))).await, said("hi"));
    }

    #[tokio::test]
    async fn a_reply_is_kept_for_30_s_and_the_key_for_its_lifetime() {
        let (dedupe, now) = (Dedupe::new(100, LIFETIME), Instant::now());
        first(claim(&dedupe, key(1), None, now)).publish(said("hi"));
        assert_eq!(again(claim(&dedupe, key(1), None, now)).await, said("hi"));
        assert_eq!(again(claim(&dedupe, key(1), None, now + REPLY_KEPT)).await, None);
        assert_eq!(again(claim(&dedupe, key(1), None, now + LIFETIME - Duration::from_secs(1))).await, None);
        first(claim(&dedupe, key(1), None, now + LIFETIME));
    }

    #[test]
    fn what_was_signed_ahead_of_our_clock_is_remembered_longer() {
        let (dedupe, now) = (Dedupe::new(100, LIFETIME), Instant::now());
        let ahead = Duration::from_secs(300);
        let signature = Some("335b26997f05c82243aad6b10a2d1853637e71a8");
        assert!(matches!(dedupe.claim(key(1), signature, now, ahead), Claim::First(..)));
        let later = now + LIFETIME + ahead - Duration::from_secs(1);
        assert!(matches!(claim(&dedupe, key(1), signature, later), Claim::Again(_) | Claim::Over(_)));
        assert!(matches!(claim(&dedupe, key(2), signature, later), Claim::Replayed));
    }

    #[tokio::test]
    async fn a_dispatch_that_dies_leaves_no_try_waiting() {
        let (dedupe, now) = (Dedupe::new(100, LIFETIME), Instant::now());
        let slot = first(claim(&dedupe, key(1), None, now));
        let waiting = tokio::spawn(again(claim(&dedupe, key(1), None, now)));
        drop(slot);
        assert_eq!(waiting.await.unwrap(), None);
    }

    #[test]
    fn one_signature_is_good_for_one_message() {
        let (dedupe, now) = (Dedupe::new(100, LIFETIME), Instant::now());
        let signature = "335b26997f05c82243aad6b10a2d1853637e71a8";
        let _slot = first(claim(&dedupe, key(1), Some(signature), now));
        assert!(matches!(claim(&dedupe, key(1), Some(signature), now), Claim::Again(_)));
        assert!(matches!(claim(&dedupe, key(2), Some(signature), now), Claim::Replayed));
        assert!(matches!(
            claim(&dedupe, key(2), Some("e3203b6433eb554dd2fcba78fa48cb948fcb4801"), now),
            Claim::First(..)
        ));
    }

    #[test]
    fn memory_stays_within_its_bound_and_keeps_what_is_running() {
        let (dedupe, now) = (Dedupe::new(10, LIFETIME), Instant::now());
        let running = first(claim(&dedupe, key(0), None, now));
        for n in 1..=100 {
            first(claim(&dedupe, key(n), None, now)).publish(None);
        }
        let memory = dedupe.lock();
        let remembered = memory.pushes.messages();
        assert!(remembered <= 12 && memory.recent.len() <= 12, "{remembered} messages are remembered");
        assert!(memory.recent.contains_key(&running.key));
    }

    #[test]
    fn messages_of_two_users_with_one_msg_id_are_two() {
        let of = |from_user: &str| {
            let push = format!(
                "<xml><ToUserName>gh</ToUserName><FromUserName>{from_user}</FromUserName><CreateTime>1</CreateTime>\
                 <MsgType>text</MsgType><Content>x</Content><MsgId>7</MsgId></xml>"
            );
            key_of(&push)
        };
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
    }

    #[test]
    fn two_events_of_one_second_are_two_and_a_new_ciphertext_makes_no_new_event() {
        let of = |event: &str, encrypt: &str| {
            let push = format!(
                "<xml><ToUserName>gh</ToUserName><FromUserName>a</FromUserName><CreateTime>1</CreateTime>\
                 <MsgType>event</MsgType><Event>{event}</Event><Encrypt>{encrypt}</Encrypt></xml>"
            );
            key_of(&push)
        };
        assert_ne!(of("LOCATION", "x"), of("subscribe", "x"));
        assert_eq!(of("LOCATION", "x"), of("LOCATION", "y"));
    }

    fn key_of(push: &str) -> Key {
        let root = aviary_wechat::xml::parse(push.as_bytes()).unwrap();
        match crate::message::parse("main", &root).unwrap() {
            crate::message::Push::Message(message) => Key::of(&message, &root),
            crate::message::Push::Unanswerable(why) => panic!("{why}"),
        }
    }
}
