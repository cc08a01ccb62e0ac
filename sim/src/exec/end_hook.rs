//! The hook that runs at the end of a thread's world, also after a panic.
//!
//! Where a panic ends the process (`panic = "abort"`) nothing unwinds to the code that runs the world. So before the abort the hook
//! collects the results of the world whose task panicked, and the thread blocks: the process still has to report them.

use std::sync::Mutex;
use std::thread::ThreadId;

use super::ended::Ended;
use super::lock::lock;
use super::thread::this_thread;

/// Called with the end of the world, or with the message of a panic.
type EndHook = Box<dyn FnOnce(Result<Ended, &str>)>;

/// A hook that only its own thread may call.
struct ThreadBound(EndHook);

// SAFETY: `take` gives it to the thread that put it there, and to no other.
unsafe impl Send for ThreadBound {}

static WORLDS: Mutex<Vec<(ThreadId, ThreadBound)>> = Mutex::new(Vec::new());

fn take() -> Option<EndHook> {
    let (mut worlds, me) = (lock(&WORLDS), this_thread());
    let mine = worlds.iter().position(|(thread, _)| *thread == me)?;
    Some(worlds.swap_remove(mine).1.0)
}

/// This thread's hook. Dropping it removes the hook.
pub(crate) struct EndHookGuard(());

impl EndHookGuard {
    /// Sets this thread's hook.
    pub fn by(leave: impl FnOnce(Result<Ended, &str>) + 'static) -> Self {
        lock(&WORLDS).push((this_thread(), ThreadBound(Box::new(leave))));
        Self(())
    }

    /// Runs the hook: the world has ended.
    pub fn leave(self, ended: Ended) {
        if let Some(leave) = take() {
            leave(Ok(ended));
        }
    }
}

impl Drop for EndHookGuard {
    fn drop(&mut self) {
        drop(take());
    }
}

/// Called after a panic on this thread, before the process aborts. Returns if this thread has no world.
pub(super) fn before_abort(message: &str) {
    if let Some(leave) = take() {
        leave(Err(message));
    }
}
