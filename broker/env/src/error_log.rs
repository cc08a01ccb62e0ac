//! Rate-limited log of recurring errors: of peers, disks and logs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use crate::{Env, Instant};

/// Longest logged detail of an error, in characters.
const DETAIL_CHARS_MAX: usize = 512;
/// At most one line for each kind in this time.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Maximum of files, logs or folders with their own line for each kind.
const SUBJECTS_MAX: usize = 100;

/// Counts errors by kind. Logs the first of each kind, then at most one line in `LINE_EVERY` with the count of further
/// ones.
pub struct ErrorLog {
    now: Box<dyn Fn() -> Instant + Send + Sync>,
    kinds: Mutex<BTreeMap<&'static str, Kind>>,
}

struct Kind {
    times: u64,
    logged_times: u64,
    logged_at: Instant,
    /// Subjects that had their own line.
    subjects: BTreeSet<String>,
}

impl ErrorLog {
    /// An empty log.
    pub fn new<E: Env>(env: E) -> Self {
        Self {
            now: Box::new(move || env.now()),
            kinds: Mutex::default(),
        }
    }

    /// Records an error of this kind and logs at most one line for each kind in `LINE_EVERY`. `detail` may contain a
    /// peer's text.
    pub fn record(&self, kind: &'static str, detail: &dyn std::fmt::Display) {
        if let Some(times) = self.count(kind, (self.now)()) {
            let detail = one_line(&detail.to_string());
            if times == 1 {
                tracing::warn!(kind, %detail, "further ones of this kind are counted");
            } else {
                tracing::warn!(kind, times, %detail, "again");
            }
        }
    }

    /// Records an error of a file, log or folder (`subject`). Returns whether it is the first of this kind for the subject:
    /// then the caller logs its own line, because an operator must act. This holds for up to `SUBJECTS_MAX` subjects of a
    /// kind; further subjects and repetitions are logged as by [`ErrorLog::record`].
    pub fn is_first_of(&self, kind: &'static str, subject: &str) -> bool {
        let is_new = {
            let mut kinds = self.kinds.lock().expect("no panic under this lock");
            let kind = kinds.entry(kind).or_insert(Kind {
                times: 0,
                logged_times: 0,
                logged_at: (self.now)(),
                subjects: BTreeSet::new(),
            });
            let is_new = kind.subjects.len() < SUBJECTS_MAX && kind.subjects.insert(subject.to_owned());
            kind.times += u64::from(is_new);
            kind.logged_times += u64::from(is_new);
            is_new
        };
        if !is_new {
            self.record(kind, &subject);
        }
        is_new
    }

    /// Counts one error. Returns the count since the last line if a line is due.
    fn count(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock().expect("no panic under this lock");
        let first = !kinds.contains_key(kind);
        let entry = kinds.entry(kind).or_insert(Kind {
            times: 0,
            logged_times: 0,
            logged_at: now,
            subjects: BTreeSet::new(),
        });
        entry.times += 1;
        if !first && now < entry.logged_at + LINE_EVERY {
            return None;
        }
        let since = entry.times - entry.logged_times;
        (entry.logged_times, entry.logged_at) = (entry.times, now);
        Some(since)
    }

    /// The number of errors of each kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let kinds = self.kinds.lock().expect("no panic under this lock");
        kinds.iter().map(|(kind, k)| (*kind, k.times)).collect()
    }
}

/// Makes a text safe for a log line: clips it to [`DETAIL_CHARS_MAX`] characters and replaces control characters.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(DETAIL_CHARS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(DETAIL_CHARS_MAX).is_some() {
        line += " [clipped]";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokio::TokioEnv;

    #[test]
    fn a_line_for_each_kind_and_time() {
        let error_log = ErrorLog::new(TokioEnv::new(1));
        let at = |millis: u64| Instant::from_nanos(1) + Duration::from_millis(millis);
        assert_eq!(error_log.count("a", at(0)), Some(1));
        assert_eq!(error_log.count("b", at(1)), Some(1));
        for i in 0..9999 {
            assert_eq!(error_log.count("a", at(i)), None);
        }
        assert_eq!(error_log.count("a", at(10_000)), Some(10_000));
        assert_eq!(error_log.count("a", at(10_001)), None);
        assert_eq!(error_log.counts(), BTreeMap::from([("a", 10_002), ("b", 1)]));
    }

    #[test]
    fn each_file_has_a_line_of_its_own_once() {
        let error_log = ErrorLog::new(TokioEnv::new(1));
        let files: Vec<String> = (0..150).map(|n| n.to_string()).collect();
        let lines = || {
            files
                .iter()
                .filter(|file| error_log.is_first_of("damaged", file))
                .count()
        };
        assert_eq!((lines(), lines()), (SUBJECTS_MAX, 0));
        assert_eq!(error_log.counts(), BTreeMap::from([("damaged", 300)]));
    }

    #[test]
    fn a_peers_text_becomes_one_line_of_bounded_length() {
        assert_eq!(one_line("a\nb\u{1b}[2J"), "a\u{fffd}b\u{fffd}[2J");
        assert_eq!(one_line(&"é".repeat(600)), "é".repeat(512) + " [clipped]");
        assert_eq!(one_line(&"x".repeat(512)), "x".repeat(512));
    }
}
