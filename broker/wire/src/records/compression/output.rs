//! The growth of an output buffer up to a limit.

/// The next capacity of a full output buffer: doubled, but at most one byte above the limit. Writing that byte shows that
/// the output is too large.
pub(super) fn next_capacity(len: usize, compressed_len: usize, max: usize) -> usize {
    let first = compressed_len.saturating_mul(4).max(1024);
    len.saturating_mul(2).max(first).min(max.saturating_add(1))
}

/// Extends an output buffer with zeros, with the capacities of [`next_capacity`]: `Vec`'s own growth could exceed the limit.
pub(super) fn lengthen(out: &mut Vec<u8>, len: usize, compressed_len: usize, max: usize) {
    if out.capacity() < len {
        let capacity = next_capacity(out.capacity(), compressed_len, max).max(len);
        out.reserve_exact(capacity - out.len());
    }
    out.resize(len, 0);
}
