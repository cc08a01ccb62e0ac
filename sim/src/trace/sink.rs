//! Where events go.

use std::io::{self, Write};

use super::event::Event;

/// A destination of events.
pub trait Sink: std::marker::Send {
    /// Writes the next event.
    fn event(&mut self, event: &Event) -> io::Result<()>;
    /// Completes the output.
    fn end(&mut self) -> io::Result<()>;
}

/// Lines of JSON.
pub struct JsonLines<W>(pub W);

impl<W: Write + std::marker::Send> Sink for JsonLines<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, event)?;
        self.0.write_all(b"\n")
    }

    fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
