//! The nodes and processes of a run.

/// The broker's node, port and log directory.
pub const BROKER: u32 = 1;
/// See [`BROKER`].
pub const PORT: u16 = 9092;
/// See [`BROKER`].
pub const ROOT: &str = "data";
/// The second log directory, if there are two. The metadata log is in the first.
pub const SECOND_ROOT: &str = "data2";
/// The node of the first client; the others follow.
pub const FIRST_CLIENT: u32 = 10;
/// After an operation of unknown outcome a client continues under a process number that is higher by this.
pub(super) const STRIDE: u64 = 1000;
/// First process numbers of consumers and of the admin.
pub(super) const FIRST_CONSUMER: u64 = 100;
pub(super) const ADMIN: u64 = 200;
/// The process that deletes topics and creates them again.
pub(super) const RECREATOR: u64 = 250;
/// The process that administers topics of its own.
pub(super) const OPERATOR: u64 = 275;
/// The process that asks about topics of its own.
pub(super) const INSPECTOR: u64 = 285;
/// The process that opens connections.
pub(super) const VISITOR: u64 = 295;
/// The process that reads everything at the end.
pub const LAST_READER: u64 = 300;
