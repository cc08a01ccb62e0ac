//! The ends of logs, as brokers list them (L4, D1).
//!
//! The latest offset that a broker lists is above every record that was acknowledged, or shown to a consumer, before the
//! request was sent (L4: the high watermark). The earliest one is not below what was deleted before (D1), and no consumer
//! that seeks after a deletion is shown a record below it (D1).
//!
//! Where a leader may lose acknowledged records (acks=1, an unclean election), the first rule does not hold; waive it there.

use std::collections::BTreeMap;

use brokkr_history::{Process, Type, UNKNOWN_OFFSET};
use serde_json::json;

use super::known::KnownEnds;
use super::records::HistoryView;
use super::store::NONE;
use crate::Finding;

/// `latest-too-low`: the latest offset is at or below a record that was known before.
pub(super) fn latest_too_low(view: HistoryView<'_>, known: &KnownEnds) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listing in view.store.listings.iter().filter(|l| l.began != NONE) {
        let (Some(latest), Some((offset, op))) = (listing.latest, known.before(listing.key, listing.began))
        else {
            continue;
        };
        if latest > offset {
            continue;
        }
        let (key, index) = (view.key(listing.key), u64::from(listing.ended));
        let data = json!({"key": key, "latest": latest, "known": offset, "ops": [op, index]});
        let text = format!(
            "operation {index} listed {latest} as the latest offset of {key}, although operation {op} had shown a record at {offset}"
        );
        findings.push(Finding::new(data, [op, index], text));
    }
    findings
}

/// The highest low watermark of a key that a deletion had returned before `began`, and that deletion.
fn low_watermark(view: HistoryView<'_>, key: u32, began: u32) -> Option<(i64, u64)> {
    let deletes = view.store.deletes.iter();
    let over = deletes.filter(|d| d.key == key && d.ended != NONE && d.ended < began);
    over.filter_map(|d| Some((d.low_watermark?, u64::from(d.ended))))
        .max()
}

/// `earliest-too-low`: the earliest offset is below what was deleted before.
pub(super) fn earliest_too_low(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listing in view.store.listings.iter().filter(|l| l.began != NONE) {
        let low = low_watermark(view, listing.key, listing.began);
        let (Some(earliest), Some((low, op))) = (listing.earliest, low) else {
            continue;
        };
        if earliest >= low {
            continue;
        }
        let (key, index) = (view.key(listing.key), u64::from(listing.ended));
        let data = json!({"key": key, "earliest": earliest, "deleted_before": low, "ops": [op, index]});
        let text = format!(
            "operation {index} listed {earliest} as the earliest offset of {key}, although operation {op} had deleted everything below {low}"
        );
        findings.push(Finding::new(data, [op, index], text));
    }
    findings
}

/// `deleted-read`: a process read a record that had been deleted before it sought to where it reads. (Without a seek a
/// consumer may return what it fetched earlier.) One finding for each process and key.
pub(super) fn deleted_reads(view: HistoryView<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if view.store.deletes.iter().all(|d| d.low_watermark.is_none()) {
        return findings;
    }
    // By process and key: the offset below which records were deleted before the process sought, and by which operation.
    let mut lows: BTreeMap<(Process, u32), (i64, u64)> = BTreeMap::new();
    for (op, row) in view.store.rows().filter(|(_, row)| row.type_ == Type::Ok) {
        for (key, _) in view.store.seeks_of(op).iter().filter(|_| row.began != NONE) {
            if let Some(low) = low_watermark(view, *key, row.began) {
                lows.insert((row.process, *key), low);
            }
        }
        for read in view
            .store
            .reads_of(op)
            .iter()
            .filter(|r| r.offset != UNKNOWN_OFFSET)
        {
            let key = view.store.key_of(read.value);
            let Some((low, delete)) = lows.get(&(row.process, key)).copied() else {
                continue;
            };
            if read.offset >= low {
                continue;
            }
            lows.remove(&(row.process, key));
            let (key, index, offset) = (view.key(key), view.store.index(op), read.offset);
            let value = view.json(read.value);
            let data = json!({
                "key": key, "value": value, "offset": offset, "deleted_before": low, "ops": [delete, index],
            });
            let text = format!(
                "operation {index} read {} from {key} at offset {offset}, although operation {delete} had deleted everything below {low}",
                view.store.val(read.value)
            );
            findings.push(Finding::new(data, [delete, index], text));
        }
    }
    findings
}
