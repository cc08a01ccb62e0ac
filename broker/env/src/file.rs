//! A file with an order of operations and a proof of durability, over either world's raw file.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::conn::FileRange;
use crate::lane::{Lane, Op, OpId, Step};
use crate::raw::{Poison, RawDir, RawFile, WriteFailure};
use crate::submitted::{Completer, Submitted, submitted};
use crate::{Env, Error, ErrorKind, Result};

/// Tells one opened file from another within an [`crate::Dir`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileId(pub(crate) u64);

/// Proof that a file's bytes up to [`Durable::len`] survive a power loss, while no truncation since has cut them.
///
/// Minted by [`File::sync`] alone, and by it only when the sync and everything before it ended well, the file's directory
/// entry included. It can't be built elsewhere:
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
    /// The file it speaks of.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// How many truncations the file had seen.
    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    /// The length that is durable.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// An open file. Cloning shares it. Each operation is submitted by the call, in call order; see the crate's rules.
pub struct File<E: Env> {
    inner: Arc<Inner<E>>,
}

impl<E: Env> Clone for File<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

struct Inner<E: Env> {
    raw: E::RawFile,
    dir: Arc<E::RawDir>,
    poison: Arc<Poison>,
    path: Box<str>,
    id: FileId,
    /// Whether the directory entry is known to survive a power loss.
    entry_durable: AtomicBool,
    /// Whether bytes of it could not be read when they were to leave.
    suspect: AtomicBool,
    state: Mutex<State>,
}

struct State {
    lane: Lane,
    waiting: Vec<(OpId, Job)>,
}

/// What an operation carries until it is begun.
enum Job {
    Write(u64, Vec<Bytes>, Completer<()>),
    Truncate(u64, Completer<()>),
    Sync(u64, u64, Completer<Durable>),
    Read(u64, u32, Completer<Bytes>),
}

impl<E: Env> File<E> {
    pub(crate) fn new(
        raw: E::RawFile,
        len: u64,
        dir: Arc<E::RawDir>,
        poison: Arc<Poison>,
        path: &str,
        id: FileId,
        entry_durable: bool,
    ) -> Self {
        let state = State {
            lane: Lane::new(len),
            waiting: Vec::new(),
        };
        Self {
            inner: Arc::new(Inner {
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

    /// Its length once all that was submitted has ended well.
    pub fn len(&self) -> u64 {
        self.inner.lock().lane.len()
    }

    /// Whether that is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many truncations were submitted. A [`Durable`] of another count may speak of bytes that are gone.
    pub fn truncations(&self) -> u64 {
        self.inner.lock().lane.truncations()
    }

    /// Writes `parts` one behind the other from `at` on, which is at most the length: no holes.
    ///
    /// Not durable before a [`File::sync`] submitted later has ended. When it fails the file is cut back to the length
    /// before it, and what was submitted behind it fails with [`ErrorKind::Preceding`].
    pub fn write_at(&self, at: u64, parts: Vec<Bytes>) -> Submitted<()> {
        let len = parts.iter().map(|p| p.len() as u64).sum();
        let (completer, handle) = submitted();
        if let Err(e) = self.inner.poison.check() {
            completer.complete(Err(e));
            return handle;
        }
        self.inner
            .submit(Op::Write { at, len }, Job::Write(at, parts, completer));
        handle
    }

    /// Reads `len` bytes from `at` on; [`ErrorKind::UnexpectedEof`] if the file ends before.
    pub fn read_at(&self, at: u64, len: u32) -> Submitted<Bytes> {
        let (completer, handle) = submitted();
        self.inner.submit(
            Op::Read {
                at,
                len: u64::from(len),
            },
            Job::Read(at, len, completer),
        );
        handle
    }

    /// The bytes, if they are written and can be had without waiting for a device.
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

    /// Makes everything submitted before this call durable: bytes, truncations, and the file's directory entry. Later
    /// writes may run beside it, and are not covered. Its failure poisons the directory; it is never retried. But for
    /// [`ErrorKind::Resources`]: then the bytes are synced and the directory entry is not, and it may be asked again.
    pub fn sync(&self) -> Submitted<Durable> {
        let (completer, handle) = submitted();
        if let Err(e) = self.inner.poison.check() {
            completer.complete(Err(e));
            return handle;
        }
        let mut state = self.inner.lock();
        let (len, truncations) = (state.lane.len(), state.lane.truncations());
        let steps = state.submit(Op::Sync, Job::Sync(len, truncations, completer));
        drop(state);
        self.inner.run(steps);
        handle
    }

    /// Cuts the file to `len`, which is at most its length. Waits for ranges over the tail. Not durable before a sync.
    pub fn truncate(&self, len: u64) -> Submitted<()> {
        let (completer, handle) = submitted();
        if let Err(e) = self.inner.poison.check() {
            completer.complete(Err(e));
            return handle;
        }
        self.inner
            .submit(Op::Truncate { len }, Job::Truncate(len, completer));
        handle
    }

    /// `len` written bytes from `at` on, for [`crate::Part::Range`]: read when they leave. Pins the file, and holds back
    /// every truncate of them until it is dropped.
    ///
    /// In the real world it is dropped when the kernel has all of it, by reference: a truncate after that still changes
    /// what a slow peer gets of the page that the new end is in. So ranges are for bytes that no rule of ours cuts (those
    /// below the high watermark); who may be sent others (a follower) is sent copies.
    pub fn range(&self, at: u64, len: u32) -> FileRange<E> {
        let pin = self.inner.lock().lane.range_begins(at + u64::from(len));
        FileRange::new(self.clone(), at, len, pin)
    }

    /// [`File::range`] for who looks at a snapshot that may be stale: `None` where the bytes aren't written, or where the
    /// file has seen other truncates than the `truncations` of the snapshot.
    pub fn range_unless_cut(&self, at: u64, len: u32, truncations: u64) -> Option<FileRange<E>> {
        let mut state = self.inner.lock();
        let end = at + u64::from(len);
        if state.lane.truncations() != truncations || end > state.lane.len_good() {
            return None;
        }
        let pin = state.lane.range_begins(end);
        drop(state);
        Some(FileRange::new(self.clone(), at, len, pin))
    }

    /// Bytes of a range could not be read when they were to leave, and the connection that had been promised them was lost. Whoever
    /// promises more of this file from now on reads it first.
    pub fn suspect(&self) {
        self.inner.suspect.store(true, Ordering::Relaxed);
    }

    /// See [`File::suspect`].
    pub fn is_suspect(&self) -> bool {
        self.inner.suspect.load(Ordering::Relaxed)
    }

    /// Whether anybody but the holder of this handle has the file: a clone, a range, an operation that has not ended.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    pub(crate) fn unpin(&self, pin: u64) {
        let mut state = self.inner.lock();
        let mut steps = Vec::new();
        state.lane.range_ends(pin, &mut steps);
        let jobs = state.take(steps);
        drop(state);
        self.inner.run(jobs);
    }

    pub(crate) fn raw(&self) -> &E::RawFile {
        &self.inner.raw
    }
}

/// A step with what it needs.
enum Act {
    Start(OpId, Job),
    Refuse(Job),
    CutBack(u64),
}

impl State {
    fn submit(&mut self, op: Op, job: Job) -> Vec<Act> {
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
                .expect("what begins was submitted");
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

impl<E: Env> Inner<E> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    fn submit(self: &Arc<Self>, op: Op, job: Job) {
        let acts = self.lock().submit(op, job);
        self.run(acts);
    }

    /// Does what the lane said, outside its lock: a raw file may call back at once.
    fn run(self: &Arc<Self>, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Start(id, job) => self.start(id, job),
                Act::Refuse(job) => self.refuse(job),
                Act::CutBack(len) => self.cut_back(len),
            }
        }
    }

    fn start(self: &Arc<Self>, id: OpId, job: Job) {
        let me = Arc::clone(self);
        match job {
            Job::Write(at, parts, completer) => {
                self.raw
                    .write_at(at, parts, Box::new(move |r| me.wrote(id, at, r, completer)));
            }
            Job::Truncate(len, completer) => self.raw.truncate(
                len,
                Box::new(move |r| {
                    if let Err(e) = &r {
                        me.poison.set(e);
                    }
                    me.lane_ended(id, r.is_ok());
                    completer.complete(r);
                }),
            ),
            Job::Sync(len, truncations, completer) => {
                let proof = Durable {
                    file: self.id,
                    truncations,
                    len,
                };
                self.raw.sync(Box::new(move |r| me.synced(r, proof, completer)));
            }
            Job::Read(at, len, completer) => self.raw.read_at(
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
            // Bytes that were overwritten can't be brought back by a cut.
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
            // What lies past the good length stays: nothing is written any more, and recovery will judge it.
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
                // The file is synced; that its directory could not be opened puts nothing in doubt, and the next sync tries again.
                Err(e) if e.kind() == ErrorKind::Resources => completer.complete(Err(e)),
                Err(e) => {
                    me.poison.set(&e);
                    completer.complete(Err(e));
                }
            }),
        );
    }

    /// BEFORE a proof is handed out the poison is looked at once more: another sync may have failed meanwhile and taken
    /// with it pages that this one vouched for.
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

    fn refuse(&self, job: Job) {
        let what = || {
            Error::new(
                ErrorKind::Preceding,
                format!("{}: an earlier operation failed", self.path),
            )
        };
        match job {
            Job::Write(.., c) | Job::Truncate(_, c) => c.complete(Err(what())),
            Job::Sync(.., c) => c.complete(Err(what())),
            Job::Read(.., c) => c.complete(Err(what())),
        }
    }
}

impl<E: Env> fmt::Debug for File<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({}, {} bytes)", self.path(), self.len())
    }
}
