//! What the director schedules.

use crate::exec::Nanos;

pub(super) const MILLI: Nanos = 1_000_000;
/// How long the supervisor waits after a failed start.
pub(super) const START_RETRY_DELAY: Nanos = 500 * MILLI;

/// How long the broker may take to notice that a directory failed.
pub(super) const PROBED_AFTER_MS: u64 = 1_500;

/// An action that is scheduled for a time.
#[derive(Clone, Copy)]
pub(super) enum Action {
    Fault(usize),
    /// A fault strikes if it still waits for its event.
    Overdue(usize),
    /// A waiting fault strikes, if its trigger still holds.
    Strike(usize),
    /// A waiting fault strikes now because its wait has timed out.
    Timeout(usize),
    /// Saves the present contents of the files that a fault names.
    KeepContents(usize),
    Start,
    StartClient(u32),
    Resume,
    FreeSpace,
    /// Cuts a client off until then.
    Clog {
        client: u32,
        until: Nanos,
    },
    /// A failed log directory works again.
    DirectoryIsBack(u64),
    /// Queries the partitions of the other log directories while this one fails.
    Probe(usize),
    /// The operator reacts to a failed disk: ends the process, or cuts the power.
    Operator {
        id: u64,
        power: bool,
    },
    Calm,
}
