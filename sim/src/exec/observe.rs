//! What the executor knows of the tasks between two moments of the world.

use std::sync::atomic::Ordering;

use super::Exec;
use super::lock::lock;
use crate::life::{Life, Nanos};

/// A task that exists.
pub(crate) struct ObservedTask {
    pub(crate) id: u64,
    pub(crate) life: Life,
    pub(crate) name: &'static str,
    /// When it last ran, or was spawned.
    pub(crate) ran_at: Nanos,
    /// It was woken and has not run since: its node is paused, or its priority is low.
    pub(crate) is_ready: bool,
    /// The event that woke it last; 0 without a trace.
    pub(crate) woken_by: u64,
    /// When the first timer fires that wakes it.
    pub(crate) timer: Option<Nanos>,
    /// The address of its waker's data, which tells what else will wake it.
    pub(crate) waker: usize,
}

impl Exec {
    /// The tasks, by id. None of them is running.
    pub(crate) fn observe_tasks(&self) -> Vec<ObservedTask> {
        let state = lock(&self.0.state);
        let timers: Vec<(Nanos, usize)> = state
            .timers
            .wakers()
            .map(|(at, waker)| (at, waker.data().addr()))
            .collect();
        let slots = state.tasks.0.iter().zip(0..);
        let observed = slots.filter_map(|(slot, id)| {
            let slot = slot.as_deref()?;
            let (_, waker) = slot.work.as_ref()?;
            let waker = waker.data().addr();
            let mine = timers.iter().filter(|(_, of)| *of == waker);
            Some(ObservedTask {
                id,
                life: slot.life,
                name: slot.name,
                ran_at: slot.ran_at,
                is_ready: slot.token.queued.load(Ordering::Relaxed),
                woken_by: slot.token.woken_by.load(Ordering::Relaxed),
                timer: mine.map(|(at, _)| *at).min(),
                waker,
            })
        });
        observed.collect()
    }

    /// Whether a node is paused.
    pub(crate) fn is_paused(&self, node: u32) -> bool {
        lock(&self.0.state).paused.contains(&node)
    }
}
