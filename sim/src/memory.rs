//! How a run's process takes memory: a run is short, so the allocator keeps what it has.

pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, which its crate has no name for.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets the allocator keep what it has. Giving pages back costs time, and to know when it asks for the clock, which in the room is
/// the world's.
pub fn keep() {
    // SAFETY: it changes a number of the allocator.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
        debug_assert_eq!(libmimalloc_sys::mi_option_get(PURGE_DELAY), -1);
    }
}
