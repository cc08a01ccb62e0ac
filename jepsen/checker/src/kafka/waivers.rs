//! Waivers in a history: findings that do not make it invalid, for a reason that only its recorder knows.
//!
//! Some producers may store a record twice, because they retry without being idempotent; some records may be lost, because a
//! disk was damaged on purpose. The operations of clients do not show either, so the recorder says it:
//!
//! ```text
//! {"index":9,"time":7,"type":"info","process":"nemesis","f":"waive",
//!  "value":{"anomaly":"duplicate","key":"t-0","values":[17,18],"why":"their producer is not idempotent"}}
//! ```
//! A waiver with `key` is about findings of that partition alone, and one with `values` about findings that name no other
//! records. Waived findings stay in the report, with the reason.

use std::collections::BTreeSet;

use brokkr_history::Operation;
use serde_json::Value;

use crate::{Finding, Malformed, Verdict};

/// Findings that do not make the history invalid.
struct Waiver {
    anomaly: &'static str,
    key: Option<String>,
    values: Option<BTreeSet<String>>,
    why: String,
}

impl Waiver {
    fn of(value: &Value, anomalies: &[&'static str]) -> Result<Self, String> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let name = text("anomaly").ok_or("a waiver has no text \"anomaly\"")?;
        let anomaly = anomalies.iter().copied().find(|known| *known == name);
        let values = match &value["values"] {
            Value::Null => None,
            Value::Array(values) => Some(values.iter().map(Value::to_string).collect()),
            _ => return Err("a waiver's \"values\" are a list".to_owned()),
        };
        if !(value["key"].is_null() || value["key"].is_string()) {
            return Err("a waiver's \"key\" is a text".to_owned());
        }
        Ok(Self {
            anomaly: anomaly.ok_or_else(|| format!("no anomaly {name:?} to waive"))?,
            key: text("key"),
            values,
            why: text("why").ok_or("a waiver has no text \"why\"")?,
        })
    }

    fn is_about(&self, finding: &Finding) -> bool {
        let is_of_key = |key: &String| finding.data["key"].as_str() == Some(key);
        let names_only = |values: &BTreeSet<String>| {
            let mut named = values_of(finding).peekable();
            named.peek().is_some() && named.all(|value| values.contains(&value.to_string()))
        };
        self.key.as_ref().is_none_or(is_of_key) && self.values.as_ref().is_none_or(names_only)
    }
}

/// The records that a finding names.
fn values_of(finding: &Finding) -> impl Iterator<Item = &Value> {
    let one = finding.data.get("value").into_iter();
    one.chain(finding.data["values"].as_array().into_iter().flatten())
}

/// The waivers of a history.
#[derive(Default)]
pub(super) struct Waivers(Vec<Waiver>);

impl Waivers {
    /// Adds the waiver of one of `anomalies` that an operation of the nemesis declares.
    pub(super) fn push(
        &mut self,
        operation: &Operation,
        value: &Value,
        anomalies: &[&'static str],
    ) -> Result<(), Malformed> {
        let waiver = Waiver::of(value, anomalies).map_err(|what| Malformed {
            index: operation.index,
            what,
        })?;
        self.0.push(waiver);
        Ok(())
    }

    /// Marks the findings that are waived.
    pub(super) fn apply(&self, verdict: &mut Verdict) {
        for waiver in &self.0 {
            let findings = verdict.anomalies.get_mut(waiver.anomaly);
            for finding in findings.into_iter().flatten() {
                if finding.waived.is_none() && waiver.is_about(finding) {
                    finding.waived = Some(waiver.why.clone().into());
                }
            }
        }
    }
}
