//! State of the broker's process.

use brokkr_env::Instant;
use tokio::sync::oneshot;

use crate::node::{Running, Started};

/// State of the broker's process.
pub(super) enum Process {
    Down,
    Starting(Running, oneshot::Receiver<Started>, Instant),
    Up(Running),
    Stopping(oneshot::Receiver<bool>, Instant, u64),
}
