//! Events as text: for a terminal, and for `explain`.

use std::fmt;
use std::io::{self, Write};

use super::{Answer, Event, EventKind, ObservedBatch, Sink};

/// Lines of text, without [fine-grained](EventKind::is_fine_grained) events.
pub struct Text<W>(pub W);

impl<W: Write + std::marker::Send> Sink for Text<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        if event.what.is_fine_grained() {
            return Ok(());
        }
        writeln!(self.0, "{event}")
    }

    fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.t / 1_000_000_000, self.t % 1_000_000_000);
        write!(f, "{seconds:>4}.{nanos:09} {}.{} ", self.node, self.life)?;
        write!(f, "{:<14} {}", self.task.as_deref().unwrap_or("-"), self.what)
    }
}

impl fmt::Display for ObservedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offsets {}..={}", self.base, self.last)?;
        if self.producer >= 0 {
            let last = i64::from(self.sequence) + self.last - self.base;
            write!(
                f,
                " of producer {}:{} seq {}..={last}",
                self.producer, self.epoch, self.sequence
            )?;
        }
        match &self.values[..] {
            [] => Ok(()),
            [one] => write!(f, ", value {one}"),
            [first, .., last] => write!(f, ", values {first} to {last}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}:", self.partition)?;
        if let Some(error) = &self.error {
            return write!(f, " {error}");
        }
        if let Some(base) = self.base {
            write!(f, " written at {base}")?;
        }
        if let Some(high_watermark) = self.high_watermark {
            write!(f, " high watermark {high_watermark}")?;
        }
        each(f, &self.batches)
    }
}

fn each<T: fmt::Display>(f: &mut fmt::Formatter<'_>, all: &[T]) -> fmt::Result {
    for (i, one) in all.iter().enumerate() {
        write!(f, "{}{one}", if i == 0 { " [" } else { "; " })?;
    }
    if all.is_empty() { Ok(()) } else { f.write_str("]") }
}

/// The error, if it failed.
fn failure(f: &mut fmt::Formatter<'_>, error: Option<&String>) -> fmt::Result {
    match error {
        Some(error) => write!(f, " FAILED: {error}"),
        None => Ok(()),
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn { spawned, name } => write!(f, "makes task {name} ({spawned})"),
            Self::Run => write!(f, "runs"),
            Self::End => write!(f, "ends"),
            Self::Panic { message } => write!(f, "PANICS: {message}"),
            Self::Timer => write!(f, "timer"),
            Self::Fault { fault } => write!(f, "fault: {fault}"),
            Self::Calm => write!(f, "all is calm from here on"),
            Self::Start { of } => write!(f, "node {of} is started"),
            Self::Started { of, how } => write!(f, "node {of}: {how}"),
            Self::Stop { of } => write!(f, "node {of} is told to stop"),
            Self::Ended { of } => write!(f, "node {of} has ended"),
            Self::Kill { of } => write!(f, "kill -9 of node {of}"),
            Self::PowerLoss { of } => write!(f, "node {of} loses its power"),
            Self::Pause { of } => write!(f, "node {of} stands still (SIGSTOP)"),
            Self::Resume { of } => write!(f, "node {of} goes on"),
            Self::Open { file, made: true, .. } => write!(f, "makes {file}"),
            Self::Open { file, len, .. } => write!(f, "opens {file}, {len} bytes"),
            Self::Name { op, file, to, error } => {
                write!(f, "{op} {file}")?;
                if let Some(to) = to {
                    write!(f, " to {to}")?;
                }
                failure(f, error.as_ref())
            }
            Self::Connect { to, port } => write!(f, "connects to node {to} port {port}"),
            Self::Connected { conn: Some(conn), to } => write!(f, "connection {conn} to node {to}"),
            Self::Connected { conn: None, to } => write!(f, "node {to} refuses the connection"),
            Self::Op {
                process,
                type_,
                f: name,
                value,
            } => write!(f, "process {process} {type_} {name} {value}"),
            Self::Reached { name } => write!(f, "reached: {name}"),
            Self::Log { level, target, text } => write!(f, "{level:>5} {target}{text}"),
            Self::Violation { invariant, what } => write!(f, "VIOLATION {invariant}: {what}"),
            disk if disk.is_of_disk() => disk.fmt_disk(f),
            net => net.fmt_net(f),
        }
    }
}

impl EventKind {
    fn is_of_disk(&self) -> bool {
        use EventKind::{Lost, Read, Sync, Synced, Truncate, Write, WriteDropped, Wrote};
        matches!(
            self,
            Write { .. }
                | Wrote { .. }
                | WriteDropped { .. }
                | Read { .. }
                | Sync { .. }
                | Synced { .. }
                | Truncate { .. }
                | Lost { .. }
        )
    }

    fn fmt_disk(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write {
                file,
                at,
                len,
                batches,
                ..
            } => {
                write!(f, "writes {file} at {at}, {len} bytes")?;
                each(f, batches)
            }
            Self::Wrote {
                file, at, len, error, ..
            } => {
                write!(f, "wrote {file} at {at}, {len} bytes")?;
                failure(f, error.as_ref())
            }
            Self::WriteDropped { write } => write!(f, "write {write} never arrived"),
            Self::Read {
                file,
                at,
                len,
                resident,
            } => {
                let from = if *resident { " from memory" } else { "" };
                write!(f, "reads {file} at {at}, {len} bytes{from}")
            }
            Self::Sync { file, len: Some(len) } => write!(f, "syncs the {len} bytes of {file}"),
            Self::Sync { file, .. } => write!(f, "syncs the names in {file}"),
            Self::Synced { file, error, .. } => {
                write!(f, "synced {file}")?;
                failure(f, error.as_ref())
            }
            Self::Truncate { file, to } => write!(f, "cuts {file} to {to} bytes"),
            Self::Lost {
                file,
                at,
                len,
                how,
                batches,
            } => {
                write!(f, "{file}: {len} bytes at {at} are {how}")?;
                each(f, batches)
            }
            _ => unreachable!("it is of the disk"),
        }
    }

    fn fmt_net(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept { conn } => write!(f, "accepts connection {conn}"),
            Self::Send { conn, to, len, .. } => write!(f, "sends {len} bytes to node {to} on {conn}"),
            Self::Request {
                conn,
                to,
                api,
                version,
                correlation,
                batches,
                ..
            } => {
                write!(
                    f,
                    "asks node {to}: {api} v{version} #{correlation} on connection {conn}"
                )?;
                each(f, batches)
            }
            Self::Response {
                conn,
                to,
                api,
                correlation,
                answers,
                ..
            } => {
                write!(f, "answers node {to}: {api} #{correlation} on connection {conn}")?;
                each(f, answers)
            }
            Self::Arrive { conn, len } => write!(f, "{len} bytes arrive on {conn}"),
            Self::Receive { conn, len } => write!(f, "reads {len} bytes on {conn}"),
            Self::Eof { conn } => write!(f, "the end of connection {conn} arrives"),
            Self::Reset { conn } => write!(f, "connection {conn} is reset"),
            _ => unreachable!("all other kinds were matched before"),
        }
    }
}
