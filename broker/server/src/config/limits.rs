//! The broker's limits: capacities, sizes and periods that are not Kafka's configuration keys.
//!
//! The defaults are for production. The simulator draws them small, so that every queue fills up and every period ends within seconds. A
//! limit can be set like a key: `brokkr.limit.partition.queue=4`.

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_log::LogLimits;
use brokkr_metadata::config::ConfigError;
use brokkr_types::Limit;

use super::error::StartupError;
use super::nearest::nearest;

brokkr_types::limits! {
    /// Limits of a broker: `field: type = default, least`.
    pub struct Limits {
        /// Requests of a connection that its writer has not taken yet. The reader waits when it is full.
        connection_queue: usize = 64, 1;
        /// Requests of a connection that its writer has taken and not answered.
        connection_pending: usize = 960, 1;
        /// Bytes that leave in one call; more responses wait for the next.
        connection_write_bytes: usize = 1 << 20, 1;
        /// Bytes from memory, not from files, that leave in one call.
        connection_write_memory_bytes: usize = 64 << 10, 1;
        /// A connection is read no further while two or more requests under way hold more decoded bytes than this.
        connection_decoded_bytes: usize = 512 << 10, 1;
        /// A parked fetch is answered once more requests than this follow it on its connection.
        connection_behind_parked: usize = 16, 1;
        /// Minimum read buffer of a connection, in bytes.
        connection_read_buffer_min: usize = 1 << 10, 64;
        /// Maximum read buffer of a connection, in bytes.
        connection_read_buffer_max: usize = 512 << 10, 64;
        /// A read buffer that stays empty for this long is freed.
        connection_idle_buffer: Duration = 1_000, 10;
        /// Time for a frame to arrive, besides its size at the minimum rate.
        connection_frame: Duration = 60_000, 5_000;
        /// Minimum rate of a frame, in bytes a second.
        connection_frame_rate: u64 = 16 << 10, 1 << 10;
        /// Pause after an accept that failed.
        accept_retry: Duration = 50, 1;
        /// Period in which the slowest transfers are ended while requests wait for memory.
        memory_evict: Duration = 100, 1;
        /// Period in which parked fetches are answered early for requests that begin to wait for memory.
        memory_unpark: Duration = 5, 1;
        /// A transfer that is younger is not ended for its speed while requests wait for memory.
        memory_evict_age: Duration = 1_000, 10;
        /// A request that waits this long for memory is refused.
        memory_wait: Duration = 30_000, 5_000;
        /// Pauses of a long check after which another check may run.
        check_slice: usize = 64, 1;
        /// A check that has not ended after this long, its wait included, is given up.
        check_wait: Duration = 30_000, 5_000;
        /// Slices after which the check for a producer that closed its side ends.
        check_slices_unwanted: usize = 64, 1;
        /// A batch of at most so many bytes is checked without a turn, if it also decompresses to few.
        check_quick_bytes: usize = 64 << 10, 1;
        /// Bytes to which a batch that is checked without a turn decompresses at most.
        check_quick_decompressed_bytes: usize = 256 << 10, 1;
        /// Bytes that a larger batch may decompress to before more memory is taken for it.
        check_usual_decompressed_bytes: usize = 8 << 20, 64 << 10;
        /// Work of a check without a turn, in the units of its pace.
        check_quick_work: usize = 3 << 20, 1;
        /// Wait of a producer whose own timeout is shorter for a disk that hangs.
        produce_disk_wait: Duration = 1_000, 10;
        /// A fetch of more partitions than this reads again only those that changed.
        fetch_few_partitions: usize = 8, 1;
        /// Fetch sessions of a connection.
        fetch_sessions: usize = 8, 1;
        /// Attempts to read a partition whose snapshot was made stale by retention or a truncation.
        fetch_stale_retries: usize = 3, 1;
        /// Messages in the queue of a partition's owner.
        partition_queue: usize = 4096, 1;
        /// KiB of batches in the queue of a partition's owner.
        partition_queue_kib: u32 = 8 << 10, 1;
        /// Control messages in the queue of a partition's owner.
        partition_control_queue: usize = 16, 1;
        /// Messages that a partition's owner takes at once.
        partition_take: usize = 512, 1;
        /// Time until a log that could not be opened is tried again at first; it doubles.
        partition_reopen: Duration = 1_000, 10;
        /// Longest time until a log that could not be opened is tried again.
        partition_reopen_max: Duration = 60_000, 100;
        /// Logs of a directory that are opened at the same time.
        partitions_opening: usize = 16, 1;
        /// Logs that are closed, or deleted, at the same time.
        partitions_closing: usize = 16, 1;
        /// Time that a request without a timeout of its own waits for a log that is being opened.
        partitions_opening_wait: Duration = 10_000, 5_000;
        /// Period in which the durable points of logs are recorded.
        checkpoint: Duration = 1_000, 20;
        /// High watermarks are recorded with every one of so many checkpoints.
        checkpoint_high_watermarks: u64 = 5, 1;
        /// Requests in the controller's queue.
        controller_queue: usize = 256, 1;
        /// Requests for producer ids that wait.
        controller_producer_id_queue: usize = 1024, 1;
        /// Time until a metadata snapshot that failed is tried again at first; it doubles.
        controller_snapshot_retry: Duration = 1_000, 10;
        /// Longest time until a metadata snapshot that failed is tried again.
        controller_snapshot_retry_max: Duration = 300_000, 100;
    }
}

/// The prefix of the keys that set limits.
const PREFIX: &str = "brokkr.limit.";

/// Whether this key sets a limit.
pub(super) fn is_key(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// All limits, those of logs included, with the keys that set them.
pub fn limits() -> impl Iterator<Item = (String, &'static Limit)> {
    let key = |limit: &Limit| format!("{PREFIX}{}", limit.name.replace('_', "."));
    let all = Limits::table().iter().chain(LogLimits::table());
    all.map(move |limit| (key(limit), limit))
}

/// The limits that `set` makes; other keys are ignored.
///
/// # Errors
/// There is no such limit, or its value is out of its range.
pub(super) fn read(set: &BTreeMap<String, String>) -> Result<(Limits, LogLimits), StartupError> {
    let (mut of_broker, mut of_logs) = (Limits::default(), LogLimits::default());
    for (key, value) in set.iter().filter(|(key, _)| is_key(key)) {
        let Some((_, limit)) = limits().find(|(name, _)| name == key) else {
            let nearest = nearest(key, limits().map(|(name, _)| name));
            let key = key.clone();
            return Err(StartupError::UnknownKey { key, nearest });
        };
        let number = value.parse().ok();
        if !number.is_some_and(|number| of_broker.set(limit.name, number) || of_logs.set(limit.name, number))
        {
            let (least, most) = (limit.least, limit.most());
            let of = match limit.unit {
                "" => String::new(),
                unit => format!(" of {unit}"),
            };
            return Err(StartupError::Value(ConfigError(format!(
                "{key} is {value}; it must be a number{of} from {least} to {most}"
            ))));
        }
    }
    Ok((of_broker, of_logs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(key: &str, value: &str) -> Result<(Limits, LogLimits), String> {
        read(&BTreeMap::from([(key.to_owned(), value.to_owned())])).map_err(|e| e.to_string())
    }

    #[test]
    fn a_limit_is_set_by_its_key() {
        let set = read_one("brokkr.limit.partition.queue", "4").expect("it can be set");
        assert_eq!((set.0.partition_queue, set.1), (4, LogLimits::default()));
        let set = read_one("brokkr.limit.log.sync.retry", "7").expect("it can be set");
        assert_eq!(
            (set.0, set.1.log_sync_retry),
            (Limits::default(), Duration::from_millis(7))
        );
        assert_eq!(
            read_one("brokkr.limit.partition.queu", "4"),
            Err("unknown configuration key brokkr.limit.partition.queu; did you mean brokkr.limit.partition.queue?".to_owned())
        );
        for value in ["0", "-1", "4096001", "many", ""] {
            assert_eq!(
                read_one("brokkr.limit.partition.queue", value),
                Err(format!(
                    "brokkr.limit.partition.queue is {value}; it must be a number from 1 to 4096000"
                ))
            );
        }
    }

    #[test]
    fn every_limit_has_a_key_of_its_own_and_can_be_least() {
        let all: Vec<_> = limits().collect();
        let keys: std::collections::BTreeSet<&String> = all.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), all.len());
        for (key, limit) in &all {
            assert!(limit.least > 0 && limit.least <= limit.default, "{key}");
            read_one(key, &limit.least.to_string()).expect("it can be set");
        }
    }
}
