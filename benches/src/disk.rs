//! Probe of the disk's current speed, to compare flushed runs with.

use crate::error::BenchError;
use crate::produce;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The disk's current speed.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// Sequential writes with one sync at the end, in 10⁶ bytes a second.
    pub sequential_mb_per_s: f64,
    /// Appends of 4 KiB per second, each synced before the next.
    pub fdatasyncs_per_s: f64,
    /// 99th percentile of one such append with its sync.
    pub fdatasync_p99_ms: f64,
    /// Appends of 150 KB to six files at the same time, each synced before that file's next, in 10⁶ bytes a second: the upper
    /// bound of `produce-64k`, without a broker, a network or a load.
    pub grouped_mb_per_s: f64,
}

impl std::fmt::Display for DiskSpeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.0} MB/s in sequence, {:.0} fdatasync/s (p99 {:.2} ms), {:.0} MB/s in {GROUPS} files synced each {} KB",
            self.sequential_mb_per_s,
            self.fdatasyncs_per_s,
            self.fdatasync_p99_ms,
            self.grouped_mb_per_s,
            GROUP_BYTES / 1000
        )
    }
}

const BLOCK_BYTES: usize = 1 << 20;
const SEQUENTIAL_TIME: Duration = Duration::from_secs(1);
const SEQUENTIAL_BYTES_MAX: u64 = 512 << 20;
const SYNCS_TIME: Duration = Duration::from_secs(1);
const APPEND_BYTES: usize = 4 << 10;
const GROUPS: usize = 6;
/// Half of the batches that `produce-64k` has in flight for a partition.
const GROUP_BYTES: usize = 150_000;
const GROUPS_TIME: Duration = Duration::from_secs(1);

/// Takes about three seconds and up to 512 MiB of disk space in each of them, which it frees.
pub fn probe(dir: &Path) -> Result<DiskSpeed, BenchError> {
    let path = dir.join(format!("brokkr-bench-disk.{}", std::process::id()));
    let one = measure(&path).map_err(BenchError::io(format!("probing {}", dir.display())));
    fs::remove_file(&path).map_err(BenchError::io(format!("removing {}", path.display())))?;
    let grouped_mb_per_s = measure_groups(&path)?;
    one.map(|speed| DiskSpeed {
        grouped_mb_per_s,
        ..speed
    })
}

fn measure_groups(path: &Path) -> Result<f64, BenchError> {
    let paths: Vec<PathBuf> = (0..GROUPS).map(|i| path.with_extension(i.to_string())).collect();
    let begin = Instant::now();
    let written: std::io::Result<Vec<u64>> = std::thread::scope(|scope| {
        let writers: Vec<_> = paths
            .iter()
            .map(|path| {
                scope.spawn(move || {
                    let (file, block, mut written) = (File::create(path)?, vec![7; GROUP_BYTES], 0);
                    while begin.elapsed() < GROUPS_TIME {
                        file.write_all_at(&block, written)?;
                        file.sync_data()?;
                        written += GROUP_BYTES as u64;
                    }
                    Ok(written)
                })
            })
            .collect();
        let ended = writers
            .into_iter()
            .map(|w| w.join().expect("the thread panicked"));
        ended.collect()
    });
    let took = begin.elapsed();
    for path in &paths {
        fs::remove_file(path).map_err(BenchError::io(format!("removing {}", path.display())))?;
    }
    let written = written.map_err(BenchError::io(format!("probing {}", path.display())))?;
    Ok(written.iter().sum::<u64>() as f64 / 1e6 / took.as_secs_f64())
}

/// Measures everything but the parallel files.
fn measure(path: &Path) -> std::io::Result<DiskSpeed> {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..BLOCK_BYTES).map(|i| (i * 31) as u8).collect();
    let (begin, mut written) = (Instant::now(), 0);
    while begin.elapsed() < SEQUENTIAL_TIME && written < SEQUENTIAL_BYTES_MAX {
        file.write_all(&block)?;
        // Otherwise the page cache takes all writes, and the one sync at the end takes the measurement's time.
        if written % (64 << 20) == 0 {
            file.sync_data()?;
        }
        written += BLOCK_BYTES as u64;
    }
    file.sync_data()?;
    let sequential_mb_per_s = written as f64 / 1e6 / begin.elapsed().as_secs_f64();

    let (begin, mut times) = (Instant::now(), produce::histogram());
    while begin.elapsed() < SYNCS_TIME {
        let one = Instant::now();
        file.write_all_at(&block[..APPEND_BYTES], written)?;
        file.sync_data()?;
        produce::record(&mut times, one.elapsed());
        written += APPEND_BYTES as u64;
    }
    Ok(DiskSpeed {
        sequential_mb_per_s,
        fdatasyncs_per_s: times.len() as f64 / begin.elapsed().as_secs_f64(),
        fdatasync_p99_ms: times.value_at_quantile(0.99) as f64 / 1e6,
        grouped_mb_per_s: 0.0,
    })
}
