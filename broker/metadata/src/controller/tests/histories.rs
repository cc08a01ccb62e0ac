//! Property tests: invariants that hold after any sequence of requests.

use std::collections::BTreeSet;

use brokkr_types::UnixMillis;
use proptest::prelude::*;

use super::*;
use crate::snapshot::{self, QuorumState, Snapshot, SnapshotId};

#[derive(Clone, Debug)]
enum Op {
    Create {
        topic: u8,
        partitions: i32,
        retention: Option<i8>,
    },
    Delete(u8),
    Grow {
        topic: u8,
        count: i32,
    },
    Set {
        topic: u8,
        retention: Option<i8>,
    },
    SetBroker(Option<i8>),
    /// A broker registers a new incarnation; the flag says whether the previous one shut down cleanly.
    Life {
        broker: i32,
        clean: bool,
    },
    ProducerIds,
}

fn op() -> impl Strategy<Value = Op> {
    let topic = 0..4u8;
    let retention = proptest::option::of(-3..50i8);
    prop_oneof![
        3 => (topic.clone(), -2..4i32, retention.clone()).prop_map(|(topic, partitions, retention)| Op::Create { topic, partitions, retention }),
        1 => topic.clone().prop_map(Op::Delete),
        1 => (topic.clone(), 0..6i32).prop_map(|(topic, count)| Op::Grow { topic, count }),
        1 => (topic, retention.clone()).prop_map(|(topic, retention)| Op::Set { topic, retention }),
        1 => retention.prop_map(Op::SetBroker),
        2 => (1..4i32, any::<bool>()).prop_map(|(broker, clean)| Op::Life { broker, clean }),
        1 => Just(Op::ProducerIds),
    ]
}

fn name(topic: u8) -> String {
    format!("topic{topic}")
}

fn carry_out(c: &mut Cluster, op: &Op, lives: &mut u8) {
    let value = |v: &Option<i8>| v.map(|v| v.to_string());
    match op {
        Op::Create {
            topic: n,
            partitions,
            retention,
        } => {
            let mut new = topic(&name(*n), *partitions, -1);
            new.configs.extend(value(retention).map(|v| CreatableTopicConfig {
                name: "retention.ms".into(),
                value: Some(Str::from(v)),
                ..CreatableTopicConfig::default()
            }));
            c.create(new);
        }
        Op::Delete(n) => {
            let request = DeleteTopicsRequest {
                topic_names: vec![Str::from(name(*n))],
                ..DeleteTopicsRequest::default()
            };
            c.ask(Request::DeleteTopics(request));
        }
        Op::Grow { topic, count } => {
            let more = CreatePartitionsTopic {
                name: Str::from(name(*topic)),
                count: *count,
                assignments: None,
                ..CreatePartitionsTopic::default()
            };
            let request = CreatePartitionsRequest {
                topics: vec![more],
                ..CreatePartitionsRequest::default()
            };
            c.ask(Request::CreatePartitions(request));
        }
        Op::Set { topic, retention } => {
            let retention = value(retention);
            c.alter(
                2,
                &name(*topic),
                &[(
                    i8::from(retention.is_none()),
                    "retention.ms",
                    retention.as_deref(),
                )],
            );
        }
        Op::SetBroker(retention) => {
            let retention = value(retention);
            c.alter(
                4,
                "",
                &[(
                    i8::from(retention.is_none()),
                    "log.retention.ms",
                    retention.as_deref(),
                )],
            );
        }
        Op::Life { broker, clean } => {
            *lives += 1;
            let previous = c.controller.image().broker(*broker).map_or(-1, |b| b.epoch);
            let before = c.controller.image().clone();
            let epoch = c.register(*broker, *lives, if *clean { previous } else { -1 });
            assert!(epoch > previous, "each incarnation has its own epoch");
            led_anew(&before, c.controller.image(), *broker);
        }
        Op::ProducerIds => drop(c.ask(Request::AllocateProducerIds)),
    }
}

/// The partitions that a broker led before its new incarnation have a leader in a new epoch (R16).
fn led_anew(before: &Image, after: &Image, broker: i32) {
    for topic in before.topics.iter() {
        let now = after.topics.by_id(topic.id).expect("nothing was deleted");
        for (old, new) in topic
            .partitions
            .iter()
            .zip(&now.partitions)
            .filter(|(old, _)| old.leader == broker)
        {
            assert!(new.leader >= 0 && new.isr.contains(&new.leader));
            assert!(new.leader_epoch > old.leader_epoch);
        }
    }
}

/// The parts of an image that a snapshot holds.
fn through_a_snapshot(image: &Image) -> Image {
    let id = SnapshotId {
        end_offset: image.provenance.offset + 1,
        epoch: image.provenance.epoch,
    };
    let whole = Snapshot {
        image: image.clone(),
        quorum: QuorumState::default(),
        last_timestamp: UnixMillis(1),
    };
    let bytes = snapshot::write(&whole, id, UnixMillis(1)).expect("writable");
    snapshot::read(&bytes, id, "c").expect("readable").image
}

proptest! {
    #[test]
    fn ids_are_used_once_epochs_rise_and_a_snapshot_is_as_good_as_the_log(ops in proptest::collection::vec(op(), 1..40)) {
        let mut c = Cluster::of_one();
        let (mut lives, mut topics, mut producer_ids) = (1, BTreeSet::new(), 0);
        for op in &ops {
            let before: BTreeSet<_> = c.controller.image().topics.iter().map(|t| t.id).collect();
            carry_out(&mut c, op, &mut lives);
            let image = c.controller.image();
            for topic in image.topics.iter() {
                prop_assert!(before.contains(&topic.id) || topics.insert(topic.id), "a topic id is never reused");
                prop_assert_eq!(image.topics.by_name(&topic.name).map(|t| t.id), Some(topic.id));
                for partition in &topic.partitions {
                    prop_assert!(partition.isr.iter().all(|id| partition.replicas.contains(id)), "L7");
                    prop_assert!(partition.isr.contains(&partition.leader));
                }
            }
            prop_assert!(image.next_producer_id() >= producer_ids);
            producer_ids = image.next_producer_id();
            // A controller that starts from a snapshot has the same state.
            let again = through_a_snapshot(image);
            prop_assert_eq!(&again, image);
            c.controller = Controller::new(again);
        }
    }
}
