//! An immutable snapshot that one task publishes and many read.
//!
//! The owner replaces the whole snapshot. A reader keeps its snapshot and compares one counter to detect a newer one; its
//! snapshot never changes. (`tokio::sync::watch` would do, but draws from a process-global seed.)

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

/// The owner's end: publishes snapshots.
pub struct Published<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    version: AtomicU64,
    latest: Mutex<std::sync::Arc<T>>,
}

/// A reader that caches the latest snapshot, for a task that reads it often. A clone starts without a cached snapshot.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    version: u64,
    seen: Option<std::sync::Arc<T>>,
}

/// A reader without a cached snapshot: for long-lived holders, which must not pin old snapshots. Clones share it.
pub struct Latest<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Published<T> {
    /// Creates it with a first snapshot.
    pub fn new(first: T) -> Self {
        let latest = Mutex::new(std::sync::Arc::new(first));
        Self {
            shared: Arc::new(Shared {
                version: AtomicU64::new(0),
                latest,
            }),
        }
    }

    /// Publishes the next snapshot. A read after this call returns it or a later one.
    pub fn publish(&self, next: T) {
        let next = std::sync::Arc::new(next);
        let mut latest = self.shared.latest.lock().expect("no panic under this lock");
        *latest = next;
        // BEFORE the lock is released: a reader that sees the new version finds the new snapshot.
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// A new reader.
    pub fn reader(&self) -> Reader<T> {
        Reader {
            shared: Arc::clone(&self.shared),
            version: 0,
            seen: None,
        }
    }

    /// A new reader that caches nothing.
    pub fn latest(&self) -> Latest<T> {
        Latest {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Reader<T> {
    /// The latest snapshot: one atomic load if it hasn't changed.
    pub fn get(&mut self) -> &std::sync::Arc<T> {
        if self.shared.version.load(Ordering::Acquire) != self.version {
            self.seen = None;
        }
        self.seen.get_or_insert_with(|| {
            let latest = self.shared.latest.lock().expect("no panic under this lock");
            self.version = self.shared.version.load(Ordering::Acquire);
            std::sync::Arc::clone(&latest)
        })
    }

    /// Drops the cached snapshot until the next [`Reader::get`].
    pub fn release(&mut self) {
        self.seen = None;
    }
}

impl<T> Latest<T> {
    /// The latest snapshot.
    pub fn get(&self) -> std::sync::Arc<T> {
        std::sync::Arc::clone(&self.shared.latest.lock().expect("no panic under this lock"))
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            version: self.version,
            seen: None,
        }
    }
}

#[cfg(all(test, not(brokkr_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_the_last_published_snapshot() {
        let owner = Published::new(1);
        let mut reader = owner.reader();
        let held = std::sync::Arc::clone(reader.get());
        owner.publish(2);
        owner.publish(3);
        assert_eq!((*held, **reader.get(), **owner.reader().get()), (1, 3, 3));
    }

    #[test]
    fn released_and_uncached_snapshots_are_not_pinned() {
        let owner = Published::new(std::sync::Arc::new(()));
        let first = std::sync::Arc::downgrade(owner.reader().get());
        let (mut reader, latest) = (owner.reader(), owner.latest());
        drop((std::sync::Arc::clone(reader.get()), latest.get(), latest.clone()));
        owner.publish(std::sync::Arc::new(()));
        assert!(first.upgrade().is_some(), "the reader keeps its last snapshot");
        reader.release();
        assert!(first.upgrade().is_none());
        assert!(std::sync::Arc::ptr_eq(reader.get(), &latest.get()));
    }
}

#[cfg(all(test, brokkr_loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn a_reader_never_goes_back_and_ends_at_the_last_snapshot() {
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
