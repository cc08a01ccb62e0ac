//! State that the owner of a log and its readers share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use brokkr_env::Env;
use brokkr_types::Offset;

use crate::files::dir::LogDir;
use crate::formats::text::partition_of;

/// What the owner of a log and its readers share.
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

    /// The number of the partition; -1 in a folder that isn't named by one.
    pub(crate) fn partition(&self) -> i32 {
        partition_of(&self.folder)
    }
}

/// Where the log stands now, for a reader of an older snapshot that finds bytes missing; and which indexes readers found wrong.
/// Off every warm path: looked at when something is wrong.
#[derive(Default)]
pub(crate) struct LogStatus {
    truncations: AtomicU64,
    log_start: AtomicI64,
    /// Set while `doubted` has something the owner has not looked at.
    has_suspects: AtomicBool,
    /// The bases of segments whose indexes point elsewhere, and whether the owner took them up.
    suspects: Mutex<BTreeMap<Offset, bool>>,
}

impl LogStatus {
    /// The owner truncates, for the n-th time.
    pub(crate) fn set_truncations(&self, truncations: u64) {
        self.truncations.store(truncations, Ordering::Release);
    }

    pub(crate) fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    /// The owner raises the log's start.
    pub(crate) fn set_log_start(&self, log_start: Offset) {
        self.log_start.store(log_start.0, Ordering::Release);
    }

    pub(crate) fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    /// A reader found the indexes of a segment wrong. Whether it is the first to.
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

    /// A segment whose indexes the owner is to build again. Each is named once, until [`LogStatus::trust`].
    pub(crate) fn take_suspect_index(&self) -> Option<Offset> {
        if !self.has_suspects.load(Ordering::Acquire) {
            return None;
        }
        let mut suspects = self.lock();
        let next = suspects.iter_mut().find(|(_, taken)| !**taken);
        let Some((base, taken)) = next else {
            self.has_suspects.store(false, Ordering::Release);
            return None;
        };
        *taken = true;
        Some(*base)
    }

    /// The indexes of a segment were built again.
    pub(crate) fn index_rebuilt(&self, base: Offset) {
        self.lock().remove(&base);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Offset, bool>> {
        self.suspects.lock().expect("no panic under this lock")
    }
}
