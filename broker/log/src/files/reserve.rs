//! Disk space that a log directory reserves for operations that free space.
//!
//! Freeing space takes a write: the log start offset is raised in the manifest before a segment is removed, and a topic is deleted by a
//! record of the metadata log. On a full disk that write fails, and the disk would stay full forever. So a directory keeps
//! [`RESERVE_FILES`] files of [`RESERVE_FILE_BYTES`] zeros while there is space for them. An operation that frees space removes them one
//! by one until its write succeeds; appends never use them. They are created again once there is space.
//!
//! This relies on a file system that gives the blocks of a removed file to the next write (ext4, XFS, tmpfs). Another process may take
//! them first, so a file is many times larger than the write needs, and there are several.

use std::sync::atomic::{AtomicBool, Ordering};

use brokkr_env::{Dir, Env, ErrorKind, Result};
use bytes::Bytes;

const RESERVE_FILES: usize = 4;
const RESERVE_FILE_BYTES: usize = 1 << 20;
/// The content of a reserve file. Static and all zeros, so it takes neither space in the binary nor heap.
static ZEROS: [u8; RESERVE_FILE_BYTES] = [0; RESERVE_FILE_BYTES];
/// With less free space than this no reserve file is created.
const FREE_BYTES_MIN: u64 = 4 * (RESERVE_FILES * RESERVE_FILE_BYTES) as u64;

fn name(number: usize) -> String {
    format!("brokkr-reserve-{number}")
}

/// The reserve of one log directory.
#[derive(Default)]
pub(crate) struct Reserve {
    /// Whether all reserve files are there, so that [`Reserve::fill`] has nothing to do.
    complete: AtomicBool,
}

impl Reserve {
    /// Creates the reserve files that are missing, if there is space. Cheap when none is missing.
    pub(crate) async fn fill<E: Env>(&self, dir: &Dir<E>) -> Result<()> {
        if self.complete.load(Ordering::Relaxed) || dir.space().await?.0 < FREE_BYTES_MIN {
            return Ok(());
        }
        // BEFORE the files are created: a concurrent `release` clears it again.
        self.complete.store(true, Ordering::Relaxed);
        for number in 0..RESERVE_FILES {
            if let Err(error) = create(dir, &name(number)).await {
                self.complete.store(false, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes one reserve file. Returns whether there was one.
    pub(crate) async fn release<E: Env>(&self, dir: &Dir<E>) -> bool {
        for piece in 0..RESERVE_FILES {
            if dir.remove(&name(piece)).await.is_ok() {
                self.complete.store(false, Ordering::Relaxed);
                tracing::info!(piece, "the disk is full: a piece of the reserve is given up");
                return true;
            }
        }
        false
    }
}

async fn create<E: Env>(dir: &Dir<E>, name: &str) -> Result<()> {
    let file = match dir.open(name).await {
        Err(e) if e.kind() == ErrorKind::NotFound => dir.create(name).await?,
        other => other?,
    };
    let (len, full) = (file.len(), RESERVE_FILE_BYTES as u64);
    if len < full {
        let zeros = &ZEROS[..(full - len) as usize];
        file.write_at(len, vec![Bytes::from_static(zeros)]).await?;
    }
    Ok(())
}
