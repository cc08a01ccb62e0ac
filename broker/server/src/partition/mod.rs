//! A partition: its owner, one task that alone changes its log, and what others see of it.
//!
//! ```text
//! opening ──▶ open ──▶ closed, deleted
//!    │  ▲      │
//!    ▼  │      ▼
//!   offline ◀──┘      its log can't be opened, or its log directory failed
//! ```
//! The owner opens the log itself ([`opening`]); messages wait in its queue meanwhile. Appends wait in the log's staging while a write
//! is under way, and all that waits goes out as one write and one sync; an append is answered when the high watermark has passed it
//! (L1, and P9 for duplicates). Readers look at the [`View`] that the owner publishes and read the log themselves; a request that
//! waits for more leaves a [`Waiter`].
//!
//! Data and control have a queue each: [`Control`] never waits behind data.
//!
//! Invariants: the view's high watermark never passes what is ackable (L4, L5); replies leave in offset order.

mod opening;
mod owner;
mod waiters;

use std::ops::Deref;
use std::sync::Arc;

use brokkr_env::{Env, ErrorLog, Latest, Published};
use brokkr_log::{LogCheckpoint, LogReader};
use brokkr_types::{Instant, LeaderEpoch, NodeId, Offset, UnixMillis};
use brokkr_wire::messages::describe_producers_response::ProducerState;
use brokkr_wire::records::Validated;
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::changes::Changes;
use crate::config::TopicConfig;
use crate::memory::Share;
use crate::metrics::TopicTraffic;

pub use opening::{Assignment, DeletedTopics, Place, remove_or_set_aside};
pub use waiters::Waiter;
use waiters::Waiters;

/// Capacity of the owner's queue, in messages and in KiB of batches. Senders wait when it is full.
const QUEUE_MAX: usize = 4096;
const QUEUE_KIB_MAX: u32 = 8 * 1024;
/// Capacity of the owner's queue for control.
const CONTROL_MAX: usize = 16;

/// Where a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The offset of its first record: the original one, for a duplicate.
    pub base_offset: Offset,
    /// The broker's time for it, or none where records keep their own. For a duplicate its largest timestamp.
    pub log_append_time: UnixMillis,
    /// Where the log starts.
    pub log_start: Offset,
}

/// Why something asked of a partition can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Kafka's code.
    pub code: ErrorCode,
    /// The sentence for the client.
    pub why: Option<String>,
}

impl Refused {
    /// A refusal that needs no sentence.
    pub fn of(code: ErrorCode) -> Self {
        Self { code, why: None }
    }

    /// A refusal with a sentence.
    pub fn because(code: ErrorCode, why: impl std::fmt::Display) -> Self {
        Self {
            code,
            why: Some(why.to_string()),
        }
    }

    /// The sentence, as responses have it: clipped.
    pub fn message(&self) -> Option<Str> {
        self.why.as_deref().map(Str::message)
    }
}

/// The answer to an append.
pub type Answer = Result<Placed, Refused>;

/// What a batch takes from the memory budget until it is on disk, whether or not anybody waits for the answer.
#[derive(Debug)]
pub struct Held {
    /// The buffer that its bytes are a slice of.
    pub buffer: Arc<Share>,
    /// Its own bytes, where its records were written anew.
    pub rebuilt: Share,
}

/// A batch's place in the owner's queue.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "it gives back by its end")] OwnedSemaphorePermit);

/// A batch to append.
pub struct Append {
    /// The batch.
    pub batch: Validated,
    /// Whether the producer asked for acks=all.
    pub acks_all: bool,
    /// Its share of the memory budget.
    pub held: Held,
    /// Its place in the queue.
    pub room: Room,
    /// Where it is counted.
    pub traffic: Arc<TopicTraffic>,
    /// Answered when it is committed.
    pub reply: oneshot::Sender<Answer>,
}

/// Data messages to an owner: carried out in the order in which they were sent. Small, since an idle queue has room for 32.
pub enum Message {
    /// Append a batch.
    Append(Box<Append>),
    /// Raise the log start (DeleteRecords); answered with the new one.
    DeleteRecords(Offset, oneshot::Sender<Result<Offset, Refused>>),
    /// List the idempotent producers.
    Producers(oneshot::Sender<Vec<ProducerState>>),
}

/// Control messages to an owner. They never wait behind data.
pub enum Control {
    /// The topic's configuration changed.
    Configure(Arc<TopicConfig>),
    /// Delete what retention says.
    Retention,
    /// The log directory failed: go offline.
    Abandon,
    /// Stop: flush and close.
    Close(oneshot::Sender<Closed>),
    /// The topic is gone: delete the log.
    Delete(oneshot::Sender<()>),
}

/// How a log was closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closed {
    /// Cleanly, with what to record of it; a log that nothing was ever appended to needs none.
    Clean(Option<LogCheckpoint>),
    /// Not cleanly: the next start has to look.
    Unclean,
}

/// What readers see of a partition whose log is open.
pub struct View<E: Env> {
    /// Reads the log as it was then.
    pub reader: LogReader<E>,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Records below it are committed.
    pub high_watermark: Offset,
    /// Where the log ends, written or not.
    pub log_end: Offset,
    /// What recovery may trust after a crash; `None` in a log that nothing was ever appended to.
    pub recorded: Option<LogCheckpoint>,
    /// Bytes in its segments.
    pub size_bytes: u64,
    /// Producers that it remembers.
    pub producers: usize,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
}

impl<E: Env> View<E> {
    /// Records below it are decided: all that are committed, while there are no transactions.
    pub fn last_stable(&self) -> Offset {
        self.high_watermark
    }
}

/// Whether a partition serves.
pub enum PartitionState<E: Env> {
    /// Its log is being opened.
    Opening,
    /// It serves.
    Open(View<E>),
    /// Its log is damaged or can't be read, or its log directory failed: nothing is served from it.
    Offline,
}

/// The view of an open partition.
pub struct ViewRef<E: Env>(Arc<PartitionState<E>>);

impl<E: Env> Deref for ViewRef<E> {
    type Target = View<E>;

    fn deref(&self) -> &View<E> {
        match &*self.0 {
            PartitionState::Open(view) => view,
            PartitionState::Opening | PartitionState::Offline => unreachable!("it is made of an open one"),
        }
    }
}

/// What the owner and the handles share.
struct Shared<E: Env> {
    state: Latest<PartitionState<E>>,
    waiters: Waiters,
    /// Notified when the log was opened, or could not be.
    opened: Notify,
}

/// What others hold of a partition. Cloning shares the owner.
pub struct Handle<E: Env> {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    control: mpsc::Sender<Control>,
    shared: Arc<Shared<E>>,
}

impl<E: Env> Clone for Handle<E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            room: Arc::clone(&self.room),
            control: self.control.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<E: Env> Handle<E> {
    /// The latest view; `None` while the log is being opened.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR while the partition is offline.
    pub fn view(&self) -> Result<Option<ViewRef<E>>, Refused> {
        let state = self.shared.state.get();
        match &*state {
            PartitionState::Open(_) => Ok(Some(ViewRef(state))),
            PartitionState::Opening => Ok(None),
            PartitionState::Offline => Err(Refused::of(ErrorCode::KAFKA_STORAGE_ERROR)),
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
    pub async fn opened(&self, env: &E, until: Instant) -> Result<ViewRef<E>, Refused> {
        if let Some(view) = self.view()? {
            return Ok(view);
        }
        tokio::select! {
            biased;
            () = self.settled() => brokkr_types::reached!("a request waited for a log to be opened"),
            () = env.sleep_until(until) => {}
        }
        self.view()?
            .ok_or_else(|| Refused::of(ErrorCode::NOT_LEADER_OR_FOLLOWER))
    }

    /// Waits until the log was opened, or could not be. Cancel-safe.
    pub async fn settled(&self) {
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
    pub fn wait(&self, seen: Option<Offset>, waiter: &Arc<Waiter>, place: usize) {
        self.shared.waiters.add(waiter, place);
        // AFTER that: the owner publishes first and tells then, so one of both sees the other.
        let now = self.view();
        if now.is_err() || now.is_ok_and(|view| view.map(|v| v.high_watermark) != seen) {
            waiter.tell(place, false);
        }
    }

    /// Waits for room in the queue for a batch of `bytes`. Cancel-safe.
    pub async fn room(&self, bytes: usize) -> Room {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib.min(QUEUE_KIB_MAX));
        Room(room.await.expect("it is never closed"))
    }

    /// Sends data, behind what was sent before. `false` if there is no owner any more.
    pub async fn send(&self, message: Message) -> bool {
        self.queue.send(message).await.is_ok()
    }

    /// Sends control. `false` if there is no owner any more.
    pub async fn control(&self, control: Control) -> bool {
        match control {
            // One that waits already is enough.
            Control::Retention => !matches!(self.control.try_send(control), Err(TrySendError::Closed(_))),
            control => self.control.send(control).await.is_ok(),
        }
    }

    /// Messages that wait for the owner.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Starts the owner of a partition, which opens its log.
pub fn start<E: Env>(
    env: &E,
    error_log: &Arc<ErrorLog>,
    changes: &Changes,
    node: NodeId,
    assignment: Assignment<E>,
) -> Handle<E> {
    let (queue, messages) = mpsc::channel(QUEUE_MAX);
    let (control, controls) = mpsc::channel(CONTROL_MAX);
    let state = Published::new(PartitionState::Opening);
    let shared = Arc::new(Shared {
        state: state.latest(),
        waiters: Waiters::default(),
        opened: Notify::new(),
    });
    let handle = Handle {
        queue,
        room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)),
        control,
        shared: Arc::clone(&shared),
    };
    let outlet = owner::Outlet::new(state, shared, changes.clone());
    let owner = owner::Owner::new(env, error_log, node, outlet, messages, controls);
    env.spawn("partition", owner.run(assignment));
    handle
}
