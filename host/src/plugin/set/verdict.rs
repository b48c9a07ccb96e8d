//! What loading one file comes to, whatever else is loaded: the part of a look that runs by itself.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;

use super::Serving;
use crate::plugin::{
    aside,
    code::Code,
    loader::{Identity, Loaded, Loader, Look, NotLoaded, Progress, ReadError, Source, Terms},
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
        /// The kept version that is to serve, as nothing else does; or why it does not load either.
        kept: Result<Option<Serving>, NotLoaded>,
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

/// A new or changed file, and what it takes to load it.
pub(super) struct Work {
    pub(super) loader: Arc<Loader>,
    /// Where its kept versions are, if it may have any.
    pub(super) versions: Option<Arc<Versions>>,
    /// Whether the host is just starting, so that something may serve that was not there to serve before.
    pub(super) is_at_start: bool,
    pub(super) file: PathBuf,
    pub(super) look: Look,
    pub(super) before: Before,
    pub(super) terms: Terms,
    pub(super) progress: Arc<Progress>,
}

impl Work {
    /// Reads the file, and loads it if it holds something new. Where nothing serves, the newest version of it that is kept does:
    /// `meanwhile`, at a start and if that takes no compiling, and from then on if the file does not load.
    pub(super) async fn judge(self, meanwhile: impl Fn(Serving)) -> Verdict {
        let (error, identity) = match self.examine(meanwhile).await {
            Ok(verdict) => return verdict,
            Err(failed) => failed,
        };
        let kept = if error.is_of_what_is_there() { self.kept().await } else { Ok(None) };
        Verdict::NotLoaded { error, identity, kept }
    }

    async fn examine(&self, meanwhile: impl Fn(Serving)) -> Result<Verdict, (NotLoaded, Option<Identity>)> {
        let Self { loader, file, look, before, terms, progress, .. } = self;
        let started = Instant::now();
        let source = loader.read(file, *look, terms).await.map_err(|error| (error.into(), None))?;
        let identity = source.identity();
        if before.serving == Some(identity) || before.refused == Some(identity) {
            return Ok(Verdict::Same(identity));
        }
        if self.is_at_start
            && let Some(kept) = self.compiled_before(&source).await
        {
            meanwhile(kept);
        }
        let loaded = loader.load(file, *look, &source, terms, progress).await;
        let loaded = loaded.map_err(|error| (error, Some(identity)))?;
        Ok(Verdict::Loaded(loaded, identity, started.elapsed()))
    }

    /// Loads the newest kept version if the file holds another one that takes longer.
    async fn compiled_before(&self, source: &Source) -> Option<Serving> {
        let (copy, identity) = self.newest_kept().await?;
        let takes_longer = source.canary.is_some() || self.loader.is_new(source.content).await;
        if identity == source.identity() || !takes_longer || self.loader.is_to_be_compiled(&copy, identity.hash).await {
            return None;
        }
        // What is wrong with it is told if it turns out to be needed.
        let code = self.load_copy(&copy, identity).await.ok()?;
        Some(Serving { code, identity })
    }

    /// Loads the newest kept version.
    async fn kept(&self) -> Result<Option<Serving>, NotLoaded> {
        let Some((copy, identity)) = self.newest_kept().await else { return Ok(None) };
        let code = self.load_copy(&copy, identity).await?;
        Ok(Some(Serving { code, identity }))
    }

    /// The copy of the newest version that is kept, where nothing serves.
    async fn newest_kept(&self) -> Option<(PathBuf, Identity)> {
        let versions = self.versions.clone().filter(|_| self.before.serving.is_none())?;
        let file = self.file.clone();
        aside(move || versions.last_served(&file)).await
    }

    async fn load_copy(&self, copy: &Path, identity: Identity) -> Result<Arc<Code>, NotLoaded> {
        let Self { loader, terms, progress, .. } = self;
        let look = Look::at(copy).map_err(ReadError::from)?;
        // One may be left from when the same content was kept with another.
        let look = if identity.canary.is_some() { look } else { look.without_canary() };
        let source = loader.read(copy, look, terms).await?;
        if source.identity() != identity {
            return Err(ReadError::Spoiled.into());
        }
        Ok(loader.load(copy, look, &source, terms, progress).await?.code)
    }
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
