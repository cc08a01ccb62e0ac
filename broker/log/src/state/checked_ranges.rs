//! Byte ranges of a segment that a read has already checked.

use std::sync::Mutex;

use brokkr_types::Offset;

/// Which bytes of a segment were checked since it was opened. Most readers continue where they ended, so a range is
/// kept for each.
#[derive(Debug, Default)]
pub(crate) struct CheckedRanges(Mutex<Vec<CheckedRange>>);

/// With more concurrent readers than this at different positions, some check the same bytes again.
const CHECKED_RANGES_MAX: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckedRange {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The lowest base offset that the batch at `to` can have.
    pub(crate) next: Offset,
}

impl CheckedRanges {
    /// The end of the checked range that contains the batch at `at`, with the lowest base offset possible there;
    /// without one, `at` and `offset`.
    pub(crate) fn checked_to(&self, at: u64, offset: Offset) -> (u64, Offset) {
        let ranges = self.0.lock().expect("not poisoned");
        let covers = |s: &&CheckedRange| s.from <= at && at < s.to;
        ranges
            .iter()
            .find(covers)
            .map_or((at, offset), |s| (s.to, s.next))
    }

    /// Whether the batch at `position` was checked.
    pub(crate) fn has(&self, position: u64, offset: Offset) -> bool {
        self.checked_to(position, offset).0 > position
    }

    /// Adds a range: extends the one that contains its begin, or replaces the oldest.
    pub(crate) fn add(&self, new: CheckedRange) {
        let mut ranges = self.0.lock().expect("not poisoned");
        match ranges.iter_mut().find(|s| s.from <= new.from && new.from <= s.to) {
            Some(known) if new.to > known.to => (known.to, known.next) = (new.to, new.next),
            Some(_) => {}
            None => {
                ranges.truncate(CHECKED_RANGES_MAX - 1);
                ranges.insert(0, new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u64, to: u64) -> CheckedRange {
        CheckedRange {
            from,
            to,
            next: Offset(to as i64),
        }
    }

    #[test]
    fn readers_at_different_positions_each_extend_their_range() {
        let checked = CheckedRanges::default();
        let known = |at| checked.checked_to(at, Offset(-1));
        assert_eq!(known(0), (0, Offset(-1)));
        for reader in [0, 1000, 2000, 3000] {
            checked.add(range(reader, reader + 10));
        }
        for reader in [0, 1000, 2000, 3000] {
            checked.add(range(reader + 10, reader + 20));
            assert_eq!(known(reader + 5), (reader + 20, Offset(reader as i64 + 20)));
            assert_eq!(known(reader + 20), (reader + 20, Offset(-1)), "nothing behind it");
        }
        // A part of a known range changes nothing; a fifth range replaces the oldest.
        checked.add(range(3005, 3010));
        assert_eq!(known(3005).0, 3020);
        checked.add(range(4000, 4010));
        assert_eq!(known(0), (0, Offset(-1)));
        assert_eq!(known(1000).0, 1020);
    }
}
