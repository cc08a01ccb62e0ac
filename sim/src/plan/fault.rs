//! A fault.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::disk::{Damage, FileDamage};
use crate::trigger::{Act, Trigger};

/// How long a fault waits for its event, in seconds.
pub const EVENT_WAIT_MAX_S: u64 = 3;

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// The key of its choices.
    pub id: u64,
    /// When, from the start of the run.
    pub at_ms: u64,
    /// From then on it waits for this event; it strikes anyway after [`EVENT_WAIT_MAX_S`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Trigger>,
    /// What happens.
    #[serde(flatten)]
    pub kind: Kind,
}

/// A kind of fault, with its parameters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Kills the broker's process; it is restarted after `down_ms`.
    Kill { down_ms: u64 },
    /// Kills a client's process; it is restarted after `down_ms` under another identity.
    KillClient { client: u32, down_ms: u64 },
    /// The broker loses power, and all clients die at the same moment.
    Blackout { down_ms: u64 },
    /// Power loss; the power comes back after `down_ms`. With `unsynced` it waits a while for data to lose: until a log has an
    /// unsynced write, at first one that is long enough to be torn.
    PowerLoss {
        down_ms: u64,
        #[serde(default)]
        unsynced: bool,
    },
    /// Stops the broker cleanly, and restarts it `down_ms` after it has stopped.
    CleanStop {
        down_ms: u64,
        /// The power fails when it has stopped: nothing may be lost, however seldom logs are flushed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        power: bool,
    },
    /// Pauses the broker's process.
    Pause { for_ms: u64 },
    /// The next sync fails. The operator notices and ends the process `restart_ms` later.
    SyncFails { restart_ms: u64, power: bool },
    /// The next write fails with EIO, in the middle. Then as with `SyncFails`.
    WriteFails { restart_ms: u64, power: bool },
    /// The next operation of this kind fails. After EIO, and after any failed sync, the operator ends the process `restart_ms`
    /// later; after ENOSPC of another operation nothing is done, and the broker must go on by itself.
    OperationFails {
        act: Act,
        of: String,
        no_space: bool,
        restart_ms: u64,
        power: bool,
    },
    /// Only this many bytes are free, for a while.
    NoSpace { free_bytes: u64, for_ms: u64 },
    /// Disk operations take this many times as long, for a while.
    SlowDisk { times: u64, for_ms: u64 },
    /// No disk operation completes, for a while.
    HangingDisk { for_ms: u64 },
    /// Cuts the link between the broker and a client (all clients, if none is named).
    Cut {
        client: Option<u32>,
        to_broker: bool,
        from_broker: bool,
        for_ms: u64,
    },
    /// Adds latency between the broker and all clients.
    Delay { by_ms: u64, for_ms: u64 },
    /// Limits the bandwidth between the broker and a client (all clients, if none is named), in each direction.
    Narrow {
        client: Option<u32>,
        bytes_per_s: u64,
        for_ms: u64,
    },
    /// Cuts off clients one after another; they reconnect in another order.
    Swizzle { for_ms: u64 },
    /// The broker's node accepts no connections: it refuses, or does not answer. Existing connections stay.
    Shut { silent: bool, for_ms: u64 },
    /// A client's connections are reset; with `half_open`, only the client learns of it.
    Reset { client: u32, half_open: bool },
    /// The wall clock of the broker, or of a client, steps.
    ClockStep {
        by_ms: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<u32>,
    },
    /// The disk silently damages a file of a partition. If it is a segment of its log, the judges check only what the broker shows
    /// of the partition from then on (D2): there is no other copy.
    Damage {
        topic: String,
        partition: i32,
        how: Damage,
    },
    /// One of the broker's log directories can't be read, written or synced for a while; then the operator ends the process.
    /// Without a second directory nothing happens.
    DirectoryFails { directory: usize, for_ms: u64 },
    /// The broker is stopped or killed, and while it is down one of the files that `file` names is damaged: a path in a log
    /// directory, with one `*` in its last part. Afterwards the broker either serves everything, or its log names the file.
    DamageFile {
        file: String,
        how: FileDamage,
        kill: bool,
        down_ms: u64,
    },
    /// The broker is stopped or killed, and restarted with these settings besides its own, from here on.
    Restart {
        kill: bool,
        down_ms: u64,
        broker: BTreeMap<String, String>,
    },
}
