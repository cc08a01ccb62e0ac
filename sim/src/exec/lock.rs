//! Locks of a world.

use std::sync::{Mutex, MutexGuard};

/// Locks, also after a panic under the lock.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    // A task's panic is caught and reported; the state under the lock stays usable for the report.
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
