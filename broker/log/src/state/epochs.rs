//! Leader epochs and their start offsets (KIP-101, KIP-279), as in Kafka's `LeaderEpochFileCache`.

use std::sync::Arc;

use brokkr_types::{LeaderEpoch, Offset};

/// The start of a leader epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The leader epoch.
    pub epoch: LeaderEpoch,
    /// The offset of its first batch, or the log end offset when its leader began.
    pub start: Offset,
}

/// The leader epochs of a log, oldest first; epochs and start offsets both increase. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaderEpochs(Arc<Vec<EpochStart>>);

impl LeaderEpochs {
    /// These entries, assigned one by one.
    pub fn new(entries: impl IntoIterator<Item = EpochStart>) -> Self {
        let mut all = Self::default();
        for entry in entries {
            all.assign(entry.epoch, entry.start);
        }
        all
    }

    /// The epochs, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.0
    }

    /// The latest leader epoch.
    pub fn latest(&self) -> Option<EpochStart> {
        self.0.last().copied()
    }

    /// Whether [`LeaderEpochs::assign`] would change anything.
    pub(crate) fn needs(&self, epoch: LeaderEpoch, start: Offset) -> bool {
        epoch.0 >= 0
            && self
                .latest()
                .is_none_or(|last| epoch != last.epoch || start < last.start)
    }

    /// Assigns `start` to `epoch`. Removes entries that contradict it: those whose epoch or start is not lower.
    /// Returns whether anything changed.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if !self.needs(epoch, start) {
            return false;
        }
        let entries = Arc::make_mut(&mut self.0);
        while entries
            .last()
            .is_some_and(|last| last.epoch >= epoch || last.start >= start)
        {
            entries.pop();
        }
        entries.push(EpochStart { epoch, start });
        true
    }

    /// Adds the epoch of a batch that is in the log; batches come in log order. Where it contradicts the entries,
    /// those from its base offset on are removed: after a failed write was undone, a crash may bring its bytes back
    /// under an epoch that began in the meantime.
    pub(crate) fn observe(&mut self, epoch: LeaderEpoch, base: Offset, last: Offset) {
        if epoch.0 < 0 {
            // Written before leader epochs existed.
            return;
        }
        if self.epoch_for(base) != Some(epoch) || self.epoch_for(last) != Some(epoch) {
            Arc::make_mut(&mut self.0).retain(|e| e.start < base);
            self.assign(epoch, base);
        }
    }

    /// Removes the epochs that begin at `end` or past it. Returns whether anything changed.
    pub(crate) fn truncate_from_end(&mut self, end: Offset) -> bool {
        if self.latest().is_none_or(|last| last.start < end) {
            return false;
        }
        Arc::make_mut(&mut self.0).retain(|e| e.start < end);
        true
    }

    /// Removes the epochs that ended at `start` or before it; the epoch that contains `start` then begins there.
    /// Returns whether anything changed.
    pub(crate) fn truncate_from_start(&mut self, start: Offset) -> bool {
        let covered = self.0.iter().take_while(|e| e.start <= start).count();
        if covered == 0 || covered == 1 && self.0[0].start == start {
            return false;
        }
        let entries = Arc::make_mut(&mut self.0);
        entries.drain(..covered - 1);
        entries[0].start = start;
        true
    }

    /// The leader epoch of the batch at `offset`.
    pub fn epoch_for(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.0.partition_point(|e| e.start <= offset);
        after.checked_sub(1).map(|i| self.0[i].epoch)
    }

    /// The response to OffsetForLeaderEpoch: the largest epoch up to `epoch` and its end offset, in a log that ends
    /// at `log_end`. `None` if neither `epoch` nor a later one is known.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        // -1 means no epoch. Other negative epochs count as lower than the first, as in Kafka.
        if epoch.0 == -1 {
            return None;
        }
        if self.latest().is_some_and(|last| last.epoch == epoch) {
            return Some(EpochEnd { epoch, end: log_end });
        }
        let after = self.0.partition_point(|e| e.epoch <= epoch);
        let end = self.0.get(after)?.start;
        // Below the first known epoch the end offset may be too high. Those batches are no longer in the log.
        let epoch = after.checked_sub(1).map_or(epoch, |i| self.0[i].epoch);
        Some(EpochEnd { epoch, end })
    }
}

/// The end of a leader epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The leader epoch.
    pub epoch: LeaderEpoch,
    /// The offset after its last batch.
    pub end: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs::new(entries.iter().map(|&(e, s)| EpochStart {
            epoch: LeaderEpoch(e),
            start: Offset(s),
        }))
    }

    fn end(cache: &LeaderEpochs, epoch: i32) -> Option<(i32, i64)> {
        cache
            .end_offset_for(LeaderEpoch(epoch), Offset(100))
            .map(|e| (e.epoch.0, e.end.0))
    }

    #[test]
    fn answers_are_kafkas() {
        let cache = epochs(&[(2, 6), (3, 10), (7, 20)]);
        let answers: Vec<_> = [-1, 0, 2, 3, 5, 7, 8].map(|e| end(&cache, e)).to_vec();
        let expected = [
            None,
            Some((0, 6)),
            Some((2, 10)),
            Some((3, 20)),
            Some((3, 20)),
            Some((7, 100)),
            None,
        ];
        assert_eq!(answers, expected);
        assert_eq!(end(&LeaderEpochs::default(), 3), None);
    }

    #[test]
    fn epoch_0_counts() {
        let cache = epochs(&[(0, 0), (1, 5)]);
        assert_eq!(
            (end(&cache, 0), cache.epoch_for(Offset(4))),
            (Some((0, 5)), Some(LeaderEpoch(0)))
        );
    }

    #[test]
    fn contradicting_entries_are_removed() {
        assert_eq!(
            epochs(&[(1, 0), (2, 10), (3, 20), (2, 15)]),
            epochs(&[(1, 0), (2, 15)])
        );
        assert_eq!(epochs(&[(1, 0), (2, 10), (4, 10)]), epochs(&[(1, 0), (4, 10)]));
        assert_eq!(epochs(&[(1, 0), (2, 10), (2, 12)]), epochs(&[(1, 0), (2, 10)]));
    }

    #[test]
    fn a_batch_overrides_the_checkpoint() {
        let observed = |epoch, base, last| {
            let mut cache = epochs(&[(1, 0), (2, 10), (3, 12)]);
            cache.observe(LeaderEpoch(epoch), Offset(base), Offset(last));
            cache
                .entries()
                .iter()
                .map(|e| (e.epoch.0, e.start.0))
                .collect::<Vec<_>>()
        };
        assert_eq!(observed(2, 10, 11), [(1, 0), (2, 10), (3, 12)]);
        assert_eq!(observed(1, 10, 11), [(1, 0)]);
        assert_eq!(observed(1, 9, 10), [(1, 0)]);
        assert_eq!(observed(2, 5, 6), [(1, 0), (2, 5)]);
        assert_eq!(observed(4, 15, 15), [(1, 0), (2, 10), (3, 12), (4, 15)]);
    }

    #[test]
    fn the_start_moves_into_the_epoch_that_covers_it() {
        let mut cache = epochs(&[(1, 0), (2, 10), (3, 20)]);
        assert!(cache.truncate_from_start(Offset(15)));
        assert_eq!(cache.entries(), epochs(&[(2, 15), (3, 20)]).entries());
        assert!(!cache.truncate_from_start(Offset(15)));
        assert!(cache.truncate_from_end(Offset(20)));
        assert_eq!(cache.entries(), epochs(&[(2, 15)]).entries());
        assert!(!cache.truncate_from_end(Offset(16)));
    }

    proptest! {
        /// Compares with a model: the list of each offset's epoch.
        #[test]
        fn a_log_is_found_again(runs in prop::collection::vec((1..3i32, 1..5i64), 1..8), cut in 0..30i64) {
            let (mut cache, mut log, mut epoch) = (LeaderEpochs::default(), Vec::new(), -1);
            for (step, n) in runs {
                epoch += step;
                cache.assign(LeaderEpoch(epoch), Offset(log.len() as i64));
                log.extend(std::iter::repeat_n(epoch, n as usize));
            }
            log.truncate(cut as usize);
            cache.truncate_from_end(Offset(log.len() as i64));
            for (offset, epoch) in log.iter().enumerate() {
                prop_assert_eq!(cache.epoch_for(Offset(offset as i64)), Some(LeaderEpoch(*epoch)));
            }
            for asked in 0..=epoch {
                let end = log.iter().position(|e| *e > asked);
                let of = log.iter().rev().find(|e| **e <= asked).copied().unwrap_or(asked);
                match cache.end_offset_for(LeaderEpoch(asked), Offset(log.len() as i64)) {
                    Some(found) => {
                        prop_assert_eq!(found.end.0 as usize, end.unwrap_or(log.len()));
                        prop_assert_eq!(found.epoch.0, of);
                    }
                    None => prop_assert!(log.last().is_none_or(|last| *last < asked)),
                }
            }
        }
    }
}
