//! What is kept for a user goes out when they ask for it, before anything of theirs that still waits.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::TRIES_COME_FOR;
use crate::{
    app::App,
    exchange::{Answer, Exchange, Outcome},
    metrics::LateStep,
    plugin::{bindings::Message, question::Question},
    store::late::{Id, Kept},
};

/// How long a part that was fetched stays in the store: as long as WeChat may send the message that fetched it again. A host
/// that crashes meanwhile has it still.
const FETCHED_STAYS: Duration = Duration::from_secs(30);

/// How long the store may take to say something.
pub const STORE_TAKES_MAX: Duration = Duration::from_secs(2);

/// How long it may take to write what must not be lost. The disks of small machines stall for seconds.
pub const WRITE_TAKES_MAX: Duration = Duration::from_secs(30);

/// How soon to look again for what was taken by another word, or in a store that is slow.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The parts that were fetched, and are not for whoever asks next; and whether their users have them.
#[derive(Debug, Default)]
pub struct Fetching(Mutex<HashMap<Id, bool>>);

/// A kept part on its way to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    id: Id,
    /// The part behind it.
    next: Option<Id>,
}

/// What there is for a user who sent a fetch word.
enum Take {
    Part(Arc<Answer>),
    /// A word of before took it and its tries may not be given it, or the store does not say.
    NotYet,
    Nothing,
}

/// Takes the next part that is kept for the user who sent a fetch word. Waits for what is still being made for them. `None`:
/// there is nothing, and it is an ordinary text.
pub async fn next(app: &Arc<App>, question: &Question, exchange: &Exchange) -> Option<Outcome> {
    let (account, openid) = (&question.message.account, &question.message.from_user);
    app.late.users.ask(account, openid);
    loop {
        let over = app.late.users.over(account, openid);
        let put_off_ms = over.as_ref().map(|(since_ms, _)| *since_ms);
        let mut told = over.as_ref().map(|(_, over)| Box::pin(over.notified()));
        // From before the look: what ends in between is not missed.
        told.iter_mut().for_each(|told| _ = told.as_mut().enable());
        let is_not_yet = match take(app, account, openid, put_off_ms).await {
            Take::Part(part) => return Some(Some(part)),
            Take::Nothing if over.is_none() => return None,
            Take::NotYet => true,
            Take::Nothing => false,
        };
        let is_over = async {
            match told {
                Some(told) => told.await,
                None => pending().await,
            }
        };
        // Its own tries run out, too, or none of them comes any more: then this word is over, and the next one may fetch.
        let tries_come_for = TRIES_COME_FOR.saturating_sub(exchange.age_at(Instant::now()));
        tokio::select! {
            () = exchange.put_off() => return Some(None),
            () = sleep(tries_come_for) => return Some(None),
            () = sleep(LOOK_AGAIN_AFTER), if is_not_yet => {}
            () = is_over => {}
        }
    }
}

async fn take(app: &Arc<App>, account: &str, openid: &str, put_off_ms: Option<u64>) -> Take {
    let deadline = Instant::now() + STORE_TAKES_MAX;
    let mut kept = match app.late.store.kept(account, openid, deadline).await {
        Ok(kept) => kept,
        Err(why) => {
            app.late.tell("A kept reply could not be looked for", &why);
            return Take::NotYet;
        }
    };
    kept.retain(|(id, _)| !app.late.fetching.is_given(*id));
    let told = app.late.untold.told(account, openid);
    let live = app.live();
    let chosen = live.named(account).zip(choose(&kept, put_off_ms, &told));
    let Some((serving, index)) = chosen else { return Take::Nothing };
    let next = kept.get(index + 1).map(|(id, _)| *id);
    let (id, Kept { reply, has_more, .. }) = kept.swap_remove(index);
    if !app.late.fetching.take(id) {
        // What comes behind it is not read before it.
        return Take::NotYet;
    }
    serving.chain.count_late(LateStep::Fetched);
    app.tell_late(account, openid, "fetched a reply that was kept");
    let closing = if has_more { serving.account.late.more_text.clone() } else { String::new() };
    let fetched = Some(Fetched { id, next: next.filter(|_| has_more) });
    Take::Part(Arc::new(Answer { closing, fetched, ..Answer::of(reply) }))
}

/// Which of the kept parts the user means: what they read of last. That is the text of which they saw a part, unless they were
/// told of a reply since, with another answer (`told`) or when they were put off: then it is that reply, also if it is still
/// being made. What they know nothing of comes behind what they know of.
fn choose(kept: &[(Id, Kept)], put_off_ms: Option<u64>, told: &HashMap<Id, u64>) -> Option<usize> {
    let told_ms = |index: usize| told.get(&kept[index].0).copied();
    let is_first = |index: &usize| index.checked_sub(1).is_none_or(|before| !kept[before].1.has_more);
    let firsts = || (0..kept.len()).filter(is_first);
    let read_ms = |index: usize| kept[index].1.shown_ms.max(told_ms(index).unwrap_or_default());
    let begun = firsts().filter(|index| kept[*index].1.shown_ms > 0).max_by_key(|index| read_ms(*index));
    let new = || firsts().filter(|index| kept[*index].1.shown_ms == 0);
    let known = || new().filter(|index| !kept[*index].1.is_untold || told_ms(*index).is_some());
    let known_ms = known().map(|index| told_ms(index).unwrap_or(kept[index].0 / ID_OF_MS));
    let last_ms = put_off_ms.into_iter().chain(known_ms).max();
    match begun {
        Some(index) if last_ms.is_none_or(|last_ms| last_ms <= read_ms(index)) => Some(index),
        begun => {
            let told_last = new().filter(|index| told_ms(*index).is_some()).max_by_key(|index| told_ms(*index));
            told_last.or(known().next()).or(new().next()).or(begun.filter(|_| put_off_ms.is_none()))
        }
    }
}

/// Ids count microseconds.
const ID_OF_MS: u64 = 1_000;

/// Says that a try was given a part.
pub fn shown(app: &Arc<App>, message: &Message, part: Fetched) {
    app.late.fetching.lock().insert(part.id, true);
    app.late.untold.leave(&message.account, &message.from_user, part.id);
    tokio::spawn(forget_later(app.clone(), message.account.clone(), part));
}

/// Says that no try was: it is kept as before.
pub fn put_back(app: &App, part: Fetched) {
    app.late.fetching.lock().remove(&part.id);
}

async fn forget_later(app: Arc<App>, account: String, Fetched { id, next }: Fetched) {
    let deadline = Instant::now() + WRITE_TAKES_MAX;
    if let Some(next) = next
        && let Err(why) = app.late.store.show(&account, next, deadline).await
    {
        app.late.tell("That a user has seen a part of a text could not be written down", &why);
    }
    sleep(FETCHED_STAYS).await;
    forget(&app, &account, vec![id]).await;
    app.late.fetching.lock().remove(&id);
}

/// Forgets at once what users have: for a host that stops.
pub async fn forget_all(app: &App) {
    let ids: Vec<_> = app.late.fetching.lock().iter().filter(|(_, shown)| **shown).map(|(id, _)| *id).collect();
    if !ids.is_empty() {
        forget(app, "", ids).await;
    }
}

async fn forget(app: &App, account: &str, ids: Vec<Id>) {
    let what = "A kept reply that its user has seen stays in the store";
    let forget = |deadline| app.late.store.drop_kept(account, ids.clone(), deadline);
    app.late.until_written(&app.stopping, what, forget).await;
}

impl Fetching {
    /// Whether a part is on its way to its user, or they have it.
    pub fn has(&self, id: Id) -> bool {
        self.lock().contains_key(&id)
    }

    /// Whether a user has a part.
    fn is_given(&self, id: Id) -> bool {
        self.lock().get(&id) == Some(&true)
    }

    /// How many parts are in the store that their users have.
    pub fn given(&self) -> u64 {
        self.lock().values().filter(|is_given| **is_given).count() as u64
    }

    /// Takes a part; false if somebody did before.
    fn take(&self, id: Id) -> bool {
        match self.lock().entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(false);
                true
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::{config::Config, plugin::bindings::Reply};

    const PUSH: &str = "<xml><ToUserName>gh</ToUserName><FromUserName>o1</FromUserName><CreateTime>1</CreateTime>\
                        <MsgType>text</MsgType><Content>继续</Content><MsgId>7</MsgId></xml>";

    /// Parts as they are kept: when they were, whether more follows, and when the part before was shown.
    fn kept(parts: &[(u64, bool, u64)]) -> Vec<(Id, Kept)> {
        let part = |&(ms, has_more, shown_ms): &(u64, bool, u64)| {
            let (account, openid, reply) = ("main".into(), "o1".into(), Reply::Nothing);
            let kept = Kept { account, openid, reply, has_more, shown_ms, until_ms: u64::MAX, is_untold: false };
            (ms * ID_OF_MS, kept)
        };
        parts.iter().map(part).collect()
    }

    /// The same, none of it known to its user.
    fn untold(parts: &[(u64, bool, u64)]) -> Vec<(Id, Kept)> {
        kept(parts).into_iter().map(|(id, part)| (id, Kept { is_untold: true, ..part })).collect()
    }

    /// Which of them is chosen, where the user was put off or not.
    fn choose(kept: &[(Id, Kept)], put_off_ms: Option<u64>) -> Option<usize> {
        super::choose(kept, put_off_ms, &HashMap::new())
    }

    /// What a user gets who sends the word now: a text, or nothing yet.
    async fn fetched(app: &Arc<App>) -> Option<Arc<Answer>> {
        match take(app, "main", "o1", None).await {
            Take::Part(part) => Some(part),
            Take::NotYet => None,
            Take::Nothing => panic!("something is kept"),
        }
    }

    #[tokio::test]
    async fn a_part_that_no_try_was_given_is_read_before_those_behind_it() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("aviary.toml");
        std::fs::write(&file, "[accounts.main]\ntoken = \"secret7\"\n").unwrap();
        let app = App::new(Config::load(&file).unwrap(), Path::new("unused")).unwrap();
        let part = |text: &str, (_, part): (Id, Kept)| Kept { reply: Reply::Text(text.into()), ..part };
        let parts = ["a", "b"].into_iter().zip(kept(&[(1, true, 0), (2, false, 0)]));
        let parts = parts.map(|(text, row)| part(text, row)).collect();
        app.late.store.keep(None, Vec::new(), parts, Instant::now() + WRITE_TAKES_MAX).await.unwrap();

        let first = fetched(&app).await.unwrap();
        assert_eq!((&first.reply, first.closing.is_empty()), (&Reply::Text("a".into()), false), "more follows");
        assert_eq!(fetched(&app).await, None, "it is on its way");
        put_back(&app, first.fetched.unwrap());
        let again = fetched(&app).await.unwrap();
        assert_eq!(again, first);
        let question = Question::read("main", PUSH).unwrap();
        shown(&app, &question.message, again.fetched.unwrap());
        let last = fetched(&app).await.unwrap();
        assert_eq!((&last.reply, last.closing.as_str()), (&Reply::Text("b".into()), ""));
    }

    #[test]
    fn whole_replies_are_read_in_the_order_they_came() {
        assert_eq!(choose(&kept(&[(10, false, 0), (20, true, 0), (21, false, 0)]), None), Some(0));
        assert_eq!(choose(&[], None), None);
    }

    #[test]
    fn what_was_begun_is_read_on_before_another_reply_that_the_user_knew_of() {
        assert_eq!(choose(&kept(&[(10, false, 30), (20, false, 0)]), None), Some(0));
        assert_eq!(choose(&kept(&[(10, false, 30)]), Some(20)), Some(0));
    }

    #[test]
    fn the_rest_of_an_older_text_stands_behind_what_the_user_was_told_of_since() {
        assert_eq!(choose(&kept(&[(10, true, 10), (11, false, 0), (20, false, 0)]), None), Some(2));
        assert_eq!(choose(&kept(&[(10, true, 10), (11, false, 0), (20, false, 20)]), None), Some(2));
        assert_eq!(choose(&kept(&[(10, false, 10)]), Some(20)), None, "it is still being made");
    }

    #[test]
    fn what_the_user_was_just_told_of_is_read_first_however_old_it_is() {
        let told = |parts: &[(Id, Kept)], index: usize, ms| super::choose(parts, None, &[(parts[index].0, ms)].into());
        let begun = [kept(&[(10, false, 30)]), untold(&[(20, false, 0)])].concat();
        assert_eq!((choose(&begun, None), told(&begun, 1, 40)), (Some(0), Some(1)));
        let new = [kept(&[(10, false, 0)]), untold(&[(20, false, 0), (25, false, 0)])].concat();
        assert_eq!((choose(&new, None), told(&new, 2, 40)), (Some(0), Some(2)));
        // Read on since.
        let read_on = [untold(&[(20, false, 0)]), kept(&[(30, false, 50)])].concat();
        assert_eq!(told(&read_on, 0, 40), Some(1));
    }

    #[test]
    fn what_the_user_knows_nothing_of_is_better_than_nothing() {
        assert_eq!(choose(&untold(&[(20, false, 0)]), None), Some(0));
        let begun = [kept(&[(10, false, 15)]), untold(&[(20, false, 0)])].concat();
        assert_eq!(choose(&begun, None), Some(0), "they are reading another text");
    }
}
