//! The broker's budget for the bytes of requests that are under way.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit stands for: the semaphore counts in `u32`.
const UNIT: usize = 1024;

/// The budget (`queued.max.request.bytes`). Cloning shares it.
#[derive(Clone)]
pub struct Memory {
    units: Arc<Semaphore>,
    units_max: u32,
}

impl Memory {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let units_max = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX >> 3)
            .clamp(1, u32::MAX >> 3);
        Self {
            units: Arc::new(Semaphore::new(units_max as usize)),
            units_max,
        }
    }

    /// Waits until there are `bytes`, first come first served, and takes them. Who asks for more than all of it gets all
    /// of it: one such request at a time. Cancel-safe.
    pub async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .min(self.units_max);
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await;
        permit.expect("the budget is never closed")
    }
}
