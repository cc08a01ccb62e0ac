//! Events at which a fault can strike: what the broker does to files of a kind, bytes that it sends, rare states that it reaches.
//!
//! An operation on a file has two such events: it begins (nothing has happened to the disk yet), and it has had its effect (nobody
//! has been told). While a fault strikes, the broker's tasks do not run. All events are counted, so that a campaign can put a fault
//! at each of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Bytes are written to a file.
    Write,
    /// A file or a folder is synced.
    Sync,
    /// A file or a folder is created.
    Create,
    /// A file or a folder is renamed.
    Rename,
    /// A file or a folder is removed.
    Remove,
    /// A file is truncated.
    Truncate,
    /// The broker sends bytes to a client.
    Send,
    /// The broker's code reaches a rare state (`reached!`).
    Reached,
}

impl Act {
    /// Operations on names and lengths, and syncs: those after which a crash may leave another state behind.
    pub const OF_CRASH_POINTS: [Self; 5] = [
        Self::Sync,
        Self::Create,
        Self::Rename,
        Self::Remove,
        Self::Truncate,
    ];

    /// Its name in plans and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Create => "create",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Truncate => "truncate",
            Self::Send => "send",
            Self::Reached => "reached",
        }
    }
}

/// The event that a fault waits for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// What happens.
    pub act: Act,
    /// To which kind of file ([`kind_of`]); for `reached`, the state's name.
    pub of: String,
    /// How many such events pass before, from the fault's time on.
    #[serde(default)]
    pub nth: u64,
    /// After the operation's effect, instead of before it.
    #[serde(default)]
    pub after: bool,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { act, of, nth, after } = self;
        match act {
            Act::Reached => write!(f, "as {of:?} is reached, time {}", nth + 1),
            Act::Send => write!(f, "as bytes are sent to a client, time {}", nth + 1),
            _ => {
                let side = if *after { "after" } else { "before" };
                write!(f, "{side} {} {} of {}", act.name(), nth + 1, with_article(of))
            }
        }
    }
}

/// `a log`, `an index`.
pub fn with_article(of: &str) -> String {
    let article = if of.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {of}")
}

/// The kind of a file or folder, from its path.
pub fn kind_of(path: &str) -> &'static str {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let is_of_metadata = folder.ends_with("__cluster_metadata-0");
    match name {
        "brokkr-manifest" => "manifest",
        "leader-epoch-checkpoint" => "epochs",
        "partition.metadata" => "partition metadata",
        "meta.properties" => "meta properties",
        "quorum-state" => "quorum state",
        _ if name.ends_with("-checkpoint") => "checkpoint",
        _ if name.ends_with(".deleted") => "deleted file",
        _ => match name.rsplit_once('.').map(|(_, end)| end) {
            Some("log") if is_of_metadata => "metadata log",
            Some("log") => "log",
            Some("index") => "index",
            Some("timeindex") => "time index",
            Some("snapshot") => "producers",
            Some("window") => "window",
            Some("checkpoint") => "metadata snapshot",
            Some(end) if end.ends_with("-delete") => "deleted folder",
            None => "folder",
            Some(_) => "other",
        },
    }
}

/// A fault that waits.
struct Armed {
    fault: usize,
    trigger: Trigger,
    /// How many more such events pass.
    left: u64,
}

/// The counts of events in a run, and the faults that wait for one.
#[derive(Default)]
pub struct Triggers {
    counts: BTreeMap<(Act, &'static str), u64>,
    armed: Vec<Armed>,
    struck: Vec<usize>,
    is_over: bool,
    /// The node whose events count.
    pub node: u32,
    /// Notified when a fault must strike.
    pub notify: Arc<Notify>,
}

impl Triggers {
    /// Begins to count the events of a node.
    pub fn begin(&mut self, node: u32) {
        self.node = node;
        self.counts.clear();
    }

    /// From now on nothing is counted, and no fault strikes.
    pub fn end(&mut self) {
        self.armed.clear();
        self.struck.clear();
        self.is_over = true;
    }

    /// From now on the fault waits for its event.
    pub fn arm(&mut self, fault: usize, trigger: &Trigger) {
        self.armed.push(Armed {
            fault,
            trigger: trigger.clone(),
            left: trigger.nth,
        });
    }

    /// The faults that wait, each with the events that pass before it.
    pub(crate) fn armed(&self) -> impl Iterator<Item = (usize, u64)> {
        self.armed.iter().map(|a| (a.fault, a.left))
    }

    /// The fault no longer waits. Returns whether it did.
    pub fn disarm(&mut self, fault: usize) -> bool {
        let n = self.armed.len();
        self.armed.retain(|a| a.fault != fault);
        self.armed.len() < n
    }

    /// The operation begins or, with `after`, has had its effect. Returns whether a fault must strike now.
    #[must_use]
    pub fn operation(&mut self, act: Act, path: &str, after: bool) -> bool {
        if self.is_over {
            return false;
        }
        let of = kind_of(path);
        if !after {
            *self.counts.entry((act, of)).or_insert(0) += 1;
        }
        !self.armed.is_empty() && self.passes(act, of, after)
    }

    /// An event without an effect on the disk. Returns whether a fault must strike now.
    #[must_use]
    pub fn event(&mut self, act: Act, of: &str) -> bool {
        !self.armed.is_empty() && self.passes(act, of, false)
    }

    fn passes(&mut self, act: Act, of: &str, after: bool) -> bool {
        let n = self.armed.len();
        let struck = &mut self.struck;
        self.armed.retain_mut(|armed| {
            let trigger = &armed.trigger;
            if (trigger.act, &*trigger.of, trigger.after) != (act, of, after) {
                return true;
            }
            if armed.left > 0 {
                armed.left -= 1;
                return true;
            }
            struck.push(armed.fault);
            false
        });
        let strikes = self.armed.len() < n;
        if strikes {
            self.notify.notify_one();
        }
        strikes
    }

    /// The faults that must strike now.
    pub fn take_struck(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.struck)
    }

    /// How often each operation began, by its name and the kind of file.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let named = |((act, of), n): (&(Act, &str), &u64)| (format!("{} {of}", act.name()), *n);
        self.counts.iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(act: Act, of: &str, nth: u64, after: bool) -> Trigger {
        let of = of.to_owned();
        Trigger { act, of, nth, after }
    }

    #[test]
    fn files_have_kinds() {
        for (path, kind) in [
            ("data/t-0/00000000000000000000.log", "log"),
            (
                "data/__cluster_metadata-0/00000000000000000000.log",
                "metadata log",
            ),
            (
                "data/__cluster_metadata-0/00000000000000000007-0000000001.checkpoint.tmp",
                "metadata snapshot",
            ),
            ("data/t-0/00000000000000000000.timeindex", "time index"),
            ("data/t-0/brokkr-manifest.tmp", "manifest"),
            ("data/t-0/leader-epoch-checkpoint", "epochs"),
            ("data/brokkr-checkpoint.tmp", "checkpoint"),
            ("data/t-0/00000000000000000000.log.deleted", "deleted file"),
            (
                "data/t-0.0123456789abcdef0123456789abcdef-delete",
                "deleted folder",
            ),
            ("data/t-0", "folder"),
            ("data", "folder"),
        ] {
            assert_eq!(kind_of(path), kind, "{path}");
        }
    }

    #[test]
    fn a_fault_strikes_once_at_its_event() {
        let mut all = Triggers::default();
        all.arm(4, &trigger(Act::Sync, "log", 1, false));
        all.arm(5, &trigger(Act::Sync, "log", 0, true));
        let log = "data/t-0/00000000000000000000.log";
        assert!(!all.operation(Act::Sync, log, false));
        assert!(!all.operation(Act::Rename, log, true));
        assert!(all.operation(Act::Sync, log, true));
        assert_eq!(all.take_struck(), [5]);
        assert!(all.operation(Act::Sync, log, false));
        assert!(!all.operation(Act::Sync, log, false));
        assert_eq!(all.take_struck(), [4]);
        assert_eq!(all.counts(), [("sync log".to_owned(), 3)].into());
    }

    #[test]
    fn a_fault_that_is_disarmed_does_not_strike() {
        let mut all = Triggers::default();
        all.arm(1, &trigger(Act::Send, "", 0, false));
        assert!(all.disarm(1));
        assert!(!all.disarm(1));
        assert!(!all.event(Act::Send, ""));
        all.arm(1, &trigger(Act::Reached, "x", 0, false));
        all.end();
        assert!(!all.event(Act::Reached, "x"));
        assert_eq!(all.take_struck(), [0; 0]);
    }

    #[test]
    fn a_trigger_is_told_in_words() {
        assert_eq!(
            trigger(Act::Rename, "manifest", 2, true).to_string(),
            "after rename 3 of a manifest"
        );
        assert_eq!(
            trigger(Act::Reached, "a log went offline", 0, false).to_string(),
            "as \"a log went offline\" is reached, time 1"
        );
    }
}
