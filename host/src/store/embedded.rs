//! The embedded store: one redb file in this process.
//!
//! A read sees the last commit and waits for no write. Writes go through a thread of their own ([`writer`]), which carries
//! out all that wait in one transaction: a thousand small writes cost a few flushes of the disk, not a thousand. What is
//! kept is no business of this file: an operation is a closure over a transaction.

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
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

use super::{Unavailable, kv, queue::Queue, writer};

/// The store's file in `data_dir`.
const FILE: &str = "store.redb";

/// What redb keeps of the file in memory. The system keeps more of it, as long as there is memory to spare.
const CACHE_BYTES: usize = 8 << 20;

/// How many reads may go on at once: each has a thread, and a slow disk needs no more.
const READS_MAX: usize = 16;

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
    writer: Option<JoinHandle<()>>,
}

/// What the writing thread and the reads share.
pub(super) struct Shared {
    place: Place,
    /// Nothing while it is being opened again after a failure.
    database: RwLock<Option<Database>>,
    pub(super) queue: Queue,
    reads: Arc<Semaphore>,
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
        let engine = Engine::start(Place::File(path.clone()))?;
        // A file that was just made is there only when its directory says so on disk.
        fs::File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(to_io)?;
        Ok(Self(Arc::new(OnceLock::from(Some(engine)))))
    }

    /// A store in memory, made when it is first used: most trials never do.
    pub fn scratch() -> Self {
        Self(Arc::default())
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

    /// Carries out a write with others, and answers when it is durable. Writes of one `lane` keep their order; lanes take
    /// turns.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        lane: &[u8],
        deadline: Instant,
        op: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, answer) = oneshot::channel();
        let op = |transaction: &WriteTransaction| {
            let outcome = op(transaction)?;
            let tell: super::queue::Answer = Box::new(move || _ = sender.send(outcome));
            Ok(tell)
        };
        let waiting = self.engine()?.shared.queue.push(lane, Box::new(op)).ok_or(Unavailable::Busy)?;
        let answer = timeout_at(deadline.into(), answer).await;
        drop(waiting);
        answer.map_err(|_| Unavailable::Late)?.map_err(|_| Unavailable::Failed)
    }
}

impl Engine {
    fn start(place: Place) -> Result<Self, OpenError> {
        let database = RwLock::new(Some(place.open()?));
        let shared =
            Arc::new(Shared { place, database, queue: Queue::default(), reads: Arc::new(Semaphore::new(READS_MAX)) });
        let writing = shared.clone();
        let writer = thread::Builder::new().name("store".into()).spawn(move || writer::run(&writing));
        let writer = Some(writer.map_err(|error| OpenError::Io { path: shared.place.path(), error })?);
        Ok(Self { shared, writer })
    }
}

/// Waits for what was begun, and closes the file: whoever opens it next finds it free.
impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // It catches its panics.
            _ = writer.join();
        }
        self.shared.set(None);
    }
}

impl Shared {
    fn read<T>(&self, op: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, Unavailable> {
        let reading = || -> Result<T, redb::Error> { self.with(|database| op(&database.begin_read()?)) };
        // redb panics on some damage that it meets.
        let read = catch_unwind(AssertUnwindSafe(reading)).unwrap_or_else(|_| Err(panicked()));
        read.map_err(|error| {
            error!("The store could not be read from {}: {error}", self.place);
            Unavailable::Failed
        })
    }

    /// Lends the database, which stays open meanwhile.
    pub(super) fn with<T>(&self, op: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        op(database.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    /// Closes the database and opens it again: after a failure, redb wants nothing else.
    pub(super) fn reopen(&self) -> Result<(), OpenError> {
        self.set(None);
        self.set(Some(self.place.open()?));
        Ok(())
    }

    /// Waits for the reads that go on.
    fn set(&self, database: Option<Database>) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = database;
    }

    pub(super) fn place(&self) -> &impl fmt::Display {
        &self.place
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
                let file = private_file(path).map_err(|error| OpenError::Io { path: path.clone(), error })?;
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

/// Opens a file, or makes it, and sees that nobody else may read it.
fn private_file(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
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
