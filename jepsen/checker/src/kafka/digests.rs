//! Content of records: a record that is shown has the digest with which it was sent (C1).

use serde_json::json;

use super::records::HistoryView;
use super::store::DigestRow;
use crate::Finding;

/// `wrong-content`: a record was shown with another key, headers or timestamp than it was sent with, or than it was shown with
/// before. One finding for each record.
pub(super) fn wrong_content(view: HistoryView<'_>) -> Vec<Finding> {
    let mut rows: Vec<&DigestRow> = view.store.digests.iter().collect();
    // The digest that was sent comes first; where none was, the one that was shown first.
    rows.sort_by_key(|d| (d.value, !d.sent));
    let mut findings = Vec::new();
    for of_value in rows.chunk_by(|a, b| a.value == b.value) {
        let first = of_value[0];
        let Some(other) = of_value.iter().find(|d| d.digest != first.digest) else {
            continue;
        };
        let key = view.key(view.store.key_of(first.value));
        let ops = [view.store.index(first.op), view.store.index(other.op)];
        let data = json!({
            "key": key, "value": view.json(first.value), "digests": [first.digest, other.digest], "ops": ops,
        });
        let verb = if first.sent { "sent" } else { "was shown" };
        let text = format!(
            "operation {} {verb} {} of {key} with digest {}, and operation {} was shown it with digest {}",
            ops[0],
            view.store.val(first.value),
            first.digest,
            ops[1],
            other.digest
        );
        findings.push(Finding::new(data, ops, text));
    }
    findings
}

/// Number of records that were shown with a digest and whose sender recorded one too.
pub(super) fn compared(view: HistoryView<'_>) -> u64 {
    let mut sent: Vec<u32> = view
        .store
        .digests
        .iter()
        .filter(|d| d.sent)
        .map(|d| d.value)
        .collect();
    sent.sort_unstable();
    let shown = view.store.digests.iter().filter(|d| !d.sent);
    shown.filter(|d| sent.binary_search(&d.value).is_ok()).count() as u64
}
