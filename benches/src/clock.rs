//! A measurement's time: lead-in, window, end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the threads of one measurement share.
pub struct Clock {
    /// When load begins.
    pub begin: Instant,
    /// From when on it counts.
    pub measure_from: Instant,
    /// When nothing more is due; the end may come later where a number of bytes is asked for as well.
    pub until: Instant,
    stop: AtomicBool,
    /// Requests answered so far, the lead-in's as well.
    pub answered: AtomicU64,
    /// Bytes of batches written or read so far, the lead-in's as well.
    pub bytes: AtomicU64,
}

/// Time for all threads to get to their start.
const MUSTER: Duration = Duration::from_millis(50);

impl Clock {
    /// Begins soon.
    pub fn new(lead_in: Duration, window: Duration) -> Self {
        let begin = Instant::now() + MUSTER;
        let measure_from = begin + lead_in;
        Self {
            begin,
            measure_from,
            until: measure_from + window,
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether load should end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the load.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts what was answered.
    pub fn count(&self, answers: u64, bytes: u64) {
        self.answered.fetch_add(answers, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Waits until an instant, to some tens of microseconds.
pub fn sleep_until(at: Instant) {
    let now = Instant::now();
    if at > now {
        std::thread::sleep(at - now);
    }
}

/// Lets this thread's sleeps end on time; Linux adds up to 50 µs to save wake-ups.
pub fn sleep_exactly() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and changes nothing but this thread's slack.
    let failed = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
    debug_assert_eq!(
        failed, 0,
        "PR_SET_TIMERSLACK is refused by no kernel since 2.6.28"
    );
}
