//! What the disk does just now: the yardstick beside every flushed run.

use crate::error::BenchError;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A disk's speed in this minute.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// Written in one sequence, and synced at its end, in 10⁶ bytes a second.
    pub sequential_mb_per_s: f64,
    /// Appends of 4 KiB, each synced before the next.
    pub fdatasyncs_per_s: f64,
}

const BLOCK_BYTES: usize = 1 << 20;
const SEQUENTIAL_TIME: Duration = Duration::from_secs(1);
const SEQUENTIAL_BYTES_MAX: u64 = 512 << 20;
const SYNCS_TIME: Duration = Duration::from_secs(1);
const APPEND_BYTES: usize = 4 << 10;

/// Takes about two seconds and up to 512 MiB, which are freed again.
pub fn probe(dir: &Path) -> Result<DiskSpeed, BenchError> {
    let path = dir.join(format!("brokkr-bench-disk.{}", std::process::id()));
    let speed = measure(&path).map_err(BenchError::io(format!("probing {}", dir.display())));
    fs::remove_file(&path).map_err(BenchError::io(format!("removing {}", path.display())))?;
    speed
}

fn measure(path: &Path) -> std::io::Result<DiskSpeed> {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..BLOCK_BYTES).map(|i| (i * 31) as u8).collect();
    let (begin, mut written) = (Instant::now(), 0);
    while begin.elapsed() < SEQUENTIAL_TIME && written < SEQUENTIAL_BYTES_MAX {
        file.write_all(&block)?;
        // Without this the page cache takes all of it, and the one sync at the end takes the measurement's time.
        if written % (64 << 20) == 0 {
            file.sync_data()?;
        }
        written += BLOCK_BYTES as u64;
    }
    file.sync_data()?;
    let sequential_mb_per_s = written as f64 / 1e6 / begin.elapsed().as_secs_f64();

    let (begin, mut syncs) = (Instant::now(), 0_u32);
    while begin.elapsed() < SYNCS_TIME {
        file.write_all_at(&block[..APPEND_BYTES], written)?;
        file.sync_data()?;
        written += APPEND_BYTES as u64;
        syncs += 1;
    }
    let fdatasyncs_per_s = f64::from(syncs) / begin.elapsed().as_secs_f64();
    Ok(DiskSpeed {
        sequential_mb_per_s,
        fdatasyncs_per_s,
    })
}
