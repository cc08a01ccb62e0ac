//! An admin process: lists offsets and deletes records.

use std::time::Duration;

use brokkr_client::admin::OffsetSpec;
use brokkr_client::{Client, IsolationLevel, TopicPartition};
use brokkr_env::{Env, Rng};
use brokkr_history::{Op, Process, Type};
use brokkr_types::Offset;
use serde_json::json;

use crate::spec::{self, AdminSpec, ClientSpec};
use crate::{Recorder, Stop};

/// Lists log start and end offsets, and deletes records, until stopped.
///
/// In the history: `list_offsets`, with `{"key"}`, and with `earliest` and `latest` if they were returned; `delete_records`,
/// with `{"key", "before"}`, and with `low_watermark` if it was returned.
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
    let rng = env.rng("workload admin");
    let mut process = spec.process;
    while !stop.is_stopped() {
        let pause = Duration::from_micros(rng.below(spec.pause_max_ms * 1000 + 1));
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = env.sleep_until(env.now() + pause) => {}
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
    let ask = async |spec| client.list_offsets(tp, spec, level).await.ok()?.offset;
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
    recorder.invoke(env.now(), process, op(invoked.clone()));
    let (type_, value) = match client.delete_records(tp, Some(before)).await {
        Ok(low) => {
            let value = json!({"key": key, "before": before.0, "low_watermark": low.0});
            (Type::Ok, value)
        }
        // An earlier attempt may have been carried out.
        Err(_) => (Type::Info, invoked),
    };
    recorder.complete(env.now(), process, type_, op(value));
    type_
}
