//! A file with ordered operations, a proof of durability, and ranges on their way to a socket, over the raw file of either
//! world.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lane::{Lane, Op, OpId, Step};
use super::raw::{Poison, RawDir, RawFile, Storage, WriteFailure};
use crate::submitted::{Completer, Submitted, submitted};
use crate::{Error, ErrorKind, Result};

/// Identifies an open file within a [`crate::Dir`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileId(pub(super) u64);

/// Proof that a file's bytes up to [`Durable::len`] survive a power loss, unless a later truncate cuts them.
///
/// Only [`File::sync`] creates it, and only if the sync and all operations before it succeeded, the file's directory entry
/// included. It can't be constructed elsewhere:
///
/// ```compile_fail
/// fn forge(file: brokkr_env::FileId) -> brokkr_env::Durable {
///     brokkr_env::Durable { file, truncations: 0, len: 1 << 40 }
/// }
/// ```
/// ```compile_fail
/// let proof: brokkr_env::Durable = Default::default();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durable {
    file: FileId,
    truncations: u64,
    len: u64,
}

impl Durable {
    /// The file that it covers.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// The file's count of truncations when the sync was submitted.
    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    /// The durable length.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the durable length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// An open file. Clones share it. Each call submits its operation, in call order; see the crate's rules.
pub struct File<S: Storage> {
    inner: Arc<FileInner<S>>,
}

impl<S: Storage> Clone for File<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

struct FileInner<S: Storage> {
    raw: S::RawFile,
    dir: Arc<S::RawDir>,
    poison: Arc<Poison>,
    path: Box<str>,
    id: FileId,
    /// Whether the directory entry is known to survive a power loss.
    entry_durable: AtomicBool,
    /// Whether a range of it could not be read while it was sent.
    suspect: AtomicBool,
    state: Mutex<FileState>,
}

struct FileState {
    lane: Lane,
    waiting: Vec<(OpId, PendingOp)>,
}

/// The arguments and the completer of an operation that has not started.
enum PendingOp {
    Write(u64, Vec<Bytes>, Completer<()>),
    Truncate(u64, Completer<()>),
    Sync(u64, u64, Completer<Durable>),
    Read(u64, u32, Completer<Bytes>),
}

impl<S: Storage> File<S> {
    pub(super) fn new(
        raw: S::RawFile,
        len: u64,
        dir: Arc<S::RawDir>,
        poison: Arc<Poison>,
        path: &str,
        id: FileId,
        entry_durable: bool,
    ) -> Self {
        let state = FileState {
            lane: Lane::new(len),
            waiting: Vec::new(),
        };
        Self {
            inner: Arc::new(FileInner {
                raw,
                dir,
                poison,
                path: path.into(),
                id,
                entry_durable: AtomicBool::new(entry_durable),
                suspect: AtomicBool::new(false),
                state: Mutex::new(state),
            }),
        }
    }

    /// Its id, as in a [`Durable`].
    pub fn id(&self) -> FileId {
        self.inner.id
    }

    /// Its path within the directory, as it was when it was opened.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// Its length after all submitted operations, assuming that they succeed.
    pub fn len(&self) -> u64 {
        self.inner.lock().lane.len()
    }

    /// Whether that length is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many truncations were submitted. A [`Durable`] with another count may cover bytes that were cut since.
    pub fn truncations(&self) -> u64 {
        self.inner.lock().lane.truncations()
    }

    /// Writes `parts` one after the other from `at` on. `at` is at most the length: files have no holes.
    ///
    /// Not durable until a [`File::sync`] submitted later succeeds. If the write fails, the file is cut back to its length
    /// before the write, and operations queued after it fail with [`ErrorKind::Preceding`].
    pub fn write_at(&self, at: u64, parts: Vec<Bytes>) -> Submitted<()> {
        let len = parts.iter().map(|p| p.len() as u64).sum();
        let (completer, handle) = submitted();
        if let Err(e) = self.inner.poison.check() {
            completer.complete(Err(e));
            return handle;
        }
        self.inner
            .submit(Op::Write { at, len }, PendingOp::Write(at, parts, completer));
        handle
    }

    /// Reads `len` bytes from `at` on; [`ErrorKind::UnexpectedEof`] if the file ends earlier.
    pub fn read_at(&self, at: u64, len: u32) -> Submitted<Bytes> {
        let (completer, handle) = submitted();
        self.inner.submit(
            Op::Read {
                at,
                len: u64::from(len),
            },
            PendingOp::Read(at, len, completer),
        );
        handle
    }

    /// The bytes, if they are written and available without waiting for a device.
    pub fn read_resident(&self, at: u64, len: u32) -> Option<Bytes> {
        let good = self.inner.lock().lane.len_good();
        if at + u64::from(len) > good {
            return None;
        }
        self.inner
            .raw
            .read_resident(at, len)
            .filter(|b| b.len() == len as usize)
    }

    /// Makes everything submitted before this call durable: bytes, truncations, and the file's directory entry. Later writes
    /// may run concurrently and are not covered. A failure poisons the directory and is never retried, except
    /// [`ErrorKind::Resources`]: then the bytes are synced but the directory entry is not, and the caller may sync again.
    pub fn sync(&self) -> Submitted<Durable> {
        let (completer, handle) = submitted();
        if let Err(e) = self.inner.poison.check() {
            completer.complete(Err(e));
            return handle;
        }
        let mut state = self.inner.lock();
        let (len, truncations) = (state.lane.len(), state.lane.truncations());
        let steps = state.submit(Op::Sync, PendingOp::Sync(len, truncations, completer));
        drop(state);
        self.inner.run(steps);
        handle
    }

    /// Cuts the file to `len`, which is at most its length. Waits for ranges over the tail. Not durable until a sync.
    pub fn truncate(&self, len: u64) -> Submitted<()> {
        let (completer, handle) = submitted();
        if let Err(e) = self.inner.poison.check() {
            completer.complete(Err(e));
            return handle;
        }
        self.inner
            .submit(Op::Truncate { len }, PendingOp::Truncate(len, completer));
        handle
    }

    /// A range of `len` written bytes from `at` on, for [`crate::Part::Range`]; it is read when it is sent. The range pins
    /// the file, and delays truncates that would cut it until it is dropped.
    ///
    /// In the real world the range is dropped once the kernel holds references to all its pages. A later truncate still
    /// changes the page of the new end, which a slow peer may not have received. So use ranges only for bytes that are never
    /// cut (below the high watermark); send copies of others (to followers).
    pub fn range(&self, at: u64, len: u32) -> FileRange<S> {
        let pin = self.inner.lock().lane.range_begins(at + u64::from(len));
        FileRange {
            file: self.clone(),
            at,
            len,
            pin,
        }
    }

    /// [`File::range`] for a reader with a possibly stale snapshot: `None` if the bytes aren't written, or if the file's
    /// count of truncations differs from the snapshot's `truncations`.
    pub fn range_unless_cut(&self, at: u64, len: u32, truncations: u64) -> Option<FileRange<S>> {
        let mut state = self.inner.lock();
        let end = at + u64::from(len);
        if state.lane.truncations() != truncations || end > state.lane.len_good() {
            return None;
        }
        let pin = state.lane.range_begins(end);
        drop(state);
        Some(FileRange {
            file: self.clone(),
            at,
            len,
            pin,
        })
    }

    /// Marks the file: a range of it could not be read while it was sent, and the connection was closed. Readers of the file
    /// then read its bytes before they promise them to a peer.
    pub fn suspect(&self) {
        self.inner.suspect.store(true, Ordering::Relaxed);
    }

    /// See [`File::suspect`].
    pub fn is_suspect(&self) -> bool {
        self.inner.suspect.load(Ordering::Relaxed)
    }

    /// Whether anything else uses the file: a clone, a range, or an unfinished operation.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    fn unpin(&self, pin: u64) {
        let mut state = self.inner.lock();
        let mut steps = Vec::new();
        state.lane.range_ends(pin, &mut steps);
        let jobs = state.take(steps);
        drop(state);
        self.inner.run(jobs);
    }
}

/// A written range of a file on its way to a socket. Pins the file and delays truncates of the range; see [`File::range`].
pub struct FileRange<S: Storage> {
    file: File<S>,
    at: u64,
    len: u32,
    pin: u64,
}

impl<S: Storage> FileRange<S> {
    /// The file.
    pub fn file(&self) -> &File<S> {
        &self.file
    }

    /// For worlds: the raw file to read from when the range is sent.
    pub fn raw(&self) -> &S::RawFile {
        &self.file.inner.raw
    }

    /// Position in the file of the first byte.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Length in bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<S: Storage> Drop for FileRange<S> {
    fn drop(&mut self) {
        self.file.unpin(self.pin);
    }
}

impl<S: Storage> fmt::Debug for FileRange<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}..+{}]", self.file.path(), self.at, self.len)
    }
}

/// A step of the lane with its arguments.
enum Act {
    Start(OpId, PendingOp),
    Refuse(PendingOp),
    CutBack(u64),
}

impl FileState {
    fn submit(&mut self, op: Op, job: PendingOp) -> Vec<Act> {
        let mut steps = Vec::new();
        let id = self.lane.submit(op, &mut steps);
        self.waiting.push((id, job));
        self.take(steps)
    }

    fn take(&mut self, steps: Vec<Step>) -> Vec<Act> {
        let mut job = |id| {
            let i = self
                .waiting
                .iter()
                .position(|(w, _)| *w == id)
                .expect("a started operation was submitted");
            self.waiting.remove(i).1
        };
        steps
            .into_iter()
            .map(|step| match step {
                Step::Start(id) => Act::Start(id, job(id)),
                Step::Refuse(id) => Act::Refuse(job(id)),
                Step::CutBack(len) => Act::CutBack(len),
            })
            .collect()
    }
}

impl<S: Storage> FileInner<S> {
    fn lock(&self) -> std::sync::MutexGuard<'_, FileState> {
        self.state.lock().expect("no panic under this lock")
    }

    fn submit(self: &Arc<Self>, op: Op, job: PendingOp) {
        let acts = self.lock().submit(op, job);
        self.run(acts);
    }

    /// Executes the lane's steps, outside its lock: a raw file may complete during the call.
    fn run(self: &Arc<Self>, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Start(id, job) => self.start(id, job),
                Act::Refuse(job) => self.refuse(job),
                Act::CutBack(len) => self.cut_back(len),
            }
        }
    }

    fn start(self: &Arc<Self>, id: OpId, job: PendingOp) {
        let me = Arc::clone(self);
        match job {
            PendingOp::Write(at, parts, completer) => {
                self.raw
                    .write_at(at, parts, Box::new(move |r| me.wrote(id, at, r, completer)));
            }
            PendingOp::Truncate(len, completer) => self.raw.truncate(
                len,
                Box::new(move |r| {
                    if let Err(e) = &r {
                        me.poison.set(e);
                    }
                    me.lane_ended(id, r.is_ok());
                    completer.complete(r);
                }),
            ),
            PendingOp::Sync(len, truncations, completer) => {
                let proof = Durable {
                    file: self.id,
                    truncations,
                    len,
                };
                self.raw.sync(Box::new(move |r| me.synced(r, proof, completer)));
            }
            PendingOp::Read(at, len, completer) => self.raw.read_at(
                at,
                len,
                Box::new(move |r| {
                    completer.complete(r.and_then(|b| me.whole(at, len, b)));
                }),
            ),
        }
    }

    fn wrote(
        self: &Arc<Self>,
        id: OpId,
        at: u64,
        result: std::result::Result<(), WriteFailure>,
        completer: Completer<()>,
    ) {
        let result = result.map_err(|failure| {
            // A cut can't restore overwritten bytes.
            let over = at < self.lock().lane.len_good();
            if !failure.extent_known || over {
                brokkr_types::reached!("a failed write poisoned its directory");
                self.poison.set(&failure.error);
            }
            failure.error
        });
        self.lane_ended(id, result.is_ok());
        completer.complete(result);
    }

    fn lane_ended(self: &Arc<Self>, id: OpId, well: bool) {
        let mut steps = Vec::new();
        let mut state = self.lock();
        state.lane.ended(id, well, &mut steps);
        let acts = state.take(steps);
        drop(state);
        self.run(acts);
    }

    fn cut_back(self: &Arc<Self>, len: u64) {
        if self.poison.get().is_some() {
            // The bytes past the good length stay: nothing is written any more, and recovery will check them.
            return self.cut_back_ended();
        }
        let me = Arc::clone(self);
        self.raw.truncate(
            len,
            Box::new(move |r| {
                if let Err(e) = r {
                    me.poison.set(&e);
                }
                me.cut_back_ended();
            }),
        );
    }

    fn cut_back_ended(self: &Arc<Self>) {
        let mut steps = Vec::new();
        let mut state = self.lock();
        state.lane.cut_back_ended(&mut steps);
        let acts = state.take(steps);
        drop(state);
        self.run(acts);
    }

    fn synced(self: &Arc<Self>, result: Result<()>, proof: Durable, completer: Completer<Durable>) {
        if let Err(e) = result {
            brokkr_types::reached!("a sync failed and poisoned its directory");
            self.poison.set(&e);
            return completer.complete(Err(e));
        }
        if self.entry_durable.load(Ordering::Acquire) {
            return self.mint(proof, completer);
        }
        let parent = self.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let me = Arc::clone(self);
        self.dir.sync_dir(
            parent,
            Box::new(move |r| match r {
                Ok(()) => {
                    me.entry_durable.store(true, Ordering::Release);
                    me.mint(proof, completer);
                }
                // The file is synced. A directory that could not be opened leaves nothing in doubt; the next sync retries.
                Err(e) if e.kind() == ErrorKind::Resources => completer.complete(Err(e)),
                Err(e) => {
                    me.poison.set(&e);
                    completer.complete(Err(e));
                }
            }),
        );
    }

    /// Checks the poison again BEFORE it creates the proof: another sync may have failed meanwhile, and the kernel may have
    /// dropped pages that this proof covers.
    fn mint(&self, proof: Durable, completer: Completer<Durable>) {
        completer.complete(self.poison.check().map(|()| proof));
    }

    fn whole(&self, at: u64, len: u32, bytes: Bytes) -> Result<Bytes> {
        if bytes.len() == len as usize {
            return Ok(bytes);
        }
        let what = format!("{}: {len} bytes wanted at {at}, {} there", self.path, bytes.len());
        Err(Error::new(ErrorKind::UnexpectedEof, what))
    }

    fn refuse(&self, job: PendingOp) {
        let what = || {
            Error::new(
                ErrorKind::Preceding,
                format!("{}: an earlier operation failed", self.path),
            )
        };
        match job {
            PendingOp::Write(.., c) | PendingOp::Truncate(_, c) => c.complete(Err(what())),
            PendingOp::Sync(.., c) => c.complete(Err(what())),
            PendingOp::Read(.., c) => c.complete(Err(what())),
        }
    }
}

impl<S: Storage> fmt::Debug for File<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({}, {} bytes)", self.path(), self.len())
    }
}
