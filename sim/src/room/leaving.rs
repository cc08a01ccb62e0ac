//! What is done at the end of a thread's world, where its panic finds it, too.
//!
//! Where a panic ends the process (`panic = "abort"`) nothing unwinds to whoever runs the world. So before that the world of the
//! task that panicked is asked what there is to ask at its end, and its thread stands still: the process is to tell of it.

use std::sync::Mutex;
use std::thread::ThreadId;

use crate::exec::{Ended, lock, this_thread};

/// Told how the world ended, or the message of a panic.
type Leave = Box<dyn FnOnce(Result<Ended, &str>)>;

/// What only the thread that made it has.
struct Own(Leave);

// SAFETY: `take` gives it to the thread that put it there, and to no other.
unsafe impl Send for Own {}

static WORLDS: Mutex<Vec<(ThreadId, Own)>> = Mutex::new(Vec::new());

fn take() -> Option<Leave> {
    let (mut worlds, me) = (lock(&WORLDS), this_thread());
    let mine = worlds.iter().position(|(thread, _)| *thread == me)?;
    Some(worlds.swap_remove(mine).1.0)
}

/// This thread's world, until it is left. It goes when this is dropped.
pub(super) struct Leaving(());

impl Leaving {
    /// What is to be done.
    pub fn by(leave: impl FnOnce(Result<Ended, &str>) + 'static) -> Self {
        lock(&WORLDS).push((this_thread(), Own(Box::new(leave))));
        Self(())
    }

    /// The world has ended.
    pub fn leave(self, ended: Ended) {
        if let Some(leave) = take() {
            leave(Ok(ended));
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        drop(take());
    }
}

/// Something on this thread panicked, and the process will end. Comes back where no world can be asked.
pub(crate) fn before_abort(message: &str) {
    if let Some(leave) = take() {
        leave(Err(message));
    }
}
