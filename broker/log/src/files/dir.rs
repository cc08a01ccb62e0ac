//! A log directory as its logs share it: the world, the directory, and its open files.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Dir, Env, ErrorKind, ErrorLog};
use brokkr_types::Histogram;

use crate::error::LogError;
use crate::files::cache::FileCache;
use crate::files::reserve::Reserve;
use crate::state::producers::ProducerBudget;

/// A log directory, shared by the logs in it. Cheap to clone.
pub struct LogDir<E: Env> {
    pub(crate) env: E,
    pub(crate) dir: Dir<E>,
    pub(crate) files: Arc<FileCache<E>>,
    pub(crate) producer_budget: ProducerBudget,
    reserve: Arc<Reserve>,
    /// What a failing disk repeats, once for every log, file or write.
    pub(crate) error_log: Arc<ErrorLog>,
    pub(crate) syncs: Arc<Histogram>,
}

impl<E: Env> Clone for LogDir<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            dir: self.dir.clone(),
            files: Arc::clone(&self.files),
            producer_budget: self.producer_budget.clone(),
            reserve: Arc::clone(&self.reserve),
            error_log: Arc::clone(&self.error_log),
            syncs: Arc::clone(&self.syncs),
        }
    }
}

impl<E: Env> LogDir<E> {
    /// The logs of `dir`. Of files that aren't appended to, at most `open_files_max` stay open while nobody reads them;
    /// each log has one more, its active segment.
    pub fn new(env: E, dir: Dir<E>, open_files_max: usize) -> Self {
        let files = Arc::new(FileCache::new(dir.clone(), open_files_max));
        Self {
            error_log: Arc::new(ErrorLog::new(env.clone())),
            env,
            dir,
            files,
            producer_budget: ProducerBudget::new(usize::MAX),
            reserve: Arc::default(),
            syncs: Arc::default(),
        }
    }

    /// With room for producers that its logs share with others.
    pub fn with_producer_budget(self, producer_budget: ProducerBudget) -> Self {
        Self {
            producer_budget,
            ..self
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Dir<E> {
        &self.dir
    }

    /// The syncs behind appends that ended well, of all its logs, and how long each took from its submission: the end of the write before
    /// it included.
    pub fn syncs(&self) -> &Histogram {
        &self.syncs
    }

    /// How many files are open that no log appends to.
    pub fn open_files(&self) -> usize {
        self.files.len()
    }

    /// Creates the files of the reserve that are missing, if there is space. Cheap when none is missing.
    pub async fn fill_reserve(&self) -> Result<(), LogError> {
        Ok(self.reserve.fill(&self.dir).await?)
    }

    /// Whether `error` is one that giving up a piece of the reserve may cure, and one was given up: try again.
    pub async fn free_reserve_after(&self, error: &LogError) -> bool {
        match error {
            LogError::Io(e) if e.kind() == ErrorKind::NoSpace => self.reserve.release(&self.dir).await,
            _ => false,
        }
    }

    /// Does something to the directory after a while, unless nobody has its logs any more by then.
    pub(crate) fn spawn_after<F>(
        &self,
        name: &'static str,
        after: Duration,
        action: impl FnOnce(Dir<E>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let (env, files) = (self.env.clone(), Arc::downgrade(&self.files));
        let at = env.now() + after;
        let waiting = env.clone();
        drop(env.spawn(name, async move {
            waiting.sleep_until(at).await;
            if let Some(files) = files.upgrade() {
                let dir = files.dir.clone();
                drop(files);
                action(dir).await;
            }
        }));
    }

    /// The world.
    pub fn env(&self) -> &E {
        &self.env
    }
}
