//! Brokers whose answers are out of date are valid; answers that go back, or show a state that never existed, are not.

mod common;

use brokkr_checker::metadata::Metadata;
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{Op, Operation, Type};
use common::{HistoryWriter, random};
use proptest::prelude::*;
use serde_json::{Value, json};

fn verdict(history: &[Operation]) -> Verdict {
    let mut metadata = Metadata::default();
    for operation in history {
        metadata.push(operation.clone()).expect("a history of metadata");
    }
    metadata.finish().expect("a history of metadata")
}

fn op(f: &str, value: Value) -> Op {
    Op::Other(f.to_owned(), value)
}

/// The state at some time: for each topic its id, and its one partition's epoch (which determines the leader).
type Image = Vec<Option<(String, i64)>>;

fn answer(broker: u64, image: &Image) -> Op {
    let topics = image.iter().enumerate().filter_map(|(t, topic)| {
        let (id, epoch) = topic.as_ref()?;
        let partitions = json!({"0": {"leader": epoch % 3, "epoch": epoch}});
        Some((format!("t{t}"), json!({"id": id, "partitions": partitions})))
    });
    let topics: serde_json::Map<_, _> = topics.collect();
    op(
        "metadata",
        json!({"broker": broker, "all": true, "topics": topics}),
    )
}

/// A controller that makes changes one after the other, and brokers that follow with any lag.
fn history(seed: u64, steps: usize) -> (HistoryWriter, Vec<Image>) {
    let mut random = random(seed);
    let (mut writer, mut images, mut at) = (HistoryWriter::default(), vec![vec![None; 3]], [0usize; 3]);
    let mut commits = vec![-1i64];
    let mut committed_at = [0usize; 3];
    for step in 0..steps as u64 {
        let t = random.random_range(0..3);
        let mut image = images.last().expect("one").clone();
        match random.random_range(0..6) {
            0 => {
                let (name, there) = (format!("t{t}"), image[t].is_some());
                let (f, answer) = if there {
                    ("delete-topic", Value::Null)
                } else {
                    ("create-topic", json!(format!("id{step}")))
                };
                let type_ = if random.random_ratio(1, 5) {
                    Type::Info
                } else {
                    Type::Ok
                };
                writer.both(
                    100 + step,
                    op(f, json!({"topic": name})),
                    type_,
                    op(f, json!({"topic": name, "id": answer})),
                );
                image[t] = (!there).then(|| (format!("id{step}"), 0));
                images.push(image);
            }
            1 => {
                if let Some((_, epoch)) = &mut image[t] {
                    *epoch += 1;
                    images.push(image);
                }
            }
            2 => {
                let offset = step as i64;
                let value = json!({"group": "g", "key": "k", "offset": offset});
                writer.both(
                    100 + step,
                    op("commit", value.clone()),
                    Type::Ok,
                    op("commit", value),
                );
                commits.push(offset);
            }
            3 => {
                let b = random.random_range(0..3);
                committed_at[b] += random.random_range(0..commits.len() - committed_at[b]);
                let offset = commits[committed_at[b]];
                let offset = if offset < 0 { Value::Null } else { json!(offset) };
                let request = json!({"group": "g", "key": "k", "coordinator": b});
                let answer = json!({"group": "g", "key": "k", "coordinator": b, "offset": offset});
                writer.both(
                    b as u64,
                    op("committed", request),
                    Type::Ok,
                    op("committed", answer),
                );
            }
            _ => {
                let b = random.random_range(0..3);
                at[b] += random.random_range(0..images.len() - at[b]);
                let request = op("metadata", json!({"broker": b}));
                writer.both(b as u64, request, Type::Ok, answer(b as u64, &images[at[b]]));
            }
        }
    }
    (writer, images)
}

fn plant(writer: &mut HistoryWriter, broker: u64, answer: Op) -> u64 {
    writer.both(50, op("metadata", json!({"broker": broker})), Type::Ok, answer)
}

fn ops_of(verdict: &Verdict, anomaly: &str) -> Vec<u64> {
    verdict
        .findings(anomaly)
        .iter()
        .flat_map(|f| f.ops.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn brokers_that_are_behind_are_valid(seed: u64, steps in 0usize..200) {
        let (writer, _) = history(seed, steps);
        let verdict = verdict(&writer.0);
        prop_assert_eq!(&verdict.anomalies, &std::collections::BTreeMap::new());
        prop_assert!(verdict.valid() != Valid::No);
    }

    #[test]
    fn each_anomaly_is_found(seed: u64, steps in 0usize..120) {
        let (mut writer, images) = history(seed, steps);
        let now = images.last().expect("one").clone();
        let with = |id: &str, epoch: i64| {
            let mut image = now.clone();
            image[0] = Some((id.to_owned(), epoch));
            image
        };
        let created = op("create-topic", json!({"topic": "t0"}));
        writer.both(60, created, Type::Info, op("create-topic", json!({"topic": "t0"})));
        let untrue = plant(&mut writer, 7, op("metadata", json!({"broker": 7, "topics": {"t9": {"id": "x"}}})));
        writer.both(60, op("create-topic", json!({"topic": "t9"})), Type::Ok, op("create-topic", json!({"topic": "t9", "id": "x"})));
        prop_assert!(ops_of(&verdict(&writer.0), "untrue-topic").contains(&untrue));

        plant(&mut writer, 8, answer(8, &with("new", 5)));
        let back = plant(&mut writer, 8, answer(8, &with("new", 4)));
        prop_assert!(ops_of(&verdict(&writer.0), "nonmonotonic-metadata").contains(&back));

        plant(&mut writer, 8, answer(8, &with("newer", 1)));
        let back = plant(&mut writer, 8, answer(8, &with("new", 5)));
        prop_assert!(ops_of(&verdict(&writer.0), "nonmonotonic-metadata").contains(&back));

        let answer = json!({"broker": 9, "topics": {"t0": {"id": "new", "partitions": {"0": {"leader": 77, "epoch": 5}}}}});
        let two = plant(&mut writer, 9, op("metadata", answer));
        prop_assert!(ops_of(&verdict(&writer.0), "two-leaders").contains(&two));
    }

    #[test]
    fn each_anomaly_of_offsets_is_found(seed: u64, steps in 0usize..120) {
        let (mut writer, _) = history(seed, steps);
        let committed = |offset: i64| op("committed", json!({"group": "g", "key": "k", "coordinator": 5, "offset": offset}));
        let commit = |offset: i64| op("commit", json!({"group": "g", "key": "k", "offset": offset}));
        let untrue = writer.both(50, committed(0), Type::Ok, committed(5000));
        for offset in [5000, 6000] {
            writer.both(51, commit(offset), Type::Ok, commit(offset));
        }
        prop_assert!(ops_of(&verdict(&writer.0), "untrue-offset").contains(&untrue));
        writer.both(50, committed(0), Type::Ok, committed(6000));
        let back = writer.both(50, committed(0), Type::Ok, committed(5000));
        prop_assert!(ops_of(&verdict(&writer.0), "nonmonotonic-offset").contains(&back));
    }
}

#[test]
fn a_topic_that_is_gone_for_a_broker_stays_gone() {
    let mut writer = HistoryWriter::default();
    let there = json!({"broker": 1, "all": true, "topics": {"t": {"id": "a"}}});
    let gone = json!({"broker": 1, "all": true, "topics": {}});
    for answer in [&there, &gone] {
        plant(&mut writer, 1, op("metadata", answer.clone()));
    }
    assert_eq!(verdict(&writer.0).valid(), Valid::Yes);
    plant(&mut writer, 1, op("metadata", there.clone()));
    assert_eq!(verdict(&writer.0).valid(), Valid::No);
    // A new incarnation need not continue the old one.
    writer.0.truncate(4);
    let mut reborn = there;
    reborn["incarnation"] = json!(2);
    plant(&mut writer, 1, op("metadata", reborn));
    assert_eq!(verdict(&writer.0).valid(), Valid::Yes);
}
