//! D1 where not each record is flushed: once all is calm, what was written to a log is durable within `log.flush.interval.ms`,
//! however steadily more is written.

use std::collections::VecDeque;

use crate::account::{Account, Rule};
use crate::disk::Disk;
use crate::exec::Nanos;
use crate::plan::{FLUSH_MS, Plan};
use crate::violation::Violation;

const MS: Nanos = 1_000_000;
/// Time for the sync itself, and for one that is in flight before.
const SLACK: Nanos = 1_000 * MS;
/// Time after the faults in which the broker starts again.
const SETTLING: Nanos = 4_000 * MS;
/// Interval of looks at the disk.
const LOOK: Nanos = 50 * MS;

/// Which writes happened before which time, as far as is needed.
pub(crate) struct FlushedInTime {
    within: Nanos,
    from: Nanos,
    until: Nanos,
    next_look: Nanos,
    /// Times, each with the number of the first change after it.
    marks: VecDeque<(Nanos, u64)>,
    /// Whether the rule was applied.
    pub(crate) account: Account,
}

impl FlushedInTime {
    /// For a plan whose broker has the setting. The rule is applied `from` the end of the faults `until` the clients' end.
    pub(crate) fn of(plan: &Plan, from: Nanos, until: Nanos) -> Option<Self> {
        let ms: u64 = plan.broker.get(FLUSH_MS)?.parse().ok()?;
        Some(Self {
            // A clock that runs slow may take more.
            within: ms * MS * 5 / 4 + SLACK,
            from: from + SETTLING,
            until,
            next_look: 0,
            marks: VecDeque::new(),
            account: Account::default(),
        })
    }

    /// Looks at the disk, if it is time. Returns a violation once.
    /// Logs of deleted topics are not judged, nor those that are `damaged`.
    pub(crate) fn check(
        &mut self,
        disk: &Disk,
        roots: &[String],
        now: Nanos,
        damaged: impl Fn(&str) -> bool,
    ) -> Option<Violation> {
        if now < self.next_look || now > self.until {
            return None;
        }
        self.next_look = now + LOOK;
        self.marks.push_back((now, disk.sync_begin()));
        // The latest mark of which everything before must be durable by now.
        while self.marks.get(1).is_some_and(|(at, _)| at + self.within <= now) {
            self.marks.pop_front();
        }
        let (at, before) = *self.marks.front().filter(|(at, _)| at + self.within <= now)?;
        if now < self.from {
            return None;
        }
        self.account.judges(Rule::FlushedInTime, None);
        let is_judged =
            |folder: &str| !folder.ends_with("-delete") && !folder.ends_with("-stray") && !damaged(folder);
        let path = disk.log_pending_since(roots, before, is_judged)?;
        self.next_look = Nanos::MAX;
        let ms = (now - at) / MS;
        let what = format!("{path}: what was written more than {ms} ms ago is not durable");
        Some(Violation::new("D1", what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Keyed;
    use bytes::Bytes;

    fn plan() -> Plan {
        let mut plan = Plan::of(1, 60, &crate::plan::Faults::None);
        plan.broker.insert(FLUSH_MS.to_owned(), "500".to_owned());
        plan
    }

    /// Writes each 50 ms, and syncs what was written up to `lag` before. Returns whether a violation was found.
    fn is_found(lag: Nanos) -> bool {
        let mut disk = Disk::new(1);
        disk.create_dir("data/t-0").expect("a folder");
        let (log, _) = disk
            .open("data/t-0/00000000000000000000.log", true)
            .expect("a file");
        let mut flushed = FlushedInTime::of(&plan(), 0, Nanos::MAX).expect("the setting");
        let mut marks = VecDeque::new();
        let mut found = false;
        for n in 0..400 {
            let now = n * LOOK;
            disk.write(log, n * 10, &Bytes::from_static(&[7; 10]))
                .expect("room");
            marks.push_back((now, disk.sync_begin()));
            while marks.front().is_some_and(|(at, _)| at + lag <= now) {
                let (_, mark) = marks.pop_front().expect("there is one");
                disk.sync_end(log, mark, &mut Keyed::new(1)).expect("no fault");
            }
            found |= flushed
                .check(&disk, &["data".to_owned()], now, |_| false)
                .is_some();
        }
        found
    }

    #[test]
    fn writes_that_stay_pending_are_found() {
        assert!(!is_found(0));
        assert!(!is_found(1_500 * MS));
        assert!(is_found(1_800 * MS));
        assert!(is_found(Nanos::MAX / 2));
    }
}
