//! The leader of a partition in one epoch.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_types::{LeaderEpoch, NodeId, Offset};

/// The leader's state: the log ends of its replicas and the high watermark computed from them.
#[derive(Clone, Debug)]
pub struct Leader {
    epoch: LeaderEpoch,
    /// Each replica's ackable end: its durable end, if acknowledgements require durability.
    ackable: BTreeMap<NodeId, Offset>,
    isr: BTreeSet<NodeId>,
    min_insync: usize,
    high_watermark: Offset,
}

impl Leader {
    /// A leader at the start of its `epoch`, with this ISR. The log ends of the replicas are unknown; the high watermark
    /// starts at the last value that this replica knew.
    ///
    /// # Panics
    /// If a member of the ISR is not a replica.
    pub fn new(
        epoch: LeaderEpoch,
        replicas: impl IntoIterator<Item = NodeId>,
        isr: impl IntoIterator<Item = NodeId>,
        min_insync: usize,
        high_watermark: Offset,
    ) -> Self {
        let ackable: BTreeMap<_, _> = replicas.into_iter().map(|r| (r, Offset(0))).collect();
        let isr: BTreeSet<_> = isr.into_iter().collect();
        assert!(
            isr.iter().all(|m| ackable.contains_key(m)),
            "L7: the ISR is among the replicas"
        );
        Self {
            epoch,
            ackable,
            isr,
            min_insync,
            high_watermark,
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The high watermark.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The smallest ISR that may commit: `min.insync.replicas`, but no more than there are replicas.
    pub fn min_insync_effective(&self) -> usize {
        self.min_insync.min(self.ackable.len())
    }

    /// Whether there are enough replicas in sync for an append with acks=all.
    pub fn enough_in_sync(&self) -> bool {
        self.isr.len() >= self.min_insync_effective()
    }

    /// `min.insync.replicas` was changed.
    pub fn set_min_insync(&mut self, min_insync: usize) {
        self.min_insync = min_insync;
    }

    /// Sets a replica's ackable end (the leader's own too). Returns the new high watermark if it advanced.
    pub fn on_ackable(&mut self, replica: NodeId, end: Offset) -> Option<Offset> {
        *self.ackable.get_mut(&replica)? = end;
        if !self.enough_in_sync() {
            return None;
        }
        let low = self.isr.iter().map(|m| self.ackable[m]).min()?;
        (low > self.high_watermark).then(|| {
            self.high_watermark = low;
            low
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(replicas: i32, isr: i32, min_insync: usize) -> Leader {
        Leader::new(
            LeaderEpoch(3),
            (1..=replicas).map(NodeId),
            (1..=isr).map(NodeId),
            min_insync,
            Offset(5),
        )
    }

    #[test]
    fn the_high_watermark_is_the_lowest_of_the_isr_and_never_goes_back() {
        let mut l = leader(3, 2, 1);
        assert_eq!(l.on_ackable(NodeId(1), Offset(20)), None);
        assert_eq!(l.on_ackable(NodeId(3), Offset(9)), None, "not in the ISR");
        assert_eq!(l.on_ackable(NodeId(2), Offset(12)), Some(Offset(12)));
        assert_eq!(l.on_ackable(NodeId(2), Offset(7)), None);
        assert_eq!(l.high_watermark(), Offset(12));
        assert_eq!(l.on_ackable(NodeId(9), Offset(70)), None, "no replica at all");
    }

    #[test]
    fn it_stands_still_while_too_few_are_in_sync() {
        let mut l = leader(3, 1, 2);
        assert_eq!(l.on_ackable(NodeId(1), Offset(20)), None);
        assert!(!l.enough_in_sync());
        l.set_min_insync(1);
        assert_eq!(l.on_ackable(NodeId(1), Offset(20)), Some(Offset(20)));
    }

    #[test]
    fn one_replica_is_enough_where_there_is_only_one() {
        let mut l = leader(1, 1, 2);
        assert!(l.enough_in_sync());
        assert_eq!(l.on_ackable(NodeId(1), Offset(6)), Some(Offset(6)));
    }
}
