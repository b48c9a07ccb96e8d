//! The embedded store: one redb file in this process.
//!
//! A read sees the last commit and waits for no write. Writes go through a thread of their own ([`writer`]), which carries
//! out all that wait in one transaction: a thousand small writes cost a few flushes of the disk, not a thousand. What is
//! kept is no business of this file: an operation is a closure over a transaction.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    thread::{self, JoinHandle},
    time::Instant,
};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    WriteTransaction,
    backends::{FileBackend, InMemoryBackend},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
    time::timeout_at,
};
use tracing::error;

use super::{
    Unavailable, kv, late,
    queue::{Lane, Queue},
    writer,
};
use crate::refusal::OnceAMinute;

/// The store's file in `data_dir`.
const FILE: &str = "store.redb";

/// What redb keeps of the file in memory. The system keeps more of it, as long as there is memory to spare.
const CACHE_BYTES: usize = 8 << 20;

/// How many reads may go on at once: each has a thread, and a slow disk needs no more.
const READS_MAX: usize = 16;

/// A file up to this size is read whole when it is opened, to see whether it is damaged. That takes some 100 ms at most; a
/// larger one would keep WeChat waiting, so its damage shows where it is read.
const CHECKED_BYTES_MAX: u64 = 32 << 20;

/// What the file says of itself.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// The form of the tables. A host refuses a file whose form it does not know.
const FORM: u64 = 1;

/// The store of this process. All clones are one store; its file is closed with the last.
#[derive(Clone, Debug)]
pub struct Embedded(Arc<OnceLock<Option<Engine>>>);

/// Why the store cannot be used. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another host; stop that one, or give each its own `data_dir`", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} is damaged ({why}) and was left as it is; put a backup in its place, or move it away to begin with an empty \
         store", .path.display()
    )]
    Damaged { path: PathBuf, why: String },
    #[error(
        "{} has form {form}, and this version knows form {FORM}; run the version that wrote it, or move it away to begin \
         with an empty store", .path.display()
    )]
    OtherForm { path: PathBuf, form: u64 },
    #[error("cannot use {}: {error}; `data_dir` must be a directory that this user may write, on a disk with room", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// A database with the thread that writes to it.
struct Engine {
    shared: Arc<Shared>,
    /// Taken when it is told to end.
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writing thread and the reads share.
pub(super) struct Shared {
    place: Place,
    /// Nothing after a failure, until it could be opened again.
    database: RwLock<Option<Database>>,
    pub(super) queue: Queue,
    reads: Arc<Semaphore>,
    told: OnceAMinute<&'static str>,
}

/// Where a database is.
#[derive(Debug)]
enum Place {
    File(PathBuf),
    Memory,
}

impl Embedded {
    /// Opens the file of a data directory, or makes both, for us alone.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join(FILE);
        let to_io = |error| OpenError::Io { path: path.clone(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(to_io)?;
        if !path.try_exists().map_err(to_io)? {
            make(data_dir, &path).map_err(to_io)?;
        }
        let engine = Engine::start(Place::File(path))?;
        Ok(Self(Arc::new(OnceLock::from(Some(engine)))))
    }

    /// A store in memory, made when it is first used: most trials never do.
    pub fn scratch() -> Self {
        Self(Arc::default())
    }

    /// Ends what was begun and closes the file; from now on every operation fails.
    pub(super) fn close(&self) {
        if let Some(Some(engine)) = self.0.get() {
            engine.close();
        }
    }

    fn engine(&self) -> Result<&Engine, Unavailable> {
        let engine = self.0.get_or_init(|| Engine::start(Place::Memory).ok());
        engine.as_ref().ok_or(Unavailable::Failed)
    }

    /// Reads what was committed last.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        deadline: Instant,
        op: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let shared = self.engine()?.shared.clone();
        let reading = async {
            let turn = shared.reads.clone().acquire_owned().await.map_err(|_| Unavailable::Failed)?;
            let read = move || {
                // Kept by the thread: a disk that hangs does not get further threads.
                let _turn = turn;
                shared.read(op)
            };
            spawn_blocking(read).await.map_err(|_| Unavailable::Failed)?
        };
        timeout_at(deadline.into(), reading).await.map_err(|_| Unavailable::Late)?
    }

    /// Carries out a write that holds so many bytes with others, and answers when it is durable. Writes of one `lane` keep their order; lanes take
    /// turns.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        lane: Lane<'_>,
        bytes: usize,
        deadline: Instant,
        op: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, answer) = oneshot::channel();
        let op = |transaction: &WriteTransaction| {
            let outcome = op(transaction)?;
            let tell: super::queue::Answer = Box::new(move || _ = sender.send(outcome));
            Ok(tell)
        };
        let waiting = self.engine()?.shared.queue.push(lane, bytes, Box::new(op))?;
        let answer = timeout_at(deadline.into(), answer).await;
        drop(waiting);
        answer.map_err(|_| Unavailable::Late)?.map_err(|_| Unavailable::Failed)
    }
}

impl Engine {
    fn start(place: Place) -> Result<Self, OpenError> {
        let database = RwLock::new(Some(place.open()?));
        let reads = Arc::new(Semaphore::new(READS_MAX));
        let shared = Arc::new(Shared { place, database, queue: Queue::default(), reads, told: OnceAMinute::default() });
        let writing = shared.clone();
        let writer = thread::Builder::new().name("store".into()).spawn(move || writer::run(&writing));
        let writer = writer.map_err(|error| OpenError::Io { path: shared.place.path(), error })?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Waits for what was begun, and closes the file: whoever opens it next finds it free.
    fn close(&self) {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It catches its panics.
            _ = writer.join();
        }
        self.shared.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn read<T>(&self, op: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, Unavailable> {
        let reading = || -> Result<T, redb::Error> { self.with(|database| op(&database.begin_read()?)) };
        // redb panics on some damage that it meets.
        let read = catch_unwind(AssertUnwindSafe(reading)).unwrap_or_else(|_| Err(panicked()));
        read.map_err(|error| {
            self.tell("read", &error);
            Unavailable::Failed
        })
    }

    /// Lends the database, which stays open meanwhile.
    pub(super) fn with<T>(&self, op: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        op(database.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    /// Closes the database and opens it again: after a failure, redb takes nothing else. Reads wait meanwhile.
    pub(super) fn reopen(&self) -> Result<(), OpenError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        *database = Some(self.place.open()?);
        Ok(())
    }

    /// Closes the database, after the reads that go on.
    fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Tells the operator what the store could not be, at most once a minute each.
    pub(super) fn tell(&self, what: &'static str, error: &dyn std::error::Error) {
        if let Some(unsaid) = self.told.turn(what, Instant::now()) {
            let more = if unsaid > 0 { format!(" ({unsaid} more times in between)") } else { String::new() };
            error!(
                "The store could not be {what}, so plugins were told that it is unavailable: {error}{more}; see {}",
                self.place
            );
        }
    }
}

impl Place {
    fn open(&self) -> Result<Database, OpenError> {
        // redb panics on some damage.
        catch_unwind(|| self.open_unguarded()).unwrap_or_else(|_| Err(self.damaged("its parts do not fit together")))
    }

    fn open_unguarded(&self) -> Result<Database, OpenError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = match self {
            Self::Memory => builder.create_with_backend(InMemoryBackend::new()),
            Self::File(path) => {
                let to_io = |error| OpenError::Io { path: path.clone(), error };
                let file = private_file(path).map_err(to_io)?;
                let bytes = file.metadata().map_err(to_io)?.len();
                builder.set_check_integrity_on_open((1..=CHECKED_BYTES_MAX).contains(&bytes));
                FileBackend::new(file).and_then(|backend| builder.create_with_backend(backend))
            }
        };
        let database = database.map_err(|error| self.explain(error))?;
        let form = prepare(&database).map_err(|error| self.explain_use(error))?;
        if form != FORM {
            return Err(OpenError::OtherForm { path: self.path(), form });
        }
        Ok(database)
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Memory => "memory".into(),
        }
    }

    fn explain(&self, error: DatabaseError) -> OpenError {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenError::InUse(self.path()),
            error => self.explain_use(error.into()),
        }
    }

    fn explain_use(&self, error: redb::Error) -> OpenError {
        match error {
            // A file that does not begin as one of redb's is invalid data; one that ends too early, an early end.
            redb::Error::Io(error)
                if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                OpenError::Io { path: self.path(), error }
            }
            error => self.damaged(&error.to_string()),
        }
    }

    fn damaged(&self, why: &str) -> OpenError {
        OpenError::Damaged { path: self.path(), why: why.to_owned() }
    }
}

/// Makes an empty store, whole or not at all: what a crash leaves half made would be taken for damaged.
fn make(data_dir: &Path, path: &Path) -> io::Result<()> {
    // For us alone, and removed if anything fails.
    let partial = tempfile::Builder::new().prefix(FILE).suffix(".partial").tempfile_in(data_dir)?;
    Database::create(partial.path()).map_err(io::Error::other)?;
    match partial.persist_noclobber(path) {
        // Another host was quicker; whether it runs is seen next.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
        // A file has its name only when its directory says so on disk.
        Ok(_) => fs::File::open(data_dir)?.sync_all(),
    }
}

/// Opens a file, and sees that nobody else may read it.
fn private_file(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Makes the tables of a new file, and returns the form of the file. A disk that cannot be written shows here.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let form = {
        let mut about = transaction.open_table(ABOUT)?;
        let known = about.get("form")?.map(|form| form.value());
        if known.is_none() {
            about.insert("form", FORM)?;
        }
        known.unwrap_or(FORM)
    };
    if form == FORM {
        kv::make_tables(&transaction)?;
        late::make_tables(&transaction)?;
        transaction.commit()?;
    }
    Ok(form)
}

/// What a panic of redb's counts as.
pub(super) fn panicked() -> redb::Error {
    StorageError::Corrupted("redb panicked".to_owned()).into()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Memory => f.write_str("memory"),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::mpsc,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use tempfile::TempDir;

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("test_texts");

    fn later() -> Instant {
        Instant::now() + PATIENCE
    }

    fn insert(transaction: &WriteTransaction, key: &str) -> Result<(), redb::Error> {
        transaction.open_table(TEXTS)?.insert(key, "")?;
        Ok(())
    }

    /// Starts a write that does not end before something is sent, and waits until it has begun.
    fn block(store: &Embedded) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let store = store.clone();
        tokio::spawn(async move {
            let op = move |_: &WriteTransaction| {
                begin.send(()).unwrap();
                released.recv_timeout(PATIENCE).unwrap();
                Ok(())
            };
            store.write(Lane::Host(b"blocking"), 0, later(), op).await
        });
        begun.recv_timeout(PATIENCE).unwrap();
        release
    }

    /// What was committed, of these keys.
    async fn committed(store: &Embedded, keys: &'static [&'static str]) -> Vec<&'static str> {
        let op = move |transaction: &ReadTransaction| {
            let table = match transaction.open_table(TEXTS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut found = Vec::new();
            for key in keys {
                found.extend(table.get(*key)?.map(|_| *key));
            }
            Ok(found)
        };
        store.read(later(), op).await.unwrap()
    }

    fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
        matches!(pin!(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
    }

    fn open_error(dir: &Path) -> OpenError {
        Embedded::open(dir).map(|_| ()).unwrap_err()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_is_answered_when_its_group_is_durable_and_no_read_waits_for_it() {
        let store = Embedded::scratch();
        store.write(Lane::Host(b""), 0, later(), |transaction| insert(transaction, "before")).await.unwrap();
        let release = block(&store);
        // Both wait behind the first, so they share its transaction.
        let (carried_out, was_carried_out) = mpsc::channel();
        let quick = move |transaction: &WriteTransaction| {
            carried_out.send(()).unwrap();
            insert(transaction, "quick")
        };
        let (go_on, goes_on) = mpsc::channel();
        let slow = move |_: &WriteTransaction| {
            goes_on.recv_timeout(PATIENCE).unwrap();
            Ok(())
        };
        let mut quick = Box::pin(store.write(Lane::Host(b"quick"), 0, later(), quick));
        assert!(is_pending(&mut quick));
        let mut slow = Box::pin(store.write(Lane::Host(b"slow"), 0, later(), slow));
        assert!(is_pending(&mut slow));
        release.send(()).unwrap();
        was_carried_out.recv_timeout(PATIENCE).unwrap();
        assert_eq!(committed(&store, &["before", "quick"]).await, ["before"]);
        assert!(is_pending(&mut quick));
        go_on.send(()).unwrap();
        quick.await.unwrap();
        slow.await.unwrap();
        assert_eq!(committed(&store, &["before", "quick"]).await, ["before", "quick"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_that_is_late_is_told_so_and_not_carried_out_after_all() {
        let store = Embedded::scratch();
        let release = block(&store);
        let late = store.write(Lane::Host(b""), 0, Instant::now(), |transaction| insert(transaction, "late")).await;
        assert_eq!(late, Err(Unavailable::Late));
        release.send(()).unwrap();
        store.write(Lane::Host(b""), 0, later(), |transaction| insert(transaction, "next")).await.unwrap();
        assert_eq!(committed(&store, &["late", "next"]).await, ["next"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_that_fails_takes_its_group_with_it_and_nothing_else() {
        let dir = TempDir::new().unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        store.write(Lane::Host(b""), 0, later(), |transaction| insert(transaction, "before")).await.unwrap();
        for panics in [false, true] {
            let release = block(&store);
            let mut beside =
                Box::pin(store.write(Lane::Host(b""), 0, later(), |transaction| insert(transaction, "beside")));
            assert!(is_pending(&mut beside));
            let mut failing = Box::pin(store.write::<()>(Lane::Host(b""), 0, later(), move |_| {
                assert!(!panics, "as redb does on some damage");
                Err(panicked())
            }));
            assert!(is_pending(&mut failing));
            release.send(()).unwrap();
            assert_eq!(failing.await, Err(Unavailable::Failed));
            assert_eq!(beside.await, Err(Unavailable::Failed));
            assert_eq!(committed(&store, &["before", "beside"]).await, ["before"]);
        }
        store.write(Lane::Host(b""), 0, later(), |transaction| insert(transaction, "after")).await.unwrap();
        assert_eq!(committed(&store, &["before", "beside", "after"]).await, ["before", "after"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_that_fails_or_is_late_is_told_so() {
        let store = Embedded::scratch();
        assert_eq!(store.read::<()>(later(), |_| Err(panicked())).await, Err(Unavailable::Failed));
        assert_eq!(
            store.read::<()>(later(), |_| panic!("as redb does on some damage")).await,
            Err(Unavailable::Failed)
        );
        let (release, released) = mpsc::channel();
        let hangs = move |_: &ReadTransaction| {
            released.recv_timeout(PATIENCE).unwrap();
            Ok(())
        };
        assert_eq!(store.read(Instant::now() + Duration::from_millis(1), hangs).await, Err(Unavailable::Late));
        release.send(()).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_file_is_its_owners_alone_and_keeps_what_was_written() {
        let dir = TempDir::new().unwrap();
        let data_dir = dir.path().join("new/data");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let store = Embedded::open(&data_dir).unwrap();
        assert_eq!((mode(&data_dir), mode(&data_dir.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
        store.write(Lane::Host(b""), 0, later(), |transaction| insert(transaction, "kept")).await.unwrap();
        drop(store);
        // As a backup may put it back.
        fs::set_permissions(data_dir.join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let store = Embedded::open(&data_dir).unwrap();
        assert_eq!(mode(&data_dir.join(FILE)), 0o600);
        assert_eq!(committed(&store, &["kept"]).await, ["kept"]);
    }

    #[test]
    fn a_directory_has_one_host_and_the_second_is_told_what_to_do() {
        let dir = TempDir::new().unwrap();
        let first = Embedded::open(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(
            open_error(dir.path()).to_string(),
            format!("{} is in use by another host; stop that one, or give each its own `data_dir`", path.display())
        );
        drop(first);
        Embedded::open(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn a_store_that_was_closed_keeps_what_was_written_and_answers_nobody() {
        let dir = TempDir::new().unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        store.write(Lane::Host(b""), 0, later(), |transaction| insert(transaction, "kept")).await.unwrap();
        store.clone().close();
        let next = Embedded::open(dir.path()).unwrap();
        assert_eq!(committed(&next, &["kept"]).await, ["kept"]);
        assert_eq!(store.write(Lane::Host(b""), 0, later(), |_| Ok(())).await, Err(Unavailable::Failed));
        assert_eq!(store.read(later(), |_| Ok(())).await, Err(Unavailable::Failed));
        store.close();
        Embedded::scratch().close();
    }

    #[test]
    fn what_cannot_be_a_directory_is_told() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = open_error(&file);
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
        assert!(error.to_string().contains("`data_dir` must be a directory"), "{error}");
    }

    #[test]
    fn a_file_of_another_form_is_refused_and_left_alone() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(FILE);
        let newer = Database::create(&path).unwrap();
        let transaction = newer.begin_write().unwrap();
        transaction.open_table(ABOUT).unwrap().insert("form", FORM + 1).unwrap();
        transaction.commit().unwrap();
        drop(newer);
        let error = open_error(dir.path()).to_string();
        assert!(error.contains("has form 2, and this version knows form 1"), "{error}");
    }

    /// A file with so much in it that it has pages of every kind.
    async fn filled() -> Vec<u8> {
        let dir = TempDir::new().unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        let fill = |transaction: &WriteTransaction| {
            let mut table = transaction.open_table(TEXTS)?;
            for number in 0..2_000 {
                table.insert(format!("key {number}").as_str(), "x".repeat(number).as_str())?;
            }
            Ok(())
        };
        store.write(Lane::Host(b""), 0, later(), fill).await.unwrap();
        drop(store);
        fs::read(dir.path().join(FILE)).unwrap()
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_and_left_as_it_is() {
        let whole = filled().await;
        let zeroed = |from: usize, to: usize| {
            let mut bytes = whole.clone();
            bytes[from..to].fill(0);
            bytes
        };
        let cases = [
            ("no store", b"[accounts.main]\n".repeat(1_000)),
            ("cut in the header", whole[..100].to_vec()),
            ("cut in half", whole[..whole.len() / 2].to_vec()),
            ("without its beginning", zeroed(0, 4_096)),
            ("with a hole", zeroed(whole.len() / 4, whole.len() / 2)),
        ];
        for (case, bytes) in cases {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join(FILE);
            fs::write(&path, &bytes).unwrap();
            let error = open_error(dir.path());
            assert!(matches!(error, OpenError::Damaged { .. }), "{case}: {error}");
            assert!(error.to_string().contains("put a backup in its place, or move it away"), "{case}: {error}");
            assert!(fs::read(&path).unwrap() == bytes, "{case}: the file was changed");
        }
    }
}
