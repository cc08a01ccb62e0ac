//! The controller: the task that hosts its state machine, its handle, and the allocation of producer ids.

mod error;
mod handle;
mod host;
mod load;
mod producer_ids;
mod snapshots;

pub use error::ControllerError;
pub use handle::ControllerHandle;
pub use host::start;
pub use load::{check_startable, voters_in};
pub use producer_ids::ProducerIds;
