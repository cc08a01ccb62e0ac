//! A verdict as text.

use std::collections::BTreeSet;
use std::io::{self, Write};

use brokkr_checker::{Finding, Valid, Verdict};
use brokkr_history::Operation;

/// Maximum number of findings shown for an anomaly; the JSON has all of them.
const FINDINGS_MAX: usize = 8;
/// Maximum number of operations shown for a finding.
const OPS_MAX: usize = 16;
/// Maximum characters shown of an operation.
const OPERATION_CHARS_MAX: usize = 400;

fn shown(findings: &[Finding]) -> impl Iterator<Item = (&Finding, &[u64])> {
    findings
        .iter()
        .take(FINDINGS_MAX)
        .map(|f| (f, &f.ops[..f.ops.len().min(OPS_MAX)]))
}

/// The indexes of the operations that are shown.
pub(crate) fn indexes(verdict: &Verdict) -> BTreeSet<u64> {
    verdict
        .anomalies
        .values()
        .flat_map(|f| shown(f))
        .flat_map(|(_, ops)| ops)
        .copied()
        .collect()
}

/// Writes the verdict.
pub(crate) fn write(out: &mut impl Write, verdict: &Verdict, operations: &[Operation]) -> io::Result<()> {
    for (name, findings) in &verdict.anomalies {
        let allowed = if verdict.is_all_allowed(name) {
            ", allowed"
        } else {
            ""
        };
        let id = verdict.invariants.get(name);
        let id = id.map_or(String::new(), |id| format!(" {id}"));
        writeln!(out, "{name}{id} ({}{allowed})", findings.len())?;
        for (finding, ops) in shown(findings) {
            let why = finding.waived.as_deref();
            let why = why.map_or(String::new(), |why| format!(" (allowed: {why})"));
            writeln!(out, "  - {}{why}", finding.text)?;
            for op in ops {
                if let Ok(at) = operations.binary_search_by_key(op, |o| o.index) {
                    writeln!(out, "      {}", line(&operations[at]))?;
                }
            }
        }
        if findings.len() > FINDINGS_MAX {
            writeln!(out, "  … and {} more", findings.len() - FINDINGS_MAX)?;
        }
    }
    let counted: Vec<_> = verdict
        .counted
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    writeln!(out, "judged: {}", counted.join(", ").replace('_', " "))?;
    for (name, note) in &verdict.notes {
        writeln!(out, "{}: {note}", name.replace('_', " "))?;
    }
    if let Some(why) = &verdict.gave_up {
        writeln!(out, "gave up: {why}")?;
    }
    let valid = match verdict.valid() {
        Valid::Yes => "valid",
        Valid::No => "INVALID",
        Valid::Unknown => "inconclusive",
    };
    writeln!(out, "{valid}")
}

/// An operation as a line of at most [`OPERATION_CHARS_MAX`] characters.
pub(crate) fn line(operation: &Operation) -> String {
    // An operation that was read can be written.
    let line = serde_json::to_string(operation).unwrap_or_default();
    match line.char_indices().nth(OPERATION_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
