//! What strangers do wrong, told once: a line for each kind, however often it happens.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// A kind is told again when it has happened this many times more.
const AGAIN_EVERY: u64 = 1_000_000;

/// Counts by kind, and logs the first of each.
#[derive(Default)]
pub struct Noise {
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Noise {
    /// It happened: `kind`, this time as `detail` says.
    pub fn tell(&self, kind: &'static str, detail: &dyn std::fmt::Display) {
        let mut counts = self.counts.lock().expect("no panic under this lock");
        let n = counts.entry(kind).or_insert(0);
        *n += 1;
        let n = *n;
        drop(counts);
        if n == 1 {
            tracing::warn!(kind, %detail, "further ones of this kind are only counted");
        } else if n.is_multiple_of(AGAIN_EVERY) {
            tracing::warn!(kind, times = n, %detail, "again");
        }
    }

    /// How often each kind happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().expect("no panic under this lock").clone()
    }
}
