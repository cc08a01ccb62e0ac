//! The thread of a world.

use std::thread::ThreadId;

#[expect(
    clippy::disallowed_methods,
    reason = "tells the worlds of one process apart; nothing in a world sees it"
)]
pub(super) fn this_thread() -> ThreadId {
    std::thread::current().id()
}
