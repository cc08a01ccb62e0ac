//! Tests of the state alone: scripts, and a model of a broker behind a network that loses, duplicates and delays.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use brokkr_env::Instant;
use brokkr_types::{Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
use brokkr_wire::ErrorCode;
use brokkr_wire::records::Batch;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::{Semaphore, oneshot};

use super::batch::{BatchId, Identity};
use super::delivery::SendResult;
use super::state::{BatchToSend, Outcome, State};
use super::{Ack, ProducerConfig, ProducerRecord, SendError};
use crate::{Error, TopicPartition};

const BACKOFF: Duration = Duration::from_millis(100);

struct Script {
    state: State,
    now: Instant,
    tp: TopicPartition,
    outcomes: Vec<oneshot::Receiver<SendResult>>,
}

fn identity(id: i64) -> Identity {
    Identity {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
    }
}

impl Script {
    /// Each record is a batch of its own.
    fn new(config: ProducerConfig) -> Self {
        let mut state = State::new(ProducerConfig {
            linger: Duration::ZERO,
            batch_records_max: 1,
            delivery_timeout: Duration::from_secs(10),
            ..config
        });
        if state.needs_identity() {
            state.set_identity(identity(7));
        }
        Self {
            state,
            now: Instant::from_nanos(1_000_000_000),
            tp: TopicPartition::new("t", 0),
            outcomes: Vec::new(),
        }
    }

    fn idempotent() -> Self {
        Self::new(ProducerConfig::default())
    }

    /// Pushes a record whose value is its number.
    fn push(&mut self) -> usize {
        let number = self.outcomes.len();
        let record = ProducerRecord::new(self.tp.clone(), None, Some(Bytes::from(number.to_string())));
        let (result_sender, outcomes) = oneshot::channel();
        let none = Arc::new(Semaphore::new(0)).try_acquire_many_owned(0);
        let none = none.expect("zero permits are always available");
        self.state
            .push(self.now, UnixMillis(0), &record, result_sender, none);
        self.outcomes.push(outcomes);
        number
    }

    fn take(&mut self) -> Option<BatchToSend> {
        self.state.take(&self.tp.clone(), self.now)
    }

    fn take_all(&mut self) -> Vec<BatchToSend> {
        std::iter::from_fn(|| self.take()).collect()
    }

    fn on_outcome(&mut self, batch: BatchId, outcome: Outcome) {
        let retry_at = self.now + BACKOFF;
        self.state
            .on_outcome(&self.tp.clone(), batch, outcome, self.now, retry_at);
        self.state.resolve();
    }

    fn acked(&mut self, batch: BatchId, offset: i64) {
        let outcome = Outcome::Acknowledged {
            base_offset: Some(Offset(offset)),
            append_time: None,
        };
        self.on_outcome(batch, outcome);
    }

    fn refused(&mut self, batch: BatchId, code: ErrorCode) {
        self.on_outcome(batch, Outcome::Refused(code, None));
    }

    fn lost(&mut self, batch: BatchId) {
        self.on_outcome(batch, Outcome::Unanswered(Error::Lost(String::new())));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.expire(self.now);
        self.state.resolve();
    }

    /// One letter per record: `o`k, `f`ail, `i`nfo, or `.` without an outcome.
    fn outcomes(&mut self) -> String {
        let letter = |r: &mut oneshot::Receiver<SendResult>| match r.try_recv() {
            Ok(Ok(_)) => 'o',
            Ok(Err(SendError::Fail(_))) => 'f',
            Ok(Err(SendError::Info(_))) => 'i',
            Err(_) => '.',
        };
        self.outcomes.iter_mut().map(letter).collect()
    }
}

/// Epoch and sequence.
fn numbers(sending: &BatchToSend) -> (i16, i32) {
    let batch = Batch::first(&sending.bytes).expect("it is a batch");
    batch.check_crc().expect("it is whole");
    (batch.header.producer_epoch.0, batch.header.base_sequence.0)
}

#[test]
fn at_most_five_batches_are_in_flight() {
    let mut s = Script::idempotent();
    for _ in 0..7 {
        s.push();
    }
    let sent = s.take_all();
    assert_eq!(
        sent.iter().map(numbers).collect::<Vec<_>>(),
        [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]
    );
    s.acked(sent[0].batch, 10);
    assert_eq!(s.take_all().len(), 1);
}

#[test]
fn sequences_wrap() {
    let mut s = Script::new(ProducerConfig {
        first_sequence: Sequence(i32::MAX),
        ..ProducerConfig::default()
    });
    for _ in 0..3 {
        s.push();
    }
    let sent = s.take_all();
    let all: Vec<_> = sent.iter().map(numbers).collect();
    assert_eq!(all, [(0, i32::MAX), (0, 0), (0, 1)]);
    s.acked(sent[0].batch, 10);
    s.refused(sent[1].batch, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    s.refused(sent[2].batch, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    // This batch was the next one, so the broker has lost the sequence state: a new epoch begins at 0.
    s.pass(BACKOFF);
    let again = s.take_all();
    assert_eq!(again.iter().map(numbers).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
    again
        .iter()
        .zip(11..)
        .for_each(|(sending, at)| s.acked(sending.batch, at));
    let as_gap = |outcomes: &mut oneshot::Receiver<SendResult>| match outcomes.try_recv() {
        Ok(Ok(ack)) => ack.batch.refused_as_gap,
        other => panic!("it was acknowledged: {other:?}"),
    };
    let as_gaps: Vec<_> = s.outcomes.iter_mut().map(as_gap).collect();
    assert_eq!(
        as_gaps,
        [false, true, false],
        "a batch behind a gap was not refused unexpectedly"
    );
}

#[test]
fn lost_batches_are_retried_one_at_a_time_and_unchanged() {
    let mut s = Script::idempotent();
    for _ in 0..4 {
        s.push();
    }
    let sent = s.take_all();
    s.acked(sent[0].batch, 0);
    for lost in &sent[1..] {
        s.lost(lost.batch);
    }
    assert_eq!(s.take_all().len(), 0, "not before the backoff");
    s.pass(BACKOFF);
    for (i, old) in sent.iter().enumerate().skip(1) {
        let again = s.take_all();
        assert_eq!(again.len(), 1, "only the head");
        assert_eq!((again[0].batch, &again[0].bytes), (old.batch, &old.bytes));
        s.acked(old.batch, i as i64);
    }
    assert_eq!(s.outcomes(), "oooo");
}

#[test]
fn a_duplicate_is_success_without_an_offset() {
    let mut s = Script::idempotent();
    s.push();
    let sent = s.take_all();
    s.refused(sent[0].batch, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    let ack: Ack = s.outcomes[0]
        .try_recv()
        .expect("it has an outcome")
        .expect("it was acknowledged");
    assert_eq!((ack.offset, ack.batch.base_sequence), (None, Sequence(0)));
}

#[test]
fn a_refused_batch_fails_and_the_others_are_sent_under_a_new_epoch() {
    let mut s = Script::idempotent();
    for _ in 0..3 {
        s.push();
    }
    let sent = s.take_all();
    s.acked(sent[0].batch, 0);
    s.refused(sent[1].batch, ErrorCode::MESSAGE_TOO_LARGE);
    let new = s.push();
    assert_eq!(s.take_all().len(), 0, "there may be a gap");
    s.refused(sent[2].batch, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    s.pass(BACKOFF);
    let again = s.take_all();
    assert_eq!(again.iter().map(numbers).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
    assert_eq!(again[0].batch, sent[2].batch);
    s.acked(again[0].batch, 1);
    s.acked(again[1].batch, 2);
    assert_eq!((s.outcomes().as_str(), new), ("ofoo", 3));
}

#[test]
fn a_batch_of_unknown_outcome_is_not_sent_under_a_new_epoch() {
    let mut s = Script::idempotent();
    s.push();
    let sent = s.take_all();
    s.lost(sent[0].batch);
    s.pass(BACKOFF);
    assert_eq!(s.take_all().len(), 1);
    s.refused(sent[0].batch, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    s.pass(BACKOFF);
    s.push();
    let next = s.take_all();
    assert_eq!(next.iter().map(numbers).collect::<Vec<_>>(), [(1, 0)]);
    assert_eq!(s.outcomes(), "i.");
}

#[test]
fn a_bump_waits_for_batches_in_flight() {
    let mut s = Script::idempotent();
    for _ in 0..3 {
        s.push();
    }
    let sent = s.take_all();
    s.refused(sent[0].batch, ErrorCode::UNKNOWN_PRODUCER_ID);
    s.refused(sent[1].batch, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    s.pass(BACKOFF);
    assert_eq!(s.take_all().len(), 0);
    s.lost(sent[2].batch);
    s.pass(BACKOFF);
    let again = s.take_all();
    assert_eq!(again.iter().map(numbers).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
    assert_eq!(s.outcomes(), "..i");
}

#[test]
fn a_late_response_to_an_expired_batch_closes_the_gap() {
    let mut s = Script::idempotent();
    s.push();
    let sent = s.take_all();
    s.pass(Duration::from_secs(10));
    s.push();
    assert_eq!(s.outcomes(), "i.");
    s.acked(sent[0].batch, 0);
    let next = s.take_all();
    assert_eq!(next.iter().map(numbers).collect::<Vec<_>>(), [(0, 1)]);
}

#[test]
fn an_expired_batch_fails_only_if_every_attempt_was_refused() {
    for (code, outcomes) in [
        (ErrorCode::NOT_ENOUGH_REPLICAS, "f"),
        (ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, "i"),
        (ErrorCode::NOT_LEADER_OR_FOLLOWER, "i"),
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "i"),
        (ErrorCode::KAFKA_STORAGE_ERROR, "i"),
        (ErrorCode::REQUEST_TIMED_OUT, "i"),
        (ErrorCode(-1), "i"),
        (ErrorCode(9999), "i"),
    ] {
        for idempotent in [true, false] {
            let mut s = Script::new(ProducerConfig {
                idempotent,
                ..ProducerConfig::default()
            });
            s.push();
            let sent = s.take_all();
            s.refused(sent[0].batch, code);
            s.pass(Duration::from_secs(10));
            assert_eq!(s.outcomes(), outcomes, "{code}");
        }
    }
    let mut s = Script::idempotent();
    s.push();
    s.pass(Duration::from_secs(10));
    assert_eq!(s.outcomes(), "f", "it was never sent");
}

#[test]
fn a_fenced_producer_requests_another_id() {
    let mut s = Script::idempotent();
    s.push();
    s.push();
    let sent = s.take_all();
    s.refused(sent[0].batch, ErrorCode::INVALID_PRODUCER_EPOCH);
    s.refused(sent[1].batch, ErrorCode::INVALID_PRODUCER_EPOCH);
    s.push();
    assert!(s.state.needs_identity() && s.take_all().is_empty());
    s.state.set_identity(identity(8));
    let next = s.take_all();
    assert_eq!(next.iter().map(numbers).collect::<Vec<_>>(), [(0, 0)]);
    assert_eq!(s.outcomes(), "ff.");
}

#[test]
fn acks_zero_batches_that_may_have_been_sent_are_not_retried() {
    let mut s = Script::new(ProducerConfig {
        idempotent: false,
        acks: super::Acks::None,
        ..ProducerConfig::default()
    });
    s.push();
    s.push();
    let sent = s.take_all();
    s.lost(sent[0].batch);
    s.on_outcome(sent[1].batch, Outcome::Unanswered(Error::NotSent(String::new())));
    s.pass(BACKOFF);
    assert_eq!((s.take_all().len(), s.outcomes().as_str()), (1, "i."));
}

/// A partition's leader with Kafka's rules for sequences.
#[derive(Default)]
struct LeaderModel {
    log: Vec<usize>,
    /// By producer id: epoch, and the last five batches' sequences and offsets.
    producers: BTreeMap<i64, (i16, VecDeque<(i32, i64)>)>,
}

impl LeaderModel {
    fn judge(&self, batch: &Batch) -> Result<Option<i64>, ErrorCode> {
        let h = &batch.header;
        let Some((epoch, window)) = self.producers.get(&h.producer_id.0) else {
            // The producer is unknown: any sequence is accepted.
            return Ok(None);
        };
        if h.producer_epoch.0 < *epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        let next = if h.producer_epoch.0 > *epoch {
            0
        } else if let Some((_, offset)) = window.iter().find(|(s, _)| *s == h.base_sequence.0) {
            return Ok(Some(*offset));
        } else {
            window.back().map_or(0, |(s, _)| s + 1)
        };
        if h.base_sequence.0 == next {
            Ok(None)
        } else {
            Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
        }
    }

    fn append(&mut self, bytes: &Bytes) -> Outcome {
        let batch = Batch::first(bytes).expect("it is a batch");
        let offset = match self.judge(&batch) {
            Err(code) => return Outcome::Refused(code, None),
            Ok(Some(original)) => original,
            Ok(None) => {
                let records = batch.records(1 << 20).expect("they aren't compressed");
                let first = records.iter().next().expect("there is one").expect("it is whole");
                let value = std::str::from_utf8(first.value.expect("it has a value"));
                let value = value.expect("it is text").parse().expect("it is a number");
                let offset = self.log.len() as i64;
                self.log.push(value);
                let h = &batch.header;
                let entry = self.producers.entry(h.producer_id.0).or_default();
                if entry.0 != h.producer_epoch.0 {
                    *entry = (h.producer_epoch.0, VecDeque::new());
                }
                entry.1.push_back((h.base_sequence.0, offset));
                if entry.1.len() > 5 {
                    entry.1.pop_front();
                }
                offset
            }
        };
        Outcome::Acknowledged {
            base_offset: Some(Offset(offset)),
            append_time: None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Send,
    /// The broker handles the next request of the current connection, and may answer with another outcome than the real one.
    Serve,
    ServeButSay(i16),
    RefuseWith(i16),
    Answer,
    Disconnect,
    /// A request of an older connection arrives at the broker, or is lost.
    Late,
    LateLost,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Push),
        10 => Just(Step::Send),
        10 => Just(Step::Serve),
        1 => prop::sample::select(vec![6, 3, 7, 20, -1]).prop_map(Step::ServeButSay),
        1 => prop::sample::select(vec![10, 19, 87, 2]).prop_map(Step::RefuseWith),
        10 => Just(Step::Answer),
        2 => Just(Step::Disconnect),
        2 => Just(Step::Late),
        1 => Just(Step::LateLost),
        3 => prop::sample::select(vec![10, 100, 4000]).prop_map(Step::Pass),
    ]
}

struct ProducerModel {
    script: Script,
    broker: LeaderModel,
    ids: i64,
    wire: VecDeque<BatchToSend>,
    answers: VecDeque<(BatchId, Outcome)>,
    late: VecDeque<Bytes>,
}

impl ProducerModel {
    fn new() -> Self {
        Self {
            script: Script::idempotent(),
            broker: LeaderModel::default(),
            ids: 7,
            wire: VecDeque::new(),
            answers: VecDeque::new(),
            late: VecDeque::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push => drop(self.script.push()),
            Step::Send => self.wire.extend(self.script.take()),
            Step::Serve => self.serve(|broker, bytes| broker.append(bytes)),
            Step::ServeButSay(code) => self.serve(|broker, bytes| match broker.append(bytes) {
                Outcome::Acknowledged { .. } => Outcome::Refused(ErrorCode(code), None),
                refused => refused,
            }),
            Step::RefuseWith(code) => self.serve(|_, _| Outcome::Refused(ErrorCode(code), None)),
            Step::Answer => {
                if let Some((batch, outcome)) = self.answers.pop_front() {
                    self.script.on_outcome(batch, outcome);
                }
            }
            Step::Disconnect => {
                let answers = std::mem::take(&mut self.answers).into_iter().map(|(b, _)| b);
                let wire: Vec<BatchToSend> = self.wire.drain(..).collect();
                let lost: Vec<BatchId> = answers.chain(wire.iter().map(|s| s.batch)).collect();
                self.late.extend(wire.into_iter().map(|s| s.bytes));
                for batch in lost {
                    self.script.lost(batch);
                }
            }
            Step::Late => {
                if let Some(bytes) = self.late.pop_front() {
                    self.broker.append(&bytes);
                }
            }
            Step::LateLost => drop(self.late.pop_front()),
            Step::Pass(ms) => self.script.pass(Duration::from_millis(ms)),
        }
        if self.script.state.needs_identity() {
            self.ids += 1;
            self.script.state.set_identity(identity(self.ids));
        }
    }

    fn serve(&mut self, with: impl FnOnce(&mut LeaderModel, &Bytes) -> Outcome) {
        if let Some(sending) = self.wire.pop_front() {
            let outcome = with(&mut self.broker, &sending.bytes);
            self.answers.push_back((sending.batch, outcome));
        }
    }

    /// Runs without further faults until all records have an outcome.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.script.state.is_idle() {
                return;
            }
            for step in [Step::Send, Step::Serve, Step::Answer, Step::Pass(10)] {
                self.step(step);
            }
        }
        panic!("records are left without an outcome");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn records_are_in_the_log_at_most_once_in_order_and_never_after_fail(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut model = ProducerModel::new();
        for step in steps {
            model.step(step);
        }
        model.settle();
        while !model.late.is_empty() {
            model.step(Step::Late);
        }
        let log = &model.broker.log;
        let mut acked = Vec::new();
        for (value, outcomes) in model.script.outcomes.iter_mut().enumerate() {
            let positions: Vec<usize> = (0..log.len()).filter(|i| log[*i] == value).collect();
            prop_assert!(positions.len() <= 1, "{value} is at {positions:?}");
            match outcomes.try_recv().expect("everything has an outcome") {
                Ok(ack) => {
                    let offset = ack.offset.expect("the broker always says it").0 as usize;
                    prop_assert_eq!(positions, vec![offset]);
                    acked.push(offset);
                }
                Err(SendError::Fail(e)) => prop_assert!(positions.is_empty(), "{} failed: {}", value, e),
                Err(SendError::Info(_)) => {}
            }
        }
        prop_assert!(acked.is_sorted(), "acknowledged at {:?}", acked);
    }
}
