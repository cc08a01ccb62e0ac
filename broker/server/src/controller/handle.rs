//! The way to the controller.

use std::ops::Range;

use brokkr_env::Reader;
use brokkr_log::Recorded;
use brokkr_metadata::{Reply, Request};
use brokkr_wire::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::log_dir::METADATA_FOLDER;

pub(super) enum ControllerMessage {
    Request(Request, oneshot::Sender<Result<Reply, ErrorCode>>),
    Close(oneshot::Sender<Option<(String, Recorded, i64)>>),
}

/// The handle. Cloning shares the host.
#[derive(Clone)]
pub struct ControllerHandle {
    pub(super) queue: mpsc::Sender<ControllerMessage>,
    pub(super) recorded: Reader<Recorded>,
}

impl ControllerHandle {
    /// Asks for a change, and waits until it is committed and the partitions here have followed.
    pub async fn submit(&self, request: Request) -> Result<Reply, ErrorCode> {
        let (tx, rx) = oneshot::channel();
        let gone = ErrorCode::NOT_CONTROLLER;
        self.queue
            .send(ControllerMessage::Request(request, tx))
            .await
            .map_err(|_| gone)?;
        rx.await.map_err(|_| gone)?
    }

    /// Requests that wait for the host.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// A block of producer ids that nobody had before.
    pub async fn allocate_producer_ids(&self) -> Result<Range<i64>, ErrorCode> {
        match self.submit(Request::AllocateProducerIds).await? {
            Reply::ProducerIds(block) => block,
            other => unreachable!("ids were asked for: {other:?}"),
        }
    }

    /// What is to be recorded of the metadata log.
    pub fn recorded(&self) -> (String, Recorded) {
        (
            METADATA_FOLDER.to_owned(),
            Recorded::clone(self.recorded.clone().get()),
        )
    }

    /// Closes the log: what is to be recorded of it, and this life's broker epoch. `None` if it failed.
    pub async fn close(&self) -> Option<(String, Recorded, i64)> {
        let (tx, rx) = oneshot::channel();
        self.queue.send(ControllerMessage::Close(tx)).await.ok()?;
        rx.await.ok()?
    }
}
