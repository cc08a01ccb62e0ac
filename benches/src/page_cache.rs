//! Control of the kernel's page cache.

use crate::error::BenchError;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Waits until all written data is on the disk, so that one run's writes don't slow down the next.
pub fn write_back() {
    // SAFETY: sync takes nothing and cannot fail.
    unsafe { libc::sync() }
}

/// Evicts a topic's segments from the page cache.
pub fn evict(log_dir: &Path, topic: &str) -> Result<(), BenchError> {
    let failed = || format!("dropping {topic} in {} from the page cache", log_dir.display());
    let mut dropped = 0;
    for dir in fs::read_dir(log_dir).map_err(BenchError::io(failed()))? {
        let dir = dir.map_err(BenchError::io(failed()))?;
        let name = dir.file_name();
        let index = name
            .to_str()
            .and_then(|n| n.strip_prefix(topic)?.strip_prefix('-'));
        if index.is_none_or(|index| index.parse::<u32>().is_err()) {
            continue;
        }
        for file in fs::read_dir(dir.path()).map_err(BenchError::io(failed()))? {
            let path = file.map_err(BenchError::io(failed()))?.path();
            if path.extension().is_some_and(|e| e == "log") {
                evict_file(&path).map_err(BenchError::io(failed()))?;
                dropped += 1;
            }
        }
    }
    if dropped == 0 {
        let problem = format!(
            "{} has no directory of {topic}: is it the log directory?",
            log_dir.display()
        );
        return Err(BenchError::Usage(problem));
    }
    Ok(())
}

fn evict_file(path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    // The advice leaves dirty pages in the cache.
    file.sync_data()?;
    // SAFETY: the descriptor is open, and the advice changes no data.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}
