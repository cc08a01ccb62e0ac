//! What a judge reports.

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Violation {
    /// Its id, as in INVARIANTS.md.
    pub id: &'static str,
    /// A description, in a sentence.
    pub what: String,
}

impl Violation {
    /// A violation of the invariant `id`.
    pub fn new(id: &'static str, what: impl Into<String>) -> Self {
        Self {
            id,
            what: what.into(),
        }
    }
}
