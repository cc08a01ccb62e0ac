//! Control batches: what a batch means for its producer's state.

use brokkr_wire::records::{Batch, ControlType};

use crate::error::AppendError;
use crate::state::producers::EndTxnMarker;

/// How much of a control batch is decompressed to read its one record.
const MARKER_BYTES_MAX: usize = 64 << 10;

/// What a batch of a producer means for its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BatchKind {
    /// It holds records.
    Data,
    /// It ends a transaction.
    EndTxn(EndTxnMarker),
    /// A control batch that compaction emptied, or of a type that says nothing about producers: the state stays as it is.
    Other,
}

/// What a batch of a producer is.
pub(crate) fn batch_kind(batch: &Batch) -> Result<BatchKind, AppendError> {
    if !batch.header.attributes.is_control() {
        return Ok(BatchKind::Data);
    }
    let broken = |e: &dyn std::fmt::Display| AppendError::Control(e.to_string());
    let records = batch.records(MARKER_BYTES_MAX).map_err(|e| broken(&e))?;
    let Some(record) = records.iter().next() else {
        brokkr_types::reached!("an empty control batch");
        return Ok(BatchKind::Other);
    };
    let record = record.map_err(|e| broken(&e))?;
    match ControlType::from_key(record.key).map_err(|e| broken(&e))? {
        ControlType::Abort | ControlType::Commit => {}
        _ => return Ok(BatchKind::Other),
    }
    // EndTxnMarker: version i16, coordinator epoch i32.
    let epoch = record
        .value
        .and_then(|v| v.get(2..6))
        .and_then(|b| b.first_chunk());
    let epoch = epoch.ok_or_else(|| broken(&"an end-of-transaction marker without a coordinator epoch"))?;
    Ok(BatchKind::EndTxn(EndTxnMarker {
        coordinator_epoch: i32::from_be_bytes(*epoch),
    }))
}
