//! The trace of a run, as far as explanations need it.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use super::chain::Causes;
use crate::exec::Nanos;
use crate::trace::{Event, EventKind};

/// The part of a trace that an explanation needs.
#[derive(Default)]
pub struct Trace {
    /// All events except those of the scheduler and of single pieces of streams.
    pub(super) events: Vec<Event>,
    causes: Causes,
    /// When the last bytes of each connection's sender arrive.
    sent: BTreeMap<(u32, u64), Nanos>,
    /// When requests and responses arrive, by their event.
    arrivals: BTreeMap<u64, Nanos>,
    /// The times of the first and the last event.
    span: Option<(Nanos, Nanos)>,
}

impl Trace {
    /// Reads JSON lines. The last one may be cut short because its process died.
    ///
    /// # Errors
    /// Errors of the reader; a line that is not an event.
    pub fn read(from: impl BufRead) -> io::Result<Self> {
        let (mut trace, mut cut) = (Self::default(), None);
        for line in from.lines() {
            if let Some(error) = cut {
                return Err(error);
            }
            match serde_json::from_str::<Event>(&line?) {
                Ok(event) => trace.take(event),
                Err(error) => cut = Some(error.into()),
            }
        }
        Ok(trace)
    }

    /// All events except those of the scheduler and of single pieces of streams.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// When the last byte of a request or a response arrives, by its event's number.
    pub fn arrives(&self, n: u64) -> Option<Nanos> {
        self.arrivals.get(&n).copied()
    }

    /// When the run began, and when it ended.
    pub fn span(&self) -> (Nanos, Nanos) {
        self.span.unwrap_or_default()
    }

    /// The runs and timers that caused them.
    pub fn causes(&self) -> &Causes {
        &self.causes
    }

    fn take(&mut self, event: Event) {
        self.causes.take(&event);
        self.span = Some((self.span.map_or(event.t, |(begin, _)| begin), event.t));
        match event.what {
            EventKind::Send { conn, arrives, .. } => drop(self.sent.insert((event.node, conn), arrives)),
            EventKind::Request { conn, .. } | EventKind::Response { conn, .. } => {
                let arrives = self.sent.get(&(event.node, conn));
                self.arrivals.extend(arrives.map(|at| (event.n, *at)));
            }
            _ => {}
        }
        if !event.what.is_fine_grained() {
            self.events.push(event);
        }
    }
}
