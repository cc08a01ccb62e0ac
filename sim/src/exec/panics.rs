//! The messages of panics, kept for the report of a run.

use std::sync::{Mutex, Once};
use std::thread::ThreadId;

use super::end_hook::before_abort;
use super::lock::lock;
use super::thread::this_thread;

/// The last panic of each thread that had one.
static PANICS: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

/// Removes and returns the message of this thread's last panic.
pub(super) fn take_panic() -> String {
    let (mut all, me) = (lock(&PANICS), this_thread());
    let mine = all.iter().rposition(|(thread, _)| *thread == me);
    mine.map(|i| all.remove(i).1).unwrap_or_default()
}

/// Installs a panic hook that keeps the message and location of each thread's last panic, and then calls the previous hook.
pub(super) fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let message = info.to_string();
            lock(&PANICS).push((this_thread(), message.clone()));
            before(info);
            if cfg!(panic = "abort") {
                before_abort(&message);
            }
        }));
    });
}
