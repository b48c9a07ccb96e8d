//! Notices that plugins or settings changed. The system's events are only a hint to look: what changed is told by the
//! files themselves, and where no events arrive (network drives, some containers) a regular look finds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use super::directory;
use crate::{app::App, config::Config};

/// Changes that never pause are looked at this often all the same.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);

/// A file that changed while it was read is looked at again after so long, however short `watch.quiet_ms` is.
const UNSETTLED_WAIT_MIN: Duration = Duration::from_millis(10);

/// Watches and reloads, for ever.
pub async fn run(app: Arc<App>) {
    let (sender, mut hints) = mpsc::channel(1);
    let mut watcher = Watched::start(notify::recommended_watcher, sender);
    let mut loads = app.loads();
    loop {
        let config = app.live().config.clone();
        watcher.follow(directories(&config));
        let mut scan = tokio::select! {
            // No hint within the time to poll is as good as one.
            hint = timeout(config.watch.poll, hints.recv()) => {
                if hint.is_ok() {
                    settle(&mut hints, config.watch.quiet).await;
                }
                app.look().await
            }
            Ok(()) = loads.changed() => app.collect().await,
        };
        while scan.unsettled {
            sleep(config.watch.quiet.max(UNSETTLED_WAIT_MIN)).await;
            scan = app.look().await;
        }
    }
}

/// Waits until nothing has changed for `quiet`, so that a file is read when it is written, not while.
pub(crate) async fn settle(hints: &mut mpsc::Receiver<()>, quiet: Duration) {
    let started = Instant::now();
    while started.elapsed() < QUIET_WAIT_MAX && timeout(quiet, hints.recv()).await.is_ok() {}
}

/// The directories in which a change matters.
fn directories(config: &Config) -> BTreeSet<PathBuf> {
    directory::directories(config).into_iter().chain(config.stamps().directories()).map(Path::to_owned).collect()
}

/// What the system's watcher calls.
pub(crate) type Hint = Box<dyn FnMut(notify::Result<Event>) + Send>;

/// What tells a directory from one that was there before it. Its inode may be given again; not every system knows the time.
#[derive(Debug, PartialEq)]
struct Identity {
    inode: u64,
    created: Option<SystemTime>,
}

/// The system's watcher, if there is one, and what it watches.
#[derive(Debug)]
pub(crate) struct Watched {
    watcher: Option<RecommendedWatcher>,
    /// Each with what tells it from another of its name: of one that was made anew the system would report nothing.
    directories: BTreeMap<PathBuf, Identity>,
    /// Kept where the system has no watcher, too: hints that have ended would not be waited for.
    _hints: mpsc::Sender<()>,
}

impl Watched {
    /// Starts the watcher that `make` makes of what it is to call.
    pub(crate) fn start(
        make: impl FnOnce(Hint) -> notify::Result<RecommendedWatcher>,
        hints: mpsc::Sender<()>,
    ) -> Self {
        let sender = hints.clone();
        let watcher = make(Box::new(move |event| {
            if event.is_ok_and(|event| is_change(event.kind)) {
                // Full means that a hint is waiting already.
                let _ = sender.try_send(());
            }
        }));
        if let Err(error) = &watcher {
            warn!("The system reports no file changes ({error}); looking every `watch.poll_ms` instead");
        }
        Self { watcher: watcher.ok(), directories: BTreeMap::new(), _hints: hints }
    }

    /// Watches these directories and no others. One that is not there yet is found by polling.
    pub(crate) fn follow(&mut self, wanted: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeMap<PathBuf, Identity> = wanted.into_iter().filter_map(identified).collect();
        self.directories.retain(|directory, identity| {
            let stays = wanted.get(directory) == Some(identity);
            if !stays {
                let _ = watcher.unwatch(directory);
            }
            stays
        });
        for (directory, identity) in wanted {
            if self.directories.contains_key(&directory)
                || watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok()
            {
                self.directories.insert(directory, identity);
            }
        }
    }
}

fn identified(directory: PathBuf) -> Option<(PathBuf, Identity)> {
    let metadata = fs::metadata(&directory).ok()?;
    Some((directory, Identity { inode: metadata.ino(), created: metadata.created().ok() }))
}

/// Our own reading of the files is an event, too, and no reason to read them again.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_the_system_has_no_watcher_hints_are_waited_for_all_the_same() {
        let (sender, mut hints) = mpsc::channel(1);
        let _watched = Watched::start(|_| Err(notify::Error::generic("no instance is left")), sender);
        assert!(timeout(Duration::from_millis(10), hints.recv()).await.is_err());
    }

    #[tokio::test]
    async fn a_directory_that_is_made_anew_is_watched_anew() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = dir.path().join("plugins");
        let wanted = BTreeSet::from([plugins.clone()]);
        fs::create_dir(&plugins).unwrap();
        let (sender, mut hints) = mpsc::channel(1);
        let mut watched = Watched::start(notify::recommended_watcher, sender);
        watched.follow(wanted.clone());
        fs::remove_dir(&plugins).unwrap();
        // It takes the inode that was set free.
        fs::write(dir.path().join("between"), "").unwrap();
        fs::create_dir(&plugins).unwrap();
        watched.follow(wanted);
        settle(&mut hints, Duration::from_millis(100)).await;
        fs::write(plugins.join("20-echo.wasm"), "").unwrap();
        timeout(Duration::from_secs(60), hints.recv()).await.expect("it is noticed").unwrap();
    }
}
