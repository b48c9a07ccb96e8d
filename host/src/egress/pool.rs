//! Connections that nobody uses, kept for the next request of the same kind.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{client::Outgoing, target::Target};
use crate::config::Http;

/// How long a connection may take to notice that its last answer is complete.
const READY: Duration = Duration::from_millis(250);

/// What a connection was opened for. A request under another policy never gets it, though it has the same URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    origin: String,
    private: bool,
}

impl Key {
    pub(super) fn new(target: &Target, private: bool) -> Self {
        Self { origin: target.origin(), private }
    }
}

/// An open connection. Dropping it closes it at once.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Outgoing>,
    pub(super) _driver: AbortOnDropHandle<()>,
}

#[derive(Debug)]
pub(super) struct Pool {
    idle_timeout: Duration,
    idle_max: usize,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The latest last.
    connections: HashMap<Key, Vec<(Instant, Connection)>>,
    count: usize,
    /// Whether a task closes what gets too old.
    is_swept: bool,
}

impl Pool {
    pub(super) fn new(http: &Http) -> Arc<Self> {
        let (idle_timeout, idle_max) = (http.idle_timeout, http.idle_connections_max);
        Arc::new(Self { idle_timeout, idle_max, idle: Mutex::default() })
    }

    /// Takes the connection that was used last, if the other side has not closed it since.
    pub(super) async fn take(&self, key: &Key) -> Option<Connection> {
        loop {
            let mut connection = self.idle().take(key)?;
            if let Ok(Ok(())) = timeout(READY, connection.sender.ready()).await {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last answer has been read to its end.
    pub(super) fn put(self: &Arc<Self>, key: Key, connection: Connection) {
        let mut idle = self.idle();
        if connection.sender.is_closed() || self.idle_timeout.is_zero() || idle.count >= self.idle_max {
            return;
        }
        idle.connections.entry(key).or_default().push((Instant::now(), connection));
        idle.count += 1;
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn take(&mut self, key: &Key) -> Option<Connection> {
        let connections = self.connections.get_mut(key)?;
        let (_, connection) = connections.pop()?;
        if connections.is_empty() {
            self.connections.remove(key);
        }
        self.count -= 1;
        Some(connection)
    }

    /// Closes what is too old or was closed by the other side, and says whether anything is left.
    fn sweep(&mut self, timeout: Duration) -> bool {
        for connections in self.connections.values_mut() {
            connections.retain(|(since, connection)| since.elapsed() < timeout && !connection.sender.is_closed());
        }
        self.connections.retain(|_, connections| !connections.is_empty());
        self.count = self.connections.values().map(Vec::len).sum();
        self.is_swept = self.count > 0;
        self.is_swept
    }
}

/// Looks after the pool until it is empty; the next connection starts it again.
async fn sweep(pool: Weak<Pool>, timeout: Duration) {
    loop {
        tokio::time::sleep(timeout / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.idle().sweep(timeout) {
            return;
        }
    }
}
