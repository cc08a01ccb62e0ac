//! An immutable snapshot that one task publishes and many read.
//!
//! The owner replaces the whole; a reader keeps the snapshot it has and looks at one counter to see whether there is a
//! newer one. What a reader holds is never changed under it. (`tokio::sync::watch` would do, but draws from a
//! process-global seed.)

#[cfg(not(brokkr_loom))]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

#[cfg(brokkr_loom)]
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

/// The owner's end.
pub struct Published<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    version: AtomicU64,
    latest: Mutex<std::sync::Arc<T>>,
}

/// A reader's end, with the snapshot it saw last.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    version: u64,
    seen: std::sync::Arc<T>,
}

impl<T> Published<T> {
    /// Publishes a first snapshot.
    pub fn new(first: T) -> Self {
        let latest = Mutex::new(std::sync::Arc::new(first));
        Self {
            shared: Arc::new(Shared {
                version: AtomicU64::new(0),
                latest,
            }),
        }
    }

    /// Publishes the next. A reader that asks after this returned sees it, or one later.
    pub fn publish(&self, next: T) {
        let next = std::sync::Arc::new(next);
        let mut latest = self.shared.latest.lock().expect("no panic under this lock");
        *latest = next;
        // BEFORE the lock is released: a reader that sees the new version finds the new snapshot.
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// A new reader.
    pub fn reader(&self) -> Reader<T> {
        let latest = self.shared.latest.lock().expect("no panic under this lock");
        let version = self.shared.version.load(Ordering::Acquire);
        Reader {
            shared: Arc::clone(&self.shared),
            version,
            seen: std::sync::Arc::clone(&latest),
        }
    }
}

impl<T> Reader<T> {
    /// The latest snapshot: one load where it hasn't changed.
    pub fn get(&mut self) -> &std::sync::Arc<T> {
        if self.shared.version.load(Ordering::Acquire) != self.version {
            let latest = self.shared.latest.lock().expect("no panic under this lock");
            self.version = self.shared.version.load(Ordering::Acquire);
            self.seen = std::sync::Arc::clone(&latest);
        }
        &self.seen
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            version: self.version,
            seen: std::sync::Arc::clone(&self.seen),
        }
    }
}

#[cfg(all(test, not(brokkr_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_last() {
        let owner = Published::new(1);
        let mut reader = owner.reader();
        let held = std::sync::Arc::clone(reader.get());
        owner.publish(2);
        owner.publish(3);
        assert_eq!((*held, **reader.get(), **owner.reader().get()), (1, 3, 3));
    }
}

#[cfg(all(test, brokkr_loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn what_a_reader_sees_never_goes_back_and_is_the_last_in_the_end() {
        loom::model(|| {
            let owner = Published::new(0);
            let mut reader = owner.reader();
            let t = loom::thread::spawn(move || {
                owner.publish(1);
                owner.publish(2);
                owner
            });
            let first = **reader.get();
            let second = **reader.get();
            assert!(first <= second);
            let owner = t.join().expect("the publisher ends");
            assert_eq!(**reader.get(), 2);
            drop(owner);
        });
    }
}
