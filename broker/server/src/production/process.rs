//! Metrics of the process, with the names that Prometheus' client libraries use.

use std::fmt;

use procfs::process::Process;
use rustix::process::{Resource, getrlimit};

use super::families::Families;

/// Encodes the metrics of this process, without those that the system does not provide.
pub fn encode(families: &mut Families<'_>) -> fmt::Result {
    let Ok(process) = Process::myself() else {
        return Ok(());
    };
    if let Ok(stat) = process.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        families
            .counter(
                "process_cpu_seconds",
                "Processor time, user and system, in seconds.",
            )?
            .with_fraction(&[], (stat.utime + stat.stime) as f64 / ticks)?;
        families
            .gauge("process_virtual_memory_bytes", "Virtual memory, in bytes.")?
            .with(&[], stat.vsize)?;
        families
            .gauge("process_resident_memory_bytes", "Resident memory, in bytes.")?
            .with(&[], stat.rss * procfs::page_size())?;
        families
            .gauge("process_threads", "Threads.")?
            .with(&[], stat.num_threads)?;
        if let Ok(boot) = procfs::boot_time_secs() {
            families
                .gauge(
                    "process_start_time_seconds",
                    "When the process began, in seconds since 1970.",
                )?
                .with(&[], boot as f64 + stat.starttime as f64 / ticks)?;
        }
    }
    if let Ok(open) = process.fd_count() {
        families
            .gauge("process_open_fds", "Open file descriptors.")?
            .with(&[], open as u64)?;
    }
    // A system call, not a file of /proc: it works without a free descriptor.
    let max = getrlimit(Resource::Nofile).current;
    families
        .gauge("process_max_fds", "Limit of open file descriptors.")?
        .with(&[], max.map_or(f64::INFINITY, |max| max as f64))
}
