//! The way to the owner of a partition.

use std::sync::Arc;

use brokkr_env::{Env, Latest};
use brokkr_types::{Instant, Offset};
use brokkr_wire::ErrorCode;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::message::{ControlMessage, DataMessage, PartitionError, QueuePermit};
use super::view::{PartitionState, ViewRef};
use super::waiters::{Waiter, Waiters};

/// Capacity of the owner's queue, in messages and in KiB of batches. Senders wait when it is full.
pub(super) const QUEUE_MAX: usize = 4096;
pub(super) const QUEUE_KIB_MAX: u32 = 8 * 1024;
/// Capacity of the owner's queue for control.
pub(super) const CONTROL_MAX: usize = 16;

/// What the owner and the handles share.
pub(super) struct Shared<E: Env> {
    pub(super) state: Latest<PartitionState<E>>,
    pub(super) waiters: Waiters,
    /// Notified when the log was opened, or could not be.
    pub(super) opened: Notify,
}

/// What others hold of a partition. Cloning shares the owner.
pub struct PartitionHandle<E: Env> {
    pub(super) queue: mpsc::Sender<DataMessage>,
    pub(super) queue_kib: Arc<Semaphore>,
    pub(super) control: mpsc::Sender<ControlMessage>,
    pub(super) shared: Arc<Shared<E>>,
}

impl<E: Env> Clone for PartitionHandle<E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            queue_kib: Arc::clone(&self.queue_kib),
            control: self.control.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<E: Env> PartitionHandle<E> {
    /// The latest view; `None` while the log is being opened.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR while the partition is offline.
    pub fn view(&self) -> Result<Option<ViewRef<E>>, PartitionError> {
        let state = self.shared.state.get();
        match &*state {
            PartitionState::Open(_) => Ok(Some(ViewRef(state))),
            PartitionState::Opening => Ok(None),
            PartitionState::Offline => Err(PartitionError::new(ErrorCode::KAFKA_STORAGE_ERROR)),
        }
    }

    /// The latest view, if the partition serves.
    pub fn view_if_open(&self) -> Option<ViewRef<E>> {
        self.view().ok().flatten()
    }

    /// The latest view, once the log is open. Cancel-safe.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR while the partition is offline; NOT_LEADER_OR_FOLLOWER where it is still being opened at `until`.
    pub async fn wait_for_view(&self, env: &E, until: Instant) -> Result<ViewRef<E>, PartitionError> {
        if let Some(view) = self.view()? {
            return Ok(view);
        }
        tokio::select! {
            biased;
            () = self.opening_finished() => brokkr_types::reached!("a request waited for a log to be opened"),
            () = env.sleep_until(until) => {}
        }
        self.view()?
            .ok_or_else(|| PartitionError::new(ErrorCode::NOT_LEADER_OR_FOLLOWER))
    }

    /// Waits until the log was opened, or could not be. Cancel-safe.
    pub async fn opening_finished(&self) {
        loop {
            let mut opened = std::pin::pin!(self.shared.opened.notified());
            // BEFORE it is looked at: what is published after that is heard.
            opened.as_mut().enable();
            if !matches!(self.view(), Ok(None)) {
                return;
            }
            opened.await;
        }
    }

    /// Whether its log is damaged or can't be read, or its log directory failed.
    pub fn is_offline(&self) -> bool {
        self.view().is_err()
    }

    /// Has the waiter told, with this place, when the high watermark is no longer what it saw; of a log that was still being opened
    /// (`None`) when it is open or offline.
    pub fn register_waiter(&self, seen: Option<Offset>, waiter: &Arc<Waiter>, index: usize) {
        self.shared.waiters.add(waiter, index);
        // AFTER that: the owner publishes first and tells then, so one of both sees the other.
        let now = self.view();
        if now.is_err() || now.is_ok_and(|view| view.map(|v| v.high_watermark) != seen) {
            waiter.notify(index, false);
        }
    }

    /// Waits for room in the queue for a batch of `bytes`. Cancel-safe.
    pub async fn reserve_queue(&self, bytes: usize) -> QueuePermit {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.queue_kib).acquire_many_owned(kib.min(QUEUE_KIB_MAX));
        QueuePermit(permit.await.expect("it is never closed"))
    }

    /// Sends data, behind what was sent before. `false` if there is no owner any more.
    pub async fn send(&self, message: DataMessage) -> bool {
        self.queue.send(message).await.is_ok()
    }

    /// Sends control. `false` if there is no owner any more.
    pub async fn send_control(&self, control: ControlMessage) -> bool {
        match control {
            // One that waits already is enough.
            ControlMessage::Retention => {
                !matches!(self.control.try_send(control), Err(TrySendError::Closed(_)))
            }
            control => self.control.send(control).await.is_ok(),
        }
    }

    /// Messages that wait for the owner.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}
