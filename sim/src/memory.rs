//! The simulator's allocator: runs and the processes around them are short, so it keeps freed memory. It counts what is allocated.

use std::alloc::{GlobalAlloc, Layout};

use brokkr_sim::allocated::count;
use libmimalloc_sys as mi;

/// mimalloc, without an explicit alignment where possible: the aligned call is slower.
pub struct Allocator;

/// The alignment of every block of mimalloc.
const ALIGNED: usize = 8;

// SAFETY: mimalloc fulfils the contract of `GlobalAlloc`, and its blocks are always aligned to `ALIGNED`.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        let block = match layout.align() {
            // SAFETY: any size is valid.
            ..=ALIGNED => unsafe { mi::mi_malloc(layout.size()) },
            // SAFETY: a layout's alignment is a power of two.
            align => unsafe { mi::mi_malloc_aligned(layout.size(), align) },
        };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        let block = match layout.align() {
            // SAFETY: any size is valid.
            ..=ALIGNED => unsafe { mi::mi_zalloc(layout.size()) },
            // SAFETY: a layout's alignment is a power of two.
            align => unsafe { mi::mi_zalloc_aligned(layout.size(), align) },
        };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller guarantees that it is a block of this allocator and not used any more.
        unsafe { mi::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        let block = match layout.align() {
            // SAFETY: the caller's guarantees, as for `dealloc`.
            ..=ALIGNED => unsafe { mi::mi_realloc(block.cast(), size) },
            // SAFETY: the same, and the alignment is the block's.
            align => unsafe { mi::mi_realloc_aligned(block.cast(), size, align) },
        };
        block.cast()
    }
}

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, for which the bindings have no name.
const PURGE_DELAY: mi::mi_option_t = 15;

/// Makes the allocator keep freed memory. Returning pages costs time, and its timer reads the clock, which in the room is the
/// world's.
pub fn keep() {
    // SAFETY: it sets an option of the allocator.
    unsafe {
        mi::mi_option_set(PURGE_DELAY, -1);
        debug_assert_eq!(mi::mi_option_get(PURGE_DELAY), -1);
    }
}
