//! A process's resource usage, from `/proc`.

use crate::error::BenchError;
use std::fs;

/// A process's resource usage so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time.
    pub cpu_s: f64,
    /// Resident memory now.
    pub resident_bytes: u64,
    /// Peak of resident memory.
    pub resident_peak_bytes: u64,
}

/// Reads `/proc/PID/{stat,status}`.
pub fn usage(pid: i32) -> Result<Usage, BenchError> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).map_err(BenchError::io(path))
    };
    // SAFETY: sysconf reads a constant.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let usage = parse(&read("stat")?, &read("status")?, ticks_per_s as f64);
    usage.ok_or_else(|| BenchError::Usage(format!("/proc/{pid}: fields are missing")))
}

/// CPU time of this process.
pub fn own_cpu_s() -> f64 {
    // SAFETY: getrusage fills the structure that it is given, and all zeros are a valid value of it.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut used);
        used
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

fn parse(stat: &str, status: &str, ticks_per_s: f64) -> Option<Usage> {
    // The name in parentheses may contain anything, including spaces; utime and stime are fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    };
    Some(Usage {
        cpu_s: (ticks()? + ticks()?) / ticks_per_s,
        resident_bytes: kib("VmRSS:")?,
        resident_peak_bytes: kib("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_nothing() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 9 0 5 1000 20";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = Usage {
            cpu_s: 4.0,
            resident_bytes: 1 << 20,
            resident_peak_bytes: 2 << 20,
        };
        assert_eq!(parse(stat, status, 100.0), Some(expected));
    }

    #[test]
    fn missing_fields_are_an_error() {
        assert_eq!(parse("7 (x) S 1 2", "VmRSS: 1 kB\nVmHWM: 1 kB", 100.0), None);
    }
}
