//! Where a workload's clients write down what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_client::TopicPartition;
use brokkr_client::producer::Ack;
use brokkr_env::Instant;
use brokkr_history::{Key, Op, Process, Type};
use brokkr_types::Uuid;
use serde::{Deserialize, Serialize};

use crate::Workload;

/// A batch that was acknowledged, as its producer knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AckedBatch {
    /// When the producer learned of it, in nanoseconds.
    pub time: i64,
    /// The producer's process, as it is in the history.
    pub process: Process,
    /// Its topic.
    pub topic: String,
    /// The topic's id, if it was sent by that.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// Its partition.
    pub partition: i32,
    /// Whose it is, or -1.
    pub producer_id: i64,
    /// In which epoch, or -1.
    pub producer_epoch: i16,
    /// Its first record's sequence, or -1.
    pub base_sequence: i32,
    /// Its first record's offset, if the broker said so.
    pub base_offset: Option<i64>,
    /// How many records it has.
    pub records_count: i32,
    /// The acks it was sent with.
    pub acks: i16,
    /// How often it was sent.
    pub attempts: u32,
    /// Whether the broker once refused it as out of order, though it was the next behind what was acknowledged.
    #[serde(default)]
    pub refused_as_gap: bool,
    /// The values of this operation's records in it, in order, with their offsets.
    pub records: Vec<(Option<i64>, i64)>,
}

/// Something a consumer was shown that a healthy log wouldn't show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientFault {
    /// When, in nanoseconds.
    pub time: i64,
    /// Who.
    pub process: Process,
    /// In which topic.
    pub topic: String,
    /// In which partition.
    pub partition: i32,
    /// What.
    pub what: String,
}

/// How far a consumer came after everybody stopped writing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// Who.
    pub process: Process,
    /// Which topic.
    pub topic: String,
    /// Which partition.
    pub partition: i32,
    /// The offset it would read next, if it knew one.
    pub position: Option<i64>,
    /// The end as the broker told it after the last write, if it did.
    pub end: Option<i64>,
}

/// A record whose last answer was that its sequence does not follow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutOfOrder {
    /// When the producer gave it up, in nanoseconds.
    pub time: i64,
    /// Who.
    pub process: Process,
    /// Where it was sent to.
    pub topic: String,
    /// See `topic`.
    pub partition: i32,
    /// Its value.
    pub value: i64,
}

/// What clients learned besides the history.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notes {
    /// Batches that were acknowledged.
    pub acked: Vec<AckedBatch>,
    /// Records that were given up when the broker saw a gap before them.
    #[serde(default)]
    pub out_of_order: Vec<OutOfOrder>,
    /// Faults.
    pub faults: Vec<ClientFault>,
    /// How far the consumers came.
    pub drained: Vec<Drained>,
}

/// Where a workload's clients write down what happened. Cloning shares it.
#[derive(Clone, Default)]
pub struct Recorder {
    history: brokkr_history::Recorder,
    notes: Arc<Mutex<Notes>>,
    /// Topics that are deleted and created again.
    recreated: Arc<BTreeSet<String>>,
    /// How partitions are called that were written of before.
    keys: Arc<Mutex<BTreeMap<TopicPartition, Key>>>,
    clock: Option<Arc<Clock>>,
}

/// What all that is written down is dated by.
type Clock = dyn Fn() -> Instant + Send + Sync;

/// What separates a topic's name from its id, in a key of a history. No topic has it in its name.
pub const ID_MARK: char = '@';

impl Recorder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one for a workload: it knows which topics come and go.
    pub fn of(workload: &Workload) -> Self {
        let topics = workload.recreator.iter().flat_map(|r| r.topics.iter().cloned());
        Self {
            recreated: Arc::new(topics.collect()),
            ..Self::default()
        }
    }

    /// Dates everything by this clock, and not by that of the client: where those drift, histories are in nobody's order.
    #[must_use]
    pub fn dated_by(self, clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self {
            clock: Some(Arc::new(clock)),
            ..self
        }
    }

    fn nanos(&self, at: Instant) -> i64 {
        let at = self.clock.as_ref().map_or(at, |clock| clock());
        i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
    }

    /// How a partition is called in the history: `topic-partition`, and `topic@id-partition` where topics of that name come and
    /// go and it is known which it was. Keys of the former kind then only say what was invoked, or is not known to have happened.
    pub(crate) fn key_of(&self, tp: &TopicPartition, topic_id: Uuid) -> Key {
        if topic_id.is_zero() || !self.recreated.contains(tp.topic.as_str()) {
            let mut keys = self.keys.lock().expect("no panic under this lock");
            if let Some(key) = keys.get(tp) {
                return key.clone();
            }
            let key = Key::from(tp.to_string());
            keys.insert(tp.clone(), key.clone());
            return key;
        }
        format!("{}{ID_MARK}{topic_id}-{}", tp.topic, tp.partition).into()
    }

    /// The history so far.
    pub fn history(&self) -> &brokkr_history::Recorder {
        &self.history
    }

    /// The notes so far.
    pub fn notes(&self) -> Notes {
        self.lock().clone()
    }

    /// Takes the notes away.
    pub fn take_notes(&self) -> Notes {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no panic under this lock")
    }

    pub(crate) fn invoke(&self, now: Instant, process: Process, op: Op) {
        self.history.invoke(self.nanos(now), process, op);
    }

    pub(crate) fn complete(&self, now: Instant, process: Process, type_: Type, op: Op) {
        self.history.complete(self.nanos(now), process, type_, op);
    }

    /// An assignment ended, and its process reads from the beginning, wherever it was.
    pub(crate) fn assigned_from_beginning(&self, now: Instant, process: Process, keys: Vec<Key>) {
        self.history
            .assigned_from_beginning(self.nanos(now), process, keys);
    }

    /// Writes down the batches of an operation's acknowledged sends.
    pub(crate) fn acked(&self, now: Instant, process: Process, acks: &[(TopicPartition, Ack, i64)]) {
        let mut batches: BTreeMap<_, AckedBatch> = BTreeMap::new();
        for (tp, ack, value) in acks {
            let b = &ack.batch;
            let key = (
                tp,
                b.producer_id,
                b.producer_epoch,
                b.base_sequence,
                b.base_offset,
                b.topic_id,
            );
            let batch = batches.entry(key).or_insert_with(|| AckedBatch {
                time: self.nanos(now),
                process,
                topic: tp.topic.to_string(),
                topic_id: (!b.topic_id.is_zero()).then(|| b.topic_id.to_string()),
                partition: tp.partition,
                producer_id: b.producer_id.0,
                producer_epoch: b.producer_epoch.0,
                base_sequence: b.base_sequence.0,
                base_offset: b.base_offset.map(|o| o.0),
                records_count: b.records_count,
                acks: b.acks.id(),
                attempts: b.attempts,
                refused_as_gap: b.refused_as_gap,
                records: Vec::new(),
            });
            batch.records.push((ack.offset.map(|o| o.0), *value));
        }
        self.lock().acked.extend(batches.into_values());
    }

    pub(crate) fn fault(&self, now: Instant, process: Process, tp: &TopicPartition, what: String) {
        self.lock().faults.push(ClientFault {
            time: self.nanos(now),
            process,
            topic: tp.topic.to_string(),
            partition: tp.partition,
            what,
        });
    }

    pub(crate) fn out_of_order(&self, now: Instant, process: Process, tp: &TopicPartition, value: i64) {
        self.lock().out_of_order.push(OutOfOrder {
            time: self.nanos(now),
            process,
            topic: tp.topic.to_string(),
            partition: tp.partition,
            value,
        });
    }

    pub(crate) fn drained(&self, drained: Drained) {
        self.lock().drained.push(drained);
    }
}
