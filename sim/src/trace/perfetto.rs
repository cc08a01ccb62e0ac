//! Traces in the trace-event format, which ui.perfetto.dev and chrome://tracing open.
//!
//! A process is a node, a thread a task (thread 0: the node's timers and devices); arrows lead from the event that woke a task to
//! the task's run. Operations with a duration (a life of a node, a client's operation, a write, a sync) are spans. A task's run
//! takes no time in the world; it is drawn as one nanosecond, and the events of one moment are drawn a nanosecond apart (`args.t`
//! has the true time).
//!
//! Format: "Trace Event Format", the JSON that the Chromium project's catapult describes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Event, EventKind, Sink};

/// The position of an event: process, thread and time.
#[derive(Clone, Copy)]
struct Position {
    ts: u64,
    pid: u32,
    tid: u64,
}

/// Writes one document.
pub struct Perfetto<W> {
    out: W,
    begun: bool,
    last_ts: u64,
    /// Positions of events that may be causes.
    causes: BTreeMap<u64, Position>,
    /// Open spans: by operation, with their nodes.
    writes: BTreeMap<u64, u32>,
    nodes: BTreeMap<u32, String>,
    named: BTreeMap<(u32, u64), ()>,
}

impl<W: Write + Send> Perfetto<W> {
    /// Writes to `out`; `nodes` are the nodes' names.
    pub fn new(out: W, nodes: BTreeMap<u32, String>) -> Self {
        Self {
            out,
            begun: false,
            last_ts: 0,
            causes: BTreeMap::new(),
            writes: BTreeMap::new(),
            nodes,
            named: BTreeMap::new(),
        }
    }

    fn put(&mut self, value: &Value) -> io::Result<()> {
        self.out.write_all(if self.begun { b",\n" } else { b"[\n" })?;
        self.begun = true;
        serde_json::to_writer(&mut self.out, value)?;
        Ok(())
    }

    /// Names a thread at its first event.
    fn name(&mut self, event: &Event, place: Position) -> io::Result<()> {
        if self.named.insert((place.pid, place.tid), ()).is_some() {
            return Ok(());
        }
        let (pid, tid) = (place.pid, place.tid);
        let mut named: Vec<(&str, Value)> = Vec::new();
        if self.named.insert((pid, u64::MAX), ()).is_none() {
            let name = self
                .nodes
                .get(&pid)
                .cloned()
                .unwrap_or_else(|| format!("node {pid}"));
            named.push(("process_name", json!({"name": name})));
            named.push(("process_sort_index", json!({"sort_index": pid})));
        }
        let task = match &event.task {
            None => "timers and devices".to_owned(),
            Some(task) if event.life == 0 => task.to_string(),
            Some(task) => format!("{task} (life {})", event.life),
        };
        named.push(("thread_name", json!({"name": task})));
        named.push(("thread_sort_index", json!({"sort_index": tid})));
        for (what, args) in named {
            self.put(&json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}))?;
        }
        Ok(())
    }

    /// Draws the arrow from a cause to the run that it woke.
    fn arrow(&mut self, event: &Event, place: Position) -> io::Result<()> {
        let Some(from) = event.by.and_then(|by| self.causes.get(&by).copied()) else {
            return Ok(());
        };
        for (ph, at) in [("s", from), ("f", place)] {
            let mut arrow = json!({
                "ph": ph, "id": event.n, "name": "wakes", "cat": "cause", "pid": at.pid, "tid": at.tid, "ts": micros(at.ts)
            });
            if ph == "f" {
                arrow["bp"] = json!("e");
            }
            self.put(&arrow)?;
        }
        Ok(())
    }

    /// Begins or ends a span that belongs to no thread.
    fn span(&mut self, ph: &str, cat: &str, id: &str, name: &str, pid: u32, event: &Event) -> io::Result<()> {
        self.put(&json!({
            "ph": ph, "cat": cat, "id": id, "name": name, "pid": pid, "tid": 0, "ts": micros(self.last_ts),
            "args": {"n": event.n, "t": event.t}
        }))
    }

    fn spans(&mut self, event: &Event) -> io::Result<()> {
        let pid = event.node;
        match &event.what {
            EventKind::Write {
                write, file, at, len, ..
            } => {
                self.writes.insert(*write, pid);
                let name = format!("write {file} {at}+{len}");
                self.span("b", "disk", &format!("w{write}"), &name, pid, event)
            }
            EventKind::Wrote {
                write, file, at, len, ..
            } => {
                let pid = self.writes.remove(write).unwrap_or(pid);
                let name = format!("write {file} {at}+{len}");
                self.span("e", "disk", &format!("w{write}"), &name, pid, event)
            }
            EventKind::Sync { file, .. } => self.span(
                "b",
                "disk",
                &format!("s{}", event.n),
                &format!("sync {file}"),
                pid,
                event,
            ),
            EventKind::Synced { file, begun, .. } => self.span(
                "e",
                "disk",
                &format!("s{begun}"),
                &format!("sync {file}"),
                pid,
                event,
            ),
            EventKind::Op {
                process, type_, f, ..
            } => {
                let ph = if type_ == "invoke" { "b" } else { "e" };
                self.span(ph, "client", &format!("p{process}"), f, pid, event)
            }
            EventKind::Start { of } => self.span("b", "life", &format!("l{of}"), "process", *of, event),
            EventKind::Kill { of } | EventKind::PowerLoss { of } | EventKind::Ended { of } => {
                self.span("e", "life", &format!("l{of}"), "process", *of, event)
            }
            _ => Ok(()),
        }
    }
}

fn micros(ts: u64) -> Value {
    json!(ts as f64 / 1000.0)
}

impl<W: Write + Send> Sink for Perfetto<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.last_ts = event.t.max(self.last_ts + 1);
        let place = Position {
            ts: self.last_ts,
            pid: event.node,
            tid: event.id.map_or(0, |id| id + 1),
        };
        self.name(event, place)?;
        let name = match &event.what {
            EventKind::Run => event.task.as_deref().unwrap_or("run").to_owned(),
            what => what.to_string(),
        };
        let args = json!({"n": event.n, "t": event.t, "by": event.by});
        let mut shown = json!({
            "name": name, "pid": place.pid, "tid": place.tid, "ts": micros(place.ts), "args": args
        });
        match &event.what {
            EventKind::Run | EventKind::Timer | EventKind::Spawn { .. } => {
                (shown["ph"], shown["dur"]) = (json!("X"), json!(0.001));
                self.put(&shown)?;
                self.causes.insert(event.n, place);
                if !matches!(event.what, EventKind::Spawn { .. }) {
                    self.arrow(event, place)?;
                }
            }
            what => {
                let everywhere = matches!(
                    what,
                    EventKind::Violation { .. }
                        | EventKind::Fault { .. }
                        | EventKind::Calm
                        | EventKind::Kill { .. }
                        | EventKind::PowerLoss { .. }
                );
                (shown["ph"], shown["s"]) = (json!("i"), json!(if everywhere { "g" } else { "t" }));
                self.put(&shown)?;
            }
        }
        self.spans(event)
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.write_all(if self.begun { b"\n]\n" } else { b"[]\n" })?;
        self.out.flush()
    }
}
