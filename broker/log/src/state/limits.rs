//! The limits of logs: capacities, sizes and periods that are not Kafka's configuration keys.

use std::time::Duration;

use brokkr_types::limits;

limits! {
    /// Limits of the logs in a log directory: `field: type = default, least`.
    pub struct LogLimits {
        /// Open files that no log appends to and no request reads.
        log_idle_files: usize = 1024, 1;
        /// Bytes, staged and being written, up to which [`crate::Log::can_stage`] allows another batch.
        log_staged_bytes: usize = 16 << 20, 1;
        /// Batches, staged and being written, up to which [`crate::Log::can_stage`] allows another batch.
        log_staged_batches: usize = 16 << 10, 1;
        /// Fewer staged bytes than this are not written while a sync is in flight: they would have to wait for the next sync anyway, and
        /// more may be staged by then.
        log_write_beside_sync_bytes: usize = 64 << 10, 1;
        /// Written bytes after which a sync begins though no `flush.messages` and no `flush.ms` asks for it: a roll, whose sync appends wait
        /// for, has little left to sync then, and a crash leaves little to scan.
        log_unsynced_bytes: usize = 4 << 20, 1;
        /// Such early syncs in flight in a log directory. A log that finds no place writes on, and tries again after its next write.
        log_early_syncs: usize = 4, 1;
        /// Delay after a sync that failed for lack of a file descriptor.
        log_sync_retry: Duration = 100, 1;
        /// Index entries of the active segment that are kept in memory before they are written.
        log_index_tail: usize = 128, 1;
    }
}
