//! How pending changes reach the platter.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::keyed::Keyed;

/// The unit that the disk writes atomically.
pub const SECTOR: u64 = 512;

/// A change of a file's bytes.
pub(super) enum Change {
    Write {
        at: u64,
        bytes: Bytes,
    },
    /// A write that the disk reports as done: it extends the file, but its bytes are lost or elsewhere.
    Astray {
        at: u64,
        len: u64,
        landed: Option<(u64, Bytes)>,
    },
    Truncate {
        to: u64,
    },
}

/// A file's bytes. Zeros at the end take no memory.
#[derive(Default)]
pub(super) struct Image {
    /// The bytes from the start, up to the last one that may not be zero.
    bytes: Vec<u8>,
    len: usize,
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All bytes.
    pub(super) fn whole(&self) -> Cow<'_, [u8]> {
        if self.bytes.len() == self.len {
            return Cow::Borrowed(&self.bytes);
        }
        let mut whole = self.bytes.clone();
        whole.resize(self.len, 0);
        Cow::Owned(whole)
    }

    /// The bytes from `from` to `to`, as far as they exist.
    pub(super) fn read(&self, from: usize, to: usize) -> Bytes {
        let to = to.min(self.len);
        let from = from.min(to);
        if to <= self.bytes.len() {
            return Bytes::copy_from_slice(&self.bytes[from..to]);
        }
        let there = self.bytes.get(from..).unwrap_or_default();
        let mut read = there.to_vec();
        read.resize(to - from, 0);
        read.into()
    }

    pub(super) fn flip(&mut self, at: usize, bits: u8) {
        if at < self.len {
            self.reach(at + 1);
            self.bytes[at] ^= bits;
        }
    }

    /// Extends the stored bytes to `end`.
    fn reach(&mut self, end: usize) {
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.len = self.len.max(end);
    }

    fn lengthen(&mut self, to: u64) {
        self.len = self.len.max(to as usize);
    }

    pub(super) fn lay(&mut self, at: u64, bytes: &[u8]) {
        let (at, end) = (at as usize, at as usize + bytes.len());
        if at >= self.bytes.len() && is_zero(bytes) {
            return self.lengthen(end as u64);
        }
        self.reach(end);
        self.bytes[at..end].copy_from_slice(bytes);
    }

    pub(super) fn truncate(&mut self, to: usize) {
        self.bytes.truncate(to);
        self.len = self.len.min(to);
    }

    /// Copies another image.
    pub(super) fn copy(&mut self, other: &Self) {
        self.bytes.clone_from(&other.bytes);
        self.len = other.len;
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Comparing blocks is ten times as fast as comparing bytes.
    let mut pieces = bytes.chunks(256);
    pieces.all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}

pub(super) fn apply(image: &mut Image, change: &Change) {
    match change {
        Change::Write { at, bytes } => image.lay(*at, bytes),
        Change::Astray { at, len, landed } => {
            image.lengthen(*at + len);
            if let Some((to, bytes)) = landed {
                image.lay(*to, bytes);
            }
        }
        Change::Truncate { to } => image.truncate(*to as usize),
    }
}

/// Decides for each change whether it reaches the platter.
pub(super) fn settle(
    durable: &mut Image,
    changes: &[(u64, Change)],
    node: u64,
    choices: &mut Keyed,
    fault_counts: &mut BTreeMap<&'static str, u64>,
) {
    let mut count = |what| *fault_counts.entry(what).or_insert(0) += 1;
    for (_, change) in changes {
        match change {
            Change::Truncate { .. } => {
                if choices.one_in("truncate survives", node, 2) {
                    apply(durable, change);
                } else {
                    count("truncate undone");
                }
            }
            Change::Astray { .. } => apply(durable, change),
            Change::Write { at, bytes } => match choices.below("write survives", node, 8) {
                0..3 => apply(durable, change),
                3..5 => count("write lost"),
                5 => {
                    count("write zeroed");
                    durable.lengthen(at + bytes.len() as u64);
                }
                _ => {
                    count("write torn");
                    tear(durable, *at, bytes, node, choices);
                }
            },
        }
    }
}

/// Some sectors of a write survive.
fn tear(image: &mut Image, at: u64, bytes: &[u8], node: u64, choices: &mut Keyed) {
    let end = at + bytes.len() as u64;
    let mut from = at;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if choices.one_in("sector survives", node, 2) {
            image.lay(from, &bytes[(from - at) as usize..(to - at) as usize]);
        }
        from = to;
    }
}
