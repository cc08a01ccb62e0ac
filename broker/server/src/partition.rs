//! A partition's owner: one task that alone changes its log.
//!
//! Appends wait in the log's staging while a write is under way, and all that waits goes out as one write and one sync;
//! an append is answered when the high watermark has passed it (L1, and P9 for duplicates). Readers look at the
//! [`View`] that the owner publishes and read the log themselves; who waits for more leaves a [`Waiter`].
//!
//! Invariants: the view's high watermark never passes what is ackable (L4, L5); replies leave in offset order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use brokkr_env::{Env, ErrorKind, Latest, Noise, Published};
use brokkr_log::{AppendError, Event, Log, LogConfig, LogReader, Recorded};
use brokkr_replication::Leader;
use brokkr_types::{LeaderEpoch, NodeId, Offset, UnixMillis};
use brokkr_wire::messages::describe_producers_response::ProducerState;
use brokkr_wire::records::{Origin, Validated};
use brokkr_wire::{ErrorCode, Str};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::memory::Share;
use crate::metrics::TopicTraffic;

/// Capacity of the owner's queue, in messages and in KiB of batches. Senders wait when it is full.
const QUEUE_MAX: usize = 4096;
const QUEUE_KIB_MAX: u32 = 8 * 1024;
/// Capacity of the owner's queue for control.
const CONTROL_MAX: usize = 16;
/// Messages taken from the queue in one go.
const TAKE_MAX: usize = 512;

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

/// What an owner is asked.
pub enum Message {
    /// Append a batch. Answered when it is committed.
    Append {
        batch: Validated,
        acks_all: bool,
        held: Held,
        /// Its place in the queue.
        room: Room,
        /// Where it is counted.
        traffic: Arc<TopicTraffic>,
        reply: oneshot::Sender<Answer>,
    },
    /// Raise the log start (DeleteRecords); answered with the new one.
    DeleteRecords {
        before: Offset,
        reply: oneshot::Sender<Result<Offset, Refused>>,
    },
    /// Who writes here idempotently.
    Producers {
        reply: oneshot::Sender<Vec<ProducerState>>,
    },
    /// The topic's configuration changed.
    Configure { log: LogConfig, min_insync: usize },
    /// Delete what retention says.
    Retention,
    /// Stop: flush and close. Answered when that is done, with what to record of the log; `None` if something failed.
    Close {
        reply: oneshot::Sender<Option<Recorded>>,
    },
    /// The topic is gone: delete the log.
    Delete { reply: oneshot::Sender<()> },
}

impl Message {
    /// Whether it goes by the queue for control.
    fn controls(&self) -> bool {
        match self {
            Self::Configure { .. } | Self::Retention | Self::Close { .. } | Self::Delete { .. } => true,
            // In the order of the appends that came before.
            Self::Append { .. } | Self::DeleteRecords { .. } | Self::Producers { .. } => false,
        }
    }
}

/// Somebody who waits for a partition, or several, to have more.
#[derive(Default)]
pub struct Waiter {
    notify: Notify,
    /// Which of the partitions have more, for whoever wants to know it.
    more: Option<Mutex<More>>,
}

/// Which of the partitions that somebody waits for have more.
#[derive(Default)]
pub struct More {
    /// By the places that were given for them.
    pub places: Vec<usize>,
    /// One of them has ended.
    pub ended: bool,
}

impl Waiter {
    /// One who wants to know which partitions have more.
    pub fn of_each() -> Self {
        Self {
            notify: Notify::default(),
            more: Some(Mutex::default()),
        }
    }

    /// Waits until some partition has told. Cancel-safe.
    pub async fn told(&self) {
        self.notify.notified().await;
    }

    /// What was told since it was last asked.
    pub fn more(&self) -> More {
        let more = self.more.as_ref();
        more.map(|more| std::mem::take(&mut *more.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }

    fn tell(&self, place: usize, ended: bool) {
        if let Some(more) = &self.more {
            let mut more = more.lock().unwrap_or_else(PoisonError::into_inner);
            more.places.push(place);
            more.ended |= ended;
        }
        self.notify.notify_one();
    }
}

/// Those who wait for one partition, each with the place that it gave it. No message to its owner: a parked fetch costs nobody a
/// turn.
#[derive(Default)]
struct Waiters(Mutex<Vec<(Weak<Waiter>, usize)>>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Vec<(Weak<Waiter>, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, waiter: &Arc<Waiter>, place: usize) {
        let mut all = self.lock();
        // Who has gone is forgotten when the list would grow.
        if all.len() == all.capacity() {
            all.retain(|(w, _)| w.strong_count() > 0);
        }
        all.push((Arc::downgrade(waiter), place));
    }
}

/// What readers see of a partition.
pub struct View<E: Env> {
    /// Reads the log as it was then.
    pub reader: LogReader<E>,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Records below it are committed.
    pub high_watermark: Offset,
    /// Where the log ends, written or not.
    pub log_end: Offset,
    /// What recovery may trust after a crash.
    pub recorded: Recorded,
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

/// What others hold of a partition. Cloning shares the owner.
pub struct Handle<E: Env> {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    control: mpsc::Sender<Message>,
    view: Latest<View<E>>,
    waiters: Arc<Waiters>,
}

impl<E: Env> Clone for Handle<E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            room: Arc::clone(&self.room),
            control: self.control.clone(),
            view: self.view.clone(),
            waiters: Arc::clone(&self.waiters),
        }
    }
}

impl<E: Env> Handle<E> {
    /// The latest view.
    pub fn view(&self) -> Arc<View<E>> {
        self.view.get()
    }

    /// Has the waiter told, with this place, when the high watermark is no longer what it saw.
    pub fn wait(&self, seen: Offset, waiter: &Arc<Waiter>, place: usize) {
        self.waiters.add(waiter, place);
        // AFTER that: the owner publishes first and tells then, so one of both sees the other.
        if self.view().high_watermark != seen {
            waiter.tell(place, false);
        }
    }

    /// Messages in the owner's queue.
    pub fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Waits for room in the queue for a batch of `bytes`. Cancel-safe.
    pub async fn room(&self, bytes: usize) -> Room {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib.min(QUEUE_KIB_MAX));
        Room(room.await.expect("it is never closed"))
    }

    /// Asks the owner, by a queue of its own what controls the partition: that never waits behind data. `false` if there is
    /// no owner any more.
    pub async fn send(&self, message: Message) -> bool {
        match message {
            // One that waits already is enough.
            Message::Retention => !matches!(self.control.try_send(message), Err(TrySendError::Closed(_))),
            message if message.controls() => self.control.send(message).await.is_ok(),
            message => self.queue.send(message).await.is_ok(),
        }
    }
}

/// An append that is staged, written or synced, but not committed.
struct Parked {
    /// Its answer leaves when the high watermark reaches this.
    until: Offset,
    /// Offsets to report to the producer; for a duplicate, those of the original batch.
    placed: Placed,
    reply: oneshot::Sender<Answer>,
    _held: Held,
}

struct Owner<E: Env> {
    env: E,
    noise: Arc<Noise>,
    node: NodeId,
    log: Log<E>,
    leader: Leader,
    view: Published<View<E>>,
    queue: mpsc::Receiver<Message>,
    control: mpsc::Receiver<Message>,
    parked: VecDeque<Parked>,
    waiters: Arc<Waiters>,
    /// Those of them who are being told.
    told: Vec<(Weak<Waiter>, usize)>,
}

/// Starts a partition's owner over an opened log, as leader of `leader`'s epoch.
pub fn start<E: Env>(
    env: &E,
    noise: &Arc<Noise>,
    node: NodeId,
    mut log: Log<E>,
    leader: Leader,
) -> Handle<E> {
    let (tx, rx) = mpsc::channel(QUEUE_MAX);
    let (control_tx, control_rx) = mpsc::channel(CONTROL_MAX);
    log.set_high_watermark(leader.high_watermark());
    let view = Published::new(view_of(&mut log, &leader));
    let waiters = Arc::<Waiters>::default();
    let handle = Handle {
        queue: tx,
        room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)),
        control: control_tx,
        view: view.latest(),
        waiters: Arc::clone(&waiters),
    };
    let owner = Owner {
        env: env.clone(),
        noise: Arc::clone(noise),
        node,
        log,
        leader,
        view,
        queue: rx,
        control: control_rx,
        parked: VecDeque::new(),
        waiters,
        told: Vec::new(),
    };
    env.spawn("partition", owner.run());
    handle
}

fn view_of<E: Env>(log: &mut Log<E>, leader: &Leader) -> View<E> {
    View {
        reader: log.reader(),
        log_start: log.log_start(),
        high_watermark: leader.high_watermark(),
        log_end: log.log_end(),
        recorded: log.checkpoint(),
        size_bytes: log.size_bytes(),
        producers: log.producers().len(),
        leader_epoch: leader.epoch(),
    }
}

impl<E: Env> Owner<E> {
    async fn run(mut self) {
        let mut taken = Vec::with_capacity(16);
        loop {
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    // Nobody can ask any more: the broker is gone without closing.
                    None => return,
                    Some(Message::Close { reply }) => return self.close(reply).await,
                    Some(Message::Delete { reply }) => return self.delete(reply).await,
                    Some(other) => self.message(other).await,
                },
                event = self.log.next_event() => self.event(event),
                n = self.queue.recv_many(&mut taken, TAKE_MAX), if self.log.can_stage() => {
                    if n == 0 {
                        // Nobody can ask any more: the broker is gone without closing.
                        return;
                    }
                    for message in taken.drain(..) {
                        self.message(message).await;
                    }
                }
            }
        }
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Append {
                batch,
                acks_all,
                held,
                room,
                traffic,
                reply,
            } => {
                drop(room);
                self.append(batch, acks_all, held, &traffic, reply);
            }
            Message::DeleteRecords { before, reply } => {
                let done = self.delete_records(before).await;
                self.publish();
                drop(reply.send(done));
            }
            Message::Producers { reply } => drop(reply.send(self.producers())),
            Message::Configure { log, min_insync } => {
                self.log.set_config(log);
                self.leader.set_min_insync(min_insync);
            }
            Message::Retention => {
                match self.log.enforce_retention(self.env.now(), self.env.wall()).await {
                    Ok(retired) if retired.segments == 0 => {}
                    Ok(retired) => tracing::info!(log = self.log.folder(), ?retired, "retention"),
                    Err(error) => {
                        let what = format_args!("{}: {error}", self.log.folder());
                        self.noise.tell("retention failed", &what);
                    }
                }
                self.publish();
            }
            Message::Close { .. } | Message::Delete { .. } => unreachable!("the loop takes these"),
        }
    }

    fn append(
        &mut self,
        batch: Validated,
        acks_all: bool,
        held: Held,
        traffic: &TopicTraffic,
        reply: oneshot::Sender<Answer>,
    ) {
        if acks_all && !self.leader.enough_in_sync() {
            return drop(reply.send(Err(Refused::of(ErrorCode::NOT_ENOUGH_REPLICAS))));
        }
        let epoch = self.leader.epoch();
        let (now, wall) = (self.env.now(), self.env.wall());
        let batch = batch.stamped(wall);
        let appended = self.log.append(&batch.batch, Origin::Client, epoch, now, wall);
        match appended {
            Ok(at) => {
                traffic.appended(batch.batch.bytes.len(), batch.records_count);
                let placed = Placed {
                    base_offset: at.base_offset,
                    // Kafka keeps a batch's largest timestamp and no more, so that is what a duplicate is told.
                    log_append_time: match at.duplicate {
                        true => at.max_timestamp,
                        false => batch.log_append_time,
                    },
                    log_start: self.log.log_start(),
                };
                self.park(Parked {
                    until: at.last_offset.plus(1),
                    placed,
                    reply,
                    _held: held,
                });
            }
            Err(error) => drop(reply.send(Err(refusal(&error)))),
        }
    }

    /// Keeps the answer until its offset is committed: which it is already, for an old duplicate.
    fn park(&mut self, parked: Parked) {
        if parked.until <= self.leader.high_watermark() {
            brokkr_types::reached!("a duplicate of what was committed was answered at once");
            return drop(parked.reply.send(Ok(parked.placed)));
        }
        // Duplicates aside, answers come in offset order; a duplicate's place is among them.
        let at = self
            .parked
            .iter()
            .rposition(|p| p.until <= parked.until)
            .map_or(0, |i| i + 1);
        self.parked.insert(at, parked);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Ackable(ackable) => {
                if let Some(high_watermark) = self.leader.on_ackable(self.node, ackable.offset()) {
                    self.log.set_high_watermark(high_watermark);
                    self.publish();
                    while let Some(p) = self.parked.pop_front_if(|p| p.until <= high_watermark) {
                        drop(p.reply.send(Ok(p.placed)));
                    }
                    self.tell(false);
                }
            }
            Event::Failed { from, error } => {
                if error.kind() == ErrorKind::NoSpace {
                    brokkr_types::reached!("an append failed for want of space");
                }
                let what = format_args!("{} from offset {from} on: {error}", self.log.folder());
                self.noise.tell("append failed; nothing of it is kept", &what);
                while let Some(p) = self.parked.pop_back_if(|p| p.until > from) {
                    drop(
                        p.reply
                            .send(Err(Refused::because(ErrorCode::KAFKA_STORAGE_ERROR, &error))),
                    );
                }
                self.publish();
            }
        }
    }

    async fn delete_records(&mut self, before: Offset) -> Result<Offset, Refused> {
        let all = before.0 == -1;
        if all {
            // As Kafka, whose high watermark has passed by now what this connection wrote before, also with acks=0.
            let end = self.log.log_end();
            while self.leader.high_watermark() < end.min(self.log.log_end()) {
                let event = self.log.next_event().await;
                self.event(event);
            }
        }
        let high_watermark = self.leader.high_watermark();
        // -1 is the high watermark, as in Kafka.
        let before = if all { high_watermark } else { before };
        if before.0 < 0 || before > high_watermark {
            return Err(Refused::of(ErrorCode::OFFSET_OUT_OF_RANGE));
        }
        let advanced = self.log.advance_log_start(before).await;
        advanced.map_err(|e| Refused::because(ErrorCode(e.code()), &e))?;
        Ok(self.log.log_start())
    }

    fn producers(&self) -> Vec<ProducerState> {
        let state = |(id, p): (brokkr_types::ProducerId, &brokkr_log::Producer)| ProducerState {
            producer_id: id.0,
            producer_epoch: i32::from(p.epoch.0),
            last_sequence: p.window.batches().last().map_or(-1, |b| b.last_sequence.0),
            last_timestamp: p.last_timestamp.0,
            coordinator_epoch: p.coordinator_epoch,
            current_txn_start_offset: p.transaction_start.map_or(-1, |o| o.0),
            ..Default::default()
        };
        self.log.producers().iter().map(state).collect()
    }

    /// Tells those who wait that there is more, or that there will be no more.
    fn tell(&mut self, ended: bool) {
        std::mem::swap(&mut *self.waiters.lock(), &mut self.told);
        for (waiter, place) in self.told.drain(..) {
            if let Some(w) = waiter.upgrade() {
                w.tell(place, ended);
            }
        }
    }

    fn publish(&mut self) {
        self.view.publish(view_of(&mut self.log, &self.leader));
    }

    async fn close(mut self, reply: oneshot::Sender<Option<Recorded>>) {
        let name = self.log.folder().to_owned();
        self.settle().await;
        let closed = self.log.close().await;
        if let Err(error) = &closed
            && self.noise.has_own_line("not closed cleanly", &name)
        {
            tracing::warn!(log = name, %error, "not closed cleanly");
        }
        drop(reply.send(closed.ok()));
    }

    /// What is staged is still written, synced and answered.
    async fn settle(&mut self) {
        while !self.parked.is_empty() {
            let event = self.log.next_event().await;
            self.event(event);
        }
        for p in self.parked.drain(..) {
            drop(p.reply.send(Err(Refused::of(ErrorCode::NOT_LEADER_OR_FOLLOWER))));
        }
        self.tell(true);
    }

    async fn delete(mut self, reply: oneshot::Sender<()>) {
        for p in self.parked.drain(..) {
            drop(
                p.reply
                    .send(Err(Refused::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))),
            );
        }
        self.tell(true);
        let name = self.log.folder().to_owned();
        if let Err(error) = self.log.delete().await {
            let what = format_args!("{name}: {error}");
            self.noise.tell("log not deleted; a start will", &what);
        }
        let _ = reply.send(());
    }
}

/// What a producer is told.
fn refusal(error: &AppendError) -> Refused {
    Refused::because(ErrorCode(error.code()), error)
}
