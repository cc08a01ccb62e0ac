//! A world's state as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::build::seconds;
use super::model::{ConnectionState, DirectionState, LinkState, ProcessState, TaskState, WorldState};
use crate::disk::{DiskState, FileState, NameState};
use crate::exec::Nanos;
use crate::report::many;

/// A longer text is cut.
const TEXT_CHARS_MAX: usize = 140;

/// The state in sections.
pub fn text(state: &WorldState) -> String {
    let mut text = format!(
        "seed {} at {} s; the run lasts from {} to {} s, the last event before was at {} s\n",
        state.seed,
        seconds(state.at),
        seconds(state.run_begins),
        seconds(state.run_ends),
        seconds(state.last_event_at)
    );
    section(&mut text, "processes", state.processes.iter().map(process));
    let faults = state.faults.iter().map(|f| match (f.span, f.events_left) {
        (Some((from, to)), _) => format!("{} ({})", f.text, span(from, to)),
        (None, left) => format!(
            "waits for its event, after {} more: {}",
            left.unwrap_or(0),
            f.text
        ),
    });
    section(&mut text, "faults", faults);
    partitions(&mut text, state);
    for (node, disk) in &state.disks {
        let capacity = match disk.capacity_bytes {
            Some(capacity) => format!(" of {capacity}"),
            None => String::new(),
        };
        let title = format!("disk of node {node}: {}{capacity} bytes used", disk.used_bytes);
        section(&mut text, &title, disk_lines(disk).into_iter());
    }
    let writes = state.writes.iter();
    let writes = writes.map(|w| format!("node {}: {} bytes to {} at {}", w.node, w.len, w.file, w.at));
    section(&mut text, "writes in flight", writes);
    let operations = state.operations.iter().map(|o| {
        let ends = o
            .ends
            .map_or("never ends".to_owned(), |t| format!("ends at {} s", seconds(t)));
        let next = match &o.next {
            Some((t, next)) => format!("next, at {} s: {}", seconds(*t), cut(next)),
            None => "nothing follows".to_owned(),
        };
        format!(
            "node {}: {}; began at {} s, {ends}; waits since {} s after: {}; {next}",
            o.node,
            cut(&o.what),
            seconds(o.begun),
            seconds(o.waits_since),
            cut(&o.after)
        )
    });
    section(&mut text, "operations of clients in flight", operations);
    section(&mut text, "links with a fault", state.links.iter().map(link));
    let ports = state.ports.iter().map(|p| {
        let blocked = p.blocked.map_or(String::new(), |(until, how)| {
            format!("; connections are {how} until {} s", seconds(until))
        });
        format!(
            "node {} port {}: {} in the backlog{blocked}",
            p.node, p.port, p.backlog
        )
    });
    section(&mut text, "listening ports", ports);
    section(&mut text, "connections", state.connections.iter().map(connection));
    let mut by_node: BTreeMap<u32, Vec<&TaskState>> = BTreeMap::new();
    for task in &state.tasks {
        by_node.entry(task.node).or_default().push(task);
    }
    for (node, tasks) in by_node {
        let title = format!("tasks of node {node}: {}", tasks.len());
        section(&mut text, &title, tasks.into_iter().map(task));
    }
    text
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let _ = writeln!(text, "\n{title}");
    let mut is_empty = true;
    for line in lines {
        is_empty = false;
        let _ = writeln!(text, "  {line}");
    }
    if is_empty {
        let _ = writeln!(text, "  none");
    }
}

fn span(from: Nanos, to: Nanos) -> String {
    format!("from {} to {} s", seconds(from), seconds(to))
}

fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

fn process(p: &ProcessState) -> String {
    let mut line = format!(
        "{:<16} node {:<4} life {:<3} {:<8} {}",
        p.name,
        p.node,
        p.life,
        p.state,
        many(p.tasks, "task")
    );
    if let (Some(why), Some((from, to))) = (&p.why, p.span) {
        let _ = write!(line, "; {why}, {}", span(from, to));
    }
    if (p.drift_ppm, p.wall_ahead_ms) != (0, 0) {
        let _ = write!(
            line,
            "; clock: drifts by {} ppm, wall clock {} ms ahead",
            p.drift_ppm, p.wall_ahead_ms
        );
    }
    line
}

fn partitions(text: &mut String, state: &WorldState) {
    let width = state.partitions.keys().map(String::len).max().unwrap_or(0);
    let columns = ["log start", "durable end", "high watermark", "log end"];
    let title = format!("{:<1$}", "partitions", width + 2);
    let columns: String = columns.map(|c| format!(" {c:>15}")).concat();
    let lines = state.partitions.iter().map(|(folder, log)| {
        let known = |n: Option<i64>| n.map_or("-".to_owned(), |n| n.to_string());
        let cells = [
            known(log.log_start),
            log.durable_end.to_string(),
            known(log.high_watermark.map(|(offset, _)| offset)),
            log.log_end.to_string(),
        ];
        let cells: String = cells.map(|c| format!(" {c:>15}")).concat();
        let seen = log.high_watermark.map_or(String::new(), |(_, t)| {
            format!("; the high watermark was sent at {} s", seconds(t))
        });
        format!("{folder:<width$}{cells}  {}{seen}", many(log.segments, "segment"))
    });
    section(text, &format!("{title}{columns}"), lines);
}

fn disk_lines(disk: &DiskState) -> Vec<String> {
    let mut lines: Vec<String> = disk.faults.iter().map(|f| format!("fault: {f}")).collect();
    let width = disk.files.iter().map(|f| f.path.len()).max().unwrap_or(0);
    lines.extend(disk.files.iter().map(|f| file(f, width)));
    let nameless = disk.open_without_name.iter();
    lines.extend(nameless.map(|len| format!("an open file without a name: {len} bytes")));
    lines.extend(disk.pending_names.iter().map(|c| format!("not durable: {c}")));
    lines
}

fn file(f: &FileState, width: usize) -> String {
    let mut line = format!(
        "{:<width$} {:>9} bytes, {:>9} durable",
        f.path, f.len, f.durable_len
    );
    if f.pending_changes > 0 {
        let changes = many(f.pending_changes, "change");
        let _ = write!(line, "; {changes} not synced, {} bytes", f.pending_bytes);
    }
    match f.name {
        NameState::Durable => {}
        NameState::Pending => line.push_str("; its name is not durable"),
        NameState::Removed => line.push_str("; removed, not durably"),
    }
    if f.handles > 0 {
        let _ = write!(line, "; open {}", many(f.handles as usize, "time"));
    }
    if !f.unreadable.is_empty() {
        let _ = write!(line, "; unreadable sectors at {:?}", f.unreadable);
    }
    line
}

fn link(l: &LinkState) -> String {
    let mut line = format!("node {} to node {}:", l.from, l.to);
    if let Some(until) = l.cut_until {
        let _ = write!(line, " cut until {} s;", seconds(until));
    }
    if let Some((until, by)) = l.slower_until {
        let _ = write!(line, " {} s slower until {} s;", seconds(by), seconds(until));
    }
    if let Some((until, bytes_per_s)) = l.narrow_until {
        let _ = write!(line, " {bytes_per_s} bytes a second until {} s;", seconds(until));
    }
    line.trim_end_matches(';').to_owned()
}

fn connection(c: &ConnectionState) -> String {
    let node = |n: Option<u32>| n.map_or("closed".to_owned(), |n| format!("node {n}"));
    let mut line = format!("{:<5} {} to {}", c.conn, node(c.client), node(c.server));
    for (of, there, direction) in [
        ("to the server", c.server, &c.to_server),
        ("back", c.client, &c.to_client),
    ] {
        if there.is_some() {
            let _ = write!(line, "; {of}: {}", direction_text(direction));
        }
    }
    line
}

fn direction_text(d: &DirectionState) -> String {
    let mut text = format!("{} bytes in flight, {} unread", d.in_flight_bytes, d.unread_bytes);
    for (is, what) in [
        (d.writer_waits, "the writer waits for room"),
        (d.reader_waits, "a reader waits"),
        (d.eof, "the end has arrived"),
        (d.reset, "reset"),
    ] {
        if is {
            let _ = write!(text, ", {what}");
        }
    }
    text
}

fn task(t: &TaskState) -> String {
    let waits_for = match &t.waits_for[..] {
        [] => "what the executor does not see (a channel, another task)".to_owned(),
        some => some.join(", or "),
    };
    let woken = t.woken_by.as_ref().map_or(String::new(), |(by, at)| {
        format!("; last woken by: {by}, at {} s", seconds(*at))
    });
    format!(
        "{:<6} {:<20} since {} s waits for {waits_for}{woken}",
        t.id,
        t.name,
        seconds(t.waits_since)
    )
}
