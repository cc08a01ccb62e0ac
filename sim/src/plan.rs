//! A run as data: everything that a seed decides in advance, in one JSON document that can be edited and run again.
//!
//! A seed derives the broker's configuration, its clock, the clients' workload, the scheduling strategy, and a list of faults with
//! their times. Choices that only the run can make (which bytes a power loss takes, how long a packet takes) are keyed by the seed;
//! each fault has its own key, its `id`, so that removing one fault leaves the others' effects unchanged.
//!
//! Swarm (Groce et al., ISSTA 2012): each family of faults is off in about a third of the seeds, so that one family does not hide
//! bugs from another.

mod document;
mod error;
mod family;
mod fault;
mod format;
mod generate;
mod names;
mod nodes;
mod prepared_log;
mod swarm;

pub use document::{BROKER_ALWAYS, FLUSH_MS, NodeClock, Plan};
pub use error::PlanError;
pub use family::{FAMILIES, Family, Faults};
pub use fault::{EVENT_WAIT_MAX_S, Fault, Kind};
pub use format::{COMMIT, FORMAT};
pub use generate::PCT_CHANGE_ONE_IN;
pub use names::{node_name, node_names};
pub use nodes::{BROKER, FIRST_CLIENT, LAST_READER, PORT, ROOT, SECOND_ROOT};
pub use prepared_log::PreparedLog;

#[cfg(test)]
mod tests;
