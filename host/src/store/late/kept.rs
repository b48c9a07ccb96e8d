//! Replies that wait for their user to ask for them, each part of a long text a row of its own.

use std::time::Instant;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{Dead, Id, bury, from_bytes, new_id, remove_owed, set_parts, to_bytes};
use crate::{
    plugin::bindings::Reply,
    store::{Store, Unavailable, kv::space::joined, now_ms},
};

/// How many replies, or parts of them, one user may have waiting. More comes from somebody who never asks; the oldest go.
const KEPT_MAX: usize = 64;

/// How many kept replies [`Store::expire_kept`] looks at in one transaction.
const LOOKED_AT_ONCE_MAX: usize = 500;

/// User and id → reply.
pub(super) const KEPT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("late_kept");

/// Id → where in `KEPT` the reply is, in the order they came.
pub(super) const KEPT_AGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("late_kept_ages");

/// A reply, or a part of one, that its user can fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub account: String,
    pub openid: String,
    pub reply: Reply,
    /// Whether a part follows it.
    pub has_more: bool,
    /// When its user was shown the part before it, in ms since 1970; 0 where nothing of the reply was shown.
    pub shown_ms: u64,
    /// When it is given up, in ms since 1970.
    pub until_ms: u64,
    /// Whether its user knows nothing of it. What hosts of before wrote says nothing of that.
    #[serde(default)]
    pub is_untold: bool,
}

/// What came of keeping a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Where its first part is.
    pub first: Id,
    /// What the user has to do without for it.
    pub given_up: Vec<Id>,
}

/// A reply of which its user knows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UntoldReply {
    pub id: Id,
    pub account: String,
    pub openid: String,
    pub until_ms: u64,
}

impl Store {
    /// Keeps the parts of a reply for their user, in place of the owed message, or of what is not `left` to be sent to answer it.
    pub async fn keep(
        &self,
        owed: Option<Id>,
        left: Vec<Reply>,
        parts: Vec<Kept>,
        deadline: Instant,
    ) -> Result<Keeping, Unavailable> {
        let Some(Kept { account, openid, .. }) = parts.first().cloned() else { return Ok(Keeping::default()) };
        let rows: Vec<_> = parts.iter().map(to_bytes).collect();
        let bytes = rows.iter().map(Vec::len).sum();
        let prefix = joined(&[&account, &openid]);
        self.write_late(&account, bytes, deadline, move |transaction| {
            match owed.filter(|_| !left.is_empty()) {
                Some(id) => set_parts(transaction, id, left)?,
                None => remove_owed(transaction, owed)?,
            }
            let first = insert(transaction, &prefix, &rows)?;
            Ok(Keeping { first, given_up: give_up_oldest(transaction, &prefix)? })
        })
        .await
    }

    /// What is kept for a user, in the order it came.
    pub async fn kept(&self, account: &str, openid: &str, deadline: Instant) -> Result<Vec<(Id, Kept)>, Unavailable> {
        let prefix = joined(&[account, openid]);
        self.read_late(deadline, move |transaction| {
            let table = transaction.open_table(KEPT)?;
            let mut found = Vec::new();
            for key in keys_of(&table, &prefix)? {
                let row = table.get(key.as_slice())?;
                let row = row.and_then(|row| from_bytes::<Kept>(row.value()));
                found.extend(row.filter(|row| now_ms() < row.until_ms).map(|row| (id_of(&key), row)));
            }
            Ok(found)
        })
        .await
    }

    /// Forgets kept replies that their users have seen.
    pub async fn drop_kept(&self, account: &str, ids: Vec<Id>, deadline: Instant) -> Result<(), Unavailable> {
        self.write_late(account, 0, deadline, move |transaction| {
            ids.iter().try_for_each(|id| remove_kept(transaction, *id).map(drop))
        })
        .await
    }

    /// Turns kept replies that nobody fetched in time into dead letters. Returns how many.
    pub async fn expire_kept(&self, why: &'static str, deadline: Instant) -> Result<usize, Unavailable> {
        let (mut from, mut count) = (0, 0);
        loop {
            let (expired, next) = self.expired(from, deadline).await?;
            if !expired.is_empty() {
                count += self.give_up_kept(expired, why, deadline).await?;
            }
            match next {
                Some(next) => from = next,
                None => return Ok(count),
            }
        }
    }

    /// Looks at some kept replies from this one on. Returns which nobody fetched in time, and where to look next.
    async fn expired(&self, from: Id, deadline: Instant) -> Result<(Vec<Id>, Option<Id>), Unavailable> {
        self.read_late(deadline, move |transaction| {
            let (kept, ages) = (transaction.open_table(KEPT)?, transaction.open_table(KEPT_AGES)?);
            let (now_ms, mut expired, mut looked_at) = (now_ms(), Vec::new(), 0);
            for entry in ages.range(from..)? {
                let (id, key) = entry?;
                if looked_at == LOOKED_AT_ONCE_MAX {
                    return Ok((expired, Some(id.value())));
                }
                looked_at += 1;
                let row = kept.get(key.value())?.and_then(|row| from_bytes::<Kept>(row.value()));
                // What cannot be read can never be fetched.
                expired.extend(row.is_none_or(|row| row.until_ms <= now_ms).then_some(id.value()));
            }
            Ok((expired, None))
        })
        .await
    }

    /// Turns kept replies into dead letters. Returns how many were there still.
    async fn give_up_kept(&self, ids: Vec<Id>, why: &'static str, deadline: Instant) -> Result<usize, Unavailable> {
        self.write_late("", 0, deadline, move |transaction| give_up(transaction, &ids, why)).await
    }

    /// Every reply of which its user knows nothing.
    pub async fn untold(&self, deadline: Instant) -> Result<Vec<UntoldReply>, Unavailable> {
        self.read_late(deadline, |transaction| {
            let mut untold = Vec::new();
            for entry in transaction.open_table(KEPT)?.iter()? {
                let (key, row) = entry?;
                let row = from_bytes::<Kept>(row.value()).filter(|row| row.is_untold);
                untold.extend(row.map(|Kept { account, openid, until_ms, .. }| UntoldReply {
                    id: id_of(key.value()),
                    account,
                    openid,
                    until_ms,
                }));
            }
            Ok(untold)
        })
        .await
    }

    /// Writes down that a user knows of a reply.
    pub async fn tell_of(&self, account: &str, id: Id, deadline: Instant) -> Result<(), Unavailable> {
        self.write_late(account, 0, deadline, move |transaction| {
            change(transaction, id, |kept| Kept { is_untold: false, ..kept })
        })
        .await
    }

    /// Writes down that a user was just shown the part before this one.
    pub async fn show(&self, account: &str, next: Id, deadline: Instant) -> Result<(), Unavailable> {
        self.write_late(account, 0, deadline, move |transaction| {
            change(transaction, next, |kept| Kept { shown_ms: now_ms(), ..kept })
        })
        .await
    }
}

/// Puts rows behind what a user has already. Returns where the first is.
fn insert(transaction: &WriteTransaction, prefix: &[u8], rows: &[Vec<u8>]) -> Result<Id, redb::Error> {
    let (mut kept, mut ages) = (transaction.open_table(KEPT)?, transaction.open_table(KEPT_AGES)?);
    let mut first = new_id();
    while ages.get(first)?.is_some() {
        first += 1;
    }
    let mut id = first;
    for row in rows {
        while ages.get(id)?.is_some() {
            id += 1;
        }
        let key = [prefix, id.to_be_bytes().as_slice()].concat();
        kept.insert(key.as_slice(), row.as_slice())?;
        ages.insert(id, key.as_slice())?;
    }
    Ok(first)
}

/// Gives up what a user has too much of. Returns what that was.
fn give_up_oldest(transaction: &WriteTransaction, prefix: &[u8]) -> Result<Vec<Id>, redb::Error> {
    let keys = keys_of(&transaction.open_table(KEPT)?, prefix)?;
    let ids: Vec<_> = keys.iter().take(keys.len().saturating_sub(KEPT_MAX)).map(|key| id_of(key)).collect();
    let why = format!("its user has more than {KEPT_MAX} replies, or parts of them, to ask for");
    give_up(transaction, &ids, &why)?;
    Ok(ids)
}

/// Changes what is kept, if it still is.
fn change(transaction: &WriteTransaction, id: Id, change: impl FnOnce(Kept) -> Kept) -> Result<(), redb::Error> {
    let Some(key) = transaction.open_table(KEPT_AGES)?.get(id)?.map(|key| key.value().to_vec()) else {
        return Ok(());
    };
    let mut kept = transaction.open_table(KEPT)?;
    let row = kept.get(key.as_slice())?.and_then(|row| from_bytes::<Kept>(row.value()));
    if let Some(row) = row {
        kept.insert(key.as_slice(), to_bytes(&change(row)).as_slice())?;
    }
    Ok(())
}

/// Removes what is kept, and returns it if it was there and can be read.
fn remove_kept(transaction: &WriteTransaction, id: Id) -> Result<Option<Kept>, redb::Error> {
    let key = transaction.open_table(KEPT_AGES)?.remove(id)?.map(|key| key.value().to_vec());
    let Some(key) = key else { return Ok(None) };
    let mut kept = transaction.open_table(KEPT)?;
    Ok(kept.remove(key.as_slice())?.and_then(|row| from_bytes(row.value())))
}

/// Turns what is kept into dead letters, one of each reply: its parts follow each other. Returns how much was there still.
fn give_up(transaction: &WriteTransaction, ids: &[Id], why: &str) -> Result<usize, redb::Error> {
    let mut rows = Vec::new();
    for id in ids {
        rows.extend(remove_kept(transaction, *id)?);
    }
    let is_one_reply =
        |part: &Kept, next: &Kept| part.has_more && (&part.account, &part.openid) == (&next.account, &next.openid);
    for parts in rows.chunk_by(is_one_reply) {
        let Kept { account, openid, .. } = parts[0].clone();
        let reply = parts.iter().map(|part| part.reply.clone()).collect();
        bury(transaction, &Dead { account, openid, reply, why: why.to_owned(), died_ms: now_ms() })?;
    }
    Ok(rows.len())
}

/// The keys in `KEPT` of one user, in the order of their ids.
fn keys_of(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
) -> Result<Vec<Vec<u8>>, redb::Error> {
    let mut keys = Vec::new();
    for entry in table.range(prefix..)? {
        let (key, _) = entry?;
        if !key.value().starts_with(prefix) {
            break;
        }
        keys.push(key.value().to_vec());
    }
    Ok(keys)
}

/// The id at the end of a key in `KEPT`.
fn id_of(key: &[u8]) -> Id {
    key.last_chunk().map_or(0, |id| Id::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{dead, later, owed},
        *,
    };
    use crate::store::late::{Counts, Owed};

    fn kept(openid: &str, text: &str, until_ms: u64) -> Kept {
        let (account, openid) = ("main".into(), openid.into());
        Kept {
            account,
            openid,
            reply: Reply::Text(text.into()),
            has_more: false,
            shown_ms: 0,
            until_ms,
            is_untold: false,
        }
    }

    fn text(text: &str) -> Vec<Reply> {
        vec![Reply::Text(text.to_owned())]
    }

    async fn texts(store: &Store, openid: &str) -> Vec<String> {
        let text = |(_, kept): (Id, Kept)| match kept.reply {
            Reply::Text(text) => text,
            other => panic!("{other:?}"),
        };
        store.kept("main", openid, later()).await.unwrap().into_iter().map(text).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_takes_the_place_of_what_was_owed_and_belongs_to_one_user() {
        let store = Store::scratch();
        let id = new_id();
        store.owe(id, owed("1"), later()).await.unwrap();
        store
            .keep(Some(id), Vec::new(), vec![kept("o1", "a", u64::MAX), kept("o1", "b", u64::MAX)], later())
            .await
            .unwrap();
        store.keep(None, Vec::new(), vec![kept("o1", "c", u64::MAX)], later()).await.unwrap();
        store.keep(None, Vec::new(), vec![kept("o10", "x", u64::MAX)], later()).await.unwrap();
        assert_eq!(store.late_counts(later()).await.unwrap(), Counts { owed: 0, kept: 4, dead: 0 });
        assert_eq!(texts(&store, "o1").await, ["a", "b", "c"]);
        let (first, _) = store.kept("main", "o1", later()).await.unwrap()[0].clone();
        store.drop_kept("main", vec![first, 1], later()).await.unwrap();
        assert_eq!(
            (texts(&store, "o1").await, texts(&store, "o10").await),
            (vec!["b".into(), "c".into()], vec!["x".into()])
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_behind_others_leaves_these_owed() {
        let store = Store::scratch();
        let id = new_id();
        store.owe(id, owed("1"), later()).await.unwrap();
        store.keep(Some(id), text("a"), vec![kept("o1", "b", u64::MAX)], later()).await.unwrap();
        assert_eq!(store.owed(later()).await.unwrap(), [(id, Owed { reply: Some(text("a")), ..owed("1") })]);
        assert_eq!(texts(&store, "o1").await, ["b"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_user_who_never_asks_keeps_the_newest_and_the_others_are_dead_letters() {
        let store = Store::scratch();
        let parts = (0..KEPT_MAX + 3).map(|n| kept("o1", &n.to_string(), u64::MAX)).collect();
        store.keep(None, Vec::new(), parts, later()).await.unwrap();
        let texts = texts(&store, "o1").await;
        assert_eq!((texts.len(), texts[0].as_str()), (KEPT_MAX, "3"));
        let dead = dead(&store).await;
        assert_eq!(dead.iter().map(|(_, dead)| dead.reply.clone()).collect::<Vec<_>>(), ["0", "1", "2"].map(text));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_fetched_in_time_is_a_dead_letter_that_can_be_taken_out() {
        let store = Store::scratch();
        store.keep(None, Vec::new(), vec![kept("o1", "old", 1), kept("o1", "new", u64::MAX)], later()).await.unwrap();
        assert_eq!(store.expire_kept("kept too long", later()).await, Ok(1));
        assert_eq!(texts(&store, "o1").await, ["new"]);
        let dead = dead(&store).await;
        assert_eq!((dead[0].1.why.as_str(), &dead[0].1.reply[..]), ("kept too long", &[Reply::Text("old".into())][..]));
        assert_eq!(store.unbury(dead[0].0, later()).await.unwrap().as_ref(), Some(&dead[0].1));
        assert_eq!(store.unbury(dead[0].0, later()).await, Ok(None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reply_of_which_many_parts_were_kept_is_one_dead_letter() {
        let store = Store::scratch();
        let part = |openid, text, has_more| Kept { has_more, ..kept(openid, text, 1) };
        let long = vec![part("o1", "a", true), part("o1", "b", true), part("o1", "c", false)];
        store.keep(None, Vec::new(), long, later()).await.unwrap();
        store.keep(None, Vec::new(), vec![part("o1", "short", false)], later()).await.unwrap();
        // Of this one, another user's follows.
        store.keep(None, Vec::new(), vec![part("o1", "cut", true)], later()).await.unwrap();
        store.keep(None, Vec::new(), vec![part("o2", "other", false)], later()).await.unwrap();
        assert_eq!(store.expire_kept("kept too long", later()).await, Ok(6));
        let letters: Vec<_> = dead(&store).await.into_iter().map(|(_, dead)| dead.reply).collect();
        let texts = |texts: &[&str]| texts.iter().flat_map(|text| self::text(text)).collect::<Vec<_>>();
        assert_eq!(letters, [texts(&["a", "b", "c"]), texts(&["short"]), texts(&["cut"]), texts(&["other"])]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_over_is_found_behind_many_that_are_not() {
        let store = Store::scratch();
        for user in 0..=LOOKED_AT_ONCE_MAX / KEPT_MAX {
            let parts = (0..KEPT_MAX).map(|_| kept(&format!("o{user}"), "a", u64::MAX)).collect();
            store.keep(None, Vec::new(), parts, later()).await.unwrap();
        }
        store.keep(None, Vec::new(), vec![kept("late", "over", 1)], later()).await.unwrap();
        assert_eq!(store.expire_kept("kept too long", later()).await, Ok(1));
        assert_eq!(dead(&store).await[0].1.reply, text("over"));
        assert_eq!(store.expire_kept("kept too long", later()).await, Ok(0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_knows_that_the_one_before_it_was_shown() {
        let store = Store::scratch();
        store
            .keep(None, Vec::new(), vec![kept("o1", "a", u64::MAX), kept("o1", "b", u64::MAX)], later())
            .await
            .unwrap();
        let (next, _) = store.kept("main", "o1", later()).await.unwrap()[1].clone();
        store.show("main", next, later()).await.unwrap();
        store.show("main", 1, later()).await.unwrap();
        let shown: Vec<_> = store.kept("main", "o1", later()).await.unwrap();
        assert_eq!(shown.iter().map(|(_, kept)| kept.shown_ms > 0).collect::<Vec<_>>(), [false, true]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whose_user_knows_nothing_of_it_is_found_until_they_were_told() {
        let store = Store::scratch();
        let untold = |openid, text| Kept { is_untold: true, ..kept(openid, text, 7) };
        let first =
            store.keep(None, Vec::new(), vec![untold("o1", "a"), kept("o1", "b", 7)], later()).await.unwrap().first;
        let second = store.keep(None, Vec::new(), vec![untold("o2", "c")], later()).await.unwrap().first;
        let found = store.untold(later()).await.unwrap();
        assert_eq!(
            found.iter().map(|reply| (reply.id, &*reply.openid)).collect::<Vec<_>>(),
            [(first, "o1"), (second, "o2")]
        );
        store.tell_of("main", first, later()).await.unwrap();
        store.tell_of("main", 1, later()).await.unwrap();
        let (account, openid) = ("main".into(), "o2".into());
        let left = UntoldReply { id: second, account, openid, until_ms: 7 };
        assert_eq!(store.untold(later()).await.unwrap(), [left]);
    }
}
