//! The owner's loop: appends, answers, control.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use brokkr_env::{Env, ErrorKind, ErrorLog, Published};
use brokkr_log::{AppendError, Event, FreshLog, Log, LogError};
use brokkr_replication::Leader;
use brokkr_types::{NodeId, Offset};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::describe_producers_response::ProducerState;
use brokkr_wire::records::{Origin, Validated};
use tokio::sync::{mpsc, oneshot};

use super::opening::Assignment;
use super::waiters::Waiter;
use super::{Answer, Append, Closed, Control, Held, Message, PartitionState, Placed, Refused, Shared, View};
use crate::changes::Changes;
use crate::config::TopicConfig;
use crate::metrics::TopicTraffic;

/// Messages taken from the queue in one go.
const TAKE_MAX: usize = 512;

/// Answers that an idle owner keeps room for: fewer, of a partition that is seldom written, or more are allocated anew.
const ROOM_KEPT: RangeInclusive<usize> = 5..=64;

/// A partition's log, as its owner has it.
pub(super) enum OwnedLog<E: Env> {
    /// Nothing was ever appended to it.
    Fresh(FreshLog<E>),
    /// It can be appended to.
    Open(Box<Log<E>>),
}

/// Where an owner publishes.
pub(super) struct Outlet<E: Env> {
    state: Published<PartitionState<E>>,
    shared: Arc<Shared<E>>,
    changes: Changes,
    /// Room for the waiters that are being told.
    told: Vec<(Weak<Waiter>, usize)>,
}

impl<E: Env> Outlet<E> {
    pub(super) fn new(state: Published<PartitionState<E>>, shared: Arc<Shared<E>>, changes: Changes) -> Self {
        Self {
            state,
            shared,
            changes,
            told: Vec::new(),
        }
    }

    pub(super) fn publish(&self, state: PartitionState<E>) {
        self.state.publish(state);
        // AFTER that: whoever hears of a change finds it.
        self.changes.note();
    }

    /// Tells the requests that wait that there is more, or that there will be no more.
    pub(super) fn tell(&mut self, ended: bool) {
        self.shared.opened.notify_waiters();
        self.shared.waiters.tell_all(&mut self.told, ended);
    }
}

/// An owner, apart from its log.
pub(super) struct Owner<E: Env> {
    pub(super) env: E,
    pub(super) error_log: Arc<ErrorLog>,
    pub(super) node: NodeId,
    pub(super) outlet: Outlet<E>,
    pub(super) queue: mpsc::Receiver<Message>,
    pub(super) control: mpsc::Receiver<Control>,
}

impl<E: Env> Owner<E> {
    pub(super) fn new(
        env: &E,
        error_log: &Arc<ErrorLog>,
        node: NodeId,
        outlet: Outlet<E>,
        queue: mpsc::Receiver<Message>,
        control: mpsc::Receiver<Control>,
    ) -> Self {
        Self {
            env: env.clone(),
            error_log: Arc::clone(error_log),
            node,
            outlet,
            queue,
            control,
        }
    }

    /// Runs until the partition is closed or deleted, or nobody has a handle any more.
    pub(super) async fn run(mut self, assignment: Assignment<E>) {
        // On the heap for as long as it takes: an idle owner must be small.
        let opened = Box::pin(async {
            let mut assignment = assignment;
            let opened = self.open(&mut assignment).await;
            opened.map(|(log, leader)| (log, leader, assignment.config))
        });
        let Some((log, leader, config)) = opened.await else {
            return;
        };
        let mut serving = Serving {
            owner: self,
            log,
            leader,
            config,
            parked: VecDeque::new(),
            is_abandoned: false,
        };
        serving.publish();
        serving.owner.outlet.tell(false);
        serving.run().await;
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

/// An owner with an open log.
struct Serving<E: Env> {
    owner: Owner<E>,
    log: OwnedLog<E>,
    leader: Leader,
    config: Arc<TopicConfig>,
    parked: VecDeque<Parked>,
    /// Its log directory failed: nothing is published any more.
    is_abandoned: bool,
}

/// What an owner hears.
enum Heard {
    Control(Option<Control>),
    Event(Event),
    Messages(usize),
}

impl<E: Env> Serving<E> {
    async fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            let heard = self.hear(&mut taken).await;
            match heard {
                // All handles are dropped: the broker ended without closing its logs.
                Heard::Control(None) | Heard::Messages(0) => return,
                Heard::Control(Some(Control::Close(reply))) => return Box::pin(self.close(reply)).await,
                Heard::Control(Some(Control::Delete(reply))) => return Box::pin(self.delete(reply)).await,
                Heard::Control(Some(Control::Abandon)) => return Box::pin(self.abandon()).await,
                Heard::Control(Some(Control::Configure(config))) => self.configure(config),
                Heard::Control(Some(Control::Retention)) => Box::pin(self.retention()).await,
                Heard::Event(event) => self.event(event),
                Heard::Messages(_) => {
                    for message in taken.drain(..) {
                        self.message(message).await;
                    }
                    if !ROOM_KEPT.contains(&taken.capacity()) {
                        taken = Vec::new();
                    }
                }
            }
        }
    }

    /// Waits for control, the log or data, in this order. Cancel-safe.
    async fn hear(&mut self, taken: &mut Vec<Message>) -> Heard {
        let (control, queue) = (&mut self.owner.control, &mut self.owner.queue);
        match &mut self.log {
            OwnedLog::Fresh(_) => tokio::select! {
                biased;
                control = control.recv() => Heard::Control(control),
                n = queue.recv_many(taken, TAKE_MAX) => Heard::Messages(n),
            },
            OwnedLog::Open(log) => {
                let can_stage = log.can_stage();
                tokio::select! {
                    biased;
                    control = control.recv() => Heard::Control(control),
                    event = log.next_event() => Heard::Event(event),
                    n = queue.recv_many(taken, TAKE_MAX), if can_stage => Heard::Messages(n),
                }
            }
        }
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Append(append) => {
                let Append {
                    batch,
                    acks_all,
                    held,
                    room,
                    traffic,
                    reply,
                } = *append;
                drop(room);
                if acks_all && !self.leader.enough_in_sync() {
                    return drop(reply.send(Err(Refused::of(ErrorCode::NOT_ENOUGH_REPLICAS))));
                }
                if let Err(error) = self.ready_to_append().await {
                    let what = format_args!("{}: {error}", self.folder());
                    self.owner
                        .error_log
                        .record("a log can't be appended to; nothing changed", &what);
                    let refused = Refused::because(ErrorCode::KAFKA_STORAGE_ERROR, &error);
                    return drop(reply.send(Err(refused)));
                }
                self.append(batch, held, &traffic, reply);
            }
            Message::DeleteRecords(before, reply) => {
                let done = Box::pin(self.delete_records(before)).await;
                self.publish();
                drop(reply.send(done));
            }
            Message::Producers(reply) => drop(reply.send(self.producers())),
        }
    }

    fn folder(&self) -> &str {
        match &self.log {
            OwnedLog::Fresh(log) => log.folder(),
            OwnedLog::Open(log) => log.folder(),
        }
    }

    /// Makes a log that can be appended to, and its leader epoch durable. Nothing where that is so.
    async fn ready_to_append(&mut self) -> Result<(), LogError> {
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
            OwnedLog::Fresh(_) => unreachable!("the caller made it ready"),
        }
    }

    fn append(
        &mut self,
        batch: Validated,
        held: Held,
        traffic: &TopicTraffic,
        reply: oneshot::Sender<Answer>,
    ) {
        let epoch = self.leader.epoch();
        let (now, wall) = (self.owner.env.now(), self.owner.env.wall());
        let batch = batch.stamped(wall);
        let log = self.open_log();
        let appended = log.append(&batch.batch, Origin::Client, epoch, now, wall);
        match appended {
            Ok(at) => {
                traffic.appended(batch.batch.bytes.len(), batch.records_count);
                let placed = Placed {
                    base_offset: at.base_offset,
                    // Kafka keeps only the largest timestamp of a batch, and answers a duplicate with that.
                    log_append_time: match at.duplicate {
                        true => at.max_timestamp,
                        false => batch.log_append_time,
                    },
                    log_start: log.log_start(),
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
                if let Some(high_watermark) = self.leader.on_ackable(self.owner.node, ackable.offset()) {
                    self.open_log().set_high_watermark(high_watermark);
                    self.publish();
                    while let Some(p) = self.parked.pop_front_if(|p| p.until <= high_watermark) {
                        drop(p.reply.send(Ok(p.placed)));
                    }
                    if self.parked.is_empty() && !ROOM_KEPT.contains(&self.parked.capacity()) {
                        self.parked = VecDeque::new();
                    }
                    self.owner.outlet.tell(false);
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

    async fn delete_records(&mut self, before: Offset) -> Result<Offset, Refused> {
        let all = before.0 == -1;
        if all && let OwnedLog::Open(log) = &self.log {
            // As Kafka, whose high watermark has passed by now what this connection wrote before, also with acks=0.
            let end = log.log_end();
            while self.leader.high_watermark() < end.min(self.open_log().log_end()) {
                let event = self.open_log().next_event().await;
                self.event(event);
            }
        }
        let high_watermark = self.leader.high_watermark();
        // -1 is the high watermark, as in Kafka.
        let before = if all { high_watermark } else { before };
        if before.0 < 0 || before > high_watermark {
            return Err(Refused::of(ErrorCode::OFFSET_OUT_OF_RANGE));
        }
        let OwnedLog::Open(log) = &mut self.log else {
            return Ok(Offset(0));
        };
        let advanced = log.advance_log_start(before).await;
        advanced.map_err(|e| Refused::because(ErrorCode(e.code()), &e))?;
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
        if self.is_abandoned {
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
        self.owner.outlet.publish(PartitionState::Open(view));
    }

    async fn close(mut self, reply: oneshot::Sender<Closed>) {
        self.settle().await;
        let closed = match self.log {
            OwnedLog::Fresh(_) => Closed::Clean(None),
            OwnedLog::Open(log) => {
                let name = log.folder().to_owned();
                match log.close().await {
                    Ok(recorded) => Closed::Clean(Some(recorded)),
                    Err(error) => {
                        if self.owner.error_log.is_first_of("not closed cleanly", &name) {
                            tracing::warn!(log = name, %error, "not closed cleanly");
                        }
                        Closed::Unclean
                    }
                }
            }
        };
        drop(reply.send(closed));
    }

    /// What is staged is still written, synced and answered.
    async fn settle(&mut self) {
        while !self.parked.is_empty() {
            let event = self.open_log().next_event().await;
            self.event(event);
        }
        self.owner.outlet.tell(true);
    }

    /// The log directory failed.
    async fn abandon(mut self) {
        let name = self.folder().to_owned();
        self.owner
            .error_log
            .record("offline: its log directory failed", &name);
        // BEFORE anything is answered: whoever is woken finds the partition offline.
        self.is_abandoned = true;
        self.owner.outlet.publish(PartitionState::Offline);
        self.settle().await;
        self.owner.without_directory(self.log).await;
    }

    async fn delete(mut self, reply: oneshot::Sender<()>) {
        for p in self.parked.drain(..) {
            drop(
                p.reply
                    .send(Err(Refused::of(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))),
            );
        }
        self.owner.outlet.tell(true);
        self.owner.delete_log(self.log).await;
        let _ = reply.send(());
    }
}

impl<E: Env> Owner<E> {
    async fn delete_log(&self, log: OwnedLog<E>) {
        let (name, deleted) = match log {
            OwnedLog::Fresh(log) => (log.folder().to_owned(), log.delete().await),
            OwnedLog::Open(log) => (log.folder().to_owned(), log.delete().await),
        };
        if let Err(error) = deleted {
            let what = format_args!("{name}: {error}");
            self.error_log.record("log not deleted; a start will", &what);
        }
    }

    /// Refuses everything until the broker ends or the topic goes: the log directory failed.
    async fn without_directory(mut self, log: OwnedLog<E>) {
        loop {
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    None => return,
                    Some(Control::Close(reply)) => return drop(reply.send(Closed::Unclean)),
                    Some(Control::Delete(reply)) => {
                        self.delete_log(log).await;
                        let _ = reply.send(());
                        return;
                    }
                    Some(Control::Configure(_) | Control::Retention | Control::Abandon) => {}
                },
                message = self.queue.recv() => match message {
                    None => return,
                    Some(message) => super::opening::refuse(message),
                },
            }
        }
    }
}

/// The error in the response to a producer.
fn refusal(error: &AppendError) -> Refused {
    Refused::because(ErrorCode(error.code()), error)
}
