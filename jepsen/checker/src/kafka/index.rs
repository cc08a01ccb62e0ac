//! Indexes of operations, as the rows of the store have them.

use brokkr_history::Operation;

/// Marks an absent number.
pub(super) const NONE: u32 = u32::MAX;

/// The index of an operation.
pub(super) fn index_of(o: &Operation) -> u32 {
    u32::try_from(o.index).expect("checked when it came")
}
