//! Tests of replay through the public interface.

use brokkr_types::{LeaderEpoch, Offset, UnixMillis, Uuid};
use brokkr_wire::Str;
use brokkr_wire::messages::register_broker_record::{BrokerEndpoint, BrokerFeature};
use brokkr_wire::messages::*;

use super::*;
use crate::records::{Entry, decode_batch, encode_records};

impl Image {
    pub(crate) fn at(mut self, offset: i64, epoch: i32) -> Self {
        self.provenance = Provenance { offset, epoch };
        self
    }
}

pub(crate) fn id(n: u8) -> Uuid {
    Uuid::from_random([n; 16])
}

fn topic(name: &'static str, n: u8) -> MetadataRecord {
    TopicRecord {
        name: name.into(),
        topic_id: id(n),
        ..TopicRecord::default()
    }
    .into()
}

fn partition(n: u8, partition: i32) -> MetadataRecord {
    PartitionRecord {
        topic_id: id(n),
        partition_id: partition,
        replicas: vec![1, 2],
        isr: vec![1],
        leader: 1,
        leader_epoch: 0,
        partition_epoch: 0,
        directories: vec![id(0xd1), id(0xd2)],
        eligible_leader_replicas: Some(vec![2]),
        ..PartitionRecord::default()
    }
    .into()
}

fn config(
    kind: i8,
    resource: &'static str,
    name: &'static str,
    value: Option<&'static str>,
) -> MetadataRecord {
    ConfigRecord {
        resource_type: kind,
        resource_name: resource.into(),
        name: name.into(),
        value: value.map(Str::from),
        ..ConfigRecord::default()
    }
    .into()
}

pub(crate) fn broker(broker_id: i32, epoch: i64) -> RegisterBrokerRecord {
    RegisterBrokerRecord {
        broker_id,
        broker_epoch: epoch,
        incarnation_id: id(broker_id as u8),
        end_points: vec![BrokerEndpoint {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            ..BrokerEndpoint::default()
        }],
        features: vec![BrokerFeature {
            name: METADATA_VERSION.into(),
            min_supported_version: 7,
            max_supported_version: 30,
            ..BrokerFeature::default()
        }],
        rack: None,
        log_dirs: vec![id(0xd0 + broker_id as u8)],
        ..RegisterBrokerRecord::default()
    }
}

/// Records of nearly every type, so that every part of an image is non-empty.
pub(crate) fn busy_records() -> Vec<MetadataRecord> {
    vec![
        broker(1, 4).into(),
        broker(2, 5).into(),
        UnfenceBrokerRecord {
            id: 1,
            epoch: 4,
            ..UnfenceBrokerRecord::default()
        }
        .into(),
        topic("a.b", 1),
        config(2, "a.b", "retention.ms", Some("5")),
        partition(1, 0),
        partition(1, 1),
        topic("gone", 2),
        config(2, "gone", "retention.ms", Some("5")),
        partition(2, 0),
        RemoveTopicRecord {
            topic_id: id(2),
            ..RemoveTopicRecord::default()
        }
        .into(),
        PartitionChangeRecord {
            topic_id: id(1),
            partition_id: 1,
            isr: Some(vec![1, 2]),
            leader: 1,
            ..PartitionChangeRecord::default()
        }
        .into(),
        config(4, "", "log.retention.ms", Some("9")),
        config(4, "1", "max.connections", Some("10")),
        config(4, "1", "max.connections", None),
        ProducerIdsRecord {
            broker_id: 1,
            broker_epoch: 4,
            next_producer_id: 1000,
            ..ProducerIdsRecord::default()
        }
        .into(),
        FeatureLevelRecord {
            name: "group.version".into(),
            feature_level: 1,
            ..FeatureLevelRecord::default()
        }
        .into(),
        AccessControlEntryRecord {
            id: id(9),
            principal: "User:x".into(),
            ..AccessControlEntryRecord::default()
        }
        .into(),
        UserScramCredentialRecord {
            name: "x".into(),
            mechanism: 1,
            ..UserScramCredentialRecord::default()
        }
        .into(),
        DelegationTokenRecord {
            token_id: "t".into(),
            ..DelegationTokenRecord::default()
        }
        .into(),
        ClientQuotaRecord {
            key: "producer_byte_rate".into(),
            value: 2.5,
            ..ClientQuotaRecord::default()
        }
        .into(),
        RegisterControllerRecord {
            controller_id: 1,
            ..RegisterControllerRecord::default()
        }
        .into(),
        NoOpRecord::default().into(),
    ]
}

fn replayed(records: &[MetadataRecord]) -> Result<Image, ReplayError> {
    let mut state = MetadataState::new(Image::empty("c"));
    for (offset, record) in (0..).zip(records) {
        state.replay(offset, 0, record)?;
    }
    Ok(state.image().clone())
}

#[test]
fn an_image_is_what_its_records_say() {
    let image = replayed(&busy_records()).expect("replayable");
    assert_eq!(image.topics.len(), 1);
    let topic = image.topics.by_name("a.b").expect("there");
    assert_eq!(image.topics.by_id(id(1)), Some(topic));
    assert_eq!(topic.partitions.len(), 2);
    let changed = topic.partition(1).expect("there");
    assert_eq!(
        (
            changed.isr.as_slice(),
            changed.leader_epoch,
            changed.partition_epoch
        ),
        (&[1, 2][..], 1, 1)
    );
    assert_eq!(topic.partition(0).map(|p| p.partition_epoch), Some(0));
    assert!(
        image.topic_configs("gone").is_none(),
        "a topic's configuration goes with it"
    );
    assert_eq!(
        image
            .topic_configs("a.b")
            .and_then(|c| c.get("retention.ms"))
            .map(|v| v.as_str()),
        Some("5")
    );
    assert_eq!(
        image.configs(&ConfigResource::broker(1)),
        None,
        "nothing is left of it"
    );
    assert_eq!(image.topics.colliding("a_b").map(|n| n.as_str()), Some("a.b"));
    assert!(image.is_active(1) && !image.is_active(2));
    assert_eq!(image.next_producer_id(), 1000);
}

#[test]
fn an_image_survives_its_own_records_and_their_bytes() {
    let image = replayed(&busy_records()).expect("replayable");
    let batch =
        encode_records(&image.to_records(), 30, Offset(7), LeaderEpoch(2), UnixMillis(1)).expect("encodable");
    let records: Vec<_> = decode_batch(&batch)
        .expect("decodable")
        .into_iter()
        .map(|(_, entry)| match entry {
            Entry::Metadata(record) => record,
            other => panic!("{other:?}"),
        })
        .collect();
    let again = replayed(&records).expect("replayable");
    let provenance = image.provenance;
    assert_eq!(again.at(provenance.offset, provenance.epoch), image);
}

#[test]
fn a_clone_does_not_see_what_its_original_replays_later() {
    let mut state = MetadataState::new(Image::empty("c"));
    for (offset, record) in (0..).zip(&busy_records()) {
        let before = state.image().clone();
        let shown = format!("{before:?}");
        state.replay(offset, 0, record).expect("replayable");
        assert_eq!(format!("{before:?}"), shown);
    }
}

#[test]
fn an_aborted_transaction_leaves_nothing() {
    let mut state = MetadataState::new(Image::empty("c"));
    let mut replay = |offset, record: MetadataRecord| {
        let result = state.replay(offset, 0, &record);
        (result, state.image().topics.len(), state.latest().topics.len())
    };
    let begin = || MetadataRecord::from(BeginTransactionRecord::default());
    assert_eq!(replay(0, begin()), (Ok(()), 0, 0));
    assert_eq!(replay(1, topic("a", 1)), (Ok(()), 0, 1));
    assert!(replay(2, begin()).0.is_err(), "transactions don't nest");
    assert_eq!(
        replay(2, AbortTransactionRecord::default().into()),
        (Ok(()), 0, 0)
    );
    assert_eq!(replay(3, begin()), (Ok(()), 0, 0));
    assert_eq!(replay(4, topic("b", 2)), (Ok(()), 0, 1));
    assert_eq!(replay(5, EndTransactionRecord::default().into()), (Ok(()), 1, 1));
    assert!(replay(6, EndTransactionRecord::default().into()).0.is_err());
    assert_eq!(state.image().provenance.offset, 5);
}

#[test]
fn records_that_cannot_be_are_errors() {
    let fails = |record: MetadataRecord| {
        let mut records = busy_records();
        records.push(record);
        replayed(&records).expect_err("refused").to_string()
    };
    assert_eq!(
        fails(topic("a.b", 5)),
        "topic a.b, or one of its id, exists already"
    );
    assert_eq!(
        fails(topic("new", 1)),
        "topic new, or one of its id, exists already"
    );
    assert_eq!(
        fails(partition(1, 3)),
        format!("partition 3 of topic {} is out of order", id(1))
    );
    assert_eq!(fails(partition(8, 0)), format!("no topic has the id {}", id(8)));
    assert_eq!(
        fails(
            UnfenceBrokerRecord {
                id: 1,
                epoch: 3,
                ..UnfenceBrokerRecord::default()
            }
            .into()
        ),
        "broker 1 is registered at 4, not 3"
    );
    assert_eq!(
        fails(
            ProducerIdsRecord {
                next_producer_id: 1000,
                ..ProducerIdsRecord::default()
            }
            .into()
        ),
        "the next producer id is 1000, but 1000 was handed out already"
    );
    assert_eq!(
        fails(
            FeatureLevelRecord {
                name: METADATA_VERSION.into(),
                feature_level: 31,
                ..FeatureLevelRecord::default()
            }
            .into()
        ),
        "metadata.version 31 is not one of 7 to 30"
    );
    assert_eq!(
        fails(
            PartitionChangeRecord {
                topic_id: id(1),
                partition_id: 7,
                ..PartitionChangeRecord::default()
            }
            .into()
        ),
        format!("topic {} has no partition 7", id(1))
    );
}
