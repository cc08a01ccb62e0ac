//! Long loops give way: what a peer makes long must not keep a worker from everybody else.

use std::future::poll_fn;
use std::task::Poll;

use brokkr_env::poll_later;
use brokkr_wire::records::Pace;

/// Steps of a loop between two breaks: at a microsecond each, a quarter of a millisecond.
pub const STEPS_MAX: usize = 256;

/// Counts the steps of a loop, and gives way now and then.
#[derive(Default)]
pub struct Steps(usize);

impl Steps {
    /// One more step. Cancel-safe.
    pub async fn step(&mut self) {
        self.steps(1).await;
    }

    /// So many more steps at once. Cancel-safe.
    pub async fn steps(&mut self, n: usize) {
        self.0 += n;
        if self.0 >= STEPS_MAX {
            self.0 = 0;
            yield_now().await;
        }
    }
}

/// The steps that so much work is worth, in the units of [`Pace`].
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

/// The pace of work on a batch.
pub fn pace() -> Pace {
    Pace::gives_way_by(poll_later)
}
