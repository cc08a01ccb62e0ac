//! Threads for blocking IO: a bounded number for each log directory, started on demand.
//!
//! A job that a running job submits (the sync after a write) runs next on the same thread, without waking another.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ThreadId;

use super::abort::AbortOnPanic;

type Job = Box<dyn FnOnce() + Send>;

/// The pool. Dropping it lets its threads end once the queue is empty.
pub(super) struct Pool {
    shared: Arc<PoolShared>,
}

struct PoolShared {
    state: Mutex<PoolState>,
    wake: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct PoolState {
    jobs: VecDeque<Job>,
    /// For each thread the job that it runs next, before the queue.
    own: Vec<(ThreadId, Option<Job>)>,
    threads: usize,
    idle: usize,
    closing: bool,
}

impl Pool {
    pub(super) fn new(threads_max: usize) -> Self {
        let shared = PoolShared {
            state: Mutex::default(),
            wake: Condvar::new(),
            threads_max,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Runs `job` on one of the threads, in no order. Callers bound the queue: each file has at most one write, and the log
    /// bounds its reads and syncs.
    pub(super) fn run(&self, job: Job) {
        let me = std::thread::current().id();
        let mut state = self.shared.state.lock().expect("no panic under this lock");
        if let Some((_, next @ None)) = state.own.iter_mut().find(|(thread, _)| *thread == me) {
            *next = Some(job);
            return;
        }
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            drop(state);
            self.shared.wake.notify_one();
        } else if state.threads < self.shared.threads_max {
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new()
                .name("brokkr-io".into())
                .spawn(move || work(&shared));
            if started.is_err() {
                self.without_thread();
            }
        } else {
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

impl Pool {
    /// The operating system could not create a thread. The existing threads run the job; if there are none, the caller does.
    fn without_thread(&self) {
        let mut state = self.shared.state.lock().expect("no panic under this lock");
        state.threads -= 1;
        if state.threads > 0 {
            return;
        }
        while let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = self.shared.state.lock().expect("no panic under this lock");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared
            .state
            .lock()
            .expect("no panic under this lock")
            .closing = true;
        self.shared.wake.notify_all();
    }
}

fn work(shared: &PoolShared) {
    let guard = AbortOnPanic("io");
    let me = std::thread::current().id();
    let mut state = shared.state.lock().expect("no panic under this lock");
    state.own.push((me, None));
    loop {
        let own = state.own.iter_mut().find(|(thread, _)| *thread == me);
        let next = own.and_then(|(_, next)| next.take());
        if let Some(job) = next.or_else(|| state.jobs.pop_front()) {
            drop(state);
            job();
            state = shared.state.lock().expect("no panic under this lock");
        } else if state.closing {
            break;
        } else {
            state.idle += 1;
            state = shared.wake.wait(state).expect("no panic under this lock");
            state.idle -= 1;
        }
    }
    state.own.retain(|(thread, _)| *thread != me);
    drop(state);
    drop(guard);
}
