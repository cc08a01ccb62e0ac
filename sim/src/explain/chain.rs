//! The chain of wakeups that led to an event.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::line::{cut, seconds};
use crate::exec::Nanos;
use crate::trace::{Event, EventKind};

/// Links that are shown.
const LINKS_MAX: usize = 24;

/// A run of a task or a timer.
pub struct WakeupLink {
    /// The event that caused it, or 0.
    pub by: u64,
    /// When.
    pub t: Nanos,
    /// The node.
    pub node: u32,
    /// The task; none for a timer.
    pub task: Option<Cow<'static, str>>,
    /// A note about a device's action at that time.
    pub note: Option<&'static str>,
}

impl WakeupLink {
    /// The task, or the action of a device.
    pub fn who(&self) -> String {
        match (&self.task, self.note) {
            (Some(task), None) => task.to_string(),
            (Some(task), Some(note)) => format!("{task} {note}"),
            (None, note) => note.unwrap_or("a timer fires").to_owned(),
        }
    }
}

/// The cause of each run of a task and of each timer.
#[derive(Default)]
pub struct Causes(BTreeMap<u64, WakeupLink>);

impl Causes {
    /// The run or timer with this number.
    pub fn get(&self, n: u64) -> Option<&WakeupLink> {
        self.0.get(&n)
    }

    /// Records an event, if it can be a cause.
    pub fn take(&mut self, event: &Event) {
        match event.what {
            EventKind::Run | EventKind::Timer => {
                let link = WakeupLink {
                    by: event.by.unwrap_or(0),
                    t: event.t,
                    node: event.node,
                    task: event.task.clone(),
                    note: None,
                };
                self.0.insert(event.n, link);
            }
            EventKind::Spawn { .. } => {
                // The first run of a new task is caused by the task that spawned it.
                let by = event.by.unwrap_or(0);
                if let Some(link) = self.0.get(&by) {
                    let link = WakeupLink {
                        by,
                        t: event.t,
                        node: event.node,
                        task: link.task.clone(),
                        note: Some("made the next one"),
                    };
                    self.0.insert(event.n, link);
                }
            }
            EventKind::Arrive { .. } => self.note(event, "bytes arrive"),
            EventKind::Wrote { .. } => self.note(event, "a write is in the page cache"),
            EventKind::Synced { error: None, .. } => self.note(event, "a sync has ended"),
            EventKind::Synced { .. } => self.note(event, "a sync has failed"),
            _ => {}
        }
    }

    fn note(&mut self, event: &Event, note: &'static str) {
        if let Some(link) = event.by.and_then(|by| self.0.get_mut(&by)) {
            link.note = Some(note);
        }
    }

    /// Prints the chain that led to `last`, starting at the run `begin` if the chain reaches it, with the tasks' actions on the
    /// way. Returns its numbers, the last one first.
    pub fn write_chain(
        &self,
        text: &mut String,
        begin: Option<u64>,
        last: &Event,
        events: &[Event],
    ) -> Vec<u64> {
        let mut links = Vec::new();
        let mut at = last.by.unwrap_or(0);
        while let Some(link) = self.0.get(&at).filter(|_| links.len() < LINKS_MAX) {
            links.push((at, link));
            if Some(at) == begin {
                break;
            }
            at = link.by;
        }
        let numbers = links.iter().map(|(n, _)| *n).collect();
        for (n, link) in links.into_iter().rev() {
            let _ = writeln!(text, "  {} node {:<3} {}", seconds(link.t), link.node, link.who());
            let done = events.iter().filter(|e| e.by == Some(n) && is_action(&e.what));
            for event in done {
                let _ = writeln!(text, "  {:>13}          {}", "", cut(&event.what.to_string()));
            }
        }
        numbers
    }
}

/// Whether a task's action on the way is worth showing.
fn is_action(what: &EventKind) -> bool {
    matches!(
        what,
        EventKind::Request { .. }
            | EventKind::Response { .. }
            | EventKind::Write { .. }
            | EventKind::Sync { .. }
            | EventKind::Panic { .. }
    )
}
