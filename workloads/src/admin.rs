//! An admin process: lists offsets and deletes records.

use std::time::Duration;

use brokkr_client::admin::OffsetSpec;
use brokkr_client::{Client, IsolationLevel, TopicPartition};
use brokkr_env::{Env, Rng};
use brokkr_history::{Op, Process, Type};
use brokkr_types::{Offset, UnixMillis};
use brokkr_wire::ApiKey;
use serde_json::json;

use crate::spec::{self, AdminSpec, ClientSpec};
use crate::{Recorder, Stop};

/// ListOffsets' timestamp for the record with the largest one.
const MAX_TIMESTAMP: i64 = -3;
/// The first version of ListOffsets that has it.
const MAX_TIMESTAMP_VERSION: i16 = 7;

/// Lists log start and end offsets, and deletes records, until stopped.
///
/// In the history: `list_offsets`, with `{"key"}`, and with `earliest` and `latest` if they were returned; `delete_records`,
/// with `{"key", "before"}`, and with `low_watermark` if it was returned; `offset_for_time`, with `{"key", "timestamp"}` (-3: the
/// largest), and with the `offset` (-1: none) and the record's own timestamp (`of`) if they were returned.
pub async fn run_admin<E: Env>(
    env: &E,
    client: &ClientSpec,
    spec: &AdminSpec,
    recorder: &Recorder,
    stop: &Stop,
) {
    let client = Client::new(env, client.config());
    let partitions = spec::partitions(&spec.partitions);
    assert!(!partitions.is_empty(), "an admin needs partitions");
    let queried = spec::partitions(&spec.queried);
    // Apart, so that questions change no other choice.
    let times = env.rng("workload admin's times");
    let rng = env.rng("workload admin");
    let mut process = spec.process;
    while !stop.is_stopped() {
        let pause = Duration::from_micros(rng.below(spec.pause_max_ms * 1000 + 1));
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = env.sleep_until(env.now() + pause) => {}
        }
        for _ in 0..1 + times.below(3) {
            ask_by_time(env, &client, &queried, recorder, process, &times).await;
        }
        let tp = &partitions[rng.below(partitions.len() as u64) as usize];
        if let Some((earliest, latest)) = list_offsets(env, &client, tp, recorder, process).await
            && let Some(before) = choose_offset(earliest, latest, &rng)
            && delete_records(env, &client, tp, before, recorder, process).await == Type::Info
        {
            process += spec.process_stride;
        }
    }
}

/// Lists the log start and end offsets.
async fn list_offsets<E: Env>(
    env: &E,
    client: &Client<E>,
    tp: &TopicPartition,
    recorder: &Recorder,
    process: Process,
) -> Option<(Offset, Offset)> {
    let level = IsolationLevel::ReadUncommitted;
    let op = |value| Op::Other("list_offsets".to_owned(), value);
    let key = tp.to_string();
    recorder.invoke(env.now(), process, op(json!({"key": key})));
    let began = recorder.nanos(env.now());
    let ask = async |spec| match client.list_offsets(tp, spec, level).await {
        Ok(listed) => listed.offset,
        Err(e) => {
            recorder.refused(began, env.now(), process, "ListOffsets", &key, &e);
            None
        }
    };
    let earliest = ask(OffsetSpec::Earliest).await;
    let latest = match earliest {
        Some(_) => ask(OffsetSpec::Latest).await,
        None => None,
    };
    let (type_, value) = match (earliest, latest) {
        (Some(e), Some(l)) => (Type::Ok, json!({"key": key, "earliest": e.0, "latest": l.0})),
        _ => (Type::Fail, json!({"key": key})),
    };
    recorder.complete(env.now(), process, type_, op(value));
    earliest.zip(latest)
}

/// Asks one of the partitions for the first record at or after a time, or for the one with the largest timestamp.
async fn ask_by_time<E: Env>(
    env: &E,
    client: &Client<E>,
    queried: &[TopicPartition],
    recorder: &Recorder,
    process: Process,
    rng: &Rng,
) {
    let Some(known) = recorder.any_timestamp(rng).filter(|_| !queried.is_empty()) else {
        return;
    };
    let tp = &queried[rng.below(queried.len() as u64) as usize];
    let asks_for_largest = client.config().versions_max.get(&ApiKey::ListOffsets);
    let asks_for_largest = asks_for_largest.is_none_or(|version| *version >= MAX_TIMESTAMP_VERSION);
    let (spec, timestamp) = match rng.below(8) {
        0..3 if asks_for_largest => (OffsetSpec::MaxTimestamp, MAX_TIMESTAMP),
        3 => (OffsetSpec::At(UnixMillis(0)), 0),
        n => {
            let at = (known + n as i64 - 6).max(0);
            (OffsetSpec::At(UnixMillis(at)), at)
        }
    };
    let key = tp.to_string();
    let op = |value| Op::Other("offset_for_time".to_owned(), value);
    let asked = json!({"key": key, "timestamp": timestamp});
    let began = recorder.nanos(env.now());
    recorder.invoke(env.now(), process, op(asked.clone()));
    let (type_, value) = match client
        .list_offsets(tp, spec, IsolationLevel::ReadUncommitted)
        .await
    {
        Ok(listed) => (
            Type::Ok,
            json!({
                "key": key,
                "timestamp": timestamp,
                "offset": listed.offset.map_or(-1, |offset| offset.0),
                "of": listed.timestamp.0,
            }),
        ),
        Err(e) => {
            recorder.refused(began, env.now(), process, "ListOffsets", &key, &e);
            (Type::Fail, asked)
        }
    };
    recorder.complete(env.now(), process, type_, op(value));
}

/// A random offset in the older half of the log.
fn choose_offset(earliest: Offset, latest: Offset, rng: &Rng) -> Option<Offset> {
    let there = u64::try_from(latest.0 - earliest.0).ok()?;
    (there > 1).then(|| earliest.plus(rng.below(there / 2 + 1) as i64))
}

async fn delete_records<E: Env>(
    env: &E,
    client: &Client<E>,
    tp: &TopicPartition,
    before: Offset,
    recorder: &Recorder,
    process: Process,
) -> Type {
    let key = tp.to_string();
    let op = |value| Op::Other("delete_records".to_owned(), value);
    let invoked = json!({"key": key, "before": before.0});
    let began = recorder.nanos(env.now());
    recorder.invoke(env.now(), process, op(invoked.clone()));
    let (type_, value) = match client.delete_records(tp, Some(before)).await {
        Ok(low) => {
            let value = json!({"key": key, "before": before.0, "low_watermark": low.0});
            (Type::Ok, value)
        }
        // An earlier attempt may have been carried out.
        Err(e) => {
            recorder.refused(began, env.now(), process, "DeleteRecords", &key, &e);
            (Type::Info, invoked)
        }
    };
    recorder.complete(env.now(), process, type_, op(value));
    type_
}
