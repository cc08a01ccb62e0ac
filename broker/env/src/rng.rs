//! Named streams of random numbers.

use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng};

/// A stream of random numbers, good enough for secrets when seeded from the operating system. Clones share the stream.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<ChaCha12Rng>>);

impl Rng {
    /// For worlds: the stream with this seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(ChaCha12Rng::from_seed(seed))))
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().expect("no panic under this lock").next_u64()
    }

    /// A number from 0 to `n` - 1; `n` must not be 0. The bias is under 2^-32 for any `n` up to 2^32.
    pub fn below(&self, n: u64) -> u64 {
        assert!(n > 0, "n must be positive");
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.0
            .lock()
            .expect("no panic under this lock")
            .fill_bytes(&mut out);
        out
    }
}
