//! A panic of a task or of an IO thread ends the process.

/// Aborts the process when the task that holds it unwinds: after a panic the state can't be trusted. (With `panic = "abort"`
/// the process has already ended.)
pub(super) struct AbortOnPanic(
    /// The task's name.
    pub(super) &'static str,
);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("brokkr: task {:?} panicked; the process ends", self.0);
            std::process::abort();
        }
    }
}
