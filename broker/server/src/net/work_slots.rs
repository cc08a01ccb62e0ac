//! Slots for long CPU-bound work on batches: decompressing or compressing much. Each occupies a processor, so there are
//! few.
//!
//! Work runs in slices: after each slice the slot goes to the next waiter, in the order of arrival. A slice is a number of
//! yields of the work ([`brokkr_wire::records::Pace`]), not a time.
//!
//! A task must not hold a slot while it waits for memory: the tasks that hold the memory may wait for slots.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use brokkr_env::{Env, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::memory::Overloaded;
use crate::config::Limits;

/// The slots. Cloning shares them.
pub struct WorkSlots<E: Env> {
    env: E,
    slots: Arc<Semaphore>,
    limits: Arc<Limits>,
}

impl<E: Env> Clone for WorkSlots<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            slots: Arc::clone(&self.slots),
            limits: Arc::clone(&self.limits),
        }
    }
}

impl<E: Env> WorkSlots<E> {
    /// `slots` run at a time.
    pub fn new(env: E, slots: usize, limits: &Arc<Limits>) -> Self {
        Self {
            env,
            slots: Arc::new(Semaphore::new(slots)),
            limits: Arc::clone(limits),
        }
    }

    /// The deadline of work that arrives now.
    pub fn deadline(&self) -> Instant {
        self.env.now() + self.limits.check_wait
    }

    /// Runs the work in slices. Calls `is_given_up` after each slice with the number of slices so far. Cancel-safe if the
    /// work is.
    ///
    /// # Errors
    /// [`Overloaded`] if `is_given_up`, or at the deadline.
    pub async fn run<T>(
        &self,
        deadline: Instant,
        is_given_up: impl Fn(usize) -> bool,
        work: impl Future<Output = T>,
    ) -> Result<T, Overloaded> {
        let mut work = pin!(work);
        for slices in 0.. {
            if slices > 0 && (is_given_up(slices) || self.env.now() >= deadline) {
                return Err(Overloaded);
            }
            let slot = self.slot(deadline).await?;
            if let Some(done) = run_slice(self.limits.check_slice, work.as_mut()).await {
                return Ok(done);
            }
            // The next waiter gets the slot.
            drop(slot);
        }
        unreachable!("the deadline ends the loop")
    }

    async fn slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Overloaded> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        tokio::select! {
            biased;
            slot = self.slots.acquire() => Ok(slot.expect("the semaphore is never closed")),
            () = self.env.sleep_until(deadline) => Err(Overloaded),
        }
    }
}

/// Polls the work until it is done, or has yielded as often as a slice allows.
async fn run_slice<T>(slice: usize, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut breaks = 0;
    poll_fn(|cx| {
        // AFTER other tasks ran: the last yield counts, too.
        if breaks == slice {
            return Poll::Ready(None);
        }
        let polled = work.as_mut().poll(cx);
        breaks += 1;
        polled.map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;
    use brokkr_wire::records::Pace;
    use futures_util::FutureExt;
    use std::cell::Cell;
    use std::time::Duration;

    /// Units after which work yields.
    const MUCH: usize = 1 << 20;

    #[tokio::test]
    async fn later_work_does_not_wait_for_all_of_the_work_before_it() {
        let slots = WorkSlots::new(TokioEnv::new(1), 1, &Arc::default());
        let (done, slices) = (Cell::new(0), Cell::new(0));
        let count = |n| {
            slices.set(n);
            false
        };
        let long = slots.run(slots.deadline(), count, async {
            let mut pace = Pace::gives_way();
            for _ in 0..10 * Limits::default().check_slice {
                pace.work(MUCH).await;
                done.set(done.get() + 1);
            }
        });
        let mut long = pin!(long);
        assert!(long.as_mut().now_or_never().is_none());
        let short = slots.run(slots.deadline(), |_| false, async { done.get() });
        let (long, found) = tokio::join!(long, short);
        assert_eq!((long, slices.get()), (Ok(()), 10));
        let found = found.expect("it got a slot");
        assert!(
            (1..=Limits::default().check_slice).contains(&found),
            "{found} were done before"
        );
        assert_eq!(slots.slots.available_permits(), 1);
    }

    #[tokio::test]
    async fn work_is_given_up_between_slices_and_at_its_deadline() {
        let slots = WorkSlots::new(TokioEnv::new(1), 1, &Arc::default());
        let endless = || async {
            let mut pace = Pace::gives_way();
            loop {
                pace.work(MUCH).await;
            }
        };
        let is_given_up = |slices| slices == 3;
        let given_up: Result<(), _> = slots.run(slots.deadline(), is_given_up, endless()).await;
        assert_eq!(given_up, Err(Overloaded));
        let soon = slots.env.now() + Duration::from_millis(1);
        let late: Result<(), _> = slots.run(soon, |_| false, endless()).await;
        assert_eq!(late, Err(Overloaded));
        // Work that waits for a slot that is never released.
        let held = slots.slot(slots.deadline()).await;
        let soon = slots.env.now() + Duration::from_millis(1);
        let waits: Result<(), _> = slots.run(soon, |_| false, async {}).await;
        assert_eq!(waits, Err(Overloaded));
        drop(held);
        assert_eq!(slots.run(slots.deadline(), |_| false, async {}).await, Ok(()));
    }
}
