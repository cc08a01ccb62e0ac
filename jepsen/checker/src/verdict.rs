//! What a checker says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Whether a history is as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Valid {
    /// Nothing is wrong with it but what is allowed.
    Yes,
    /// Something is.
    No,
    /// The search was given up.
    Unknown,
}

/// One case of an anomaly.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// What was found, in the words of the anomaly.
    pub data: Value,
    /// The indexes of the operations that prove it.
    pub ops: Vec<u64>,
    /// The same for people.
    pub text: String,
}

impl Finding {
    /// A finding that `ops` prove.
    pub fn new(data: Value, ops: impl IntoIterator<Item = u64>, text: impl Into<String>) -> Self {
        let mut ops: Vec<_> = ops.into_iter().collect();
        ops.sort_unstable();
        ops.dedup();
        let text = text.into();
        Self { data, ops, text }
    }
}

/// What a checker says of a history.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// All that was found, also what is allowed, by anomaly.
    pub anomalies: BTreeMap<&'static str, Vec<Finding>>,
    /// The anomalies that don't make a history invalid.
    pub allowed: BTreeSet<&'static str>,
    /// What the checker gave up on, if it did.
    pub gave_up: Option<String>,
    /// Other things worth knowing.
    pub notes: BTreeMap<&'static str, Value>,
}

impl Verdict {
    /// A verdict of nothing found.
    pub fn new() -> Self {
        Self {
            anomalies: BTreeMap::new(),
            allowed: BTreeSet::new(),
            gave_up: None,
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

    /// Whether the history is as it should be.
    pub fn valid(&self) -> Valid {
        if self.anomalies.keys().any(|name| !self.allowed.contains(name)) {
            Valid::No
        } else if self.gave_up.is_some() {
            Valid::Unknown
        } else {
            Valid::Yes
        }
    }

    /// The findings of an anomaly.
    pub fn findings(&self, anomaly: &str) -> &[Finding] {
        self.anomalies.get(anomaly).map_or(&[], Vec::as_slice)
    }

    /// `{"valid": true | false | "unknown", "anomalies": {name: [finding]}, …}`. Beside these two: `allowed`, the anomalies found
    /// that are no reason to reject; `explanations` and `evidence`, for each anomaly a text and the indexes of the proving operations
    /// for each finding; and the notes.
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
            .filter(|name| self.allowed.contains(*name))
            .collect();
        let mut all = json!({
            "valid": valid,
            "anomalies": by_name(|f| f.data.clone()),
            "explanations": by_name(|f| json!(f.text)),
            "evidence": by_name(|f| json!(f.ops)),
            "allowed": allowed,
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

/// What is no history, though each of its operations is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// The operation at which it shows.
    pub index: u64,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "operation {}: {}", self.index, self.what)
    }
}

impl std::error::Error for Malformed {}
