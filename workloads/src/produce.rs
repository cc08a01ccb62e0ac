//! A producer process.

use std::time::Duration;

use brokkr_client::{Ack, Client, Producer, ProducerRecord, SendError, TopicPartition};
use brokkr_env::{Env, Rng};
use brokkr_history::{MicroOp, Op, Process, Type};
use brokkr_types::{UnixMillis, Uuid};
use brokkr_wire::ErrorCode;
use bytes::Bytes;

use crate::spec::{self, ClientSpec, ProducerSpec};
use crate::value::{value_bytes, value_of};
use crate::{Recorder, Stop, keys};

/// Limits of the records, and of the operations of unknown outcome, that a process produces between two kills.
const LIFE_RECORDS: u64 = 1 << 22;
const LIFE_STRIDES: u64 = 1 << 10;

/// Sends until stopped. Returns when everything sent has an outcome.
pub async fn run_producer<E: Env>(
    env: &E,
    client: &ClientSpec,
    spec: &ProducerSpec,
    recorder: &Recorder,
    stop: &Stop,
) {
    let client = Client::new(env, client.config());
    let mut producer = Producer::new(&client, spec.config());
    let partitions = spec::partitions(&spec.partitions);
    assert!(!partitions.is_empty(), "a producer needs partitions");
    let rng = env.rng("workload producer");
    // Apart, so that headers and timestamps change no other choice.
    let extras = env.rng("workload record extras");
    let (mut process, mut counter, mut operations) = (
        spec.process + spec.process_stride * spec.lives_before * LIFE_STRIDES,
        spec.lives_before * LIFE_RECORDS,
        0,
    );
    while !stop.is_stopped() && spec.operations_max.is_none_or(|max| operations < max) {
        operations += 1;
        if spec.restarts_after.is_some_and(|n| operations % (n + 1) == n) {
            producer = Producer::new(&client, spec.config());
        }
        let sends = 1 + rng.below(spec.sends_max.max(1));
        let values: Vec<(TopicPartition, i64)> = (0..sends)
            .map(|i| {
                let to = &partitions[rng.below(partitions.len() as u64) as usize];
                let value = value_of(spec.process, counter + i);
                let to =
                    keys::of(value, spec.keys).map_or(to, |key| keys::partition_of(key, to, &partitions));
                (to.clone(), value)
            })
            .collect();
        counter += sends;
        let ended = send(env, &producer, spec, recorder, process, (&rng, &extras), values).await;
        if ended == Type::Info {
            // The operation has no known end and may still be in progress, so its process ends with it.
            process += spec.process_stride;
        }
        let pause = Duration::from_micros(rng.below(spec.pause_max_ms * 1000 + 1));
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = env.sleep_until(env.now() + pause) => {}
        }
    }
}

/// A header of the record with this value: some without a value, some empty.
fn header(value: i64, i: u64) -> (Bytes, Option<Bytes>) {
    let text = match (value as u64).wrapping_add(i) % 4 {
        0 => None,
        1 => Some(Bytes::new()),
        _ => Some(Bytes::from(format!("{value}:{i}"))),
    };
    (Bytes::from(format!("h{i}")), text)
}

/// One operation: all its sends are in flight at once.
async fn send<E: Env>(
    env: &E,
    producer: &Producer,
    spec: &ProducerSpec,
    recorder: &Recorder,
    process: Process,
    (rng, extras): (&Rng, &Rng),
    values: Vec<(TopicPartition, i64)>,
) -> Type {
    let micro = |tp: &TopicPartition, results: Option<&Ack>, value: i64| MicroOp::Send {
        key: recorder.key_of(tp, results.map_or(Uuid::ZERO, |ack| ack.batch.topic_id)),
        offset: results.and_then(|ack| ack.offset).map(|o| o.0),
        value: value.into(),
    };
    let invoked = values.iter().map(|(tp, value)| micro(tp, None, *value)).collect();
    let began = recorder.nanos(env.now());
    recorder.invoke(env.now(), process, Op::Send(invoked));
    let mut deliveries = Vec::with_capacity(values.len());
    for (tp, value) in &values {
        let padding = rng.below(spec.padding_bytes_max + 1);
        let key = match keys::of(*value, spec.keys) {
            Some(key) => keys::bytes(key),
            None => Bytes::from(spec.process.to_string()),
        };
        let age_ms = extras.below(spec.older_max_ms + 1) as i64;
        let headers = 0..extras.below(spec.headers_max + 1);
        let record = ProducerRecord {
            headers: headers.map(|i| header(*value, i)).collect(),
            timestamp: Some(UnixMillis(env.wall().0 - age_ms)),
            ..ProducerRecord::new(tp.clone(), Some(key), Some(value_bytes(*value, padding)))
        };
        recorder.sent(*value, &record);
        deliveries.push(producer.enqueue(record).await);
    }
    let mut results: Vec<Result<Ack, SendError>> = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        results.push(delivery.await);
    }
    let both = || values.iter().zip(&results);
    let acks: Vec<_> = both()
        .filter_map(|((tp, value), t)| Some((tp.clone(), *t.as_ref().ok()?, *value)))
        .collect();
    let type_ = if acks.len() == results.len() {
        Type::Ok
    } else if results.iter().all(|t| matches!(t, Err(SendError::Fail(_)))) {
        Type::Fail
    } else {
        Type::Info
    };
    let completed = both()
        .map(|((tp, value), t)| micro(tp, t.as_ref().ok(), *value))
        .collect();
    recorder.acked(env.now(), process, &acks);
    for ((tp, _), result) in both() {
        if let Err(error) = result {
            let key = recorder.key_of(tp, Uuid::ZERO);
            recorder.refused(began, env.now(), process, "Produce", key.as_str(), error.cause());
        }
    }
    let gap = Some(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    for ((tp, value), _) in both().filter(|(_, t)| matches!(t, Err(e) if e.cause().code() == gap)) {
        recorder.out_of_order(env.now(), process, tp, *value);
    }
    recorder.sends_ended(env.now(), process, type_, completed, &results);
    type_
}
