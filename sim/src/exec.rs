//! The executor: which ready task runs next is the seed's choice, and time passes only when nobody is ready.
//!
//! madsim's own can't be steered (no hook for the choice, no cancellable timers, killed futures that drop late), so
//! this one runs inside its room as a single future. A task is known by (node, incarnation, name). A kill raises the
//! node's incarnation and drops its futures before any other task runs; a timer of a dead incarnation never fires.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::keyed::mix;

/// Nanoseconds of the world's one clock.
pub type Nanos = u64;

/// A life of a node. A node that was killed has a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Life {
    /// Which node.
    pub node: u32,
    /// Which of its lives, from 0.
    pub incarnation: u32,
}

type TaskId = u64;
type TimerId = (Nanos, u64);
type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a timer does.
enum Fire {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

struct Slot {
    life: Life,
    name: &'static str,
    waker: Waker,
    /// Out while it is polled.
    future: Option<BoxFuture>,
}

#[derive(Default)]
struct State {
    now: Nanos,
    tasks: BTreeMap<TaskId, Slot>,
    next_task: TaskId,
    timers: BTreeMap<TimerId, (Life, Fire)>,
    next_timer: u64,
    incarnations: BTreeMap<u32, u32>,
    polls: u64,
    hash: u64,
    /// Polls since time last moved.
    polls_still: u64,
    panic: Option<(Life, &'static str)>,
    stop: bool,
}

/// The executor of one world. Cloning shares it.
#[derive(Clone)]
pub struct Exec {
    state: Arc<Mutex<State>>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    seed: u64,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The world was told to stop, or its time was up.
    Stopped,
    /// Nothing was ready and no timer was left.
    Quiet,
    /// A task panicked.
    Panicked(Life, &'static str),
    /// Tasks kept each other busy without time passing.
    Livelock,
}

/// Polls without any passing of time that are taken for a livelock.
const POLLS_STILL_MAX: u64 = 5_000_000;

struct Token {
    id: TaskId,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for Token {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&self.id) {
            ready.push(self.id);
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic of a task is caught and told; what it held stays usable for the report.
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Exec {
    /// An empty world at time 1 s.
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: 1_000_000_000,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            ready: Arc::default(),
            seed,
        }
    }

    /// The world's clock.
    pub fn now(&self) -> Nanos {
        lock(&self.state).now
    }

    /// How many polls there were: the run's events.
    pub fn polls(&self) -> u64 {
        lock(&self.state).polls
    }

    /// The rolling hash of all that happened.
    pub fn hash(&self) -> u64 {
        lock(&self.state).hash
    }

    /// Feeds the rolling hash.
    pub fn note(&self, word: u64) {
        let mut state = lock(&self.state);
        state.hash = mix(state.hash, word);
    }

    /// The life that `node` has now.
    pub fn life(&self, node: u32) -> Life {
        let incarnation = lock(&self.state).incarnations.get(&node).copied().unwrap_or(0);
        Life { node, incarnation }
    }

    /// Whether that life goes on.
    pub fn alive(&self, life: Life) -> bool {
        self.life(life.node) == life
    }

    /// Starts a task, unless its life is over.
    pub fn spawn(&self, life: Life, name: &'static str, future: BoxFuture) {
        if !self.alive(life) {
            return drop(future);
        }
        let mut state = lock(&self.state);
        let id = state.next_task;
        state.next_task += 1;
        state.hash = mix(state.hash, id);
        let waker = Waker::from(Arc::new(Token {
            id,
            ready: Arc::clone(&self.ready),
        }));
        state.tasks.insert(
            id,
            Slot {
                life,
                name,
                waker,
                future: Some(future),
            },
        );
        lock(&self.ready).push(id);
    }

    /// Calls `f` at `at`, if that life goes on until then.
    pub fn call_at(&self, life: Life, at: Nanos, f: impl FnOnce() + Send + 'static) {
        self.timer(life, at, Fire::Call(Box::new(f)));
    }

    fn timer(&self, life: Life, at: Nanos, fire: Fire) -> TimerId {
        let mut state = lock(&self.state);
        let id = (at.max(state.now), state.next_timer);
        state.next_timer += 1;
        state.timers.insert(id, (life, fire));
        id
    }

    /// Waits until `at`. Dropping it takes the timer away.
    pub fn sleep_until(&self, life: Life, at: Nanos) -> Sleep {
        Sleep {
            exec: self.clone(),
            life,
            at,
            timer: None,
        }
    }

    /// Ends a node's life: the incarnation goes up first, then its futures are dropped, before any other task runs.
    pub fn kill(&self, node: u32) {
        let mut state = lock(&self.state);
        *state.incarnations.entry(node).or_insert(0) += 1;
        let life = |l: &Life| l.node == node;
        let dead: Vec<TaskId> = state
            .tasks
            .iter()
            .filter(|(_, t)| life(&t.life))
            .map(|(id, _)| *id)
            .collect();
        let tasks: Vec<Slot> = dead.iter().filter_map(|id| state.tasks.remove(id)).collect();
        let late: Vec<TimerId> = state
            .timers
            .iter()
            .filter(|(_, (l, _))| life(l))
            .map(|(id, _)| *id)
            .collect();
        let timers: Vec<_> = late.iter().filter_map(|id| state.timers.remove(id)).collect();
        drop(state);
        // Outside the lock: destructors may call, and find that they are dead.
        drop(tasks);
        drop(timers);
    }

    /// Ends the run after the task that runs now.
    pub fn stop(&self) {
        lock(&self.state).stop = true;
    }

    /// Runs until stopped, quiet, or past `until`.
    pub fn run(&self, until: Nanos, mut advanced: impl FnMut(Nanos)) -> Ended {
        loop {
            {
                let mut state = lock(&self.state);
                if let Some((life, name)) = state.panic.take() {
                    return Ended::Panicked(life, name);
                }
                if state.stop {
                    return Ended::Stopped;
                }
                if state.polls_still > POLLS_STILL_MAX {
                    return Ended::Livelock;
                }
            }
            if let Some(id) = self.pick() {
                self.poll(id);
                continue;
            }
            let mut state = lock(&self.state);
            let Some((&id, _)) = state.timers.first_key_value() else {
                return Ended::Quiet;
            };
            if id.0 > until {
                return Ended::Stopped;
            }
            if id.0 > state.now {
                advanced(id.0 - state.now);
                state.now = id.0;
                state.polls_still = 0;
            }
            let (life, fire) = state.timers.remove(&id).expect("it was the first");
            let alive = state.incarnations.get(&life.node).copied().unwrap_or(0) == life.incarnation;
            state.hash = mix(state.hash, id.0 ^ id.1.rotate_left(40));
            drop(state);
            match fire {
                _ if !alive => {}
                Fire::Wake(waker) => waker.wake(),
                Fire::Call(f) => f(),
            }
        }
    }

    /// One of the ready tasks, by the seed.
    fn pick(&self) -> Option<TaskId> {
        let mut ready = lock(&self.ready);
        if ready.is_empty() {
            return None;
        }
        let polls = lock(&self.state).polls;
        let draw = mix(mix(self.seed, 0x5ced), polls);
        let i = ((u128::from(draw) * ready.len() as u128) >> 64) as usize;
        Some(ready.swap_remove(i))
    }

    fn poll(&self, id: TaskId) {
        let mut state = lock(&self.state);
        let Some(slot) = state.tasks.get_mut(&id) else {
            return;
        };
        let (life, name) = (slot.life, slot.name);
        let Some(mut future) = slot.future.take() else {
            return;
        };
        let waker = slot.waker.clone();
        state.polls += 1;
        state.polls_still += 1;
        state.hash = mix(
            state.hash,
            id ^ (u64::from(life.incarnation) << 40) ^ (u64::from(life.node) << 52),
        );
        drop(state);
        let mut cx = Context::from_waker(&waker);
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
        let mut state = lock(&self.state);
        match polled {
            Err(_) => {
                state.panic = Some((life, name));
                state.tasks.remove(&id);
            }
            Ok(Poll::Ready(())) => {
                let slot = state.tasks.remove(&id);
                drop(state);
                drop(slot);
            }
            Ok(Poll::Pending) => match state.tasks.get_mut(&id) {
                Some(slot) => slot.future = Some(future),
                // It killed its own node.
                None => {
                    drop(state);
                    drop(future);
                }
            },
        }
    }
}

/// See [`Exec::sleep_until`].
pub struct Sleep {
    exec: Exec,
    life: Life,
    at: Nanos,
    timer: Option<TimerId>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.exec.now() >= self.at {
            return Poll::Ready(());
        }
        if let Some(id) = self.timer.take() {
            lock(&self.exec.state).timers.remove(&id);
        }
        if self.at < Nanos::MAX {
            let (life, at) = (self.life, self.at);
            self.timer = Some(self.exec.timer(life, at, Fire::Wake(cx.waker().clone())));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.timer.take() {
            let timer = lock(&self.exec.state).timers.remove(&id);
            drop(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(seed: u64) -> (Vec<u32>, u64) {
        let exec = Exec::new(seed);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for i in 0..8 {
            let (exec2, seen) = (exec.clone(), Arc::clone(&seen));
            let life = exec.life(1);
            exec.spawn(
                life,
                "t",
                Box::pin(async move {
                    for round in 0..4 {
                        exec2.sleep_until(life, 2_000_000_000 + round).await;
                        lock(&seen).push(i);
                    }
                }),
            );
        }
        assert_eq!(exec.run(Nanos::MAX, |_| {}), Ended::Quiet);
        let seen = lock(&seen).clone();
        (seen, exec.hash())
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(order_of(1), order_of(1));
        assert_ne!(order_of(1), order_of(2));
    }

    #[test]
    fn a_kill_drops_futures_at_once_and_silences_timers() {
        struct Dropped(Arc<Mutex<bool>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                *lock(&self.0) = true;
            }
        }
        let exec = Exec::new(1);
        let flag = Arc::new(Mutex::new(false));
        let guard = Dropped(Arc::clone(&flag));
        let (e, life) = (exec.clone(), exec.life(3));
        exec.spawn(
            life,
            "sleeper",
            Box::pin(async move {
                let _guard = guard;
                e.sleep_until(life, 3_000_000_000).await;
                panic!("it was killed");
            }),
        );
        exec.call_at(life, 2_500_000_000, || panic!("its life is over"));
        let (e, f) = (exec.clone(), Arc::clone(&flag));
        exec.call_at(exec.life(0), 2_000_000_000, move || {
            e.kill(3);
            assert!(*lock(&f), "dropped before anything else runs");
        });
        assert_eq!(exec.run(Nanos::MAX, |_| {}), Ended::Quiet);
    }
}
