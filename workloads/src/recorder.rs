//! Recorder of a workload's history and notes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_client::consumer::{FetchRound, FetchedPartition};
use brokkr_client::producer::Ack;
use brokkr_client::{Error, Polled, ProducerRecord, SendError, TopicPartition};
use brokkr_env::{Instant, Rng};
use brokkr_history::{Digest, Key, MicroOp, Op, Operation, Polls, Process, Seek, Type, Val};
use brokkr_types::Uuid;
use serde::{Deserialize, Serialize};

use crate::Workload;
use crate::sent::{Difference, SentRecord, content_of, content_sent};
use crate::value::parse_value;

/// An acknowledged batch, as its producer knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AckedBatch {
    /// When the producer received the acknowledgement, in nanoseconds.
    pub time: i64,
    /// The producer's process in the history.
    pub process: Process,
    /// Its topic.
    pub topic: String,
    /// The topic's id, if the batch was sent by id.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// Its partition.
    pub partition: i32,
    /// The producer id, or -1.
    pub producer_id: i64,
    /// The producer epoch, or -1.
    pub producer_epoch: i16,
    /// Its first record's sequence, or -1.
    pub base_sequence: i32,
    /// Its first record's offset, if the broker returned it.
    pub base_offset: Option<i64>,
    /// Number of records.
    pub records_count: i32,
    /// The acks it was sent with.
    pub acks: i16,
    /// How often it was sent.
    pub attempts: u32,
    /// Whether the broker once refused it as out of order, although it directly followed the acknowledged batches.
    #[serde(default)]
    pub refused_as_gap: bool,
    /// The time of the append in milliseconds, if the broker returned it: with `message.timestamp.type=LogAppendTime`.
    #[serde(default)]
    pub log_append_time: Option<i64>,
    /// The values and offsets of this operation's records in the batch, in order.
    pub records: Vec<(Option<i64>, i64)>,
}

/// A fault that a consumer reported and that a healthy log would not show.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientFault {
    /// The time in nanoseconds.
    pub time: i64,
    /// The process.
    pub process: Process,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The reader's position, or the offset that was missing; -1 if it is not known.
    #[serde(default = "unknown_offset")]
    pub at: i64,
    /// A description.
    pub what: String,
}

fn unknown_offset() -> i64 {
    -1
}

/// A consumer's final position, after all producers stopped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// The process.
    pub process: Process,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read, if it is known.
    pub position: Option<i64>,
    /// The end offset after the last write, if the broker returned it.
    pub end: Option<i64>,
}

/// A record that failed with OUT_OF_ORDER_SEQUENCE_NUMBER.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutOfOrder {
    /// When the producer gave it up, in nanoseconds.
    pub time: i64,
    /// The process.
    pub process: Process,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Its value.
    pub value: i64,
}

/// A partition in a response to a fetch: what it says of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FetchedEnds {
    /// The partition's name in the history.
    pub key: Key,
    /// The requested offset.
    pub position: i64,
    /// The offset after the last whole batch of the response.
    pub next: i64,
    /// Bytes of records in the response.
    pub bytes: u64,
    /// Its whole batches.
    pub batches: usize,
    /// The log start offset.
    pub log_start: i64,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable: i64,
}

/// A response to a fetch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FetchResponded {
    /// A time before the request was sent, in nanoseconds.
    pub asked: i64,
    /// When the consumer returned it.
    pub time: i64,
    /// The process.
    pub process: Process,
    /// How long it took, in nanoseconds.
    pub took: i64,
    /// How many requests followed it on its connection before the response.
    pub followed_by: u64,
    /// Whether `partitions` has all of its partitions.
    pub is_whole: bool,
    /// How many partitions were requested.
    pub requested: usize,
    /// Its partitions.
    pub partitions: Vec<FetchedEnds>,
    /// Those that it leaves out, as unchanged, with what the consumer was told of them last.
    #[serde(default)]
    pub unchanged: Vec<FetchedEnds>,
}

/// A record that a consumer was shown with something else than what was sent with its value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Altered {
    /// When it was shown, in nanoseconds.
    pub time: i64,
    /// The process.
    pub process: Process,
    /// The partition's name in the history.
    pub key: String,
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: i64,
    /// The difference.
    pub difference: Difference,
}

/// A request that the broker refused, or that the client gave up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// When the request was begun, in nanoseconds.
    pub asked: i64,
    /// When the client learned of it, in nanoseconds.
    pub time: i64,
    /// The process.
    pub process: Process,
    /// What was asked: the API, and what it was about.
    pub what: String,
    /// The name in the history of the partition it was about; empty if it was about none.
    pub key: String,
    /// The broker's error code; `None` if there was no answer.
    pub code: Option<i16>,
}

/// Observations of clients beside the history.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notes {
    /// Acknowledged batches.
    pub acked: Vec<AckedBatch>,
    /// Records that were given up after the broker reported a gap before them.
    #[serde(default)]
    pub out_of_order: Vec<OutOfOrder>,
    /// Faults that consumers reported.
    pub faults: Vec<ClientFault>,
    /// Final positions of consumers.
    pub drained: Vec<Drained>,
    /// Responses to fetches.
    #[serde(default)]
    pub fetches: Vec<FetchResponded>,
    /// Records that differ from what was sent.
    #[serde(default)]
    pub altered: Vec<Altered>,
    /// How many shown records were compared with what was sent.
    #[serde(default)]
    pub compared: u64,
    /// Refused requests.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// The timestamp of each value that was sent, in milliseconds.
    #[serde(default)]
    pub timestamps: BTreeMap<i64, i64>,
}

/// Recorder of a workload's history and notes. Clones share it.
#[derive(Clone, Default)]
pub struct Recorder {
    history: brokkr_history::Recorder,
    notes: Arc<Mutex<Notes>>,
    /// Topics that are deleted and created again.
    recreated: Arc<BTreeSet<String>>,
    /// Names of partitions, cached.
    keys: Arc<Mutex<BTreeMap<TopicPartition, Key>>>,
    clock: Option<Arc<Clock>>,
    /// What was sent, by value.
    sent: Arc<Mutex<BTreeMap<i64, SentRecord>>>,
    /// Whether the history has digests of records, and the outcome of each send.
    is_detailed: bool,
}

/// The clock that dates all entries.
type Clock = dyn Fn() -> Instant + Send + Sync;

/// Separates a topic's name from its id in keys of a history. Topic names never contain it.
pub const ID_MARK: char = '@';

impl Recorder {
    /// An empty recorder.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty recorder for a workload: it knows which topics are recreated.
    pub fn of(workload: &Workload) -> Self {
        let topics = workload.recreator.iter().flat_map(|r| r.topics.iter().cloned());
        Self {
            recreated: Arc::new(topics.collect()),
            ..Self::default()
        }
    }

    /// The same recorder, with an empty history that is written to `to` as it happens; see [`brokkr_history::Recorder::streaming`].
    #[must_use]
    pub fn streaming(self, to: impl Write + Send + 'static) -> Self {
        let history = brokkr_history::Recorder::streaming(to);
        Self { history, ..self }
    }

    /// Records also what a judge of the history alone can compare: digests of records, and the outcome of each send where it
    /// differs from that of its operation. A send with acks=0 has an unknown outcome.
    #[must_use]
    pub fn detailed(self) -> Self {
        Self {
            is_detailed: true,
            ..self
        }
    }

    /// Dates all entries by this clock instead of the clients' clocks: if those drift, the history has no consistent order.
    #[must_use]
    pub fn dated_by(self, clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self {
            clock: Some(Arc::new(clock)),
            ..self
        }
    }

    /// The time of the history that it is at `at`, a moment of a client's clock, in nanoseconds.
    pub(crate) fn nanos(&self, at: Instant) -> i64 {
        let at = self.clock.as_ref().map_or(at, |clock| clock());
        i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
    }

    /// The key of a partition in the history: `topic-partition`, or `topic@id-partition` if topics of that name are recreated
    /// and the id is known. For such topics, keys without an id occur only in invocations and in completions of unknown
    /// outcome.
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

    /// The history.
    pub fn history(&self) -> &brokkr_history::Recorder {
        &self.history
    }

    /// A copy of the notes.
    pub fn notes(&self) -> Notes {
        let notes = self.lock().clone();
        self.with_timestamps(notes)
    }

    /// Takes the notes, which are empty afterwards.
    pub fn take_notes(&self) -> Notes {
        let notes = std::mem::take(&mut *self.lock());
        self.with_timestamps(notes)
    }

    fn with_timestamps(&self, notes: Notes) -> Notes {
        let sent = self.lock_sent();
        Notes {
            timestamps: sent
                .iter()
                .map(|(value, sent)| (*value, sent.timestamp))
                .collect(),
            ..notes
        }
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

    /// The nemesis injected a fault, or ended one.
    pub fn nemesis(&self, now: Instant, f: &str, value: serde_json::Value) {
        self.history.nemesis(self.nanos(now), f, value);
    }

    /// A producer's operation ended: `results` are the outcomes of its sends, in order.
    pub(crate) fn sends_ended(
        &self,
        now: Instant,
        process: Process,
        type_: Type,
        sends: Vec<MicroOp>,
        results: &[Result<Ack, SendError>],
    ) {
        let is_detailed = self.is_detailed;
        let digests: Vec<_> = match is_detailed {
            true => sends.iter().map(|send| self.digest_sent(send)).collect(),
            false => Vec::new(),
        };
        let add_details = |o: &mut Operation| {
            let outcomes = results.iter().map(outcome).enumerate();
            for (micro, outcome) in outcomes.filter(|(_, outcome)| is_detailed && *outcome != type_) {
                o.details.set_outcome(micro, outcome);
            }
            for (micro, digest) in digests.into_iter().enumerate() {
                if let Some(digest) = digest {
                    o.details.set_digest(micro, 0, digest);
                }
            }
        };
        self.history
            .complete_with(self.nanos(now), process, type_, Op::Send(sends), add_details);
    }

    /// The digest with which a record was sent.
    fn digest_sent(&self, send: &MicroOp) -> Option<Digest> {
        let MicroOp::Send {
            value: Val::Int(value),
            ..
        } = send
        else {
            return None;
        };
        self.lock_sent().get(value)?.content
    }

    /// A consumer's poll ended: `polls` are the records that it returned, and `polled` is all of it.
    pub(crate) fn poll_ended(&self, now: Instant, process: Process, polls: Polls, polled: &Polled) {
        let mut digests: BTreeMap<Key, Vec<Digest>> = BTreeMap::new();
        if self.is_detailed {
            for (tp, records) in &polled.records {
                for record in records {
                    let of_key = digests.entry(self.key_of(tp, record.topic_id)).or_default();
                    of_key.push(content_of(record));
                }
            }
        }
        // They are counted over all keys, in the order of the keys.
        let add_details = |o: &mut Operation| {
            for (record, digest) in digests.into_values().flatten().enumerate() {
                o.details.set_digest(0, record, digest);
            }
        };
        let op = Op::Poll(vec![MicroOp::Poll(Some(polls))]);
        self.history
            .complete_with(self.nanos(now), process, Type::Ok, op, add_details);
    }

    /// An assignment ended, and its process reads the partitions of `sought` from the beginning.
    pub(crate) fn assigned(&self, now: Instant, process: Process, keys: Vec<Key>, sought: Vec<Key>) {
        let seeks = sought.into_iter().map(|key| (key, Seek::Beginning));
        self.history
            .assigned(self.nanos(now), process, keys, seeks.collect());
    }

    /// Records the batches of an operation's acknowledged sends.
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
                log_append_time: ack.log_append_time.map(|t| t.0),
                records: Vec::new(),
            });
            batch.records.push((ack.offset.map(|o| o.0), *value));
        }
        self.lock().acked.extend(batches.into_values());
    }

    pub(crate) fn fault(&self, now: Instant, process: Process, tp: &TopicPartition, at: i64, what: String) {
        self.lock().faults.push(ClientFault {
            time: self.nanos(now),
            process,
            topic: tp.topic.to_string(),
            partition: tp.partition,
            at,
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

    /// A record is about to be sent.
    pub(crate) fn sent(&self, value: i64, record: &ProducerRecord) {
        let mut sent = SentRecord::of(record);
        if self.is_detailed {
            sent.content = Some(content_sent(record));
        }
        self.lock_sent().insert(value, sent);
    }

    /// The timestamp of some value that was sent, in milliseconds.
    pub(crate) fn any_timestamp(&self, rng: &Rng) -> Option<i64> {
        let sent = self.lock_sent();
        let at = rng.below(sent.len().max(1) as u64) as usize;
        sent.values().nth(at).map(|sent| sent.timestamp)
    }

    /// Compares records that a consumer was shown with what was sent.
    pub(crate) fn shown(&self, now: Instant, process: Process, polled: &Polled) {
        let (mut sent, mut notes) = (self.lock_sent(), self.lock());
        for (tp, records) in &polled.records {
            for record in records {
                let Some(value) = record.value.as_deref().and_then(parse_value) else {
                    continue;
                };
                let Some(as_sent) = sent.get_mut(&value) else {
                    continue;
                };
                notes.compared += 1;
                if let Some(difference) = as_sent.differs(record)
                    && as_sent.is_news(record.offset.0, difference)
                {
                    notes.altered.push(Altered {
                        time: self.nanos(now),
                        process,
                        key: self.key_of(tp, record.topic_id).as_str().to_owned(),
                        offset: record.offset.0,
                        value,
                        difference,
                    });
                }
            }
        }
    }

    /// A consumer received a response to a fetch; `asked` is a time of the history before it was sent.
    pub(crate) fn fetched(&self, asked: i64, now: Instant, process: Process, round: &FetchRound) {
        let ends = |p: &FetchedPartition| FetchedEnds {
            key: self.key_of(&p.tp, p.topic_id),
            position: p.position.0,
            next: p.next.0,
            bytes: p.bytes as u64,
            batches: p.batches,
            log_start: p.ends.log_start.0,
            high_watermark: p.ends.high_watermark.0,
            last_stable: p.ends.last_stable.0,
        };
        let note = FetchResponded {
            asked,
            time: self.nanos(now),
            process,
            took: i64::try_from(round.took.as_nanos()).unwrap_or(i64::MAX),
            followed_by: round.followed_by,
            is_whole: round.is_whole,
            requested: round.requested,
            partitions: round.partitions.iter().map(ends).collect(),
            // One is enough: there are many responses.
            unchanged: round
                .unchanged
                .get(round.poll as usize % round.unchanged.len().max(1))
                .map(ends)
                .into_iter()
                .collect(),
        };
        self.lock().fetches.push(note);
    }

    /// A request failed that was begun at `asked`, a time of the history.
    pub(crate) fn refused(
        &self,
        asked: i64,
        now: Instant,
        process: Process,
        what: &str,
        key: &str,
        error: &Error,
    ) {
        let refusal = Refusal {
            asked,
            time: self.nanos(now),
            process,
            what: what.to_owned(),
            key: key.to_owned(),
            code: error.code().map(|code| code.0),
        };
        self.lock().refusals.push(refusal);
    }

    fn lock_sent(&self) -> MutexGuard<'_, BTreeMap<i64, SentRecord>> {
        self.sent.lock().expect("no panic under this lock")
    }

    pub(crate) fn drained(&self, drained: Drained) {
        self.lock().drained.push(drained);
    }
}

/// The outcome of one send.
fn outcome(result: &Result<Ack, SendError>) -> Type {
    match result {
        Ok(ack) if ack.batch.acks.id() == 0 => Type::Info,
        Ok(_) => Type::Ok,
        Err(SendError::Fail(_)) => Type::Fail,
        Err(SendError::Info(_)) => Type::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_client::Acks;
    use brokkr_client::producer::AckedBatch as ClientBatch;
    use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
    use bytes::Bytes;

    fn ack(acks: Acks) -> Result<Ack, SendError> {
        let offset = (acks != Acks::None).then_some(Offset(7));
        let batch = ClientBatch {
            topic_id: Uuid::ZERO,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: Sequence(-1),
            base_offset: offset,
            records_count: 1,
            acks,
            attempts: 1,
            refused_as_gap: false,
        };
        Ok(Ack {
            offset,
            log_append_time: None,
            batch,
        })
    }

    /// The outcomes and digests of an operation's sends.
    fn details(
        recorder: &Recorder,
        type_: Type,
        results: &[Result<Ack, SendError>],
    ) -> Vec<(Option<Type>, bool)> {
        let send = |value: i64| MicroOp::Send {
            key: "t-0".into(),
            offset: None,
            value: value.into(),
        };
        let sends: Vec<_> = (0..results.len() as i64).map(send).collect();
        for value in 0..results.len() as i64 {
            let record = ProducerRecord {
                timestamp: Some(UnixMillis(5)),
                ..ProducerRecord::new(
                    TopicPartition::new("t", 0),
                    None,
                    Some(Bytes::from(value.to_string())),
                )
            };
            recorder.sent(value, &record);
        }
        recorder.invoke(Instant::from_nanos(1), 0, Op::Send(sends.clone()));
        recorder.sends_ended(Instant::from_nanos(2), 0, type_, sends, results);
        let ended = recorder.history().take().pop().expect("it ended");
        let detail = |i| (ended.details.outcome(i), ended.details.digest(i, 0).is_some());
        (0..results.len()).map(detail).collect()
    }

    #[test]
    fn outcomes_of_sends_are_recorded_where_they_differ() {
        let mixed = [
            ack(Acks::All),
            Err(SendError::Fail(Error::NoLeader)),
            Err(SendError::Info(Error::TimedOut)),
        ];
        let detailed = Recorder::new().detailed();
        assert_eq!(
            details(&detailed, Type::Info, &mixed),
            [(Some(Type::Ok), true), (Some(Type::Fail), true), (None, true)]
        );
        assert_eq!(details(&detailed, Type::Ok, &[ack(Acks::All)]), [(None, true)]);
        // The broker does not say whether it has written it.
        let unconfirmed = details(&detailed, Type::Ok, &[ack(Acks::None)]);
        assert_eq!(unconfirmed, [(Some(Type::Info), true)]);
        let plain = details(&Recorder::new(), Type::Info, &mixed);
        assert_eq!(plain, [(None, false); 3]);
    }
}
