//! Cooperative scheduling: long loops yield, so that a large request does not block other tasks of its thread.

use std::future::poll_fn;
use std::task::Poll;

use brokkr_env::poll_later;
use brokkr_wire::records::Pace;

/// Steps of a loop between two breaks: at a microsecond each, a quarter of a millisecond.
pub const STEPS_MAX: usize = 256;

/// Counts the steps of a loop, and yields now and then.
#[derive(Default)]
pub struct Steps(usize);

impl Steps {
    /// Counts a step. Cancel-safe.
    pub async fn step(&mut self) {
        self.steps(1).await;
    }

    /// Counts `n` steps. Cancel-safe.
    pub async fn steps(&mut self, n: usize) {
        self.0 += n;
        if self.0 >= STEPS_MAX {
            self.0 = 0;
            yield_now().await;
        }
    }
}

/// The steps that work of these [`Pace`] units counts for.
pub fn steps_of(units: usize) -> usize {
    units.div_ceil(1 << 10)
}

/// Lets other tasks run first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        poll_later(cx);
        Poll::Pending
    })
    .await;
}

/// A pace for work on a batch, which yields to other tasks.
pub fn pace() -> Pace {
    Pace::gives_way_by(poll_later)
}
