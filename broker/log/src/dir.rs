//! A log directory as its logs share it: the world, the directory, and its open files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr_env::{Dir, Env, ErrorKind, ErrorLog, File, Result};
use brokkr_types::Histogram;

use crate::producers::ProducerRoom;
use crate::reserve::Reserve;

/// A log directory, shared by the logs in it. Cheap to clone.
pub struct LogDir<E: Env> {
    pub(crate) env: E,
    pub(crate) dir: Dir<E>,
    pub(crate) files: Arc<Files<E>>,
    pub(crate) producer_room: ProducerRoom,
    /// What a failing disk repeats, once for every log, file or write.
    pub(crate) error_log: Arc<ErrorLog>,
    pub(crate) syncs: Arc<Histogram>,
}

impl<E: Env> Clone for LogDir<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            dir: self.dir.clone(),
            files: Arc::clone(&self.files),
            producer_room: self.producer_room.clone(),
            error_log: Arc::clone(&self.error_log),
            syncs: Arc::clone(&self.syncs),
        }
    }
}

impl<E: Env> LogDir<E> {
    /// The logs of `dir`. Of files that aren't appended to, at most `open_files_max` stay open while nobody reads them;
    /// each log has one more, its active segment.
    pub fn new(env: E, dir: Dir<E>, open_files_max: usize) -> Self {
        let files = Arc::new(Files {
            dir: dir.clone(),
            open_files_max,
            state: Mutex::default(),
            reserve: Reserve::default(),
        });
        Self {
            error_log: Arc::new(ErrorLog::new(env.clone())),
            env,
            dir,
            files,
            producer_room: ProducerRoom::new(usize::MAX),
            syncs: Arc::default(),
        }
    }

    /// With room for producers that its logs share with others.
    pub fn with_producer_room(self, producer_room: ProducerRoom) -> Self {
        Self {
            producer_room,
            ..self
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Dir<E> {
        &self.dir
    }

    /// The syncs behind appends that ended well, of all its logs, and how long each took from its submission: the end of the write before
    /// it included.
    pub fn syncs(&self) -> &Histogram {
        &self.syncs
    }

    /// How many files are open that no log appends to.
    pub fn open_files(&self) -> usize {
        self.files.lock().open.len()
    }

    /// Does something to the directory after a while, unless nobody has its logs any more by then.
    pub(crate) fn later<F>(
        &self,
        name: &'static str,
        after: Duration,
        todo: impl FnOnce(Dir<E>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let (env, files) = (self.env.clone(), Arc::downgrade(&self.files));
        let at = env.now() + after;
        let waiting = env.clone();
        drop(env.spawn(name, async move {
            waiting.sleep_until(at).await;
            if let Some(files) = files.upgrade() {
                let dir = files.dir.clone();
                drop(files);
                todo(dir).await;
            }
        }));
    }

    /// The world.
    pub fn env(&self) -> &E {
        &self.env
    }
}

/// The open files that no log holds by itself: sealed segments and indexes. The least recently used is closed first, but
/// never one that somebody still has: of each file there is one [`File`] at most, since its order of operations, and the
/// rule that no tail is cut under a range on its way, are that object's.
///
/// The lock is on no warm record's path: the active segment's file is in every snapshot.
pub(crate) struct Files<E: Env> {
    pub(crate) dir: Dir<E>,
    open_files_max: usize,
    state: Mutex<State<E>>,
    pub(crate) reserve: Reserve,
}

struct State<E: Env> {
    open: BTreeMap<Box<str>, (u64, File<E>)>,
    uses: u64,
    /// How often a name was forgotten: what was being opened meanwhile may be another file by now.
    forgotten: u64,
}

impl<E: Env> Default for State<E> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            uses: 0,
            forgotten: 0,
        }
    }
}

impl<E: Env> Files<E> {
    /// The file of this name, which must exist.
    pub(crate) async fn open(&self, path: &str) -> Result<File<E>> {
        loop {
            let forgotten = match self.get(path) {
                Ok(file) => return Ok(file),
                Err(forgotten) => forgotten,
            };
            let file = match self.dir.open(path).await {
                Err(e) if e.kind() == ErrorKind::Resources && self.let_go() => continue,
                other => other?,
            };
            if let Some(file) = self.put(path, file, forgotten) {
                return Ok(file);
            }
        }
    }

    /// The file of this name, made if it doesn't exist.
    pub(crate) async fn open_or_create(&self, path: &str) -> Result<File<E>> {
        match self.open(path).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                drop(self.dir.create(path).await?);
                self.open(path).await
            }
            other => other,
        }
    }

    /// Closes the files that nobody reads: the machine has no descriptor left. Whether there were any.
    fn let_go(&self) -> bool {
        let mut state = self.lock();
        let before = state.open.len();
        state.open.retain(|_, (_, file)| file.is_shared());
        state.open.len() < before
    }

    /// Takes over a file that was open elsewhere.
    pub(crate) fn insert(&self, file: File<E>) {
        let path = file.path().to_owned();
        self.lock().insert(&path, file, self.open_files_max);
    }

    /// Lets go of a name AFTER its file was renamed or removed: the next to open it gets what is there then.
    pub(crate) fn forget(&self, path: &str) {
        let mut state = self.lock();
        state.forgotten += 1;
        state.open.remove(path);
    }

    /// [`Files::forget`] for everything in a folder.
    pub(crate) fn forget_folder(&self, folder: &str) {
        let mut state = self.lock();
        state.forgotten += 1;
        state
            .open
            .retain(|path, _| path.split_once('/').is_none_or(|(of, _)| of != folder));
    }

    fn get(&self, path: &str) -> std::result::Result<File<E>, u64> {
        let mut state = self.lock();
        state.uses += 1;
        let (uses, forgotten) = (state.uses, state.forgotten);
        let (used, file) = state.open.get_mut(path).ok_or(forgotten)?;
        *used = uses;
        Ok(file.clone())
    }

    fn put(&self, path: &str, file: File<E>, forgotten: u64) -> Option<File<E>> {
        let mut state = self.lock();
        if state.forgotten != forgotten {
            return None;
        }
        if let Some((_, first)) = state.open.get(path) {
            return Some(first.clone());
        }
        state.insert(path, file.clone(), self.open_files_max);
        Some(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<E>> {
        self.state.lock().expect("no panic under this lock")
    }
}

impl<E: Env> State<E> {
    fn insert(&mut self, path: &str, file: File<E>, open_files_max: usize) {
        self.uses += 1;
        self.open.insert(path.into(), (self.uses, file));
        while self.open.len() > open_files_max {
            let idle = self.open.iter().filter(|(_, (_, file))| !file.is_shared());
            let Some(oldest) = idle
                .min_by_key(|(_, (used, _))| *used)
                .map(|(path, _)| path.clone())
            else {
                break;
            };
            self.open.remove(&oldest);
        }
    }
}
