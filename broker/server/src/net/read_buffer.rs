//! A connection's read buffer. It grows by the bytes that have arrived, and every frame cut from it holds its memory
//! reservation.

use std::sync::Arc;

use brokkr_env::Env;
use bytes::BytesMut;

use super::memory::{Memory, Overloaded, Share};
use crate::config::Limits;

/// The buffer that costs nothing. A connection has one.
const FREE_BUFFER: usize = 4096;

/// The bytes that have arrived and are not dispatched.
pub(super) struct ReadBuffer {
    limits: Arc<Limits>,
    pub(super) bytes: BytesMut,
    /// The buffer's reservation. Frames cut from the buffer hold it too: one live frame keeps the whole buffer alive.
    pub(super) share: Arc<Share>,
    /// The empty reservation of the free buffer, which is in use while there is another reference to this.
    free: Arc<Share>,
    /// Size of the next buffer.
    target_bytes: usize,
}

impl ReadBuffer {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            bytes: BytesMut::new(),
            share: Arc::default(),
            free: Arc::default(),
            target_bytes: limits.connection_read_buffer_min,
            limits,
        }
    }

    /// Releases an empty buffer.
    pub(super) fn release(&mut self) {
        self.bytes = BytesMut::new();
        self.share = Arc::default();
        self.target_bytes = self.limits.connection_read_buffer_min;
    }

    /// Makes room for the missing bytes of a frame, and for as much again as recent reads returned: most frames arrive in
    /// one piece and are never moved, and a quiet peer has a small buffer. Waits for memory only if the buffer is full.
    ///
    /// # Errors
    /// [`Overloaded`] if there was no memory in time.
    pub(super) async fn reserve_for<E: Env>(
        &mut self,
        need: usize,
        memory: &Memory<E>,
    ) -> Result<(), Overloaded> {
        let (len, spare) = (self.bytes.len(), self.bytes.capacity() - self.bytes.len());
        // The buffer grows by the bytes that have arrived, not by the size that the frame announces.
        let target = need.min(len.max(self.target_bytes).max(FREE_BUFFER) * 2);
        // Half of the target is enough for now: a frame that arrives in small pieces must not be moved for each of them.
        if spare > 0 && spare >= (target.saturating_sub(len) / 2).max(self.target_bytes / 2) {
            return Ok(());
        }
        let target = self.target_bytes.max(target);
        if self.bytes.try_reclaim(target - len) {
            return Ok(());
        }
        let uses_free_buffer = usize::from(Arc::ptr_eq(&self.share, &self.free));
        if target > FREE_BUFFER || Arc::strong_count(&self.free) > 1 + uses_free_buffer {
            let (held, unique) = (self.share.bytes(), Arc::strong_count(&self.share) == 1);
            // A buffer that no frame was cut from is replaced, so only the difference is reserved.
            let more = if unique {
                target.saturating_sub(held)
            } else {
                target
            };
            match memory.try_buffer(more) {
                Some(share) => self.grow(target, share, unique),
                None if spare > 0 => {}
                None => {
                    let least = (len * 2).max(FREE_BUFFER).min(target);
                    let more = if unique { least.saturating_sub(held) } else { least };
                    let pool_bytes = memory.buffer_bytes_max();
                    let more = more.min(pool_bytes.saturating_sub(held));
                    let share = memory.buffer(more, need).await?;
                    self.grow(least, share, unique);
                }
            }
            return Ok(());
        }
        self.share = Arc::clone(&self.free);
        self.replace(target);
        Ok(())
    }

    /// Moves the bytes to a buffer of `capacity`, with `more` memory reserved for it.
    fn grow(&mut self, capacity: usize, more: Share, unique: bool) {
        match Arc::get_mut(&mut self.share) {
            Some(share) if unique => share.join(more),
            _ => self.share = Arc::new(more),
        }
        self.replace(capacity);
    }

    fn replace(&mut self, capacity: usize) {
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.extend_from_slice(&self.bytes);
        self.bytes = bytes;
    }

    /// Adapts the size of the next buffer to a read that returned `n` of `spare` bytes.
    pub(super) fn adapt_target(&mut self, n: usize, spare: usize) {
        if n == spare {
            self.target_bytes = (self.target_bytes * 2).min(self.limits.connection_read_buffer_max);
        } else if n < self.target_bytes / 8 {
            self.target_bytes = (self.target_bytes / 2).max(self.limits.connection_read_buffer_min);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;
    use bytes::BufMut;
    use futures_util::future::FutureExt;

    #[test]
    fn a_frame_in_small_pieces_is_moved_a_few_times() {
        const FRAME: usize = 1 << 20;
        let memory = Memory::new(TokioEnv::new(1), 64 << 20, &Arc::default());
        for piece in [1, 100, 1460] {
            let (mut buffer, mut moved) = (ReadBuffer::new(Arc::default()), 0);
            while buffer.bytes.len() < FRAME {
                let before = buffer.bytes.capacity();
                let made = buffer.reserve_for(FRAME, &memory).now_or_never();
                made.expect("memory is free").expect("memory is free");
                moved += usize::from(buffer.bytes.capacity() != before);
                let spare = buffer.bytes.capacity() - buffer.bytes.len();
                let n = piece.min(spare);
                buffer.bytes.put_bytes(0, n);
                buffer.adapt_target(n, spare);
            }
            assert!(moved < 40, "{moved} times in pieces of {piece}");
        }
    }
}
