//! Measures the processor time of polls: the only value in a run that depends on the machine and not on the seed. It never decides
//! anything in the world; a poll that takes too long is reported at the end.

use crate::life::Life;

/// A poll that took too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowPoll {
    pub(crate) life: Life,
    pub(crate) task: &'static str,
    pub(crate) cpu_ns: u64,
}

/// The limit, and the slowest poll above it.
#[derive(Default)]
pub(super) struct Cpu {
    most_ns: Option<u64>,
    slowest: Option<SlowPoll>,
}

impl Cpu {
    /// Measures each poll from now on.
    pub(super) fn measure(&mut self, most_ns: u64) {
        self.most_ns = Some(most_ns);
    }

    /// The slowest of the polls that exceeded the limit.
    pub(super) fn slowest(&self) -> Option<SlowPoll> {
        self.slowest
    }

    /// The clock at the start of a poll, if polls are measured.
    pub(super) fn begin(&self) -> Option<u64> {
        self.most_ns.map(|_| thread_ns())
    }

    pub(super) fn end(&mut self, begun: Option<u64>, life: Life, task: &'static str) {
        let (Some(begun), Some(most)) = (begun, self.most_ns) else {
            return;
        };
        let cpu_ns = thread_ns().saturating_sub(begun);
        if cpu_ns > most && self.slowest.is_none_or(|s| s.cpu_ns < cpu_ns) {
            self.slowest = Some(SlowPoll { life, task, cpu_ns });
        }
    }
}

/// This thread's processor time. By a direct system call, because madsim intercepts libc's clocks in the room.
fn thread_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure outlives the call, which only writes it.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_clock_gettime,
            libc::CLOCK_THREAD_CPUTIME_ID,
            &raw mut time,
        )
    };
    assert_eq!(failed, 0, "every thread has a clock of its processor time");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
