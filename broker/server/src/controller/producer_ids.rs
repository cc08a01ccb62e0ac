//! Allocates producer ids from blocks that the controller assigned to this broker (I4, P11: never one twice).

use brokkr_env::Env;
use brokkr_types::ProducerId;
use brokkr_wire::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::controller::ControllerHandle;

type IdReply = oneshot::Sender<Result<ProducerId, ErrorCode>>;

/// A handle to the allocator. Cloning shares the task.
#[derive(Clone)]
pub struct ProducerIds {
    queue: mpsc::Sender<IdReply>,
}

impl ProducerIds {
    /// Starts the task.
    pub fn start<E: Env>(env: &E, controller: ControllerHandle, queue_max: usize) -> Self {
        let (tx, rx) = mpsc::channel(queue_max);
        env.spawn("producer-ids", allocate(controller, rx));
        Self { queue: tx }
    }

    /// Returns an id that was never allocated before.
    pub async fn next(&self) -> Result<ProducerId, ErrorCode> {
        let (tx, rx) = oneshot::channel();
        let stopped = ErrorCode::COORDINATOR_NOT_AVAILABLE;
        self.queue.send(tx).await.map_err(|_| stopped)?;
        rx.await.map_err(|_| stopped)?
    }
}

/// Allocates ids. The rest of a block is lost when the process ends; there are plenty.
async fn allocate(controller: ControllerHandle, mut queue: mpsc::Receiver<IdReply>) {
    let mut block = 0..0;
    while let Some(reply) = queue.recv().await {
        if block.is_empty() {
            match controller.allocate_producer_ids().await {
                Ok(next) => block = next,
                Err(code) => {
                    let _ = reply.send(Err(code));
                    continue;
                }
            }
        }
        let id = block.next().expect("a block has ids");
        let _ = reply.send(Ok(ProducerId(id)));
    }
}
