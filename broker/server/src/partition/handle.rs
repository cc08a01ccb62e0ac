//! A handle to a partition: sends messages to its owner and reads its published state.

use std::sync::Arc;

use brokkr_env::{Env, Latest};
use brokkr_types::{Instant, Offset};
use brokkr_wire::ErrorCode;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::message::{ControlMessage, DataMessage, PartitionError, QueuePermit};
use super::view::{PartitionState, ViewRef};
use super::waiters::{Waiter, Waiters};

/// State that the owner and the handles share.
pub(super) struct Shared<E: Env> {
    pub(super) state: Latest<PartitionState<E>>,
    pub(super) waiters: Waiters,
    /// Notified when the log is open, or could not be opened.
    pub(super) opened: Notify,
    /// Capacity of the queue, in KiB.
    pub(super) queue_kib_max: u32,
}

/// A handle to a partition. Cloning shares the owner.
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

    /// The latest view, if the log is open.
    pub fn view_if_open(&self) -> Option<ViewRef<E>> {
        self.view().ok().flatten()
    }

    /// The latest view, once the log is open. Waits until `until` at most. Cancel-safe.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR while the partition is offline; NOT_LEADER_OR_FOLLOWER if the log is still being opened at
    /// `until`.
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

    /// Waits until the log is open, or could not be opened. Cancel-safe.
    pub async fn opening_finished(&self) {
        loop {
            let mut opened = std::pin::pin!(self.shared.opened.notified());
            // BEFORE the state is read: a later publication notifies.
            opened.as_mut().enable();
            if !matches!(self.view(), Ok(None)) {
                return;
            }
            opened.await;
        }
    }

    /// Whether the partition is offline: its log is damaged or can't be read, or its log directory failed.
    pub fn is_offline(&self) -> bool {
        self.view().is_err()
    }

    /// Notifies the waiter, with this index, when the high watermark is no longer `seen`, or the partition goes offline;
    /// if `seen` is `None`, when the log has been opened.
    pub fn register_waiter(&self, seen: Option<Offset>, waiter: &Arc<Waiter>, index: usize) {
        self.shared.waiters.add(waiter, index);
        // AFTER the registration: the owner publishes before it notifies, so either the owner finds the waiter or this
        // finds the change.
        let now = self.view();
        if now.is_err() || now.is_ok_and(|view| view.map(|v| v.high_watermark) != seen) {
            waiter.notify(index, false);
        }
    }

    /// Waits for space in the queue for a batch of `bytes`. Cancel-safe.
    pub async fn reserve_queue(&self, bytes: usize) -> QueuePermit {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.queue_kib).acquire_many_owned(kib.min(self.shared.queue_kib_max));
        QueuePermit(permit.await.expect("the semaphore is never closed"))
    }

    /// Sends a data message, in order. `false` if the owner has ended.
    pub async fn send(&self, message: DataMessage) -> bool {
        self.queue.send(message).await.is_ok()
    }

    /// Sends a control message. `false` if the owner has ended.
    pub async fn send_control(&self, control: ControlMessage) -> bool {
        match control {
            // One queued message is enough.
            ControlMessage::Retention => {
                !matches!(self.control.try_send(control), Err(TrySendError::Closed(_)))
            }
            control => self.control.send(control).await.is_ok(),
        }
    }

    /// Data messages in the queue.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}
