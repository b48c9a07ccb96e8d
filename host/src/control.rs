//! The control socket: how `aviary status`, `aviary plugins` and `aviary late` reach the host that runs.
//!
//! It is `control.sock` in `data_dir`, open to the host's own user alone, and speaks HTTP with bodies in JSON:
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | a [`Status`] |
//! | `POST /plugins/disable`, `…/enable`, `…/rollback` with an [`Order`] | what was [`Done`], once it counts |
//! | `GET /late` | what is owed and what was given up, a [`late::Late`] |
//! | `POST /late/retry`, `…/drop` with a [`late::LetterOrder`] | [`late::LettersDone`] |
//!
//! What is refused is answered with a [`Refusal`].

pub mod client;
pub mod late;
pub mod status;

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixStream as Probe,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path as UrlPath, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{server::graceful::GracefulShutdown, service::TowerToHyperService};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use self::status::{Asked, Status};
use crate::{
    app::App,
    config,
    plugin::{
        directory::{OrderError, switched_on},
        file_name::name_of,
        set::Fault,
    },
    server,
};

/// The socket's name in `data_dir`.
const SOCKET: &str = "control.sock";

/// How many connections may be open at once: a few people and their scripts.
const CONNECTIONS_MAX: usize = 16;

/// How large an order may be: two names and a hash.
const ORDER_BYTES_MAX: usize = 16 << 10;

/// How long the path of a Unix socket may be, with room for the smallest of all systems: 104 bytes and a zero.
const PATH_BYTES_MAX: usize = 103;

/// The user whom nothing is hidden from.
const ROOT: u32 = 0;

/// What is to be done with a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    Disable,
    Enable,
    /// Go back to an earlier version.
    Rollback,
}

/// Which plugin it is to be done with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The plugin's name, or that of its file.
    pub name: String,
    /// Whose directories are searched; none: all.
    #[serde(default)]
    pub account: Option<String>,
    /// Of `rollback`: the beginning of the SHA-256 of the version to go back to; none: the one that served before.
    #[serde(default)]
    pub to: Option<String>,
}

/// What became of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The plugin's file, as it is named now.
    pub file: PathBuf,
    /// Of `rollback`: which version lies there now.
    pub sha256: Option<String>,
    /// Of `rollback`: what lay in its place, under the names that it has now.
    #[serde(default)]
    pub set_aside: Vec<PathBuf>,
    /// The plugins of that name that are asked now.
    pub serving: Vec<Asked>,
    /// Why the file does not serve, if it should and does not.
    pub fault: Option<Fault>,
}

/// Why an order was not carried out. The text is for the operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    pub error: String,
}

/// Why the socket cannot be opened. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another host answers on {}; stop that one, or give each its own `data_dir`", .0.display())]
    InUse(PathBuf),
    #[error("{} is in the way of the control socket; move it away", .0.display())]
    InTheWay(PathBuf),
    #[error("cannot open {}: {error}; another `data_dir` may do", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// The socket of a host that runs. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Which file is ours: the host that is started next makes another of that name.
    inode: u64,
}

impl Socket {
    /// Opens the socket in a data directory, in place of one that a host left behind.
    pub fn bind(data_dir: &Path) -> Result<Self, BindError> {
        let path = data_dir.join(SOCKET);
        let to_io = |error| BindError::Io { path: path.clone(), error };
        let address = Address::of(data_dir).map_err(to_io)?;
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::InTheWay(path)),
            Ok(_) if Probe::connect(&address.path).is_ok() => return Err(BindError::InUse(path)),
            Ok(_) => fs::remove_file(&path).map_err(to_io)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(&address.path).map_err(to_io)?;
        // Who comes before this is not let in either: see `next`.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(to_io)?;
        let inode = fs::symlink_metadata(&path).map_err(to_io)?.ino();
        Ok(Self { listener, path, inode })
    }
}

impl server::Source for Socket {
    type Stream = UnixStream;

    /// Takes the next connection of our own user or root.
    async fn next(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let user = stream.peer_cred()?.uid();
            if user == ROOT || user == geteuid().as_raw() {
                return Ok(stream);
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            // What stays is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// By which path the socket of a data directory is reached.
struct Address {
    path: PathBuf,
    /// The directory that a short path leads through.
    _dir: Option<File>,
}

impl Address {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _dir: None });
        }
        if !cfg!(target_os = "linux") {
            let why = format!("the path of a socket may have {PATH_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let dir = File::open(data_dir)?;
        Ok(Self { path: format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).into(), _dir: Some(dir) })
    }
}

/// Serves until it is dropped: a host that stops still says so.
pub async fn run(app: Arc<App>, socket: Socket) {
    let public = app.live().config.listener.clone();
    let settings = config::Listener { connections_max: CONNECTIONS_MAX, ..public };
    let router = Router::new()
        .route("/status", get(tell_status))
        .route("/plugins/{deed}", post(take_order))
        .route("/late", get(late::tell))
        .route("/late/{deed}", post(late::take_order))
        .layer(DefaultBodyLimit::max(ORDER_BYTES_MAX))
        .with_state(app);
    server::accept(&socket, &settings, &TowerToHyperService::new(router), &GracefulShutdown::new()).await;
}

async fn tell_status(State(app): State<Arc<App>>) -> Response {
    json(StatusCode::OK, &Status::of(&app).await)
}

async fn take_order(State(app): State<Arc<App>>, UrlPath(deed): UrlPath<Deed>, body: Bytes) -> Response {
    let order: Order = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, format!("this is no order: {error}")),
    };
    // A task of its own: what was begun is finished, whether or not somebody still waits for the answer.
    match tokio::spawn(async move { carry_out(&app, deed, &order).await }).await {
        Ok(Ok(done)) => json(StatusCode::OK, &done),
        Ok(Err(error)) => refusal(status_of(&error), error.to_string()),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn carry_out(app: &App, deed: Deed, order: &Order) -> Result<Done, OrderError> {
    let Order { name, account, to } = order;
    let account = account.as_deref();
    let (file, hash, set_aside) = match deed {
        Deed::Disable => (app.disable(account, name).await?, None, Vec::new()),
        Deed::Enable => (app.enable(account, name).await?, None, Vec::new()),
        Deed::Rollback => {
            let back = app.rollback(account, name, to.as_deref()).await?;
            (back.file, Some(back.hash.to_string()), back.set_aside)
        }
    };
    app.settled(&file).await;
    let name = name_of(&switched_on(&file)).unwrap_or_default();
    let fault = app.faults().into_iter().find(|fault| fault.file == file);
    Ok(Done { file, sha256: hash, set_aside, serving: status::asked(app, &name).await, fault })
}

fn status_of(error: &OrderError) -> StatusCode {
    match error {
        OrderError::NoAccount { .. } | OrderError::Unknown { .. } => StatusCode::NOT_FOUND,
        OrderError::Damaged { .. } | OrderError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        OrderError::Ambiguous { .. }
        | OrderError::Already { .. }
        | OrderError::InTheWay { .. }
        | OrderError::NoVersion { .. }
        | OrderError::AllLeft { .. }
        | OrderError::NoSuchVersion { .. }
        | OrderError::Pinned { .. } => StatusCode::CONFLICT,
    }
}

fn refusal(status: StatusCode, error: String) -> Response {
    json(status, &Refusal { error })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        // Only a path that is not in UTF-8 cannot be written.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
