//! An immutable snapshot of a log, for those who read it beside its owner.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_env::{Env, File};
use brokkr_types::{LeaderEpoch, Offset};

use crate::dir::LogDir;
use crate::epochs::{EpochEnd, LeaderEpochs};
use crate::formats::split_folder;
use crate::segment::{Segment, Segments};

/// What the owner of a log and its readers share.
pub(crate) struct Shared<E: Env> {
    pub(crate) dir: LogDir<E>,
    /// The partition's folder in the log directory: `topic-3`.
    pub(crate) folder: Box<str>,
    pub(crate) standing: Standing,
}

impl<E: Env> Shared<E> {
    pub(crate) fn new(dir: &LogDir<E>, folder: &str) -> Self {
        Self {
            dir: dir.clone(),
            folder: folder.into(),
            standing: Standing::default(),
        }
    }

    /// The number of the partition; -1 in a folder that isn't named by one.
    pub(crate) fn partition(&self) -> i32 {
        split_folder(&self.folder).map_or(-1, |(_, partition)| partition)
    }
}

/// Where the log stands now, for a reader of an older snapshot that finds bytes missing; and which indexes readers found wrong.
/// Off every warm path: looked at when something is wrong.
#[derive(Default)]
pub(crate) struct Standing {
    truncations: AtomicU64,
    log_start: AtomicI64,
    /// Set while `doubted` has something the owner has not looked at.
    doubts: AtomicBool,
    /// The bases of segments whose indexes point elsewhere, and whether the owner took them up.
    doubted: Mutex<BTreeMap<Offset, bool>>,
}

impl Standing {
    /// The owner truncates, for the n-th time.
    pub(crate) fn truncated(&self, truncations: u64) {
        self.truncations.store(truncations, Ordering::Release);
    }

    pub(crate) fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    /// The owner raises the log's start.
    pub(crate) fn started_at(&self, log_start: Offset) {
        self.log_start.store(log_start.0, Ordering::Release);
    }

    pub(crate) fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    /// A reader found the indexes of a segment wrong. Whether it is the first to.
    pub(crate) fn doubt(&self, base: Offset) -> bool {
        let first = {
            let mut doubted = self.lock();
            let first = !doubted.contains_key(&base);
            doubted.entry(base).or_insert(false);
            first
        };
        if first {
            self.doubts.store(true, Ordering::Release);
        }
        first
    }

    /// A segment whose indexes the owner is to build again. Each is named once, until [`Standing::trust`].
    pub(crate) fn take_doubt(&self) -> Option<Offset> {
        if !self.doubts.load(Ordering::Acquire) {
            return None;
        }
        let mut doubted = self.lock();
        let next = doubted.iter_mut().find(|(_, taken)| !**taken);
        let Some((base, taken)) = next else {
            self.doubts.store(false, Ordering::Release);
            return None;
        };
        *taken = true;
        Some(*base)
    }

    /// The indexes of a segment were built again.
    pub(crate) fn trust(&self, base: Offset) {
        self.lock().remove(&base);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Offset, bool>> {
        self.doubted.lock().expect("no panic under this lock")
    }
}

/// Where an offset stands, as far as it is known without a look at the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) offset: Offset,
    /// The base of its segment and the position there.
    pub(crate) place: Option<(Offset, u64)>,
}

/// A place in the active segment where a batch begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Boundary {
    pub(crate) offset: Offset,
    pub(crate) position: u64,
}

pub(crate) struct View<E: Env> {
    pub(crate) shared: Arc<Shared<E>>,
    pub(crate) sealed: Segments,
    pub(crate) active: Segment,
    /// None in a fresh log.
    pub(crate) file: Option<File<E>>,
    /// Of the active file; with another count this snapshot is stale.
    pub(crate) truncations: u64,
    /// Of the log.
    pub(crate) log_truncations: u64,
    /// Whether offsets may be missing.
    pub(crate) gaps: bool,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Mark,
    /// Where the last writes began and where the last one ended: where followers and consumers at the tail stand.
    pub(crate) recent: Box<[Boundary]>,
    pub(crate) epochs: LeaderEpochs,
}

/// A log as it was at some moment, to be read by any task. Cheap to clone.
///
/// It pins nothing: what retention removes meanwhile, or a truncation cuts, is answered with an error and not with other
/// bytes (L6; R19: every limit is of one snapshot).
pub struct LogReader<E: Env> {
    pub(crate) view: Arc<View<E>>,
}

impl<E: Env> Clone for LogReader<E> {
    fn clone(&self) -> Self {
        Self {
            view: Arc::clone(&self.view),
        }
    }
}

/// How far a read may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpTo {
    /// To the end of what is written: for followers and replay.
    LogEnd,
    /// To the high watermark: for consumers.
    HighWatermark,
    /// To this offset, if it comes before the end.
    Offset(Offset),
}

impl<E: Env> LogReader<E> {
    /// The first offset that is served.
    pub fn log_start(&self) -> Offset {
        self.view.log_start
    }

    /// The end of what is written.
    pub fn log_end(&self) -> Offset {
        self.view.active.head.next
    }

    /// The high watermark.
    pub fn high_watermark(&self) -> Offset {
        self.view.high_watermark.offset
    }

    /// The leader epochs.
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.view.epochs
    }

    /// What OffsetForLeaderEpoch answers.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        self.view.epochs.end_offset_for(epoch, self.log_end())
    }

    /// Bytes of all its segments.
    pub fn size_bytes(&self) -> u64 {
        self.view.sealed.iter().map(|s| s.head.size).sum::<u64>() + self.view.active.head.size
    }

    /// The limit as a place, never past what is written.
    pub(crate) fn limit(&self, up_to: UpTo) -> Mark {
        let end = self.view.end();
        match up_to {
            UpTo::LogEnd => end,
            UpTo::HighWatermark if self.view.high_watermark.offset < end.offset => self.view.high_watermark,
            UpTo::Offset(offset) if offset < end.offset => self.view.mark(offset),
            UpTo::HighWatermark | UpTo::Offset(_) => end,
        }
    }
}

impl<E: Env> View<E> {
    fn end(&self) -> Mark {
        let head = &self.active.head;
        Mark {
            offset: head.next,
            place: Some((head.base, head.size)),
        }
    }

    fn mark(&self, offset: Offset) -> Mark {
        let found = self.recent.iter().find(|b| b.offset == offset);
        Mark {
            offset,
            place: found.map(|b| (self.active.head.base, b.position)),
        }
    }
}
