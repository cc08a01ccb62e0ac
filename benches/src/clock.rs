//! The time of a measurement: lead-in, window, end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// State shared by the threads of one measurement.
pub struct Clock {
    /// When the load begins.
    pub begin: Instant,
    /// When the window begins.
    pub measure_from: Instant,
    /// When the window ends; the load lasts longer if it also needs a number of bytes.
    pub until: Instant,
    stop: AtomicBool,
    /// Requests answered so far, including the lead-in's.
    pub answered: AtomicU64,
    /// Bytes of batches written or read so far, including the lead-in's.
    pub bytes: AtomicU64,
}

/// Time for all threads to reach their start.
const START_DELAY: Duration = Duration::from_millis(50);

impl Clock {
    /// A clock that begins after [`START_DELAY`].
    pub fn new(lead_in: Duration, window: Duration) -> Self {
        let begin = Instant::now() + START_DELAY;
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

    /// Whether the load should end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the load.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts responses and bytes.
    pub fn count(&self, answers: u64, bytes: u64) {
        self.answered.fetch_add(answers, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Sleeps until an instant, with a precision of some tens of microseconds.
pub fn sleep_until(at: Instant) {
    let now = Instant::now();
    if at > now {
        std::thread::sleep(at - now);
    }
}

/// Lets this thread's sleeps end on time; by default Linux adds up to 50 µs to save wake-ups.
pub fn sleep_exactly() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and changes nothing but this thread's slack.
    let failed = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
    debug_assert_eq!(failed, 0, "Linux supports PR_SET_TIMERSLACK since 2.6.28");
}
