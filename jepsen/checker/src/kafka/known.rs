//! How far each log was certainly written, over time: by acknowledgements and by what consumers were shown; and the rule about
//! appends that follows (L8).

use brokkr_history::{Type, UNKNOWN_OFFSET};
use serde_json::json;

use super::order::send_outcome;
use super::records::HistoryView;
use super::store::{NONE, OpKind, Store};
use crate::Finding;

/// For each key the highest known offset over time: steps of (index of the operation, offset), both ascending.
pub(super) struct KnownEnds(Vec<Vec<(u32, i64)>>);

impl KnownEnds {
    pub(super) fn of(store: &Store) -> Self {
        let mut steps = vec![Vec::<(u32, i64)>::new(); store.keys.len()];
        for (op, row) in store
            .rows()
            .filter(|(_, row)| row.f == OpKind::Micro && !row.open)
        {
            let sends = store.writes_of(op).iter();
            let acked = sends.filter(|w| send_outcome(row.type_, w) == Type::Ok);
            // A consumer is shown only what is in the log, whatever the outcome of its own transaction.
            for known in acked.chain(store.reads_of(op)) {
                let steps = &mut steps[store.key_of(known.value) as usize];
                if known.offset > steps.last().map_or(UNKNOWN_OFFSET, |s| s.1) {
                    steps.push((row.index, known.offset));
                }
            }
        }
        Self(steps)
    }

    /// The highest offset that was known before an index of the history, and the operation that showed it.
    pub(super) fn before(&self, key: u32, index: u32) -> Option<(i64, u64)> {
        let steps = &self.0[key as usize];
        let at = steps.partition_point(|(known, _)| *known < index);
        steps[..at].last().map(|(op, offset)| (*offset, u64::from(*op)))
    }
}

/// `append-before-past`: an acknowledged record is at or below one that was acknowledged or shown before its send began. (A
/// repeated attempt of an idempotent producer may be acknowledged with an older offset, but not with one from before its
/// operation.)
pub(super) fn appends_before_past(view: HistoryView<'_>, known: &KnownEnds) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (op, row) in view.store.rows() {
        if row.f != OpKind::Micro || row.open || row.began == NONE {
            continue;
        }
        let sends = view.store.writes_of(op).iter();
        for send in sends.filter(|w| w.offset != UNKNOWN_OFFSET && send_outcome(row.type_, w) == Type::Ok) {
            let key = view.store.key_of(send.value);
            let Some((past, by)) = known
                .before(key, row.began)
                .filter(|(past, _)| send.offset <= *past)
            else {
                continue;
            };
            let (key, index, offset) = (view.key(key), view.store.index(op), send.offset);
            let data = json!({
                "key": key, "value": view.json(send.value), "offset": offset, "known": past, "ops": [by, index],
            });
            let text = format!(
                "operation {index} appended {} to {key} at offset {offset}, although operation {by} had shown offset {past} before it began",
                view.store.val(send.value)
            );
            findings.push(Finding::new(data, [by, index], text));
        }
    }
    findings
}
