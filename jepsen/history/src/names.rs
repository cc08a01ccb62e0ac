//! Names of operations: the one list that recorders write and judges read.
//!
//! `-` and `_` are the same in names: `create_topic` is `create-topic`.

use std::borrow::Cow;

/// Sends: see [`crate::Op::Send`].
pub const SEND: &str = "send";
/// Polls: see [`crate::Op::Poll`].
pub const POLL: &str = "poll";
/// Sends and polls in a transaction: see [`crate::Op::Txn`].
pub const TXN: &str = "txn";
/// Sets a process's partitions: see [`crate::Op::Assign`].
pub const ASSIGN: &str = "assign";
/// Makes a process a group's member: see [`crate::Op::Subscribe`].
pub const SUBSCRIBE: &str = "subscribe";
/// Deletes records: `{"key", "before"}`, where −1 means all; `low_watermark` in the response.
pub const DELETE_RECORDS: &str = "delete-records";
/// Lists offsets: `{"key"}`; `earliest` and `latest` in the response.
pub const LIST_OFFSETS: &str = "list-offsets";
/// Creates a topic: `{"topic"}`; `id`, or `"exists": true`, in the response.
pub const CREATE_TOPIC: &str = "create-topic";
/// Deletes a topic: `{"topic"}`, and `id` if it is deleted by id; `"exists": false` if there was none.
pub const DELETE_TOPIC: &str = "delete-topic";
/// A broker's view of topics: `{"broker", "topics"}`.
pub const METADATA: &str = "metadata";
/// Commits an offset: `{"group", "key", "offset"}`.
pub const COMMIT: &str = "commit";
/// Fetches a committed offset: `{"group", "key"}`; `offset` in the response.
pub const COMMITTED: &str = "committed";
/// Reads a register: `[key, null]`, then `[key, value]`.
pub const READ: &str = "read";
/// Writes a register: `[key, value]`.
pub const WRITE: &str = "write";
/// Compares and sets a register: `[key, [old, new]]`.
pub const CAS: &str = "cas";

/// Of the nemesis: findings that are none, for a reason that only the recorder knows. `{"anomaly", "why"}`, and `key`, `values` to
/// limit it to findings about that partition and these records.
pub const WAIVE: &str = "waive";

/// A name as in this list: with `-` for `_`.
pub fn canonical(f: &str) -> Cow<'_, str> {
    if f.contains('_') {
        Cow::Owned(f.replace('_', "-"))
    } else {
        Cow::Borrowed(f)
    }
}

/// Whether two names are the same.
pub fn is_same(a: &str, b: &str) -> bool {
    let plain = |b: u8| if b == b'_' { b'-' } else { b };
    a.bytes().map(plain).eq(b.bytes().map(plain))
}
