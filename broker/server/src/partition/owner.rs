//! The owner's loop: it appends, replies and handles control messages.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use brokkr_env::{Env, ErrorKind, ErrorLog, Published};
use brokkr_log::{AppendError, Event, Log, LogError};
use brokkr_replication::Leader;
use brokkr_types::{NodeId, Offset};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::describe_producers_response::ProducerState;
use brokkr_wire::records::{Origin, Validated};
use tokio::sync::{mpsc, oneshot};

use super::assignment::{Assignment, NOT_DELETED, OwnedLog};
use super::handle::Shared;
use super::message::{
    Append, AppendInfo, AppendResult, BatchMemory, CloseResult, ControlMessage, DataMessage, PartitionError,
};
use super::view::{PartitionState, View};
use super::waiters::Waiter;
use crate::config::{Limits, TopicConfig};
use crate::metrics::TopicTraffic;
use crate::partition::change_counter::ChangeCounter;

/// Answers that an idle owner keeps room for: fewer, of a partition that is seldom written, or more are allocated anew.
const ROOM_KEPT: RangeInclusive<usize> = 5..=64;

/// Publishes a partition's state and notifies its waiters.
pub(super) struct Publisher<E: Env> {
    state: Published<PartitionState<E>>,
    shared: Arc<Shared<E>>,
    changes: ChangeCounter,
    /// Buffer for the waiters that are being notified.
    notified: Vec<(Weak<Waiter>, usize)>,
}

impl<E: Env> Publisher<E> {
    pub(super) fn new(
        state: Published<PartitionState<E>>,
        shared: Arc<Shared<E>>,
        changes: ChangeCounter,
    ) -> Self {
        Self {
            state,
            shared,
            changes,
            notified: Vec::new(),
        }
    }

    pub(super) fn publish(&self, state: PartitionState<E>) {
        self.state.publish(state);
        // AFTER the publication: a task that sees the count sees the state.
        self.changes.increment();
    }

    /// Notifies the waiters that there is more, or, with `ended`, that there will be no more.
    pub(super) fn notify_waiters(&mut self, ended: bool) {
        self.shared.opened.notify_waiters();
        self.shared.waiters.notify_all(&mut self.notified, ended);
    }
}

/// An owner without its log.
pub(super) struct Owner<E: Env> {
    pub(super) env: E,
    pub(super) error_log: Arc<ErrorLog>,
    pub(super) node: NodeId,
    pub(super) limits: Arc<Limits>,
    pub(super) publisher: Publisher<E>,
    pub(super) queue: mpsc::Receiver<DataMessage>,
    pub(super) control: mpsc::Receiver<ControlMessage>,
}

impl<E: Env> Owner<E> {
    pub(super) fn new(
        env: &E,
        error_log: &Arc<ErrorLog>,
        node: NodeId,
        limits: &Arc<Limits>,
        publisher: Publisher<E>,
        queue: mpsc::Receiver<DataMessage>,
        control: mpsc::Receiver<ControlMessage>,
    ) -> Self {
        Self {
            env: env.clone(),
            error_log: Arc::clone(error_log),
            node,
            limits: Arc::clone(limits),
            publisher,
            queue,
            control,
        }
    }

    /// Runs until the partition is closed or deleted, or all handles are dropped.
    pub(super) async fn run(mut self, assignment: Assignment<E>) {
        // On the heap while it runs: an idle owner must be small.
        let opened = Box::pin(async {
            let mut assignment = assignment;
            let opened = self.open(&mut assignment).await;
            opened.map(|(log, leader)| (log, leader, assignment.config))
        });
        let Some((log, leader, config)) = opened.await else {
            return;
        };
        let mut serving = ServingOwner {
            owner: self,
            log,
            leader,
            config,
            pending: VecDeque::new(),
            has_log_dir_failed: false,
        };
        serving.publish();
        serving.owner.publisher.notify_waiters(false);
        serving.run().await;
    }
}

/// An append that is staged, written or synced, but not committed.
struct PendingAppend {
    /// The reply is sent when the high watermark reaches this offset.
    next_offset: Offset,
    /// What to report to the producer; for a duplicate, the original batch.
    info: AppendInfo,
    reply: oneshot::Sender<AppendResult>,
    _memory: BatchMemory,
}

/// An owner with an open log.
struct ServingOwner<E: Env> {
    owner: Owner<E>,
    log: OwnedLog<E>,
    leader: Leader,
    config: Arc<TopicConfig>,
    pending: VecDeque<PendingAppend>,
    /// Whether the log directory failed: the partition stays offline, and no view is published.
    has_log_dir_failed: bool,
}

/// What wakes an owner.
enum OwnerInput {
    Control(Option<ControlMessage>),
    Event(Event),
    Messages(usize),
}

impl<E: Env> ServingOwner<E> {
    async fn run(mut self) {
        let mut messages = Vec::new();
        loop {
            let input = self.next_input(&mut messages).await;
            match input {
                // All handles are dropped: the broker ended without closing its logs.
                OwnerInput::Control(None) | OwnerInput::Messages(0) => return,
                OwnerInput::Control(Some(ControlMessage::Close(reply))) => {
                    return Box::pin(self.close(reply)).await;
                }
                OwnerInput::Control(Some(ControlMessage::Delete(reply))) => {
                    return Box::pin(self.delete(reply)).await;
                }
                OwnerInput::Control(Some(ControlMessage::LogDirFailed)) => {
                    return Box::pin(self.log_dir_failed()).await;
                }
                OwnerInput::Control(Some(ControlMessage::Configure(config))) => self.configure(config),
                OwnerInput::Control(Some(ControlMessage::Retention)) => Box::pin(self.retention()).await,
                OwnerInput::Event(event) => self.event(event),
                OwnerInput::Messages(_) => {
                    for message in messages.drain(..) {
                        self.message(message).await;
                    }
                    if !ROOM_KEPT.contains(&messages.capacity()) {
                        messages = Vec::new();
                    }
                }
            }
        }
    }

    /// Waits for control, the log or data, in this order of priority. Cancel-safe.
    async fn next_input(&mut self, messages: &mut Vec<DataMessage>) -> OwnerInput {
        let take = self.owner.limits.partition_take;
        let (control, queue) = (&mut self.owner.control, &mut self.owner.queue);
        match &mut self.log {
            OwnedLog::Fresh(_) => tokio::select! {
                biased;
                control = control.recv() => OwnerInput::Control(control),
                n = queue.recv_many(messages, take) => OwnerInput::Messages(n),
            },
            OwnedLog::Open(log) => {
                let can_stage = log.can_stage();
                tokio::select! {
                    biased;
                    control = control.recv() => OwnerInput::Control(control),
                    event = log.next_event() => OwnerInput::Event(event),
                    n = queue.recv_many(messages, take), if can_stage => OwnerInput::Messages(n),
                }
            }
        }
    }

    async fn message(&mut self, message: DataMessage) {
        match message {
            DataMessage::Append(append) => {
                let Append {
                    batch,
                    acks_all,
                    memory,
                    queue_permit,
                    traffic,
                    reply,
                } = *append;
                drop(queue_permit);
                if acks_all && !self.leader.enough_in_sync() {
                    return drop(reply.send(Err(PartitionError::new(ErrorCode::NOT_ENOUGH_REPLICAS))));
                }
                if let Err(error) = self.make_appendable().await {
                    let what = format_args!("{}: {error}", self.folder());
                    self.owner
                        .error_log
                        .record("a log can't be appended to; nothing changed", &what);
                    let error = PartitionError::with_message(ErrorCode::KAFKA_STORAGE_ERROR, &error);
                    return drop(reply.send(Err(error)));
                }
                self.append(batch, memory, &traffic, reply);
            }
            DataMessage::DeleteRecords(before, reply) => {
                let done = Box::pin(self.delete_records(before)).await;
                self.publish();
                drop(reply.send(done));
            }
            DataMessage::Producers(reply) => drop(reply.send(self.producers())),
        }
    }

    fn folder(&self) -> &str {
        match &self.log {
            OwnedLog::Fresh(log) => log.folder(),
            OwnedLog::Open(log) => log.folder(),
        }
    }

    /// Creates the log if it is fresh, and makes the leader epoch durable. Does nothing if both are done.
    async fn make_appendable(&mut self) -> Result<(), LogError> {
        match &mut self.log {
            OwnedLog::Open(log) if !log.epoch_is_not_durable() => Ok(()),
            OwnedLog::Open(log) => Box::pin(log.assign_epoch(self.leader.epoch())).await,
            OwnedLog::Fresh(fresh) => {
                let (config, epoch) = (self.config.log.clone(), self.leader.epoch());
                let mut log = Box::new(Box::pin(fresh.begin(config, epoch)).await?);
                log.set_high_watermark(self.leader.high_watermark());
                self.log = OwnedLog::Open(log);
                Ok(())
            }
        }
    }

    fn open_log(&mut self) -> &mut Log<E> {
        match &mut self.log {
            OwnedLog::Open(log) => log,
            OwnedLog::Fresh(_) => unreachable!("the caller made it appendable"),
        }
    }

    fn append(
        &mut self,
        batch: Validated,
        memory: BatchMemory,
        traffic: &TopicTraffic,
        reply: oneshot::Sender<AppendResult>,
    ) {
        let epoch = self.leader.epoch();
        let (now, wall) = (self.owner.env.now(), self.owner.env.wall());
        let batch = batch.stamped(wall);
        let log = self.open_log();
        let appended = log.append(&batch.batch, Origin::Client, epoch, now, wall);
        match appended {
            Ok(at) => {
                traffic.appended(batch.batch.bytes.len(), batch.records_count);
                let info = AppendInfo {
                    base_offset: at.base_offset,
                    // Kafka keeps only a batch's largest timestamp, and reports that for a duplicate.
                    log_append_time: match at.duplicate {
                        true => at.max_timestamp,
                        false => batch.log_append_time,
                    },
                    log_start: log.log_start(),
                };
                self.add_pending(PendingAppend {
                    next_offset: at.last_offset.plus(1),
                    info,
                    reply,
                    _memory: memory,
                });
            }
            Err(error) => drop(reply.send(Err(append_error(&error)))),
        }
    }

    /// Holds the reply until the batch is committed. An old duplicate is committed already.
    fn add_pending(&mut self, append: PendingAppend) {
        if append.next_offset <= self.leader.high_watermark() {
            brokkr_types::reached!("a duplicate of what was committed was answered at once");
            return drop(append.reply.send(Ok(append.info)));
        }
        // New batches come in offset order; a duplicate is inserted among them.
        let at = self
            .pending
            .iter()
            .rposition(|p| p.next_offset <= append.next_offset)
            .map_or(0, |i| i + 1);
        self.pending.insert(at, append);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Ackable(ackable) => {
                if let Some(high_watermark) = self.leader.on_ackable(self.owner.node, ackable.offset()) {
                    self.open_log().set_high_watermark(high_watermark);
                    self.publish();
                    while let Some(p) = self.pending.pop_front_if(|p| p.next_offset <= high_watermark) {
                        drop(p.reply.send(Ok(p.info)));
                    }
                    if self.pending.is_empty() && !ROOM_KEPT.contains(&self.pending.capacity()) {
                        self.pending = VecDeque::new();
                    }
                    self.owner.publisher.notify_waiters(false);
                }
            }
            Event::Failed { from, error } => {
                if error.kind() == ErrorKind::NoSpace {
                    brokkr_types::reached!("an append failed for want of space");
                }
                let what = format_args!("{} from offset {from} on: {error}", self.folder());
                self.owner
                    .error_log
                    .record("append failed; nothing of it is kept", &what);
                while let Some(p) = self.pending.pop_back_if(|p| p.next_offset > from) {
                    drop(p.reply.send(Err(PartitionError::with_message(
                        ErrorCode::KAFKA_STORAGE_ERROR,
                        &error,
                    ))));
                }
                self.publish();
            }
        }
    }

    fn configure(&mut self, config: Arc<TopicConfig>) {
        if let OwnedLog::Open(log) = &mut self.log {
            log.set_config(config.log.clone());
        }
        self.leader.set_min_insync(config.min_insync_replicas);
        self.config = config;
    }

    async fn retention(&mut self) {
        let (now, wall) = (self.owner.env.now(), self.owner.env.wall());
        let OwnedLog::Open(log) = &mut self.log else {
            return;
        };
        match log.enforce_retention(now, wall).await {
            Ok(retired) if retired.segments == 0 => {}
            Ok(retired) => tracing::info!(log = log.folder(), ?retired, "retention"),
            Err(error) => {
                let what = format_args!("{}: {error}", log.folder());
                self.owner.error_log.record("retention failed", &what);
            }
        }
        self.publish();
    }

    async fn delete_records(&mut self, before: Offset) -> Result<Offset, PartitionError> {
        let all = before.0 == -1;
        if all && let OwnedLog::Open(log) = &self.log {
            // As in Kafka, where the high watermark has passed by now what this connection produced before, with acks=0
            // too.
            let end = log.log_end();
            while self.leader.high_watermark() < end.min(self.open_log().log_end()) {
                let event = self.open_log().next_event().await;
                self.event(event);
            }
        }
        let high_watermark = self.leader.high_watermark();
        // As in Kafka, -1 is the high watermark.
        let before = if all { high_watermark } else { before };
        if before.0 < 0 || before > high_watermark {
            return Err(PartitionError::new(ErrorCode::OFFSET_OUT_OF_RANGE));
        }
        let OwnedLog::Open(log) = &mut self.log else {
            return Ok(Offset(0));
        };
        let advanced = log.advance_log_start(before).await;
        advanced.map_err(|e| PartitionError::with_message(ErrorCode(e.code()), &e))?;
        Ok(log.log_start())
    }

    fn producers(&self) -> Vec<ProducerState> {
        let OwnedLog::Open(log) = &self.log else {
            return Vec::new();
        };
        let state = |(id, p): (brokkr_types::ProducerId, &brokkr_log::Producer)| ProducerState {
            producer_id: id.0,
            producer_epoch: i32::from(p.epoch.0),
            last_sequence: p.window.batches().last().map_or(-1, |b| b.last_sequence.0),
            last_timestamp: p.last_timestamp.0,
            coordinator_epoch: p.coordinator_epoch,
            current_txn_start_offset: p.transaction_start.map_or(-1, |o| o.0),
            ..Default::default()
        };
        log.producers().iter().map(state).collect()
    }

    fn publish(&mut self) {
        if self.has_log_dir_failed {
            return;
        }
        let (high_watermark, leader_epoch) = (self.leader.high_watermark(), self.leader.epoch());
        let view = match &mut self.log {
            OwnedLog::Fresh(log) => View {
                reader: log.reader(leader_epoch),
                log_start: Offset(0),
                high_watermark,
                log_end: Offset(0),
                recorded: None,
                size_bytes: 0,
                producers: 0,
                leader_epoch,
            },
            OwnedLog::Open(log) => View {
                reader: log.reader(),
                log_start: log.log_start(),
                high_watermark,
                log_end: log.log_end(),
                recorded: Some(log.checkpoint()),
                size_bytes: log.size_bytes(),
                producers: log.producers().len(),
                leader_epoch,
            },
        };
        self.owner.publisher.publish(PartitionState::Open(view));
    }

    async fn close(mut self, reply: oneshot::Sender<CloseResult>) {
        self.drain().await;
        let closed = match self.log {
            OwnedLog::Fresh(_) => CloseResult::Clean(None),
            OwnedLog::Open(log) => {
                let name = log.folder().to_owned();
                match log.close().await {
                    Ok(recorded) => CloseResult::Clean(Some(recorded)),
                    Err(error) => {
                        if self.owner.error_log.is_first_of("not closed cleanly", &name) {
                            tracing::warn!(log = name, %error, "not closed cleanly");
                        }
                        CloseResult::Unclean
                    }
                }
            }
        };
        drop(reply.send(closed));
    }

    /// Waits until all staged batches are written and synced, and their replies sent. Then notifies the waiters.
    async fn drain(&mut self) {
        while !self.pending.is_empty() {
            let event = self.open_log().next_event().await;
            self.event(event);
        }
        self.owner.publisher.notify_waiters(true);
    }

    /// Goes offline because the log directory failed.
    async fn log_dir_failed(mut self) {
        let name = self.folder().to_owned();
        self.owner
            .error_log
            .record("offline: its log directory failed", &name);
        // BEFORE any reply: a woken task finds the partition offline.
        self.has_log_dir_failed = true;
        self.owner.publisher.publish(PartitionState::Offline);
        self.drain().await;
        self.owner.run_without_log_dir(self.log).await;
    }

    async fn delete(mut self, reply: oneshot::Sender<bool>) {
        for p in self.pending.drain(..) {
            drop(
                p.reply
                    .send(Err(PartitionError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))),
            );
        }
        self.owner.publisher.notify_waiters(true);
        let _ = reply.send(self.owner.delete_log(self.log).await);
    }
}

impl<E: Env> Owner<E> {
    /// Returns whether it is gone.
    async fn delete_log(&self, log: OwnedLog<E>) -> bool {
        let (name, deleted) = match log {
            OwnedLog::Fresh(log) => (log.folder().to_owned(), log.delete().await),
            OwnedLog::Open(log) => (log.folder().to_owned(), log.delete().await),
        };
        if let Err(error) = &deleted {
            let what = format_args!("{name}: {error}");
            self.error_log.record(NOT_DELETED, &what);
        }
        deleted.is_ok()
    }

    /// Answers all data messages with an error until the broker stops or the topic is deleted.
    async fn run_without_log_dir(mut self, log: OwnedLog<E>) {
        loop {
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    None => return,
                    Some(ControlMessage::Close(reply)) => return drop(reply.send(CloseResult::Unclean)),
                    Some(ControlMessage::Delete(reply)) => {
                        let _ = reply.send(self.delete_log(log).await);
                        return;
                    }
                    Some(ControlMessage::Configure(_) | ControlMessage::Retention | ControlMessage::LogDirFailed) => {}
                },
                message = self.queue.recv() => match message {
                    None => return,
                    Some(message) => message.reply_offline(),
                },
            }
        }
    }
}

/// The error in the producer's response.
fn append_error(error: &AppendError) -> PartitionError {
    PartitionError::with_message(ErrorCode(error.code()), error)
}
