//! How much memory this process has allocated and not freed.

use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

static LIVE: AtomicIsize = AtomicIsize::new(0);

/// Counts an allocation, or with a negative number of bytes what was freed. Only the process's allocator calls it.
///
/// Not one atomic step, which would cost more than the allocation: a thread of its own runs the world, so only what other threads
/// allocate at the same moment can get lost.
#[inline]
pub fn count(bytes: isize) {
    LIVE.store(LIVE.load(Relaxed).wrapping_add(bytes), Relaxed);
}

/// The bytes; 0 in a process whose allocator does not count.
pub fn live_bytes() -> isize {
    LIVE.load(Relaxed)
}
