//! A log directory, as its logs share it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::{Dir, Env, ErrorKind, ErrorLog};
use brokkr_types::Histogram;

use crate::error::LogError;
use crate::files::cache::FileCache;
use crate::files::early_syncs::EarlySyncs;
use crate::files::reserve::Reserve;
use crate::state::limits::LogLimits;
use crate::state::producers::ProducerBudget;

/// When what could not be removed is tried again.
const REMOVED_AGAIN: Duration = Duration::from_secs(60);

/// A log directory, shared by the logs in it. Cheap to clone.
pub struct LogDir<E: Env> {
    pub(crate) env: E,
    pub(crate) dir: Dir<E>,
    pub(crate) limits: Arc<LogLimits>,
    pub(crate) files: Arc<FileCache<E>>,
    pub(crate) producer_budget: ProducerBudget,
    reserve: Arc<Reserve>,
    /// Rate-limited log of disk errors: logs the first of each kind, counts the rest.
    pub(crate) error_log: Arc<ErrorLog>,
    pub(crate) syncs: Arc<Histogram>,
    pub(crate) early_syncs: EarlySyncs,
}

impl<E: Env> Clone for LogDir<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            dir: self.dir.clone(),
            limits: Arc::clone(&self.limits),
            files: Arc::clone(&self.files),
            producer_budget: self.producer_budget.clone(),
            reserve: Arc::clone(&self.reserve),
            error_log: Arc::clone(&self.error_log),
            syncs: Arc::clone(&self.syncs),
            early_syncs: self.early_syncs.clone(),
        }
    }
}

impl<E: Env> LogDir<E> {
    /// The log directory `dir`. Each log that was appended to has its active segment open, besides the `log_idle_files` of `limits`.
    pub fn new(env: E, dir: Dir<E>, limits: LogLimits) -> Self {
        let files = Arc::new(FileCache::new(dir.clone(), limits.log_idle_files));
        Self {
            error_log: Arc::new(ErrorLog::new(env.clone())),
            env,
            dir,
            limits: Arc::new(limits),
            files,
            producer_budget: ProducerBudget::new(usize::MAX),
            reserve: Arc::default(),
            syncs: Arc::default(),
            early_syncs: EarlySyncs::default(),
        }
    }

    /// Shares a budget of producers with the logs of other directories.
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

    /// Durations of the successful syncs after appends, of all logs. A sync is timed from its submission, so the
    /// write before it is included.
    pub fn syncs(&self) -> &Histogram {
        &self.syncs
    }

    /// The number of open files that no log appends to.
    pub fn open_files(&self) -> usize {
        self.files.len()
    }

    /// Creates the files of the reserve that are missing, if there is space. Cheap when none is missing.
    pub async fn fill_reserve(&self) -> Result<(), LogError> {
        Ok(self.reserve.fill(&self.dir).await?)
    }

    /// If `error` is a full disk, removes a file of the reserve. Returns whether it did: then the caller retries.
    pub async fn free_reserve_after(&self, error: &LogError) -> bool {
        match error {
            LogError::Io(e) if e.kind() == ErrorKind::NoSpace => self.reserve.release(&self.dir).await,
            _ => false,
        }
    }

    /// Removes paths one after the other, from `after` on, unless the last clone of this `LogDir` is dropped first. What fails is
    /// tried again later, and is in the log as `kind`.
    pub(crate) fn remove_later<F>(
        &self,
        task: &'static str,
        paths: Vec<String>,
        after: Duration,
        kind: &'static str,
        remove: impl Fn(Dir<E>, String) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), LogError>> + Send,
    {
        let (env, files) = (self.env.clone(), Arc::downgrade(&self.files));
        let error_log = Arc::clone(&self.error_log);
        let mut at = env.now() + after;
        let waiting = env.clone();
        drop(env.spawn(task, async move {
            let mut left = paths;
            while !left.is_empty() {
                waiting.sleep_until(at).await;
                for path in std::mem::take(&mut left) {
                    // Held for one path only: a broker that stops gives the directory back.
                    let Some(dir) = files.upgrade().map(|files| files.dir.clone()) else {
                        return;
                    };
                    match remove(dir, path.clone()).await {
                        Err(LogError::Io(e)) if e.kind() == ErrorKind::NotFound => {}
                        Err(error) => {
                            error_log.record(kind, &format_args!("{path}: {error}"));
                            left.push(path);
                        }
                        Ok(()) => {}
                    }
                }
                at = waiting.now() + REMOVED_AGAIN;
            }
        }));
    }

    /// The environment: clocks, tasks, random numbers.
    pub fn env(&self) -> &E {
        &self.env
    }
}
