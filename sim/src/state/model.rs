//! What a world's state consists of. Times are nanoseconds of the world, which begins at one second.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::disk::DiskState;
use crate::exec::Nanos;

/// A world's state.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WorldState {
    /// The seed.
    pub seed: u64,
    /// The time.
    pub at: Nanos,
    /// When the last event before that happened.
    pub last_event_at: Nanos,
    /// When the run began.
    pub run_begins: Nanos,
    /// When the run ended.
    pub run_ends: Nanos,
    /// The nodes and their processes.
    pub processes: Vec<ProcessState>,
    /// The faults that last, and those that wait for their event.
    pub faults: Vec<FaultState>,
    /// The logs by folder.
    pub partitions: BTreeMap<String, PartitionState>,
    /// The disks by node.
    pub disks: BTreeMap<u32, DiskState>,
    /// Writes in flight.
    pub writes: Vec<WriteState>,
    /// Operations of clients that have begun and not ended.
    pub operations: Vec<OperationState>,
    /// Links with a fault.
    pub links: Vec<LinkState>,
    /// Listening ports.
    pub ports: Vec<PortState>,
    /// Connections.
    pub connections: Vec<ConnectionState>,
    /// Tasks.
    pub tasks: Vec<TaskState>,
}

/// A node's process.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ProcessState {
    /// The node.
    pub node: u32,
    /// Its name.
    pub name: String,
    /// The node's life, from 0.
    pub life: u32,
    /// `up`, `starting`, `paused`, `down`, or `idle`: no task of the node exists.
    pub state: &'static str,
    /// Why it is not up, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Since when it is not up, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<(Nanos, Nanos)>,
    /// How many tasks exist.
    pub tasks: usize,
    /// By how many millionths its monotonic clock is faster.
    pub drift_ppm: i64,
    /// By how much its wall clock is ahead.
    pub wall_ahead_ms: i64,
}

/// A fault.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FaultState {
    /// The fault in words.
    pub text: String,
    /// When it began and when it ends; none while it waits for its event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<(Nanos, Nanos)>,
    /// While it waits: how many such events pass before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_left: Option<u64>,
}

/// A partition's log.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct PartitionState {
    /// Its first offset, as its manifest says.
    pub log_start: Option<i64>,
    /// The offset after the last record that a power loss can't take.
    pub durable_end: i64,
    /// The high watermark in the last response to a fetch, and when that left.
    pub high_watermark: Option<(i64, Nanos)>,
    /// The last stable offset, likewise.
    pub last_stable_offset: Option<(i64, Nanos)>,
    /// The offset after the last record that the broker sees in its files.
    pub log_end: i64,
    /// How many segments it has.
    pub segments: usize,
}

/// A write in flight.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WriteState {
    /// The node.
    pub node: u32,
    /// The file.
    pub file: String,
    /// The position.
    pub at: u64,
    /// How many bytes.
    pub len: usize,
}

/// An operation of a client.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct OperationState {
    /// The client's node.
    pub node: u32,
    /// The operation in words.
    pub what: String,
    /// When it began.
    pub begun: Nanos,
    /// When it ends; none if it never does.
    pub ends: Option<Nanos>,
    /// Since when it waits.
    pub waits_since: Nanos,
    /// Its last step.
    pub after: String,
    /// Its next step, and when that comes.
    pub next: Option<(Nanos, String)>,
}

/// A direction between two nodes that a fault concerns.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LinkState {
    /// From this node,
    pub from: u32,
    /// to this one.
    pub to: u32,
    /// Nothing arrives until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_until: Option<Nanos>,
    /// Until then bytes take so many nanoseconds longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_until: Option<(Nanos, Nanos)>,
    /// Until then so many bytes a second leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub narrow_until: Option<(Nanos, u64)>,
}

/// A listening port.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PortState {
    /// The node.
    pub node: u32,
    /// The port.
    pub port: u16,
    /// Connections that wait to be accepted.
    pub backlog: usize,
    /// Until when new connections to the node fail, and whether they are refused or not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<(Nanos, &'static str)>,
}

/// A connection, by the node that made it and the node that it was made to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ConnectionState {
    /// Its number, as in traces.
    pub conn: u64,
    /// The node that made it; none if its end is closed.
    pub client: Option<u32>,
    /// The node that it was made to; none if its end is closed.
    pub server: Option<u32>,
    /// What arrives at the client.
    pub to_client: DirectionState,
    /// What arrives at the server.
    pub to_server: DirectionState,
}

/// A direction of a connection, as its receiving end knows it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct DirectionState {
    /// Bytes that were sent and have not arrived.
    pub in_flight_bytes: usize,
    /// Bytes that have arrived and were not read.
    pub unread_bytes: usize,
    /// The sender has sent its last byte.
    pub eof: bool,
    /// The connection was reset at this end.
    pub reset: bool,
    /// A task waits for bytes.
    pub reader_waits: bool,
    /// The sender waits for room in the buffer.
    pub writer_waits: bool,
}

/// A task.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TaskState {
    /// Its number, as in traces.
    pub id: u64,
    /// The node.
    pub node: u32,
    /// Its name.
    pub name: &'static str,
    /// When it last ran, or was spawned.
    pub waits_since: Nanos,
    /// What will wake it, as far as the executor knows: not channels and other tasks.
    pub waits_for: Vec<String>,
    /// What woke it last, and when that happened.
    pub woken_by: Option<(String, Nanos)>,
}
