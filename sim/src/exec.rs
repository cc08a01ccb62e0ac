//! The executor: the seed chooses which ready task runs next, and time passes only when no task is ready.
//!
//! madsim's own can't be steered (no hook for the choice, no cancellable timers, killed futures that drop late), so
//! this one runs inside its room as a single future. A task is known by (node, incarnation, name). A kill raises the
//! node's incarnation and drops its futures before any other task runs; a timer of a dead incarnation never fires.
//!
//! The next task is either drawn at random each time, or chosen by priorities that change at rare, random points (PCT: Burckhardt
//! et al., ASPLOS 2010). The first mixes all tasks evenly; the second lets one task run far ahead of another, which finds bugs that
//! need a few particular orderings in a row. Tasks of a paused node may be ready, but do not run.

mod cpu;
mod end_hook;
mod ended;
mod lock;
mod observe;
mod panics;
mod sleep;
mod thread;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::keyed::mix;
pub use crate::life::{Life, Nanos};
use crate::trace::{EventKind, Tap};
use cpu::{Cpu, SlowPoll};
pub(crate) use end_hook::EndHookGuard;
pub use ended::Ended;
pub(crate) use lock::lock;
pub(crate) use observe::ObservedTask;
use panics::{keep_panics, take_panic};
pub use sleep::Sleep;
use timers::{Timer, TimerAction, TimerId, Timers};

type TaskId = u64;
type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How the next task is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Each ready task is as likely.
    #[default]
    Random,
    /// The ready task of the highest priority runs; it loses that priority once in so many polls. Tasks of low priority also wait
    /// for events of the next moments, like a thread that gets no core.
    Pct(u64),
}

/// Polls in a row after which a task loses its priority: a task that polls for another's progress must not starve it.
const POLLS_IN_A_ROW_MAX: u64 = 200;
/// Lost priorities are below all drawn ones.
const PRIORITY_DRAWN_MIN: u64 = 1 << 62;
/// A quarter of the drawn priorities is low.
const PRIORITY_LOW_MAX: u64 = PRIORITY_DRAWN_MIN + (1 << 60);
/// Longest time that tasks of low priority wait for others to become ready.
const LOW_WAITS_MAX: Nanos = 1_000_000;

struct Slot {
    life: Life,
    name: &'static str,
    token: Arc<TaskWaker>,
    priority: u64,
    /// When it last ran, or was spawned.
    ran_at: Nanos,
    /// The future and its waker. Taken out during a poll.
    work: Option<(BoxFuture, Waker)>,
}

/// The existing tasks by id. Ids are assigned in order.
#[derive(Default)]
struct Tasks(Vec<Option<Box<Slot>>>);

impl Tasks {
    fn next_id(&self) -> TaskId {
        self.0.len() as TaskId
    }

    fn get(&self, id: TaskId) -> Option<&Slot> {
        self.0.get(id as usize)?.as_deref()
    }

    fn get_mut(&mut self, id: TaskId) -> Option<&mut Slot> {
        self.0.get_mut(id as usize)?.as_deref_mut()
    }

    fn remove(&mut self, id: TaskId) -> Option<Box<Slot>> {
        self.0.get_mut(id as usize)?.take()
    }

    /// Removes the tasks of a node.
    fn remove_of(&mut self, node: u32) -> Vec<Slot> {
        let is_its = |slot: &mut Box<Slot>| slot.life.node == node;
        let taken = self.0.iter_mut().filter_map(|slot| slot.take_if(is_its));
        taken.map(|slot| *slot).collect()
    }
}

#[derive(Default)]
struct ExecState {
    tasks: Tasks,
    timers: Timers,
    incarnations: BTreeMap<u32, u32>,
    polls: u64,
    hash: u64,
    /// Polls since time last moved.
    polls_still: u64,
    panic: Option<(Life, &'static str, String)>,
    /// The task that is being polled.
    running: Option<(Life, &'static str)>,
    stop: bool,
    strategy: Strategy,
    /// Seed of the scheduling choices.
    order_seed: u64,
    /// The next priority to fall to, and the task that ran last, with how often in a row.
    lowest: u64,
    in_a_row: (TaskId, u64),
    /// While only tasks of low priority are ready: until when they wait.
    low_waits_until: Option<Nanos>,
    paused: BTreeSet<u32>,
    /// Of paused nodes: ready tasks, and deferred calls.
    stalled: Vec<(u32, TaskId)>,
    deferred: Vec<(Life, Box<dyn FnOnce() + Send>)>,
    cpu: Cpu,
}

/// The executor of one world. Cloning shares it.
#[derive(Clone)]
pub struct Exec(Arc<ExecInner>);

struct ExecInner {
    /// Only `run` advances it.
    now: AtomicU64,
    state: Mutex<ExecState>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    tap: Arc<Tap>,
}

/// Polls without passing time after which the run counts as a livelock.
const POLLS_STILL_MAX: u64 = 5_000_000;

struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<TaskId>>>,
    tap: Arc<Tap>,
    /// The event that woke it.
    woken_by: AtomicU64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken_by.store(self.tap.running(), Ordering::Relaxed);
            lock(&self.ready).push(self.id);
        }
    }
}

type Guard<'s> = MutexGuard<'s, ExecState>;

impl Exec {
    /// An empty world at time 1 s.
    pub fn new(seed: u64) -> Self {
        keep_panics();
        let state = ExecState {
            lowest: PRIORITY_DRAWN_MIN,
            order_seed: seed,
            ..ExecState::default()
        };
        Self(Arc::new(ExecInner {
            now: AtomicU64::new(1_000_000_000),
            state: Mutex::new(state),
            ready: Arc::default(),
            tap: Arc::default(),
        }))
    }

    /// Chooses tasks by `strategy` from now on, and by `seed` instead of the world's seed, if given.
    pub fn choose_by(&self, strategy: Strategy, seed: Option<u64>) {
        let mut state = lock(&self.0.state);
        state.strategy = strategy;
        state.order_seed = seed.unwrap_or(state.order_seed);
    }

    /// The world's clock.
    pub fn now(&self) -> Nanos {
        self.0.now.load(Ordering::Relaxed)
    }

    /// The tap that records this world's events.
    pub fn tap(&self) -> &Tap {
        &self.0.tap
    }

    /// The end of the run if the task that runs now has panicked; none if no task runs.
    pub(crate) fn panicked(&self, message: &str) -> Option<Ended> {
        let (life, name) = self.0.state.try_lock().ok()?.running?;
        self.0.tap.record(|| EventKind::Panic {
            message: message.to_owned(),
        });
        Some(Ended::Panicked(life, name, message.to_owned()))
    }

    /// How many polls there were: the run's events.
    pub fn polls(&self) -> u64 {
        lock(&self.0.state).polls
    }

    /// What the table of tasks takes, which has a place for each task that there ever was.
    pub fn table_bytes(&self) -> usize {
        lock(&self.0.state).tasks.0.capacity() * size_of::<Option<Box<Slot>>>()
    }

    /// The rolling hash of all that happened.
    pub fn hash(&self) -> u64 {
        lock(&self.0.state).hash
    }

    /// Feeds what happened to the rolling hash.
    pub fn note(&self, what: impl Hash) {
        let word = Digest::of(&what);
        let mut state = lock(&self.0.state);
        state.hash = mix(state.hash, word);
    }

    /// The present life of `node`.
    pub fn life(&self, node: u32) -> Life {
        let incarnation = lock(&self.0.state).incarnations.get(&node).copied().unwrap_or(0);
        Life { node, incarnation }
    }

    /// Whether that life is still going on.
    pub fn alive(&self, life: Life) -> bool {
        self.life(life.node) == life
    }

    /// Starts a task, unless its life is over.
    pub fn spawn(&self, life: Life, name: &'static str, future: BoxFuture) {
        if !self.alive(life) {
            return drop(future);
        }
        let mut state = lock(&self.0.state);
        let id = state.tasks.next_id();
        state.hash = mix(state.hash, id);
        let made = self.0.tap.record(|| EventKind::Spawn {
            spawned: id,
            name: name.into(),
        });
        let token = Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(true),
            ready: Arc::clone(&self.0.ready),
            tap: Arc::clone(&self.0.tap),
            woken_by: AtomicU64::new(made),
        });
        let slot = Slot {
            life,
            name,
            work: Some((future, Waker::from(Arc::clone(&token)))),
            token,
            priority: PRIORITY_DRAWN_MIN | mix(mix(state.order_seed, 0x9c7), id) >> 2,
            ran_at: self.now(),
        };
        state.tasks.0.push(Some(Box::new(slot)));
        lock(&self.0.ready).push(id);
    }

    /// Calls `f` at `at`, if that life lasts until then.
    pub fn call_at(&self, life: Life, at: Nanos, f: impl FnOnce() + Send + 'static) {
        self.timer(life, at, TimerAction::Call(Box::new(f)));
    }

    fn timer(&self, life: Life, at: Nanos, fire: TimerAction) -> TimerId {
        let (at, by) = (at.max(self.now()), self.0.tap.running());
        lock(&self.0.state).timers.set(at, Timer { life, fire, by })
    }

    /// Ends a node's life: raises the incarnation first, then drops its futures, before any other task runs.
    pub fn kill(&self, node: u32) {
        let mut state = lock(&self.0.state);
        *state.incarnations.entry(node).or_insert(0) += 1;
        let tasks = state.tasks.remove_of(node);
        let timers = state.timers.remove_of(node);
        state.paused.remove(&node);
        state.stalled.retain(|(n, _)| *n != node);
        let (deferred, rest): (Vec<_>, _) = std::mem::take(&mut state.deferred)
            .into_iter()
            .partition(|(l, _)| l.node == node);
        state.deferred = rest;
        drop(state);
        // Dropped outside the lock: destructors may call the executor, and find their life over.
        drop((tasks, timers, deferred));
    }

    /// Stops running a node's tasks (SIGSTOP), while the world goes on. Returns whether they ran before.
    pub fn pause(&self, node: u32) -> bool {
        lock(&self.0.state).paused.insert(node)
    }

    /// Runs a paused node's tasks again (SIGCONT).
    pub fn resume(&self, node: u32) {
        let mut state = lock(&self.0.state);
        state.paused.remove(&node);
        let (late, rest) = std::mem::take(&mut state.stalled)
            .into_iter()
            .partition(|(n, _)| *n == node);
        state.stalled = rest;
        let late: Vec<(u32, TaskId)> = late;
        lock(&self.0.ready).extend(late.into_iter().map(|(_, id)| id));
        let (due, rest) = std::mem::take(&mut state.deferred)
            .into_iter()
            .partition(|(l, _)| l.node == node);
        state.deferred = rest;
        drop(state);
        let due: Vec<(Life, Box<dyn FnOnce() + Send>)> = due;
        for (life, f) in due {
            if self.alive(life) {
                f();
            }
        }
    }

    /// Calls `f` now, or, if the node is paused, when it is resumed.
    pub fn call_awake(&self, life: Life, f: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.0.state);
        if state.paused.contains(&life.node) {
            return state.deferred.push((life, Box::new(f)));
        }
        drop(state);
        f();
    }

    /// Measures each poll from now on.
    pub(crate) fn measure_polls(&self, most_ns: u64) {
        lock(&self.0.state).cpu.measure(most_ns);
    }

    /// The slowest of the polls that exceeded the limit.
    pub(crate) fn slowest_poll(&self) -> Option<SlowPoll> {
        lock(&self.0.state).cpu.slowest()
    }

    /// Ends the run after the task that runs now.
    pub fn stop(&self) {
        lock(&self.0.state).stop = true;
    }

    /// Runs until stopped, quiet, or past `until`. Calls `advanced` BEFORE time moves, with the new time.
    pub fn run(&self, until: Nanos, mut advanced: impl FnMut(Nanos)) -> Ended {
        let mut state = lock(&self.0.state);
        loop {
            if let Some((life, name, message)) = state.panic.take() {
                return Ended::Panicked(life, name, message);
            }
            if state.stop {
                return Ended::Stopped;
            }
            if state.polls_still > POLLS_STILL_MAX {
                return Ended::Livelock;
            }
            if let Some(id) = self.pick(&mut state) {
                state = self.poll(id, state);
                continue;
            }
            let Some(at) = state.timers.first() else {
                return Ended::Quiet;
            };
            if at > until {
                return Ended::Stopped;
            }
            if at > self.now() {
                state.polls_still = 0;
                drop(state);
                advanced(at);
                self.0.now.store(at, Ordering::Relaxed);
                state = lock(&self.0.state);
            }
            state = self.fire(at, state);
        }
    }

    /// Fires all timers of a moment, in the order in which they were set. The tasks that they wake run after that, in any order.
    fn fire<'s>(&'s self, at: Nanos, mut state: Guard<'s>) -> Guard<'s> {
        while let Some(((at, set), Timer { life, fire, by })) = state.timers.take_due(at) {
            let alive = state.incarnations.get(&life.node).copied().unwrap_or(0) == life.incarnation;
            state.hash = mix(state.hash, at ^ set.rotate_left(40));
            drop(state);
            if alive {
                self.0.tap.begin(at, life, None, by);
                match fire {
                    TimerAction::Wake(waker) => waker.wake(),
                    TimerAction::Call(f) => f(),
                }
                self.0.tap.pause();
            } else {
                // Dropped outside the lock: destructors may call the executor.
                drop(fire);
            }
            state = lock(&self.0.state);
        }
        state
    }

    /// Picks one of the ready tasks, by the seed.
    fn pick(&self, state: &mut ExecState) -> Option<TaskId> {
        let mut ready = lock(&self.0.ready);
        if ready.is_empty() {
            return None;
        }
        let draw = mix(mix(state.order_seed, 0x5ced), state.polls);
        let i = match state.strategy {
            Strategy::Random => ((u128::from(draw) * ready.len() as u128) >> 64) as usize,
            Strategy::Pct(one_in) => state.by_priority(&ready, draw, one_in, self.now())?,
        };
        Some(ready.swap_remove(i))
    }

    fn poll<'s>(&'s self, id: TaskId, mut guard: Guard<'s>) -> Guard<'s> {
        let state = &mut *guard;
        let Some(slot) = state.tasks.get_mut(id) else {
            return guard;
        };
        let (life, name) = (slot.life, slot.name);
        if state.paused.contains(&life.node) {
            // The task stays queued, so a wake meanwhile changes nothing.
            state.stalled.push((life.node, id));
            return guard;
        }
        // BEFORE the poll: a wake during the poll queues the task again.
        slot.token.queued.store(false, Ordering::Relaxed);
        let Some((mut future, waker)) = slot.work.take() else {
            return guard;
        };
        slot.ran_at = self.now();
        state.polls += 1;
        state.polls_still += 1;
        state.hash = mix(
            state.hash,
            id ^ (u64::from(life.incarnation) << 40) ^ (u64::from(life.node) << 52),
        );
        let (now, by) = (self.now(), slot.token.woken_by.load(Ordering::Relaxed));
        state.running = Some((life, name));
        let begun = state.cpu.begin();
        drop(guard);
        self.0.tap.begin(now, life, Some((id, name)), by);
        let mut cx = Context::from_waker(&waker);
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
        if let Ok(Poll::Ready(())) = polled {
            self.0.tap.record(|| EventKind::End);
        }
        let mut state = lock(&self.0.state);
        state.running = None;
        state.cpu.end(begun, life, name);
        match polled {
            Err(_) => {
                let message = take_panic();
                self.0.tap.record(|| EventKind::Panic {
                    message: message.clone(),
                });
                state.panic = Some((life, name, message));
            }
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => {
                // The slot is gone if the task killed its own node.
                if let Some(slot) = state.tasks.get_mut(id) {
                    slot.work = Some((future, waker));
                    self.0.tap.pause();
                    return state;
                }
            }
        }
        let slot = state.tasks.remove(id);
        drop(state);
        // Dropped outside the lock: destructors may call the executor.
        drop((slot, future, waker));
        self.0.tap.pause();
        lock(&self.0.state)
    }
}

impl ExecState {
    /// The index in `ready` of the task with the highest priority; none while only low priorities are ready and should wait.
    fn by_priority(&mut self, ready: &[TaskId], draw: u64, change_one_in: u64, now: Nanos) -> Option<usize> {
        let priority = |id: &TaskId| self.tasks.get(*id).map_or(u64::MAX, |t| t.priority);
        let all = ready.iter().enumerate().map(|(i, id)| (priority(id), *id, i));
        let (highest, id, i) = all.max().expect("a task is ready");
        if highest < PRIORITY_LOW_MAX {
            let until = *self
                .low_waits_until
                .get_or_insert_with(|| now + mix(draw, id) % LOW_WAITS_MAX);
            if self.timers.first().is_some_and(|at| at <= until) {
                return None;
            }
        }
        self.low_waits_until = None;
        self.in_a_row = match self.in_a_row {
            (last, n) if last == id => (id, n + 1),
            _ => (id, 1),
        };
        let change = draw.is_multiple_of(change_one_in.max(1)) || self.in_a_row.1 > POLLS_IN_A_ROW_MAX;
        if change && let Some(task) = self.tasks.get_mut(id) {
            self.lowest -= 1;
            task.priority = self.lowest;
            self.in_a_row.1 = 0;
        }
        Some(i)
    }
}

#[cfg(test)]
mod tests;
