//! The order in which one file's operations run: a pure state machine, driven by [`crate::File`].
//!
//! Writes and truncates run one at a time, in call order. A sync starts when everything submitted before it has ended; later
//! writes run concurrently with it. A read starts at once unless it overlaps unwritten bytes. A truncate waits for the
//! ranges over its tail. If a write fails, the file is first cut back to its last good length, and the operations queued
//! after the write fail.

use std::collections::VecDeque;

/// Identifies an operation.
pub(crate) type OpId = u64;

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Write { at: u64, len: u64 },
    Truncate { len: u64 },
    Sync,
    Read { at: u64, len: u64 },
}

/// An instruction to the driver.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Start the operation on the raw file.
    Start(OpId),
    /// Fail the operation without starting it: an earlier one failed.
    Refuse(OpId),
    /// Cut the raw file to this length, then call [`Lane::cut_back_ended`].
    CutBack(u64),
}

/// The state of one file's operations.
pub(crate) struct Lane {
    next: OpId,
    queue: VecDeque<(OpId, Op)>,
    /// The write or truncate that runs on the raw file now.
    busy: Option<(OpId, Op)>,
    cutting: bool,
    /// Length after all submitted operations, assuming that they succeed.
    len: u64,
    /// Length after the operations that succeeded.
    len_good: u64,
    /// Length expected before the last failure; 0 again after the next accepted write.
    len_lost: u64,
    /// Truncates submitted so far.
    truncations: u64,
    /// Ranges being sent: id and end of each.
    ranges: Vec<(u64, u64)>,
    next_range: u64,
}

impl Lane {
    pub(crate) fn new(len: u64) -> Self {
        Self {
            next: 0,
            queue: VecDeque::new(),
            busy: None,
            cutting: false,
            len,
            len_good: len,
            len_lost: 0,
            truncations: 0,
            ranges: Vec::new(),
            next_range: 0,
        }
    }

    /// Length after all submitted operations, assuming that they succeed.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Length that certainly exists.
    pub(crate) fn len_good(&self) -> u64 {
        self.len_good
    }

    pub(crate) fn truncations(&self) -> u64 {
        self.truncations
    }

    /// Submits an operation. Panics if a write would leave a hole or a truncate would extend the file.
    pub(crate) fn submit(&mut self, op: Op, steps: &mut Vec<Step>) -> OpId {
        let id = self.next;
        self.next += 1;
        match op {
            Op::Write { at, .. } if at > self.len && at <= self.len_lost => {
                // It was meant to follow a write that has failed meanwhile.
                steps.push(Step::Refuse(id));
                return id;
            }
            Op::Write { at, len } => {
                self.len_lost = 0;
                assert!(
                    at <= self.len,
                    "a write leaves no hole: at {at}, length {}",
                    self.len
                );
                self.len = self.len.max(at + len);
            }
            Op::Truncate { len } => {
                assert!(
                    len <= self.len,
                    "a truncate only shortens: to {len}, length {}",
                    self.len
                );
                self.len = len;
                self.truncations += 1;
            }
            Op::Read { at, len } if !self.unwritten(at, len) => {
                steps.push(Step::Start(id));
                return id;
            }
            Op::Read { .. } | Op::Sync => {}
        }
        self.queue.push_back((id, op));
        self.advance(steps);
        id
    }

    /// Whether an unfinished operation changes these bytes.
    fn unwritten(&self, at: u64, len: u64) -> bool {
        let touches = |op: &Op| match *op {
            Op::Write { at: a, len: l } => a < at + len && at < a + l,
            Op::Truncate { len: l } => at + len > l,
            Op::Sync | Op::Read { .. } => false,
        };
        // A cut-back removes no good bytes.
        (self.cutting && at + len > self.len_good)
            || self.busy.iter().any(|(_, op)| touches(op))
            || self.queue.iter().any(|(_, op)| touches(op))
    }

    fn advance(&mut self, steps: &mut Vec<Step>) {
        while let Some(&(id, op)) = self.queue.front() {
            if self.busy.is_some() || self.cutting {
                return;
            }
            match op {
                Op::Truncate { len } if self.ranges.iter().any(|(_, end)| *end > len) => return,
                Op::Write { .. } | Op::Truncate { .. } => self.busy = Some((id, op)),
                Op::Sync | Op::Read { .. } => {}
            }
            self.queue.pop_front();
            steps.push(Step::Start(id));
        }
    }

    /// The write or truncate at the raw file ended.
    pub(crate) fn ended(&mut self, id: OpId, well: bool, steps: &mut Vec<Step>) {
        let (busy, op) = self.busy.take().expect("an ended operation was started");
        assert_eq!(busy, id, "one write or truncate at a time");
        match op {
            Op::Write { at, len } if well => self.len_good = self.len_good.max(at + len),
            Op::Truncate { len } if well => self.len_good = len,
            _ => {
                for (id, _) in self.queue.drain(..) {
                    steps.push(Step::Refuse(id));
                }
                self.len_lost = self.len;
                // Not counted as a truncation: a cut-back never removes bytes that a sync may have covered.
                self.len = self.len_good;
                self.cutting = true;
                steps.push(Step::CutBack(self.len_good));
                return;
            }
        }
        self.advance(steps);
    }

    /// The cut-back ended.
    pub(crate) fn cut_back_ended(&mut self, steps: &mut Vec<Step>) {
        self.cutting = false;
        self.advance(steps);
    }

    /// Registers a range that ends at `end`. Panics if it isn't written.
    pub(crate) fn range_begins(&mut self, end: u64) -> u64 {
        assert!(
            end <= self.len_good,
            "a range is written: ends at {end}, good length {}",
            self.len_good
        );
        let id = self.next_range;
        self.next_range += 1;
        self.ranges.push((id, end));
        id
    }

    /// A range was sent, or its connection was closed.
    pub(crate) fn range_ends(&mut self, id: u64, steps: &mut Vec<Step>) {
        let i = self
            .ranges
            .iter()
            .position(|(r, _)| *r == id)
            .expect("a range ends once");
        self.ranges.swap_remove(i);
        self.advance(steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(lane: &mut Lane, op: Op) -> (OpId, Vec<Step>) {
        let mut steps = Vec::new();
        let id = lane.submit(op, &mut steps);
        (id, steps)
    }

    fn ended(lane: &mut Lane, id: OpId, well: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        lane.ended(id, well, &mut steps);
        steps
    }

    #[test]
    fn a_sync_waits_for_what_precedes_it_and_nothing_else() {
        let mut lane = Lane::new(0);
        let (w1, s) = submit(&mut lane, Op::Write { at: 0, len: 10 });
        assert_eq!(s, [Step::Start(w1)]);
        let (sync, s) = submit(&mut lane, Op::Sync);
        assert_eq!(s, []);
        let (w2, s) = submit(&mut lane, Op::Write { at: 10, len: 5 });
        assert_eq!(s, []);
        assert_eq!(ended(&mut lane, w1, true), [Step::Start(sync), Step::Start(w2)]);
        assert_eq!((lane.len(), lane.len_good()), (15, 10));
    }

    #[test]
    fn a_failed_write_takes_with_it_what_was_queued_behind() {
        let mut lane = Lane::new(4);
        let (w1, _) = submit(&mut lane, Op::Write { at: 4, len: 10 });
        let (w2, _) = submit(&mut lane, Op::Write { at: 14, len: 10 });
        let (sync, _) = submit(&mut lane, Op::Sync);
        assert_eq!(
            ended(&mut lane, w1, false),
            [Step::Refuse(w2), Step::Refuse(sync), Step::CutBack(4)]
        );
        let (w3, s) = submit(&mut lane, Op::Write { at: 4, len: 1 });
        assert_eq!(s, [], "nothing is begun before the cut-back ended");
        let mut steps = Vec::new();
        lane.cut_back_ended(&mut steps);
        assert_eq!(steps, [Step::Start(w3)]);
    }

    #[test]
    fn a_late_write_after_a_failed_one_fails_too() {
        let mut lane = Lane::new(4);
        let (w1, _) = submit(&mut lane, Op::Write { at: 4, len: 10 });
        assert_eq!(ended(&mut lane, w1, false), [Step::CutBack(4)]);
        let (w2, s) = submit(&mut lane, Op::Write { at: 14, len: 1 });
        assert_eq!(s, [Step::Refuse(w2)]);
        lane.cut_back_ended(&mut Vec::new());
        let (w3, s) = submit(&mut lane, Op::Write { at: 4, len: 1 });
        assert_eq!(s, [Step::Start(w3)]);
        assert_eq!(lane.len(), 5);
    }

    #[test]
    fn a_truncate_waits_for_the_ranges_over_its_tail() {
        let mut lane = Lane::new(100);
        let low = lane.range_begins(40);
        let high = lane.range_begins(90);
        let (cut, s) = submit(&mut lane, Op::Truncate { len: 50 });
        assert_eq!(s, []);
        let mut steps = Vec::new();
        lane.range_ends(high, &mut steps);
        assert_eq!(steps, [Step::Start(cut)]);
        ended(&mut lane, cut, true);
        lane.range_ends(low, &mut Vec::new());
        assert_eq!(lane.len_good(), 50);
    }

    #[test]
    fn a_read_of_what_is_written_never_waits_for_a_cut_back() {
        let mut lane = Lane::new(100);
        let (w, _) = submit(&mut lane, Op::Write { at: 100, len: 10 });
        assert_eq!(ended(&mut lane, w, false), [Step::CutBack(100)]);
        let (r, s) = submit(&mut lane, Op::Read { at: 90, len: 10 });
        assert_eq!(s, [Step::Start(r)]);
        let (_, s) = submit(&mut lane, Op::Read { at: 90, len: 11 });
        assert_eq!(s, []);
    }

    #[test]
    fn a_read_waits_only_for_what_it_overlaps() {
        let mut lane = Lane::new(100);
        let (w, _) = submit(&mut lane, Op::Write { at: 100, len: 10 });
        let (r1, s) = submit(&mut lane, Op::Read { at: 0, len: 100 });
        assert_eq!(s, [Step::Start(r1)]);
        let (r2, s) = submit(&mut lane, Op::Read { at: 90, len: 11 });
        assert_eq!(s, []);
        assert_eq!(ended(&mut lane, w, true), [Step::Start(r2)]);
    }
}
