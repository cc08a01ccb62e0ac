//! How a process takes memory: a run is short, and so is what watches it, so the allocator keeps what it has.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// mimalloc, asked in the quickest way: whoever names an alignment takes the long one.
pub struct Allocator;

/// What every block of mimalloc is aligned to.
const ALIGNED: usize = 8;

// SAFETY: mimalloc keeps what an allocator promises, and its blocks are aligned to `ALIGNED` without being asked.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = match layout.align() {
            // SAFETY: any size may be asked for.
            ..=ALIGNED => unsafe { mi::mi_malloc(layout.size()) },
            // SAFETY: a layout's alignment is a power of two.
            align => unsafe { mi::mi_malloc_aligned(layout.size(), align) },
        };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = match layout.align() {
            // SAFETY: any size may be asked for.
            ..=ALIGNED => unsafe { mi::mi_zalloc(layout.size()) },
            // SAFETY: a layout's alignment is a power of two.
            align => unsafe { mi::mi_zalloc_aligned(layout.size(), align) },
        };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller's: it is a block of this allocator, and nobody uses it any more.
        unsafe { mi::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let block = match layout.align() {
            // SAFETY: the caller's, as with `dealloc`.
            ..=ALIGNED => unsafe { mi::mi_realloc(block.cast(), size) },
            // SAFETY: the same, and the alignment is the block's.
            align => unsafe { mi::mi_realloc_aligned(block.cast(), size, align) },
        };
        block.cast()
    }
}

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, which its crate has no name for.
const PURGE_DELAY: mi::mi_option_t = 15;

/// Lets the allocator keep what it has. Giving pages back costs time, and to know when it asks for the clock, which in the room is
/// the world's.
pub fn keep() {
    // SAFETY: it changes a number of the allocator.
    unsafe {
        mi::mi_option_set(PURGE_DELAY, -1);
        debug_assert_eq!(mi::mi_option_get(PURGE_DELAY), -1);
    }
}
