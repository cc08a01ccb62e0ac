//! The handle to the controller.

use std::ops::Range;

use brokkr_env::Reader;
use brokkr_log::LogCheckpoint;
use brokkr_metadata::{Reply, Request};
use brokkr_wire::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use crate::log_dir::METADATA_FOLDER;

pub(super) enum ControllerMessage {
    Request(Request, oneshot::Sender<Result<Reply, ErrorCode>>),
    Close(oneshot::Sender<Option<(String, LogCheckpoint, i64)>>),
}

/// A handle to the controller. Cloning shares the host.
#[derive(Clone)]
pub struct ControllerHandle {
    pub(super) queue: mpsc::Sender<ControllerMessage>,
    pub(super) recorded: Reader<LogCheckpoint>,
}

impl ControllerHandle {
    /// Submits a change, and waits until it is committed and the partitions here have applied it.
    pub async fn submit(&self, request: Request) -> Result<Reply, ErrorCode> {
        let (tx, rx) = oneshot::channel();
        let stopped = ErrorCode::NOT_CONTROLLER;
        self.queue
            .send(ControllerMessage::Request(request, tx))
            .await
            .map_err(|_| stopped)?;
        rx.await.map_err(|_| stopped)?
    }

    /// Requests in the controller's queue.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Allocates a block of producer ids, none of which was allocated before.
    pub async fn allocate_producer_ids(&self) -> Result<Range<i64>, ErrorCode> {
        match self.submit(Request::AllocateProducerIds).await? {
            Reply::ProducerIds(block) => block,
            other => unreachable!("the reply is not to AllocateProducerIds: {other:?}"),
        }
    }

    /// The folder and the checkpoint of the metadata log.
    pub fn recorded(&self) -> (String, LogCheckpoint) {
        (
            METADATA_FOLDER.to_owned(),
            LogCheckpoint::clone(self.recorded.clone().get()),
        )
    }

    /// Closes the metadata log. Returns its folder, its checkpoint and the broker epoch; `None` if it failed.
    pub async fn close(&self) -> Option<(String, LogCheckpoint, i64)> {
        let (tx, rx) = oneshot::channel();
        self.queue.send(ControllerMessage::Close(tx)).await.ok()?;
        rx.await.ok()?
    }
}
