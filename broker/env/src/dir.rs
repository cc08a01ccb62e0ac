//! A log directory: its files, its lock, its poison.
//!
//! Where a directory is mounted on another, or was removed, its path leads elsewhere while files of it stay open. So what makes,
//! renames and removes names looks first whether the directory still is the one that was locked ([`ErrorKind::Lost`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::file::{File, FileId};
use crate::raw::{Done, Poison, RawDir};
use crate::submitted::{Submitted, submitted};
use crate::{Env, Error, ErrorKind, Result};

/// What an [`Entry`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Dir,
}

/// Something in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// An open directory. Cloning shares it, its poison included. Paths are relative to it, with `/` between their parts.
pub struct Dir<E: Env> {
    raw: Arc<E::RawDir>,
    poison: Arc<Poison>,
    next_file: Arc<AtomicU64>,
}

impl<E: Env> Clone for Dir<E> {
    fn clone(&self) -> Self {
        Self {
            raw: Arc::clone(&self.raw),
            poison: Arc::clone(&self.poison),
            next_file: Arc::clone(&self.next_file),
        }
    }
}

impl<E: Env> Dir<E> {
    /// For worlds: wraps the raw directory.
    pub fn new(raw: E::RawDir) -> Self {
        Self {
            raw: Arc::new(raw),
            poison: Arc::default(),
            next_file: Arc::default(),
        }
    }

    /// Why the directory may not be written any more, if so.
    pub fn poisoned(&self) -> Option<Error> {
        self.poison.get()
    }

    /// Waits until the directory may not be written any more. Cancel-safe.
    pub async fn until_poisoned(&self) -> Error {
        self.poison.wait().await
    }

    /// Opens a file that exists.
    ///
    /// Whether its directory entry survives a power loss is not known: its first sync makes it so.
    pub async fn open(&self, path: &str) -> Result<File<E>> {
        let (raw, len) = self.call(|d, done| d.open(path, false, done)).await?;
        Ok(self.file(raw, len, path))
    }

    /// Makes a file, which must not exist. Its directory entry is durable with its first [`crate::Durable`].
    pub async fn create(&self, path: &str) -> Result<File<E>> {
        self.poison.check()?;
        let (raw, len) = self.call(|d, done| d.open(path, true, done)).await?;
        Ok(self.file(raw, len, path))
    }

    /// Opens a file, making it if it doesn't exist.
    pub async fn open_or_create(&self, path: &str) -> Result<File<E>> {
        match self.open(path).await {
            Err(e) if e.kind() == ErrorKind::NotFound => self.create(path).await,
            other => other,
        }
    }

    fn file(&self, raw: E::RawFile, len: u64, path: &str) -> File<E> {
        self.file_with(raw, len, path, false)
    }

    fn file_with(&self, raw: E::RawFile, len: u64, path: &str, entry_durable: bool) -> File<E> {
        let id = FileId(self.next_file.fetch_add(1, Ordering::Relaxed));
        File::new(
            raw,
            len,
            Arc::clone(&self.raw),
            Arc::clone(&self.poison),
            path,
            id,
            entry_durable,
        )
    }

    /// All of a file's bytes, at most `len_max` of them.
    pub async fn read(&self, path: &str, len_max: u32) -> Result<Bytes> {
        let file = self.open(path).await?;
        match u32::try_from(file.len()) {
            Ok(len) if len <= len_max => file.read_at(0, len).await,
            _ => Err(Error::new(
                ErrorKind::Io,
                format!("{path}: {} bytes, at most {len_max}", file.len()),
            )),
        }
    }

    /// Puts a file with these bytes in place of the one at `path`, if any: whole and durable, or not at all.
    ///
    /// Written under another name and synced BEFORE it is renamed, and the directory after (SCENARIOS R5).
    pub async fn replace(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.replace_all(parent(path), vec![(path.to_owned(), bytes)])
            .await
    }

    /// [`Dir::replace`] for files of one directory, `folder`, whose syncs run beside each other. Each is there whole or not at all; after
    /// a failure, or a crash, some may be there and others not.
    pub async fn replace_all(&self, folder: &str, files: Vec<(String, Bytes)>) -> Result<()> {
        let mut writing = Vec::with_capacity(files.len());
        for (path, bytes) in files {
            assert_eq!(parent(&path), folder, "one directory is synced");
            let scratch = format!("{path}.tmp");
            match self.remove(&scratch).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            self.poison.check()?;
            let (raw, len) = self.call(|d, done| d.open(&scratch, true, done)).await?;
            // The name under which it is written need not survive: the directory is synced once, after the renames.
            let file = self.file_with(raw, len, &scratch, true);
            let written = file.write_at(0, vec![bytes]);
            writing.push((scratch, path, written, file.sync()));
        }
        // BEFORE a failure is returned: a failed sync is never left unseen.
        let mut ended = Ok(());
        let mut names = Vec::with_capacity(writing.len());
        for (scratch, path, written, synced) in writing {
            let written = written.await;
            let synced = synced.await;
            ended = ended.and(written).and(synced.map(drop));
            names.push((scratch, path));
        }
        ended?;
        for (scratch, path) in names {
            self.rename(&scratch, &path).await?;
        }
        self.sync_dir(folder).await
    }

    /// Renames a file or directory, replacing a file of that name. Durable with [`Dir::sync_dir`] of both parents.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.rename(from, to, done)).await
    }

    /// Removes a file. Durable with [`Dir::sync_dir`] of its parent. Who has it open keeps it.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.remove(path, done)).await
    }

    /// Makes a directory; fine if it exists. Durable with [`Dir::sync_dir`] of its parent.
    pub async fn create_dir(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.create_dir(path, done)).await
    }

    /// Removes a directory, which must be empty.
    pub async fn remove_dir(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        self.call(|d, done| d.remove_dir(path, done)).await
    }

    /// What is in a directory (`""` is this one), sorted by name.
    pub async fn list(&self, path: &str) -> Result<Vec<Entry>> {
        self.call(|d, done| d.list(path, done)).await
    }

    /// Makes what was created, renamed and removed in a directory durable. Its failure poisons; that the directory could not be
    /// opened for it ([`ErrorKind::Resources`]) does not.
    pub async fn sync_dir(&self, path: &str) -> Result<()> {
        self.poison.check()?;
        let result = self.call(|d, done| d.sync_dir(path, done)).await;
        if let Err(e) = &result
            && !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Resources)
        {
            self.poison.set(e);
        }
        result
    }

    /// Bytes that can still be written, and bytes in all.
    pub async fn space(&self) -> Result<(u64, u64)> {
        self.call(|d, done| d.space(done)).await
    }

    /// Takes the directory for this process: [`ErrorKind::InUse`] if another has it. The owner's death releases it.
    pub async fn lock(&self) -> Result<()> {
        self.call(|d, done| d.lock(done)).await
    }

    fn call<T: Send + 'static>(&self, f: impl FnOnce(&E::RawDir, Done<Result<T>>)) -> Submitted<T> {
        let (completer, handle) = submitted();
        let poison = Arc::clone(&self.poison);
        let done = move |result: Result<T>| {
            if let Err(e) = &result
                && e.kind() == ErrorKind::Lost
            {
                poison.set(e);
            }
            completer.complete(result);
        };
        f(&self.raw, Box::new(done));
        handle
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
