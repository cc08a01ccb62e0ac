//! State of the broker's process.

use brokkr_env::Instant;
use tokio::sync::oneshot;

use crate::node::{Running, Started};

/// State of the broker's process.
pub(super) enum Process {
    Down,
    Starting(Running, oneshot::Receiver<Started>, Instant),
    Up(Running),
    Stopping(oneshot::Receiver<bool>, Instant, AfterStop),
}

/// What happens when the process has stopped cleanly.
pub(super) struct AfterStop {
    pub down_ms: u64,
    /// The power fails; the choices are keyed by this.
    pub power: Option<u64>,
}
