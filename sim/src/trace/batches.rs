//! Batches in bytes that were written or sent.

use brokkr_wire::records::batches;
use bytes::Bytes;

use super::event::ObservedBatch;

/// Size limit when a compressed batch is decompressed to read its values.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The complete batches in a piece of a log, up to the first bytes that are not one.
pub fn batches_in(bytes: Bytes) -> Vec<ObservedBatch> {
    batches(bytes)
        .map_while(Result::ok)
        .map(|batch| {
            let h = &batch.header;
            let records = batch.records(DECOMPRESSED_BYTES_MAX);
            let values = records.iter().flat_map(|all| all.iter());
            ObservedBatch {
                base: h.base_offset.0,
                last: h.last_offset().0,
                producer: h.producer_id.0,
                epoch: h.producer_epoch.0,
                sequence: h.base_sequence.0,
                values: values.filter_map(|r| value_in(r.ok()?.value?)).collect(),
            }
        })
        .collect()
}

/// The value that a workload wrote: its digits, padded with dots.
fn value_in(bytes: &[u8]) -> Option<i64> {
    let end = bytes.iter().position(|b| *b == b'.').unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()
}
