//! The trace of a run, event by event: complete in a repeated run; disabled in campaigns, where each trace point costs one load.
//!
//! ```text
//!   {"n":812,"t":1002340100,"node":1,"life":0,"task":"partition","id":14,"by":809,"e":"run"}
//!   {"n":813,"t":1002340100,"node":1,"life":0,"task":"partition","id":14,"by":812,"e":"write","file":"data/t0-0/…
//! ```
//! `n` numbers events, `t` is the world's time in nanoseconds (it begins at one second), `node` and `life` identify the actor, and
//! `task` with its `id` the task, if it was not a device. `by` is the cause, an earlier event: for a task's run, what woke it; for
//! a timer or an arrival, what scheduled it; for everything else, the run of the task that did it.
//!
//! Sinks: JSON lines, Perfetto's trace events ([`perfetto`]), and a text without the scheduler's events ([`text`]). Tracing changes
//! nothing in the world: a traced run has the same hash.

mod batches;
pub mod diff;
mod event;
mod frames;
mod images;
pub mod perfetto;
mod sink;
mod tap;
pub mod text;
mod tracer;

pub use batches::batches_in;
pub use event::{Answer, Event, EventKind, ObservedBatch};
pub use frames::{Frames, conn_of};
pub use images::Images;
pub use sink::{JsonLines, Sink};
pub use tap::Tap;
pub use tracer::Tracer;

#[cfg(test)]
mod tests;
