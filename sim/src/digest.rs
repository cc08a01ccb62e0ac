//! The hash of a run's contents: equal for equal contents in every process, since it has no key and hashes no address.

use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::keyed::mix;

/// A hasher without a key. Bytes are hashed by their CRC-32, which is fast.
#[derive(Default)]
pub struct Digest(u64);

impl Digest {
    /// The digest of a value.
    pub fn of(what: &impl Hash) -> u64 {
        let mut digest = Self::default();
        what.hash(&mut digest);
        digest.finish()
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        let crc = u64::from(crc32fast::hash(bytes));
        self.write_u64((bytes.len() as u64) << 32 ^ crc);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = mix(self.0, n);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The CRC-32 of bytes that are in pieces.
pub fn crc_of(pieces: &[Bytes]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| crc.update(piece));
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_content_matter_and_pieces_do_not() {
        let of = |parts: &[&str]| Digest::of(&parts);
        assert_eq!(of(&["a", "bc"]), of(&["a", "bc"]));
        let all = [
            of(&["a", "bc"]),
            of(&["bc", "a"]),
            of(&["ab", "c"]),
            of(&["a", "bd"]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[i + 1..].contains(one), "{all:?}");
        }
        let pieces = |parts: &[&'static str]| {
            let parts: Vec<_> = parts.iter().map(|p| Bytes::from_static(p.as_bytes())).collect();
            crc_of(&parts)
        };
        assert_eq!(pieces(&["ab", "", "c"]), pieces(&["abc"]));
        assert_ne!(pieces(&["abc"]), pieces(&["acb"]));
    }
}
