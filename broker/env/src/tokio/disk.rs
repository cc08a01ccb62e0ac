//! Files and directories of the operating system.

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use rustix::fs::FlockOperation;
use rustix::io::ReadWriteFlags;

use super::os_error::{is_short, os_error};
use super::pool::Pool;
use crate::{Done, Entry, EntryKind, Error, ErrorKind, RawDir, RawFile, Result, WriteFailure};

const LOCK: &str = ".lock";
/// Buffers in one call; the kernel's limit.
const PARTS_MAX: usize = 1024;

/// A file.
pub struct OsFile {
    shared: Arc<FileShared>,
    pool: Arc<Pool>,
}

struct FileShared {
    file: fs::File,
    path: PathBuf,
}

impl OsFile {
    /// The descriptor, for sendfile.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.file.as_fd()
    }

    /// Whether all these bytes are in memory according to the kernel; false if unknown.
    pub(super) fn resident(&self, at: u64, len: u32) -> bool {
        resident(&self.shared.file, at, u64::from(len))
    }

    /// Reads the bytes into the page cache, on the pool.
    pub(super) fn warm(&self, at: u64, len: u32, done: Done<Result<()>>) {
        let shared = Arc::clone(&self.shared);
        self.pool.run(Box::new(move || done(shared.warm(at, len))));
    }
}

impl FileShared {
    fn error(&self, op: &str, e: &io::Error) -> Error {
        os_error(&format!("{op} {}", self.path.display()), e)
    }

    fn write(&self, at: u64, parts: &[Bytes]) -> std::result::Result<(), WriteFailure> {
        let mut slices: Vec<IoSlice<'_>> = parts
            .iter()
            .filter(|p| !p.is_empty())
            .map(|p| IoSlice::new(p))
            .collect();
        let mut rest = &mut slices[..];
        let mut at = at;
        while !rest.is_empty() {
            let n = rest.len().min(PARTS_MAX);
            match rustix::io::pwritev(&self.file, &rest[..n], at) {
                Ok(0) => return Err(self.write_failure(&io::Error::from(io::ErrorKind::StorageFull))),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(self.write_failure(&e.into())),
            }
        }
        Ok(())
    }

    fn write_failure(&self, e: &io::Error) -> WriteFailure {
        let error = self.error("write", e);
        WriteFailure {
            // The kernel reports these only if the call wrote nothing.
            extent_known: matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Resources),
            error,
        }
    }

    fn read(&self, at: u64, len: u32) -> Result<Bytes> {
        let mut buf = BytesMut::zeroed(len as usize);
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error("read", &e)),
            }
        }
        buf.truncate(filled);
        Ok(buf.freeze())
    }

    fn warm(&self, at: u64, len: u32) -> Result<()> {
        const PIECE: usize = 128 * 1024;
        let mut scratch = vec![0; PIECE.min(len as usize)];
        let end = at + u64::from(len);
        let mut at = at;
        while at < end {
            let want = scratch.len().min((end - at) as usize);
            match self.file.read_at(&mut scratch[..want], at) {
                Ok(0) => break,
                Ok(n) => at += n as u64,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error("read", &e)),
            }
        }
        Ok(())
    }
}

impl RawFile for OsFile {
    fn write_at(&self, at: u64, parts: Vec<Bytes>, done: Done<std::result::Result<(), WriteFailure>>) {
        let shared = Arc::clone(&self.shared);
        self.pool.run(Box::new(move || {
            let result = shared.write(at, &parts);
            // BEFORE completion: the frame's memory is returned to its budget.
            drop(parts);
            done(result);
        }));
    }

    fn read_at(&self, at: u64, len: u32, done: Done<Result<Bytes>>) {
        let shared = Arc::clone(&self.shared);
        self.pool.run(Box::new(move || done(shared.read(at, len))));
    }

    fn read_resident(&self, at: u64, len: u32) -> Option<Bytes> {
        let mut buf = BytesMut::zeroed(len as usize);
        let mut parts = [io::IoSliceMut::new(&mut buf)];
        let n = rustix::io::preadv2(&self.shared.file, &mut parts, at, ReadWriteFlags::NOWAIT).ok()?;
        (n == buf.len()).then(|| buf.freeze())
    }

    fn sync(&self, done: Done<Result<()>>) {
        let shared = Arc::clone(&self.shared);
        self.pool.run(Box::new(move || {
            done(shared.file.sync_data().map_err(|e| shared.error("sync", &e)))
        }));
    }

    fn truncate(&self, len: u64, done: Done<Result<()>>) {
        let shared = Arc::clone(&self.shared);
        self.pool.run(Box::new(move || {
            done(shared.file.set_len(len).map_err(|e| shared.error("truncate", &e)))
        }));
    }
}

/// Creates a directory and its parents. Syncs the parent of each new one: otherwise a power loss could remove the directory
/// with everything synced in it.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if parent != path {
        create_durably(parent)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(e),
        _ => {}
    }
    fs::File::open(parent)?.sync_all()
}

/// Counts with `cachestat(2)` (Linux 6.5) the cached pages of the range.
fn resident(file: &fs::File, at: u64, len: u64) -> bool {
    const SYS_CACHESTAT: libc::c_long = 451;
    const PAGE: u64 = 4096;
    #[repr(C)]
    struct Range {
        off: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Stat {
        cache: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range { off: at, len };
    let mut stat = Stat::default();
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    // SAFETY: both structs have the kernel's layout and outlive the call, which writes nothing but `stat`.
    let r = unsafe { libc::syscall(SYS_CACHESTAT, fd, &raw const range, &raw mut stat, 0u32) };
    let pages = (at + len).div_ceil(PAGE) - at / PAGE;
    r == 0 && stat.cache >= pages
}

/// A directory with its pool of IO threads.
pub struct OsDir {
    shared: Arc<DirShared>,
    pool: Arc<Pool>,
}

struct DirShared {
    root: PathBuf,
    /// A spare descriptor, closed to sync a directory when no other descriptor is available.
    spare: Mutex<Option<fs::File>>,
    /// The locked file. The kernel closes it when the process ends.
    lock: Mutex<Option<Locked>>,
}

/// The lock file with its device and inode.
struct Locked {
    _file: fs::File,
    device: u64,
    inode: u64,
}

impl DirShared {
    /// Whether the path still leads to the locked directory, if it was locked.
    fn is_here(&self) -> Result<()> {
        let (device, inode) = match &*self.lock.lock().expect("no panic under this lock") {
            None => return Ok(()),
            Some(locked) => (locked.device, locked.inode),
        };
        let path = self.root.join(LOCK);
        let why = match fs::metadata(&path) {
            Ok(found) if (found.dev(), found.ino()) == (device, inode) => return Ok(()),
            Ok(_) => "another file than the one that was locked".to_owned(),
            Err(e) if is_short(&e) => return Err(os_error(&path.display().to_string(), &e)),
            Err(e) => e.to_string(),
        };
        let what = format!(
            "{}: {why}; the directory was unmounted, removed or replaced",
            path.display()
        );
        Err(Error::new(ErrorKind::Lost, what))
    }

    /// Syncs a directory. A failure to open it is not a sync failure and leaves nothing in doubt, so it is reported as
    /// [`ErrorKind::Resources`]. A failure of the sync itself is always an IO error.
    fn sync_dir(&self, path: &Path) -> Result<()> {
        let what = path.display().to_string();
        let dir = self.open_with_spare(path).map_err(|e| os_error(&what, &e))?;
        let synced = dir.sync_all();
        drop(dir);
        self.keep_spare();
        synced.map_err(|e| Error::new(ErrorKind::Io, format!("sync {what}: {e}")))
    }

    fn open_with_spare(&self, path: &Path) -> io::Result<fs::File> {
        match fs::File::open(path) {
            Err(e) if is_short(&e) => {
                drop(self.spare().take());
                fs::File::open(path)
            }
            other => other,
        }
    }

    fn keep_spare(&self) {
        let mut spare = self.spare();
        if spare.is_none() {
            *spare = fs::File::open(&self.root).ok();
        }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Option<fs::File>> {
        self.spare.lock().expect("no panic under this lock")
    }
}

/// An open-file-description record lock over the whole file. It conflicts with Java's `FileLock`, which Kafka uses and which
/// ignores `flock`.
fn record_lock(file: &fs::File) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    // SAFETY: the descriptor is open and the struct outlives the call, which only reads it.
    match unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) } {
        -1 => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EACCES) => Err(io::ErrorKind::WouldBlock.into()),
            e => Err(e),
        },
        _ => Ok(()),
    }
}

impl OsDir {
    pub(super) fn open(path: &str, io_threads: usize) -> Result<Self> {
        let root = PathBuf::from(path);
        create_durably(&root).map_err(|e| os_error(path, &e))?;
        let shared = DirShared {
            spare: Mutex::new(fs::File::open(&root).ok()),
            root,
            lock: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            pool: Arc::new(Pool::new(io_threads)),
        })
    }

    /// Changes directory entries, after a check that the path still leads to the locked directory.
    fn change<T: Send + 'static>(
        &self,
        path: &str,
        done: Done<Result<T>>,
        f: impl FnOnce(&DirShared, &Path) -> io::Result<T> + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        let path = shared.root.join(path);
        let change = move || {
            shared.is_here()?;
            f(&shared, &path).map_err(|e| os_error(&path.display().to_string(), &e))
        };
        self.pool.run(Box::new(move || done(change())));
    }

    fn run<T: Send + 'static>(
        &self,
        path: &str,
        done: Done<Result<T>>,
        f: impl FnOnce(&DirShared, &Path) -> io::Result<T> + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        let path = shared.root.join(path);
        self.pool.run(Box::new(move || {
            done(f(&shared, &path).map_err(|e| os_error(&path.display().to_string(), &e)));
        }));
    }
}

impl RawDir for OsDir {
    type File = OsFile;

    fn open(&self, path: &str, create: bool, done: Done<Result<(OsFile, u64)>>) {
        let pool = Arc::clone(&self.pool);
        let open = move |_: &DirShared, path: &Path| {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(create)
                .open(path)?;
            let len = file.metadata()?.len();
            let shared = FileShared {
                file,
                path: path.to_owned(),
            };
            Ok((
                OsFile {
                    shared: Arc::new(shared),
                    pool,
                },
                len,
            ))
        };
        if create {
            self.change(path, done, open);
        } else {
            self.run(path, done, open);
        }
    }

    fn rename(&self, from: &str, to: &str, done: Done<Result<()>>) {
        let to = self.shared.root.join(to);
        self.change(from, done, move |_, from| fs::rename(from, to));
    }

    fn remove(&self, path: &str, done: Done<Result<()>>) {
        self.change(path, done, |_, path| fs::remove_file(path));
    }

    fn create_dir(&self, path: &str, done: Done<Result<()>>) {
        self.change(path, done, |_, path| match fs::create_dir(path) {
            Err(_) if path.is_dir() => Ok(()),
            made => made,
        });
    }

    fn remove_dir(&self, path: &str, done: Done<Result<()>>) {
        self.change(path, done, |_, path| match path.is_symlink() {
            true => fs::remove_file(path),
            false => fs::remove_dir(path),
        });
    }

    fn list(&self, path: &str, done: Done<Result<Vec<Entry>>>) {
        self.run(path, done, |_, path| {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let found = entry.file_type()?;
                // A partition's folder may be a symbolic link to a directory.
                let kind = if found.is_dir() || found.is_symlink() && entry.path().is_dir() {
                    EntryKind::Dir
                } else {
                    EntryKind::File
                };
                // Brokkr creates no names that aren't UTF-8; skip them.
                if let Ok(name) = entry.file_name().into_string() {
                    entries.push(Entry { name, kind });
                }
            }
            entries.sort();
            Ok(entries)
        });
    }

    fn sync_dir(&self, path: &str, done: Done<Result<()>>) {
        let shared = Arc::clone(&self.shared);
        let path = shared.root.join(path);
        self.pool.run(Box::new(move || done(shared.sync_dir(&path))));
    }

    fn space(&self, done: Done<Result<(u64, u64)>>) {
        self.run("", done, |_, path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
        });
    }

    fn lock(&self, done: Done<Result<()>>) {
        self.run(LOCK, done, |shared, path| {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            record_lock(&file)?;
            let found = file.metadata()?;
            *shared.lock.lock().expect("no panic under this lock") = Some(Locked {
                device: found.dev(),
                inode: found.ino(),
                _file: file,
            });
            Ok(())
        });
    }
}
