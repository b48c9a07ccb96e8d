//! What the host owes its users: messages that were put off and not answered yet (owed), replies that wait for their user to
//! ask (kept), and replies that could not be delivered (dead letters).
//!
//! Each is a row of JSON that names the contract it was written with. A change from one to the other is one transaction.

mod kept;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::error;

use super::{Store, Unavailable, kv::space::joined, now_ms, queue::Lane};
use crate::plugin::bindings::Reply;
use kept::{KEPT, KEPT_AGES};
pub use kept::{Keeping, Kept, UntoldReply};

/// The contract that rows are written with: `Reply` is its type.
const WIT: &str = "aviary:bot@0.1.0";

/// How many messages may be owed an answer at once: what is in flight has an instance each, the rest waits for WeChat's API.
const OWED_MAX: u64 = 100_000;

/// How many dead letters are kept; where there are more, the account with the most gives up its oldest.
const DEAD_MAX: u64 = 10_000;

/// How many it gives up at once: whose they are is in the letters, and looking through all of them takes a while.
const DEAD_GIVEN_UP: usize = 100;

const OWED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("late_owed");

const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("late_dead");

/// Names a row: the time it was made in microseconds since 1970, or the next number that was free.
pub type Id = u64;

/// A message that waits for its answer: its user was put off, or the host stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owed {
    pub account: String,
    pub openid: String,
    /// The push, decrypted.
    pub xml: String,
    pub is_sealed: bool,
    /// When it came, in ms since 1970.
    pub arrived_ms: u64,
    /// How often its plugins were asked.
    pub attempt: u32,
    /// How many tries of it came. What hosts of before wrote says nothing of it.
    #[serde(default)]
    pub tries: u32,
    /// Whether its user was told to ask for the reply.
    pub is_asked_for: bool,
    /// Whether the next try is given the reply, should one come: none was told anything for good. What hosts of before wrote
    /// says nothing of it.
    #[serde(default)]
    pub is_for_next_try: bool,
    /// What is still to be sent, once its plugins are done.
    pub reply: Option<Vec<Reply>>,
}

/// A reply that could not be delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dead {
    pub account: String,
    pub openid: String,
    /// What was not delivered; empty where it never came to a reply.
    pub reply: Vec<Reply>,
    /// Why, for the operator.
    pub why: String,
    /// When it was given up, in ms since 1970.
    pub died_ms: u64,
}

/// A row as it is written.
#[derive(Serialize, Deserialize)]
struct Row<T> {
    wit: String,
    #[serde(flatten)]
    row: T,
}

/// Whose a row is.
#[derive(Deserialize)]
struct OfAccount {
    account: String,
}

/// How many rows of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub owed: u64,
    pub kept: u64,
    pub dead: u64,
}

impl Store {
    /// Writes down that a message is owed an answer, in a row of a new id, or once more in its own.
    ///
    /// # Errors
    /// [`Unavailable`]; also when as much is owed as may be. [`Unavailable::Late`]: it may be written down all the same.
    pub async fn owe(&self, id: Id, owed: Owed, deadline: Instant) -> Result<(), Unavailable> {
        let row = to_bytes(&owed);
        let written = self.write_late(&owed.account, row.len(), deadline, move |transaction| {
            let mut table = transaction.open_table(OWED)?;
            let is_full = table.len()? >= OWED_MAX && table.get(id)?.is_none();
            if !is_full {
                table.insert(id, row.as_slice())?;
            }
            Ok(is_full)
        });
        if written.await? { Err(Unavailable::Busy) } else { Ok(()) }
    }

    /// Writes down how far owed messages are, all at once. One that is not owed any more stays so.
    pub async fn update_owed(&self, owed: &[(Id, Owed)], deadline: Instant) -> Result<(), Unavailable> {
        let rows: Vec<_> = owed.iter().map(|(id, owed)| (*id, to_bytes(owed))).collect();
        self.write_late("", 0, deadline, move |transaction| {
            let mut table = transaction.open_table(OWED)?;
            for (id, row) in &rows {
                if table.get(id)?.is_some() {
                    table.insert(id, row.as_slice())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Writes down what is still to be sent to answer an owed message, of which no try is told any more. One that is not owed
    /// any more stays so.
    pub async fn update_parts(
        &self,
        id: Id,
        account: &str,
        parts: Vec<Reply>,
        deadline: Instant,
    ) -> Result<(), Unavailable> {
        let bytes = serde_json::to_vec(&parts).map_or(0, |row| row.len());
        self.write_late(account, bytes, deadline, move |transaction| set_parts(transaction, id, parts)).await
    }

    /// Forgets an owed message: its answer arrived.
    pub async fn settle(&self, account: &str, id: Id, deadline: Instant) -> Result<(), Unavailable> {
        self.write_late(account, 0, deadline, move |transaction| remove_owed(transaction, Some(id))).await
    }

    /// Everything that is owed, in the order it came.
    pub async fn owed(&self, deadline: Instant) -> Result<Vec<(Id, Owed)>, Unavailable> {
        let owed =
            |transaction: &ReadTransaction| first(&transaction.open_table(OWED)?, usize::MAX, |id, owed| (id, owed));
        let owed = self.read_late(deadline, owed).await?;
        // Somebody may have set the clock back: no new row takes the place of one of these.
        owed.iter().for_each(|(id, _)| _ = LAST_ID.fetch_max(*id + 1, Ordering::Relaxed));
        Ok(owed)
    }

    /// What there is to tell of the first messages that are owed, in the order they came. Only one of them is read at a time.
    pub async fn tell_owed<T: Send + 'static>(
        &self,
        max: usize,
        tell: impl Fn(Id, Owed) -> T + Send + 'static,
        deadline: Instant,
    ) -> Result<Vec<T>, Unavailable> {
        self.read_late(deadline, move |transaction| first(&transaction.open_table(OWED)?, max, tell)).await
    }

    /// Makes an owed message, or what is left of it, a dead letter.
    pub async fn bury(&self, owed: Option<Id>, dead: Dead, deadline: Instant) -> Result<(), Unavailable> {
        let account = dead.account.clone();
        self.write_late(&account, to_bytes(&dead).len(), deadline, move |transaction| {
            remove_owed(transaction, owed)?;
            bury(transaction, &dead)
        })
        .await
    }

    /// What there is to tell of the first dead letters, in the order they died. Only one of them is read at a time.
    pub async fn tell_dead<T: Send + 'static>(
        &self,
        max: usize,
        tell: impl Fn(Id, Dead) -> T + Send + 'static,
        deadline: Instant,
    ) -> Result<Vec<T>, Unavailable> {
        self.read_late(deadline, move |transaction| first(&transaction.open_table(DEAD)?, max, tell)).await
    }

    /// Names all dead letters, in the order they died.
    pub async fn dead_ids(&self, deadline: Instant) -> Result<Vec<Id>, Unavailable> {
        self.read_late(deadline, |transaction| {
            let table = transaction.open_table(DEAD)?;
            table.iter()?.map(|entry| Ok(entry?.0.value())).collect()
        })
        .await
    }

    /// Reads a dead letter; none if it is not there.
    pub async fn dead_letter(&self, id: Id, deadline: Instant) -> Result<Option<Dead>, Unavailable> {
        self.read_late(deadline, move |transaction| {
            Ok(transaction.open_table(DEAD)?.get(id)?.and_then(|row| from_bytes(row.value())))
        })
        .await
    }

    /// Takes a dead letter out; none if it is not there.
    pub async fn unbury(&self, id: Id, deadline: Instant) -> Result<Option<Dead>, Unavailable> {
        self.write_late("", 0, deadline, move |transaction| {
            Ok(transaction.open_table(DEAD)?.remove(id)?.and_then(|row| from_bytes(row.value())))
        })
        .await
    }

    /// Counts what is there.
    pub async fn late_counts(&self, deadline: Instant) -> Result<Counts, Unavailable> {
        self.read_late(deadline, |transaction| {
            let (owed, kept) = (transaction.open_table(OWED)?.len()?, transaction.open_table(KEPT)?.len()?);
            Ok(Counts { owed, kept, dead: transaction.open_table(DEAD)?.len()? })
        })
        .await
    }

    async fn read_late<T: Send + 'static>(
        &self,
        deadline: Instant,
        op: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        match self {
            Self::Embedded(embedded) => embedded.read(deadline, op).await,
        }
    }

    /// What one account owes waits for itself, and not for what its plugins keep.
    async fn write_late<T: Send + 'static>(
        &self,
        account: &str,
        bytes: usize,
        deadline: Instant,
        op: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        match self {
            Self::Embedded(embedded) => embedded.write(Lane::Host(&joined(&[account])), bytes, deadline, op).await,
        }
    }
}

/// Makes the tables if they are not there: a read needs them.
pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(OWED)?;
    transaction.open_table(KEPT)?;
    transaction.open_table(KEPT_AGES)?;
    transaction.open_table(DEAD)?;
    Ok(())
}

/// Says what is still to be sent, if anything is owed.
fn set_parts(transaction: &WriteTransaction, id: Id, parts: Vec<Reply>) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(OWED)?;
    let owed = table.get(id)?.and_then(|row| from_bytes::<Owed>(row.value()));
    if let Some(owed) = owed {
        table.insert(id, to_bytes(&Owed { reply: Some(parts), is_for_next_try: false, ..owed }).as_slice())?;
    }
    Ok(())
}

fn remove_owed(transaction: &WriteTransaction, id: Option<Id>) -> Result<(), redb::Error> {
    if let Some(id) = id {
        transaction.open_table(OWED)?.remove(id)?;
    }
    Ok(())
}

fn bury(transaction: &WriteTransaction, dead: &Dead) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(DEAD)?;
    let mut id = new_id();
    while table.get(id)?.is_some() {
        id += 1;
    }
    table.insert(id, to_bytes(dead).as_slice())?;
    if table.len()? > DEAD_MAX {
        for id in too_many(&table)? {
            table.remove(id)?;
        }
    }
    Ok(())
}

/// The oldest dead letters of the account that has the most: one whose replies all fail pushes out no other's.
fn too_many(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Vec<Id>, redb::Error> {
    let mut of_accounts = BTreeMap::<_, Vec<Id>>::new();
    for entry in table.iter()? {
        let (id, row) = entry?;
        // What cannot be read is nobody's.
        let account = serde_json::from_slice::<OfAccount>(row.value()).map(|row| row.account).unwrap_or_default();
        of_accounts.entry(account).or_default().push(id.value());
    }
    let mut most = of_accounts.into_values().max_by_key(Vec::len).unwrap_or_default();
    // Of few, the newer half stays: what was just buried is among them.
    most.truncate(DEAD_GIVEN_UP.min(most.len().div_ceil(2)));
    Ok(most)
}

/// Names a new row.
pub fn new_id() -> Id {
    let now = now_ms().saturating_mul(1_000);
    // Above all before it, however many come in one moment.
    LAST_ID.fetch_max(now, Ordering::Relaxed);
    LAST_ID.fetch_add(1, Ordering::Relaxed)
}

/// The last id that was given.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// What there is to tell of the first rows, one after the other.
fn first<T: DeserializeOwned, R>(
    table: &impl ReadableTable<u64, &'static [u8]>,
    max: usize,
    tell: impl Fn(Id, T) -> R,
) -> Result<Vec<R>, redb::Error> {
    let mut told = Vec::new();
    for entry in table.iter()?.take(max) {
        let (id, row) = entry?;
        told.extend(from_bytes(row.value()).map(|row| tell(id.value(), row)));
    }
    Ok(told)
}

fn to_bytes<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(&Row { wit: WIT.to_owned(), row }).expect("rows have only texts for keys")
}

/// Reads a row. What another version wrote and this one does not understand stays where it is.
fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match serde_json::from_slice::<Row<T>>(bytes) {
        Ok(Row { wit, row }) if wit == WIT => Some(row),
        Ok(Row { wit, .. }) => {
            error!("A late reply was written with `{wit}`, and this version knows `{WIT}`; it stays in the store");
            None
        }
        Err(error) => {
            error!("A late reply in the store cannot be read ({error}); it stays there");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    pub(super) fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    pub(super) fn owed(text: &str) -> Owed {
        Owed {
            account: "main".into(),
            openid: "o1".into(),
            xml: format!("<xml>{text}</xml>"),
            is_sealed: false,
            arrived_ms: 7,
            attempt: 1,
            tries: 3,
            is_asked_for: false,
            is_for_next_try: false,
            reply: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_owed_outlives_the_host_in_the_order_it_came() {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (first, second) = (new_id(), new_id());
        store.owe(first, owed("1"), later()).await.unwrap();
        store.owe(second, owed("2"), later()).await.unwrap();
        store.owe(new_id(), owed("3"), later()).await.unwrap();
        store.settle("main", second, later()).await.unwrap();
        let (parts, again) = (vec![Reply::Text("a".into())], Owed { attempt: 2, ..owed("1") });
        store.update_owed(&[(first, again.clone()), (second, again.clone())], later()).await.unwrap();
        for id in [first, second] {
            store.update_parts(id, "main", parts.clone(), later()).await.unwrap();
        }
        let replied = Owed { reply: Some(parts), ..again };
        store.close().await;
        drop(store);
        let found = Store::open(dir.path()).unwrap().owed(later()).await.unwrap();
        assert_eq!(found.into_iter().map(|(_, owed)| owed).collect::<Vec<_>>(), [replied, owed("3")]);
    }

    /// All dead letters, in the order they died.
    pub(super) async fn dead(store: &Store) -> Vec<(Id, Dead)> {
        store.tell_dead(usize::MAX, |id, dead| (id, dead), later()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_oldest_are_told_of_and_all_can_be_named() {
        let store = Store::scratch();
        for text in ["1", "2", "3"] {
            store.owe(new_id(), owed(text), later()).await.unwrap();
            let (account, openid, why) = ("main".into(), "o1".into(), text.to_owned());
            let dead = Dead { account, openid, reply: Vec::new(), why, died_ms: 7 };
            store.bury(None, dead, later()).await.unwrap();
        }
        assert_eq!(store.tell_owed(2, |_, owed| owed.xml, later()).await.unwrap(), ["<xml>1</xml>", "<xml>2</xml>"]);
        assert_eq!(store.tell_dead(1, |_, dead| dead.why, later()).await.unwrap(), ["1"]);
        let ids = store.dead_ids(later()).await.unwrap();
        assert_eq!(ids.len(), 3);
        assert_eq!(store.dead_letter(ids[2], later()).await.unwrap().unwrap().why, "3");
        assert_eq!(store.dead_letter(7, later()).await.unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_account_with_too_many_dead_letters_pushes_out_its_own() {
        let store = Store::scratch();
        let Store::Embedded(embedded) = &store;
        let dead = |account: &str, why: &str| {
            let (account, openid, why) = (account.to_owned(), "o1".to_owned(), why.to_owned());
            Dead { account, openid, reply: Vec::new(), why, died_ms: 7 }
        };
        store.bury(None, dead("quiet", "first"), later()).await.unwrap();
        let flood = move |transaction: &WriteTransaction| {
            (1..=DEAD_MAX).try_for_each(|number| bury(transaction, &dead("loud", &number.to_string())))
        };
        embedded.write(Lane::Host(b""), 0, later(), flood).await.unwrap();
        let told = store.tell_dead(2, |_, dead| (dead.account, dead.why), later()).await.unwrap();
        let next = (DEAD_GIVEN_UP + 1).to_string();
        assert_eq!(told, [("quiet".to_owned(), "first".to_owned()), ("loud".to_owned(), next)]);
        assert_eq!(store.late_counts(later()).await.unwrap().dead, DEAD_MAX + 1 - DEAD_GIVEN_UP as u64);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_row_of_another_contract_is_left_alone() {
        let store = Store::scratch();
        let Store::Embedded(embedded) = &store;
        let row = serde_json::to_vec(&Row { wit: "aviary:bot@9.0.0".into(), row: owed("1") }).unwrap();
        let insert = move |transaction: &WriteTransaction| {
            transaction.open_table(OWED)?.insert(1, row.as_slice())?;
            Ok(())
        };
        embedded.write(Lane::Host(b""), 0, later(), insert).await.unwrap();
        assert_eq!(store.owed(later()).await.unwrap(), []);
        assert_eq!(store.late_counts(later()).await.unwrap().owed, 1);
    }
}
