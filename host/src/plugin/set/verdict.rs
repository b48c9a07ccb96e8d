//! What loading one file comes to, whatever else is loaded: the part of a look that runs by itself.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::Serving;
use crate::plugin::{
    aside,
    code::Code,
    loader::{Identity, Loaded, Loader, Look, NotLoaded, Progress, ReadError, Terms},
    versions::Versions,
};

/// What loading a file came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// What serves, or what was refused before.
    Same(Identity),
    Loaded(Loaded, Identity, Duration),
    NotLoaded {
        error: NotLoaded,
        /// Of what it holds, unless it could not be read.
        identity: Option<Identity>,
        /// The kept version that is to serve, as nothing else does.
        kept: Option<Serving>,
        /// Whether there is one that does not load either, for a reason that may pass.
        is_kept_later: bool,
    },
    /// A fault of the host's own, in its words.
    Panicked(String),
}

/// Comes to a verdict even if the work panics: whoever looks waits for the word of every load. The work ends with the wait.
pub(super) async fn guarded(work: impl Future<Output = Verdict> + Send + 'static) -> Verdict {
    match AbortOnDropHandle::new(tokio::spawn(work)).await {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Panicked(error.to_string()),
    }
}

/// What is known of a file before it is examined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) serving: Option<Identity>,
    pub(super) refused: Option<Identity>,
}

/// Reads a new or changed file, and loads it if it holds something new. Where nothing serves, the newest version of it that is
/// kept does: `meanwhile`, if that takes no compiling, and from then on if the file does not load.
pub(super) async fn judge(
    loader: &Loader,
    versions: Option<Arc<Versions>>,
    file: &Path,
    look: Look,
    before: Before,
    terms: &Terms,
    progress: &Progress,
    meanwhile: impl Fn(Serving),
) -> Verdict {
    let versions = versions.filter(|_| before.serving.is_none());
    let (error, identity) = match examine(loader, &versions, file, look, before, terms, progress, meanwhile).await {
        Ok(verdict) => return verdict,
        Err(failed) => failed,
    };
    let kept = match versions.filter(|_| error.is_of_what_is_there()) {
        Some(versions) => kept(loader, versions, file, terms, progress).await,
        None => Ok(None),
    };
    let is_kept_later = kept.as_ref().is_err_and(NotLoaded::passes);
    Verdict::NotLoaded { error, identity, kept: kept.ok().flatten(), is_kept_later }
}

async fn examine(
    loader: &Loader,
    versions: &Option<Arc<Versions>>,
    file: &Path,
    look: Look,
    before: Before,
    terms: &Terms,
    progress: &Progress,
    meanwhile: impl Fn(Serving),
) -> Result<Verdict, (NotLoaded, Option<Identity>)> {
    let started = Instant::now();
    let source = loader.read(file, look, terms).await.map_err(|error| (error.into(), None))?;
    let identity = source.identity();
    if before.serving == Some(identity) || before.refused == Some(identity) {
        return Ok(Verdict::Same(identity));
    }
    if let Some(versions) = versions
        && let Some(kept) = compiled_before(loader, versions.clone(), file, identity, terms, progress).await
    {
        meanwhile(kept);
    }
    let loaded = loader.load(file, look, &source, terms, progress).await.map_err(|error| (error, Some(identity)))?;
    Ok(Verdict::Loaded(loaded, identity, started.elapsed()))
}

/// Loads the newest kept version of a file if it is another one, and takes no compiling.
async fn compiled_before(
    loader: &Loader,
    versions: Arc<Versions>,
    file: &Path,
    present: Identity,
    terms: &Terms,
    progress: &Progress,
) -> Option<Serving> {
    let served_from = file.to_owned();
    let (copy, identity) = aside(move || versions.last_served(&served_from)).await?;
    if identity == present || loader.is_to_be_compiled(&copy, identity.hash).await {
        return None;
    }
    // What is wrong with it is told if it turns out to be needed.
    let code = load_copy(loader, &copy, identity, terms, progress).await.ok()?;
    Some(Serving { code, identity })
}

/// Loads the newest kept version of a file.
async fn kept(
    loader: &Loader,
    versions: Arc<Versions>,
    file: &Path,
    terms: &Terms,
    progress: &Progress,
) -> Result<Option<Serving>, NotLoaded> {
    let served_from = file.to_owned();
    let Some((copy, identity)) = aside(move || versions.last_served(&served_from)).await else { return Ok(None) };
    let loaded = load_copy(loader, &copy, identity, terms, progress).await;
    let code = loaded.inspect_err(|error| {
        let (path, hash) = (file.display(), identity.hash);
        warn!(file = %path, %hash, "The version that served last from {path} does not load either: {error}");
    })?;
    Ok(Some(Serving { code, identity }))
}

async fn load_copy(
    loader: &Loader,
    copy: &Path,
    identity: Identity,
    terms: &Terms,
    progress: &Progress,
) -> Result<Arc<Code>, NotLoaded> {
    let look = Look::at(copy).map_err(ReadError::from)?;
    // One may be left from when the same content was kept with another.
    let look = if identity.canary.is_some() { look } else { look.without_canary() };
    let source = loader.read(copy, look, terms).await?;
    if source.identity() != identity {
        return Err(ReadError::Spoiled.into());
    }
    Ok(loader.load(copy, look, &source, terms, progress).await?.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_load_that_panics_has_a_verdict_too() {
        let verdict = guarded(async { panic!("a bug") }).await;
        assert!(matches!(verdict, Verdict::Panicked(error) if error.contains("a bug")));
    }
}
