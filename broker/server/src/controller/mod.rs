//! The controller's host, the way to it, and the producer ids that it hands out.

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
