//! Waits for a time of the world.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Exec;
use super::lock::lock;
use super::timers::{Timer, TimerAction, TimerId};
use crate::life::{Life, Nanos};

/// See [`Exec::sleep_until`].
pub struct Sleep {
    exec: Exec,
    life: Life,
    at: Nanos,
    timer: Option<TimerId>,
}

impl Exec {
    /// Waits until `at`. Dropping the future removes the timer.
    pub fn sleep_until(&self, life: Life, at: Nanos) -> Sleep {
        Sleep {
            exec: self.clone(),
            life,
            at,
            timer: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            if self.exec.now() >= self.at {
                return Poll::Ready(());
            }
            let mut state = lock(&self.exec.0.state);
            let set = self.timer.and_then(|id| state.timers.get_mut(id));
            if let Some(Timer {
                fire: TimerAction::Wake(waker),
                ..
            }) = set
            {
                if !waker.will_wake(cx.waker()) {
                    let before = std::mem::replace(waker, cx.waker().clone());
                    drop(state);
                    drop(before);
                }
                return Poll::Pending;
            }
        }
        if self.at < Nanos::MAX {
            let (life, at) = (self.life, self.at);
            self.timer = Some(self.exec.timer(life, at, TimerAction::Wake(cx.waker().clone())));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.timer.take() {
            let timer = lock(&self.exec.0.state).timers.remove(id);
            drop(timer);
        }
    }
}
