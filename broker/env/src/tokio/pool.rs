//! Threads for blocking IO: a bounded number for each log directory, started as they are needed.
//!
//! What a job begins when it ends (the sync behind a write) runs next on its own thread: nobody has to be woken for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// On a pool's thread: whose it is, and what it does next.
struct Own {
    pool: *const Shared,
    next: Option<Job>,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// The pool. Dropping it lets its threads end once the queue is empty.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closing: bool,
}

impl Pool {
    pub(super) fn new(threads_max: usize) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            threads_max,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Runs `job` on one of the threads, in no order. How much waits is bounded by who submits: each file has at most one
    /// write, and the log bounds its reads and syncs.
    pub(super) fn run(&self, job: Job) {
        let Some(job) = keep(Arc::as_ptr(&self.shared), job) else {
            return;
        };
        let mut state = self.shared.state.lock().expect("no panic under this lock");
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            drop(state);
            self.shared.wake.notify_one();
        } else if state.threads < self.shared.threads_max {
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(&self.shared);
            std::thread::Builder::new()
                .name("brokkr-io".into())
                .spawn(move || work(&shared))
                .expect("the operating system has threads");
        } else {
            drop(state);
            self.shared.wake.notify_one();
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

/// Keeps the job for the thread that calls, if it is one of this pool's and has none yet; else gives it back.
fn keep(pool: *const Shared, job: Job) -> Option<Job> {
    OWN.with_borrow_mut(|own| match own {
        Some(own) if own.pool == pool && own.next.is_none() => {
            own.next = Some(job);
            None
        }
        _ => Some(job),
    })
}

fn work(shared: &Shared) {
    let guard = super::EndsProcess("io");
    let next = || OWN.with_borrow_mut(|own| own.as_mut().and_then(|own| own.next.take()));
    OWN.set(Some(Own {
        pool: shared,
        next: None,
    }));
    let mut state = shared.state.lock().expect("no panic under this lock");
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            while let Some(job) = next() {
                job();
            }
            state = shared.state.lock().expect("no panic under this lock");
        } else if state.closing {
            break;
        } else {
            state.idle += 1;
            state = shared.wake.wait(state).expect("no panic under this lock");
            state.idle -= 1;
        }
    }
    drop(state);
    drop(guard);
}
