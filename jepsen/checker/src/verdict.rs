//! Verdicts of the checkers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Whether a history is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Valid {
    /// It contains only allowed anomalies.
    Yes,
    /// It contains an anomaly that is not allowed.
    No,
    /// The search gave up.
    Unknown,
}

/// One case of an anomaly.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// The finding as data, with the fields of its anomaly.
    pub data: Value,
    /// The indexes of the operations that prove it.
    pub ops: Vec<u64>,
    /// The finding as a sentence.
    pub text: String,
    /// Why this finding does not make a history invalid, if it does not.
    pub waived: Option<Cow<'static, str>>,
}

impl Finding {
    /// A finding with the operations that prove it.
    pub fn new(data: Value, ops: impl IntoIterator<Item = u64>, text: impl Into<String>) -> Self {
        let mut ops: Vec<_> = ops.into_iter().collect();
        ops.sort_unstable();
        ops.dedup();
        let text = text.into();
        Self {
            data,
            ops,
            text,
            waived: None,
        }
    }

    /// The same finding, waived for a reason.
    #[must_use]
    pub fn waived(self, why: &'static str) -> Self {
        let waived = Some(Cow::Borrowed(why));
        Self { waived, ..self }
    }
}

/// A checker's verdict on a history.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// All findings by anomaly, including allowed ones.
    pub anomalies: BTreeMap<&'static str, Vec<Finding>>,
    /// The anomalies that do not make a history invalid.
    pub allowed: BTreeSet<&'static str>,
    /// What the checker gave up on, if it did.
    pub gave_up: Option<String>,
    /// What the judge counted: without anything to judge there is no verdict.
    pub counted: BTreeMap<&'static str, u64>,
    /// The invariant (by the id of `sim/INVARIANTS.md`) that an anomaly breaks, for the anomalies that break one.
    pub invariants: BTreeMap<&'static str, &'static str>,
    /// Additional measures.
    pub notes: BTreeMap<&'static str, Value>,
}

impl Verdict {
    /// A verdict without findings.
    pub fn new() -> Self {
        Self {
            anomalies: BTreeMap::new(),
            allowed: BTreeSet::new(),
            gave_up: None,
            counted: BTreeMap::new(),
            invariants: BTreeMap::new(),
            notes: BTreeMap::new(),
        }
    }

    /// Adds findings, if there are any.
    pub fn add(&mut self, anomaly: &'static str, findings: impl IntoIterator<Item = Finding>) {
        let mut findings = findings.into_iter().peekable();
        if findings.peek().is_some() {
            self.anomalies.entry(anomaly).or_default().extend(findings);
        }
    }

    /// Whether a finding of an anomaly does not make the history invalid.
    pub fn is_allowed(&self, anomaly: &str, finding: &Finding) -> bool {
        finding.waived.is_some() || self.allowed.contains(anomaly)
    }

    /// Whether no finding of an anomaly makes the history invalid.
    pub fn is_all_allowed(&self, anomaly: &str) -> bool {
        let mut findings = self.findings(anomaly).iter();
        findings.all(|f| self.is_allowed(anomaly, f))
    }

    /// Whether the history is valid.
    pub fn valid(&self) -> Valid {
        if self.anomalies.keys().any(|name| !self.is_all_allowed(name)) {
            Valid::No
        } else if self.gave_up.is_some() {
            Valid::Unknown
        } else {
            Valid::Yes
        }
    }

    /// Gives up, unless it gave up before.
    pub(crate) fn give_up(&mut self, why: impl Into<String>) {
        if self.gave_up.is_none() {
            self.gave_up = Some(why.into());
        }
    }

    /// Requires that the judge counted at least `least` of `what`; otherwise the verdict is at best [`Valid::Unknown`].
    ///
    /// # Errors
    /// If this judge does not count `what`.
    pub fn require(&mut self, what: &str, least: u64) -> Result<(), NotCounted> {
        let Some((name, n)) = self.counted.get_key_value(what) else {
            let (what, counted) = (what.to_owned(), self.counted.keys().copied().collect());
            return Err(NotCounted { what, counted });
        };
        if *n < least {
            let why = format!("{name}: {n} were judged, and {least} are required");
            self.give_up(why);
        }
        Ok(())
    }

    /// The findings of an anomaly.
    pub fn findings(&self, anomaly: &str) -> &[Finding] {
        self.anomalies.get(anomaly).map_or(&[], Vec::as_slice)
    }

    /// `{"valid": true | false | "unknown", "anomalies": {name: [finding]}, …}`. Also: `allowed`, the anomalies found that do
    /// not make the history invalid; `explanations`, `evidence` and `waived`, for each anomaly a sentence, the indexes of the
    /// proving operations, and the reason why it is allowed or null, for each finding; `invariants`; `counted`; and the notes.
    pub fn to_json(&self) -> Value {
        let valid = match self.valid() {
            Valid::Yes => json!(true),
            Valid::No => json!(false),
            Valid::Unknown => json!("unknown"),
        };
        let by_name = |each: fn(&Finding) -> Value| -> Value {
            let entries = self.anomalies.iter();
            Value::Object(
                entries
                    .map(|(name, f)| ((*name).to_owned(), f.iter().map(each).collect()))
                    .collect(),
            )
        };
        let allowed: Vec<_> = self
            .anomalies
            .keys()
            .filter(|name| self.is_all_allowed(name))
            .collect();
        let broken = self.invariants.iter();
        let invariants: BTreeMap<_, _> = broken
            .filter(|(name, _)| self.anomalies.contains_key(*name))
            .collect();
        let mut all = json!({
            "valid": valid,
            "anomalies": by_name(|f| f.data.clone()),
            "explanations": by_name(|f| json!(f.text)),
            "evidence": by_name(|f| json!(f.ops)),
            "waived": by_name(|f| json!(f.waived)),
            "allowed": allowed,
            "invariants": invariants,
            "counted": self.counted,
        });
        for (name, note) in &self.notes {
            all[*name] = note.clone();
        }
        if let Some(why) = &self.gave_up {
            all["gave_up"] = json!(why);
        }
        all
    }
}

impl Default for Verdict {
    fn default() -> Self {
        Self::new()
    }
}

/// A count that a judge does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotCounted {
    /// The count.
    pub what: String,
    /// The counts that it has.
    pub counted: Vec<&'static str>,
}

impl std::fmt::Display for NotCounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counted = self.counted.join(", ");
        write!(
            f,
            "this judge does not count {:?}; it counts: {counted}",
            self.what
        )
    }
}

impl std::error::Error for NotCounted {}

/// A history that is malformed, although each of its operations is well-formed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// The index of the operation at which it shows.
    pub index: u64,
    /// A description.
    pub what: String,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "operation {}: {}", self.index, self.what)
    }
}

impl std::error::Error for Malformed {}
