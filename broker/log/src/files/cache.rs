//! The open files of a log directory that no log holds by itself: sealed segments and indexes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use brokkr_env::{Dir, Env, ErrorKind, File, Result};

/// Open files of sealed segments and indexes. The least recently used one is closed first, but never one in use: each
/// file has at most one [`File`], which orders its operations and keeps it from being truncated under a range that is
/// being sent.
///
/// The lock is not taken for recent records: the active segment's file is in every snapshot.
pub(crate) struct FileCache<E: Env> {
    pub(crate) dir: Dir<E>,
    open_files_max: usize,
    state: Mutex<CacheState<E>>,
}

struct CacheState<E: Env> {
    open: BTreeMap<Box<str>, (u64, File<E>)>,
    uses: u64,
    /// Counts calls of `forget`. If it changed while a file was being opened, the name may now be another file.
    forgotten: u64,
}

impl<E: Env> Default for CacheState<E> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            uses: 0,
            forgotten: 0,
        }
    }
}

impl<E: Env> FileCache<E> {
    pub(crate) fn new(dir: Dir<E>, open_files_max: usize) -> Self {
        Self {
            dir,
            open_files_max,
            state: Mutex::default(),
        }
    }

    /// The number of open files.
    pub(crate) fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// Opens an existing file.
    pub(crate) async fn open(&self, path: &str) -> Result<File<E>> {
        loop {
            let forgotten = match self.get(path) {
                Ok(file) => return Ok(file),
                Err(forgotten) => forgotten,
            };
            let file = match self.dir.open(path).await {
                Err(e) if e.kind() == ErrorKind::Resources && self.close_idle() => continue,
                other => other?,
            };
            if let Some(file) = self.insert_opened(path, file, forgotten) {
                return Ok(file);
            }
        }
    }

    /// Opens a file; creates it if it doesn't exist.
    pub(crate) async fn open_or_create(&self, path: &str) -> Result<File<E>> {
        match self.open(path).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                drop(self.dir.create(path).await?);
                self.open(path).await
            }
            other => other,
        }
    }

    /// Closes the files that are not in use, when the process has no file descriptor left. Returns whether there were
    /// any.
    fn close_idle(&self) -> bool {
        let mut state = self.lock();
        let before = state.open.len();
        state.open.retain(|_, (_, file)| file.is_shared());
        state.open.len() < before
    }

    /// Adds a file that is open already.
    pub(crate) fn insert(&self, file: File<E>) {
        let path = file.path().to_owned();
        self.lock().insert(&path, file, self.open_files_max);
    }

    /// Removes a name, AFTER its file was renamed or removed: the next open finds the file that then has the name.
    pub(crate) fn forget(&self, path: &str) {
        let mut state = self.lock();
        state.forgotten += 1;
        state.open.remove(path);
    }

    /// [`FileCache::forget`] for every file in a folder.
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

    fn insert_opened(&self, path: &str, file: File<E>, forgotten: u64) -> Option<File<E>> {
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

    fn lock(&self) -> std::sync::MutexGuard<'_, CacheState<E>> {
        self.state.lock().expect("no panic under this lock")
    }
}

impl<E: Env> CacheState<E> {
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
