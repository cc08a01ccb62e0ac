//! The result of an explanation: its text, and what a page highlights.

use std::collections::BTreeSet;

use crate::report::Violated;

/// What a run is explained with.
#[derive(Default)]
pub struct Explanation {
    /// All of it as text.
    pub text: String,
    /// What the user chose, in words.
    pub subject: Option<String>,
    /// The violation that is explained.
    pub violation: Option<Violated>,
    /// The partitions that it is about.
    pub partitions: BTreeSet<String>,
    /// The picked events: each number with its text.
    pub picked: Vec<(u64, String)>,
    /// The number of picked events that were left out.
    pub left_out: usize,
    /// The runs and timers that led to the violation, the last one first.
    pub chain: Vec<u64>,
}
