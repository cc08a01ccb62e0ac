//! How a run's process takes memory: a run is short, so the allocator keeps what it has, and must be able to use it again.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, but for what has to lie on more than 16 bytes: of that glibc before 2.38 uses little again once it is
/// free (its bug 14581), and gzip's 300 KB for each batch would come to 600 MB in a run.
pub struct Aligning;

/// What the system aligns by itself.
const ALIGN: usize = 16;
/// Before what is given out stands where it really begins.
const NOTE: usize = size_of::<*mut u8>();

impl Aligning {
    /// Room for the note, and to move up to where `layout` may lie.
    fn wider(layout: Layout) -> Option<Layout> {
        let size = layout.size().checked_add(layout.align() + NOTE)?;
        Layout::from_size_align(size, ALIGN).ok()
    }
}

// SAFETY: what is given out is `layout.size()` bytes within a live allocation of the system's, on `layout.align()`; what is given
// back is that allocation, whose address and layout are found again from what `alloc` noted, and the same `layout`.
unsafe impl GlobalAlloc for Aligning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGN {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let Some(wider) = Self::wider(layout) else {
            return std::ptr::null_mut();
        };
        // SAFETY: its size is not 0.
        let begin = unsafe { System.alloc(wider) };
        if begin.is_null() {
            return begin;
        }
        // SAFETY: `wider` has room for the note and for a move of less than the alignment.
        unsafe {
            let from = begin.add(NOTE);
            let at = from.add(from.align_offset(layout.align()));
            at.sub(NOTE).cast::<*mut u8>().write(begin);
            at
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if layout.align() <= ALIGN {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(at, layout) };
        }
        let wider = Self::wider(layout).expect("it was allocated");
        // SAFETY: `alloc` noted it there.
        unsafe { System.dealloc(at.sub(NOTE).cast::<*mut u8>().read(), wider) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= ALIGN {
            // SAFETY: the caller's promise.
            return unsafe { System.realloc(at, layout, size) };
        }
        let Ok(new) = Layout::from_size_align(size, layout.align()) else {
            return std::ptr::null_mut();
        };
        // SAFETY: both are live, apart, and as long as is copied.
        unsafe {
            let to = self.alloc(new);
            if !to.is_null() {
                std::ptr::copy_nonoverlapping(at, to, size.min(layout.size()));
                self.dealloc(at, layout);
            }
            to
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGN {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: it is live and so long.
        unsafe {
            let at = self.alloc(layout);
            if !at.is_null() {
                at.write_bytes(0, layout.size());
            }
            at
        }
    }
}

/// Lets the allocator keep what it has: giving pages back and forth is a fifth of a run's time.
pub fn keep() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TRIM_THRESHOLD, 1 << 30),
        (libc::M_MMAP_THRESHOLD, 1 << 30),
        (libc::M_TOP_PAD, 4 << 20),
    ] {
        // SAFETY: it changes numbers of the allocator, and no other thread runs yet.
        let done = unsafe { libc::mallopt(what, value) };
        debug_assert_eq!(done, 1, "glibc knows these");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_out_lies_where_it_should_and_keeps_its_bytes() {
        for align in [1, 8, 16, 32, 64, 4096] {
            for size in [1, 7, 64, 70_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: each is given back with the layout it was given out with, and only its own bytes are touched.
                unsafe {
                    let at = Aligning.alloc_zeroed(layout);
                    assert!(at.is_aligned_to_bytes(align) && at.add(size - 1).read() == 0);
                    at.write_bytes(7, size);
                    let at = Aligning.realloc(at, layout, 2 * size);
                    assert!(at.is_aligned_to_bytes(align) && at.read() == 7 && at.add(size - 1).read() == 7);
                    at.write_bytes(9, 2 * size);
                    let twice = Layout::from_size_align(2 * size, align).expect("a layout");
                    Aligning.dealloc(at, twice);
                }
            }
        }
    }

    trait IsAligned {
        fn is_aligned_to_bytes(self, align: usize) -> bool;
    }

    impl IsAligned for *mut u8 {
        fn is_aligned_to_bytes(self, align: usize) -> bool {
            !self.is_null() && self.addr().is_multiple_of(align)
        }
    }
}
