//! The kind of a batch, as far as its producer's state depends on it: data, end of a transaction, other control
//! batches.

use brokkr_wire::records::{Batch, ControlType};

use crate::error::AppendError;
use crate::state::producers::EndTxnMarker;

/// A control batch's one record is small; decompression stops here.
const MARKER_BYTES_MAX: usize = 64 << 10;

/// How a batch changes its producer's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BatchKind {
    /// Data: it joins the producer's window.
    Data,
    /// A transaction marker: it ends the producer's transaction.
    EndTxn(EndTxnMarker),
    /// A control batch that compaction emptied, or of a type that doesn't concern producers: no change.
    Other,
}

/// The kind of a producer's batch.
///
/// # Errors
/// [`AppendError::Control`] if a control batch can't be decoded.
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
    // The value of an EndTxnMarker: version i16, coordinator epoch i32.
    let epoch = record
        .value
        .and_then(|v| v.get(2..6))
        .and_then(|b| b.first_chunk());
    let epoch = epoch.ok_or_else(|| broken(&"an end-of-transaction marker without a coordinator epoch"))?;
    Ok(BatchKind::EndTxn(EndTxnMarker {
        coordinator_epoch: i32::from_be_bytes(*epoch),
    }))
}
