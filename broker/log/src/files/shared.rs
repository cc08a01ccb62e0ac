//! State that the owner of a log and its readers share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use brokkr_env::Env;
use brokkr_types::Offset;

use crate::files::dir::LogDir;
use crate::formats::text::partition_of;

/// Shared by the owner of a log and its readers.
pub(crate) struct LogShared<E: Env> {
    pub(crate) dir: LogDir<E>,
    /// The partition's folder in the log directory: `topic-3`.
    pub(crate) folder: Box<str>,
    pub(crate) status: LogStatus,
}

impl<E: Env> LogShared<E> {
    pub(crate) fn new(dir: &LogDir<E>, folder: &str) -> Self {
        Self {
            dir: dir.clone(),
            folder: folder.into(),
            status: LogStatus::default(),
        }
    }

    /// The partition; -1 if the folder's name is not that of a partition.
    pub(crate) fn partition(&self) -> i32 {
        partition_of(&self.folder)
    }
}

/// The current state of a log, for readers of older snapshots that find bytes missing; and the indexes that readers
/// found wrong. Used only after something went wrong.
#[derive(Default)]
pub(crate) struct LogStatus {
    truncations: AtomicU64,
    log_start: AtomicI64,
    /// Whether `suspects` may have an entry that the owner has not taken.
    has_suspects: AtomicBool,
    /// Base offsets of the segments whose indexes are wrong, and whether the owner has taken them.
    suspects: Mutex<BTreeMap<Offset, bool>>,
}

impl LogStatus {
    /// Sets the number of truncations, BEFORE the owner truncates.
    pub(crate) fn set_truncations(&self, truncations: u64) {
        self.truncations.store(truncations, Ordering::Release);
    }

    pub(crate) fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    /// Sets the log start offset, BEFORE segments are removed.
    pub(crate) fn set_log_start(&self, log_start: Offset) {
        self.log_start.store(log_start.0, Ordering::Release);
    }

    pub(crate) fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    /// Reports that the indexes of a segment are wrong. Returns whether this is the first report.
    pub(crate) fn suspect_index(&self, base: Offset) -> bool {
        let first = {
            let mut suspects = self.lock();
            let first = !suspects.contains_key(&base);
            suspects.entry(base).or_insert(false);
            first
        };
        if first {
            self.has_suspects.store(true, Ordering::Release);
        }
        first
    }

    /// A segment whose indexes the owner must rebuild and, by `may`, can. Each is returned once until [`LogStatus::index_rebuilt`].
    pub(crate) fn take_suspect_index(&self, may: impl Fn(Offset) -> bool) -> Option<Offset> {
        if !self.has_suspects.load(Ordering::Acquire) {
            return None;
        }
        let mut suspects = self.lock();
        let mut waiting = suspects.iter_mut().filter(|(_, taken)| !**taken).peekable();
        if waiting.peek().is_none() {
            self.has_suspects.store(false, Ordering::Release);
            return None;
        }
        let (base, taken) = waiting.find(|(base, _)| may(**base))?;
        *taken = true;
        Some(*base)
    }

    /// The indexes of the segment were rebuilt.
    pub(crate) fn index_rebuilt(&self, base: Offset) {
        self.lock().remove(&base);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Offset, bool>> {
        self.suspects.lock().expect("no panic under this lock")
    }
}
