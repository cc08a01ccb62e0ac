//! The point where a world's events are recorded: closed in campaigns, at the cost of one load.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::event::EventKind;
use super::tracer::Tracer;
use crate::life::{Life, Nanos};
use crate::net::EndId;

/// See the module. One for each world.
#[derive(Default)]
pub struct Tap {
    is_open: AtomicBool,
    /// The cause of the present events; 0 while the tap is closed.
    running: AtomicU64,
    tracer: Mutex<Option<Tracer>>,
}

impl Tap {
    fn tracer(&self) -> MutexGuard<'_, Option<Tracer>> {
        self.tracer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Starts recording, at this time of the world.
    pub fn open(&self, mut tracer: Tracer, now: Nanos) {
        tracer.now = now;
        *self.tracer() = Some(tracer);
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Whether events are recorded.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Stops recording.
    ///
    /// # Errors
    /// The first error of the sink.
    pub fn close(&self) -> io::Result<()> {
        self.is_open.store(false, Ordering::Relaxed);
        self.running.store(0, Ordering::Relaxed);
        self.tracer().take().map_or(Ok(()), |mut tracer| tracer.end())
    }

    /// The event that is the cause of whatever is scheduled now.
    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Records an event, if the tap is open. Returns its number, or 0.
    pub fn record(&self, what: impl FnOnce() -> EventKind) -> u64 {
        if !self.is_open() {
            return 0;
        }
        // BEFORE the lock: building the event may read the world.
        let what = what();
        self.tracer().as_mut().map_or(0, |tracer| tracer.record(what))
    }

    /// Sets the probe: it is called after each task's run, and returns what clients have recorded.
    pub(crate) fn set_probe(&self, probe: impl FnMut() -> Vec<EventKind> + Send + 'static) {
        if let Some(tracer) = self.tracer().as_mut() {
            tracer.set_probe(probe);
        }
    }

    /// Records bytes that leave, and the requests and responses that they complete.
    pub(crate) fn sent(&self, end: EndId, to: u32, piece: &Bytes) {
        if !self.is_open() {
            return;
        }
        if let Some(tracer) = self.tracer().as_mut() {
            for what in tracer.frames.sent(end, to, piece) {
                tracer.record(what);
            }
        }
    }

    pub(crate) fn begin(&self, now: Nanos, life: Life, task: Option<(u64, &'static str)>, by: u64) {
        if !self.is_open() {
            return;
        }
        if let Some(tracer) = self.tracer().as_mut() {
            let n = tracer.begin(now, life, task, by);
            self.running.store(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn pause(&self) {
        if !self.is_open() {
            return;
        }
        if let Some(tracer) = self.tracer().as_mut() {
            tracer.pause();
        }
        self.running.store(0, Ordering::Relaxed);
    }
}
