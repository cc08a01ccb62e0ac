//! Checkers of histories. Each is a pure function from what clients saw to a verdict: none depends on a broker, a simulator
//! or a workload, so they judge Apache Kafka as well.
//!
//! - [`kafka`]: sends and polls: every anomaly of Jepsen's Kafka workload, among them cycles.
//! - [`exactly_once`]: input, output and committed offset as one unit (T1).
//! - [`linear`]: linearizability, for any model of one object: registers, committed offsets (G2), a controller's answers
//!   (M2).
//! - [`metadata`]: answers of several brokers that may be out of date: monotonic per broker, and never a state that did not
//!   exist (L3, M2).
//! - [`topic_ids`]: topics that are deleted and created again, by their ids (M2).
//!
//! No judge says that a history is valid in which it found nothing to judge: each counts what it judged
//! ([`Verdict::counted`]), says which operations no rule of it is about, and otherwise answers [`Valid::Unknown`].

pub mod exactly_once;
mod graph;
mod invariants;
pub mod kafka;
pub mod linear;
pub mod metadata;
mod pairs;
mod table;
pub mod topic_ids;
mod verdict;

pub use invariants::invariant;
pub use verdict::{Finding, Malformed, NotCounted, Valid, Verdict};
