//! Requests in, records and answers out. Scripts read as lines: `create`, `delete` …, what is answered, what was written.

use brokkr_types::{Instant, Uuid};
use brokkr_wire::Str;
use brokkr_wire::messages::alter_configs_request as legacy;
use brokkr_wire::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use brokkr_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use brokkr_wire::messages::delete_topics_request::DeleteTopicState;
use brokkr_wire::messages::incremental_alter_configs_request as incremental;
use brokkr_wire::messages::{BeginTransactionRecord, create_topics_response};

use super::*;
use crate::bootstrap::bootstrap_records;
use crate::image::tests::id;
use crate::records::{Entry, decode_batch, encode_records};

/// A controller with its log, as a host has them.
struct Cluster {
    controller: Controller,
    next_offset: i64,
    random: u8,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            controller: Controller::new(Image::empty("c")),
            next_offset: 0,
            random: 0,
        };
        let records = cluster.controller.activation_records();
        cluster.append(&records);
        cluster
    }

    /// One broker, registered.
    fn of_one() -> Self {
        let mut cluster = Self::new();
        cluster.register(1, 1, -1);
        cluster
    }

    fn append(&mut self, records: &[MetadataRecord]) {
        if records.is_empty() {
            return;
        }
        // Through bytes, so that what is decided can also be written and read.
        let base = brokkr_types::Offset(self.next_offset);
        let batch = encode_records(
            records,
            30,
            base,
            brokkr_types::LeaderEpoch(1),
            brokkr_types::UnixMillis(0),
        )
        .expect("encodable");
        for ((offset, entry), decided) in decode_batch(&batch).expect("decodable").into_iter().zip(records) {
            let Entry::Metadata(record) = entry else {
                panic!("{entry:?}")
            };
            assert_eq!(record, *decided);
            self.controller
                .replay(offset, 1, &record)
                .expect("what was decided can be replayed");
            self.next_offset = offset + 1;
        }
    }

    fn ask(&mut self, request: Request) -> (Vec<MetadataRecord>, Reply) {
        let before = self.controller.clone();
        let (records, reply) = self
            .controller
            .decide(Instant::default(), self.next_offset, request);
        assert_eq!(self.controller, before, "to decide changes nothing");
        self.append(&records);
        (records, reply)
    }

    fn register(&mut self, broker_id: i32, life: u8, previous_broker_epoch: i64) -> i64 {
        self.register_in(None, broker_id, life, previous_broker_epoch)
    }

    fn register_in(
        &mut self,
        rack: Option<&str>,
        broker_id: i32,
        life: u8,
        previous_broker_epoch: i64,
    ) -> i64 {
        let registration = Registration {
            broker_id,
            incarnation_id: id(100 + life),
            endpoints: vec![("PLAINTEXT".into(), "localhost".into(), 9092)],
            rack: rack.map(str::to_owned),
            directories: vec![id(200 + broker_id as u8)],
            previous_broker_epoch,
        };
        match self.ask(Request::RegisterBroker(registration)).1 {
            Reply::Registered(Ok(epoch)) => epoch,
            other => panic!("{other:?}"),
        }
    }

    fn create_all(&mut self, topics: Vec<CreatableTopic>, validate_only: bool) -> Vec<String> {
        let random = topics
            .iter()
            .map(|_| {
                self.random += 1;
                [self.random; 16]
            })
            .collect();
        let request = CreateTopicsRequest {
            topics,
            validate_only,
            ..CreateTopicsRequest::default()
        };
        let (_, reply) = self.ask(Request::CreateTopics(CreateTopics { request, random }));
        let Reply::CreateTopics(response) = reply else {
            panic!("{reply:?}")
        };
        let line = |r: &create_topics_response::CreatableTopicResult| match r.error_code {
            0 => format!("{}: {} x {}", r.name, r.num_partitions, r.replication_factor),
            code => format!("{}: {}", r.name, shown(code, &r.error_message)),
        };
        response.topics.iter().map(line).collect()
    }

    fn create(&mut self, topic: CreatableTopic) -> String {
        self.create_all(vec![topic], false).concat()
    }

    fn partition(&self, topic: &str, index: i32) -> (Vec<i32>, Vec<i32>, i32, i32, i32) {
        let topic = self.controller.image().topics.by_name(topic).expect("there");
        let p = topic.partition(index).expect("there");
        (
            p.replicas.clone(),
            p.isr.clone(),
            p.leader,
            p.leader_epoch,
            p.partition_epoch,
        )
    }
}

fn shown(code: i16, message: &Option<Str>) -> String {
    match message {
        Some(message) => format!("{}: {message}", ErrorCode(code)),
        None => ErrorCode(code).to_string(),
    }
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: Str::copied(name),
        num_partitions,
        replication_factor,
        ..CreatableTopic::default()
    }
}

fn with_config(mut t: CreatableTopic, name: &'static str, value: Option<&'static str>) -> CreatableTopic {
    t.configs.push(CreatableTopicConfig {
        name: name.into(),
        value: value.map(Str::from),
        ..CreatableTopicConfig::default()
    });
    t
}

fn by_hand(name: &'static str, brokers: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = brokers
        .iter()
        .map(|(partition_index, ids)| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: ids.to_vec(),
            ..CreatableReplicaAssignment::default()
        });
    CreatableTopic {
        assignments: assignments.collect(),
        ..topic(name, -1, -1)
    }
}

#[test]
fn a_new_cluster_begins_with_its_metadata_version() {
    let cluster = Cluster::new();
    assert_eq!(cluster.controller.image().metadata_version(), Some(30));
    assert!(cluster.controller.activation_records().is_empty(), "once");
    assert_eq!(cluster.next_offset, bootstrap_records().len() as i64);
}

#[test]
fn a_transaction_that_its_leader_left_open_is_aborted() {
    let mut cluster = Cluster::new();
    cluster.append(&[BeginTransactionRecord::default().into()]);
    let owed = cluster.controller.activation_records();
    assert!(
        matches!(owed.as_slice(), [MetadataRecord::AbortTransaction(_)]),
        "{owed:?}"
    );
    cluster.append(&owed);
    assert!(cluster.controller.activation_records().is_empty());
}

#[test]
fn topics_are_created_or_refused_in_kafkas_words() {
    let mut c = Cluster::of_one();
    let long = "x".repeat(250);
    let table: Vec<(CreatableTopic, &str)> = vec![
        (topic("a", 3, 1), "a: 3 x 1"),
        (
            topic("a", 3, 1),
            "a: TOPIC_ALREADY_EXISTS: Topic 'a' already exists.",
        ),
        (topic("defaults", -1, -1), "defaults: 1 x 1"),
        (
            topic("no", 0, 1),
            "no: INVALID_PARTITIONS: Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("no", -2, 1),
            "no: INVALID_PARTITIONS: Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("no", 1, 0),
            "no: INVALID_REPLICATION_FACTOR: Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            topic("no", 1, 3),
            "no: INVALID_REPLICATION_FACTOR: Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        ),
        (
            topic("no", 10_001, 1),
            "no: POLICY_VIOLATION: Excessively large number of partitions per request.",
        ),
        (
            topic("", 1, 1),
            ": INVALID_TOPIC_EXCEPTION: Topic name is invalid: the empty string is not allowed",
        ),
        (
            topic("..", 1, 1),
            "..: INVALID_TOPIC_EXCEPTION: Topic name is invalid: '..' is not allowed",
        ),
        (
            topic("a/b", 1, 1),
            "a/b: INVALID_TOPIC_EXCEPTION: Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (topic("my.topic", 1, 1), "my.topic: 1 x 1"),
        (
            topic("my_topic", 1, 1),
            "my_topic: INVALID_TOPIC_EXCEPTION: Topic 'my_topic' collides with existing topic: my.topic",
        ),
        (
            topic("__cluster_metadata", 1, 1),
            "__cluster_metadata: INVALID_REQUEST: Creation of internal topic __cluster_metadata is prohibited.",
        ),
        (by_hand("hand", &[(1, &[1]), (0, &[1])]), "hand: 2 x 1"),
        (
            by_hand("no", &[(0, &[1]), (2, &[1])]),
            "no: INVALID_REPLICA_ASSIGNMENT: partitions should be a consecutive 0-based integer sequence",
        ),
        (
            by_hand("no", &[(0, &[1]), (0, &[1])]),
            "no: INVALID_REPLICA_ASSIGNMENT: Found multiple manual partition assignments for partition 0",
        ),
        (
            by_hand("no", &[(0, &[7])]),
            "no: INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 7, but no such broker is registered.",
        ),
        (
            by_hand("no", &[(0, &[1, 1])]),
            "no: INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            by_hand("no", &[(0, &[])]),
            "no: INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes an empty replica list.",
        ),
        (
            CreatableTopic {
                num_partitions: 2,
                ..by_hand("no", &[(0, &[1])])
            },
            "no: INVALID_REQUEST: A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            CreatableTopic {
                replication_factor: 1,
                ..by_hand("no", &[(0, &[1])])
            },
            "no: INVALID_REQUEST: A manual partition assignment was specified, but replication factor was not set to -1.",
        ),
        (
            with_config(topic("cfg", 1, 1), "retention.ms", Some("-1")),
            "cfg: 1 x 1",
        ),
        (
            with_config(topic("no", 1, 1), "retention.ms", Some("-2")),
            "no: INVALID_CONFIG: Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            with_config(topic("no", 1, 1), "nonsense", Some("1")),
            "no: INVALID_CONFIG: Unknown topic config name: nonsense",
        ),
        (
            with_config(topic("no", 1, 1), "retention.ms", None),
            "no: INVALID_CONFIG: Null value not supported for topic configs: retention.ms",
        ),
    ];
    for (topic, expected) in table {
        assert_eq!(c.create(topic), expected);
    }
    assert!(
        c.create(topic(&long, 1, 1))
            .contains("is longer than the max allowed length 249")
    );
    assert!(c.controller.image().topics.by_name("no").is_none());
    assert_eq!(c.partition("a", 2), (vec![1], vec![1], 1, 0, 0));
    let own = c.controller.image().topic_configs("cfg").expect("configured");
    assert_eq!(own.get("retention.ms").map(|v| v.as_str()), Some("-1"));
}

#[test]
fn one_request_of_many_topics() {
    let mut c = Cluster::of_one();
    let topics = vec![
        topic("a", 1, 1),
        topic("twice", 1, 1),
        topic("b", 1, 9),
        topic("twice", 2, 1),
        topic("x.y", 1, 1),
        topic("x_y", 1, 1),
    ];
    assert_eq!(
        c.create_all(topics.clone(), true),
        c.create_all(topics, false),
        "to validate tells the same"
    );
    let names: Vec<String> = c
        .controller
        .image()
        .topics
        .iter()
        .map(|t| t.name.to_string())
        .collect();
    assert_eq!(names, ["a", "x.y"]);
}

#[test]
fn what_is_only_validated_writes_nothing() {
    let mut c = Cluster::of_one();
    let before = c.controller.clone();
    assert_eq!(c.create_all(vec![topic("a", 1, 1)], true), ["a: 1 x 1"]);
    assert_eq!(c.controller, before);
}

#[test]
fn a_created_topic_tells_all_its_values() {
    let mut c = Cluster::of_one();
    let request = CreateTopicsRequest {
        topics: vec![with_config(topic("a", 1, 1), "retention.ms", Some("7"))],
        ..CreateTopicsRequest::default()
    };
    let (_, reply) = c.ask(Request::CreateTopics(CreateTopics {
        request,
        random: vec![[1; 16]],
    }));
    let Reply::CreateTopics(response) = reply else {
        panic!("{reply:?}")
    };
    let configs = response.topics[0].configs.as_ref().expect("told");
    let of = |name: &str| {
        configs
            .iter()
            .find(|c| c.name == *name)
            .map(|c| (c.value.as_ref().map(|v| v.to_string()), c.config_source))
    };
    assert_eq!(of("retention.ms"), Some((Some("7".to_owned()), 1)));
    assert_eq!(of("flush.messages"), Some((Some("1".to_owned()), 5)));
    assert_eq!(configs.len(), crate::config::TOPIC_KEYS.len());
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut c = Cluster::of_one();
    c.create_all(["a", "b", "d", "e"].map(|name| topic(name, 1, 1)).to_vec(), false);
    let id_of = |c: &Cluster, name| {
        c.controller
            .image()
            .topics
            .by_name(name)
            .map(|t| t.id)
            .expect("there")
    };
    let (b, e) = (id_of(&c, "b"), id_of(&c, "e"));
    let state = |name: Option<&'static str>, topic_id| DeleteTopicState {
        name: name.map(Str::from),
        topic_id,
        ..DeleteTopicState::default()
    };
    let request = DeleteTopicsRequest {
        topic_names: ["a", "d", "d", "zzz"].map(Str::from).to_vec(),
        topics: vec![
            state(None, b),
            state(None, Uuid::ZERO),
            state(Some("a"), b),
            state(None, id(99)),
            state(None, e),
            state(Some("e"), Uuid::ZERO),
        ],
        ..DeleteTopicsRequest::default()
    };
    let (records, reply) = c.ask(Request::DeleteTopics(request));
    let Reply::DeleteTopics(response) = reply else {
        panic!("{reply:?}")
    };
    let lines: Vec<String> = response
        .responses
        .iter()
        .map(|r| {
            format!(
                "{} {}",
                r.name.as_ref().map_or("-", |n| n.as_str()),
                shown(r.error_code, &r.error_message)
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "a NONE",
            "d INVALID_REQUEST: Duplicate topic name.",
            "zzz UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition.",
            "b NONE",
            "- INVALID_REQUEST: Neither topic name nor id were specified.",
            "a INVALID_REQUEST: You may not specify both topic name and topic id.",
            "- UNKNOWN_TOPIC_ID: This server does not host this topic ID.",
            "e NONE",
            "e INVALID_REQUEST: The provided topic name maps to an ID that was already supplied.",
        ]
    );
    assert_eq!(records.len(), 3);
    let left: Vec<String> = c
        .controller
        .image()
        .topics
        .iter()
        .map(|t| t.name.to_string())
        .collect();
    assert_eq!(left, ["d"]);
    // A topic of the same name is another topic (M2).
    assert_eq!(c.create(topic("b", 1, 1)), "b: 1 x 1");
    assert_ne!(id_of(&c, "b"), b);
}

#[test]
fn partitions_are_added() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 2, 1));
    let mut ask = |count, assignments: Option<&[&[i32]]>| {
        let assignments = assignments.map(|all| {
            let one = |ids: &&[i32]| CreatePartitionsAssignment {
                broker_ids: ids.to_vec(),
                ..CreatePartitionsAssignment::default()
            };
            all.iter().map(one).collect()
        });
        let topic = CreatePartitionsTopic {
            name: "a".into(),
            count,
            assignments,
            ..CreatePartitionsTopic::default()
        };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            ..CreatePartitionsRequest::default()
        };
        match c.ask(Request::CreatePartitions(request)).1 {
            Reply::CreatePartitions(r) => shown(r.results[0].error_code, &r.results[0].error_message),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        ask(2, None),
        "INVALID_PARTITIONS: Topic already has 2 partition(s)."
    );
    assert_eq!(
        ask(1, None),
        "INVALID_PARTITIONS: The topic a currently has 2 partition(s); 1 would not be an increase."
    );
    assert_eq!(
        ask(-5, None),
        "INVALID_PARTITIONS: The topic a currently has 2 partition(s); -5 would not be an increase."
    );
    assert_eq!(
        ask(i32::MAX, None),
        "POLICY_VIOLATION: Excessively large number of partitions per request."
    );
    assert_eq!(
        ask(4, Some(&[&[1]])),
        "INVALID_REPLICA_ASSIGNMENT: Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."
    );
    assert_eq!(
        ask(3, Some(&[&[9]])),
        "INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 9, but no such broker is registered."
    );
    assert_eq!(ask(3, Some(&[&[1]])), "NONE");
    assert_eq!(ask(5, None), "NONE");
    assert_eq!(c.partition("a", 4), (vec![1], vec![1], 1, 0, 0));
}

#[test]
fn every_life_of_a_leader_is_another_leader_epoch() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 1, 1));
    let first = c
        .controller
        .image()
        .broker(1)
        .map(|b| b.epoch)
        .expect("registered");
    let second = c.register(1, 2, first);
    assert!(second > first);
    assert_eq!(c.partition("a", 0), (vec![1], vec![1], 1, 1, 1));
    // Unclean as well: with one replica there is nobody else.
    c.register(1, 3, -1);
    assert_eq!(c.partition("a", 0), (vec![1], vec![1], 1, 2, 2));
    // The same life once more is the same registration.
    let third = c
        .controller
        .image()
        .broker(1)
        .map(|b| b.epoch)
        .expect("registered");
    assert_eq!(c.register(1, 3, -1), third);
    assert_eq!(c.partition("a", 0), (vec![1], vec![1], 1, 2, 2));
    assert!(c.controller.image().is_active(1));
}

#[test]
fn an_unclean_life_leaves_the_isr_where_another_can_lead() {
    let mut c = Cluster::of_one();
    let two = c.register(2, 2, -1);
    assert_eq!(c.create(by_hand("a", &[(0, &[1, 2]), (1, &[2, 1])])), "a: 2 x 2");
    // Clean: 2 stays in sync, and leads on where it led.
    let again = c.register(2, 3, two);
    assert_eq!(c.partition("a", 0), (vec![1, 2], vec![1, 2], 1, 0, 0));
    assert_eq!(c.partition("a", 1), (vec![2, 1], vec![2, 1], 2, 1, 1));
    // Unclean, its epoch being that of the life before the last.
    assert!(again > two);
    c.register(2, 4, two);
    assert_eq!(c.partition("a", 0), (vec![1, 2], vec![1], 1, 0, 1));
    assert_eq!(c.partition("a", 1), (vec![2, 1], vec![1], 1, 2, 2));
}

#[test]
fn a_directory_is_one_brokers() {
    let c = Cluster::of_one();
    let registration = |broker_id, directories| Registration {
        broker_id,
        incarnation_id: id(9),
        endpoints: Vec::new(),
        rack: None,
        directories,
        previous_broker_epoch: -1,
    };
    let refusal = |r| match c
        .controller
        .decide(Instant::default(), 9, Request::RegisterBroker(r))
        .1
    {
        Reply::Registered(outcome) => outcome.expect_err("refused").to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refusal(registration(2, vec![])),
        "INVALID_REGISTRATION: No directories specified in request"
    );
    assert_eq!(
        refusal(registration(2, vec![id(1), id(1)])),
        "INVALID_REGISTRATION: Duplicate directory ID in request"
    );
    assert_eq!(
        refusal(registration(2, vec![id(201)])),
        format!(
            "INVALID_REGISTRATION: Broker 1 is already registered with directory {}",
            id(201)
        )
    );
}

#[test]
fn a_producer_id_is_handed_out_once() {
    let mut c = Cluster::of_one();
    let mut block = || match c.ask(Request::AllocateProducerIds).1 {
        Reply::ProducerIds(Ok(block)) => block,
        other => panic!("{other:?}"),
    };
    assert_eq!(block(), 0..1000);
    assert_eq!(block(), 1000..2000);
    // Another leader goes on from the log (P11).
    let records = c.controller.image().to_records();
    let mut image = MetadataState::new(Image::empty("c"));
    for (offset, record) in (0..).zip(&records) {
        image.replay(offset, 1, record).expect("replayable");
    }
    c.controller = Controller::new(image.image().clone());
    assert!(
        matches!(c.ask(Request::AllocateProducerIds).1, Reply::ProducerIds(Ok(block)) if block == (2000..3000))
    );
}

#[test]
fn replicas_are_spread() {
    let mut c = Cluster::of_one();
    for broker in 2..=6 {
        c.register(broker, broker as u8, -1);
    }
    assert_eq!(c.create(topic("a", 12, 3)), "a: 12 x 3");
    let (mut leads, mut holds) = (BTreeMap::new(), BTreeMap::new());
    for index in 0..12 {
        let (replicas, isr, leader, ..) = c.partition("a", index);
        assert_eq!((isr, leader), (replicas.clone(), replicas[0]));
        let mut different = replicas.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 3, "{replicas:?}");
        *leads.entry(leader).or_insert(0) += 1;
        for id in replicas {
            *holds.entry(id).or_insert(0) += 1;
        }
    }
    assert!(leads.values().all(|n| *n == 2), "{leads:?}");
    assert!(holds.values().all(|n| *n == 6), "{holds:?}");
}

#[test]
fn a_rack_holds_no_more_of_a_partition_than_it_must() {
    let mut c = Cluster::new();
    for (broker, rack) in [(1, "x"), (2, "y"), (3, "x"), (4, "y"), (5, "z")] {
        c.register_in(Some(rack), broker, broker as u8, -1);
    }
    assert_eq!(c.create(topic("a", 30, 3)), "a: 30 x 3");
    let rack = |id: &i32| ["x", "y", "x", "y", "z"][*id as usize - 1];
    let mut leads = BTreeMap::new();
    for index in 0..30 {
        let (replicas, _, leader, ..) = c.partition("a", index);
        let mut racks: Vec<_> = replicas.iter().map(rack).collect();
        racks.sort_unstable();
        assert_eq!(racks, ["x", "y", "z"], "{replicas:?}");
        *leads.entry(leader).or_insert(0) += 1;
    }
    assert_eq!(leads.into_values().collect::<Vec<_>>(), [5, 5, 5, 5, 10]);
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

impl Cluster {
    fn alter(&mut self, kind: i8, name: &str, ops: &[(i8, &str, Option<&str>)]) -> String {
        let configs = ops
            .iter()
            .map(|(config_operation, key, value)| incremental::AlterableConfig {
                name: Str::copied(key),
                config_operation: *config_operation,
                value: value.map(Str::copied),
                ..incremental::AlterableConfig::default()
            });
        let resource = incremental::AlterConfigsResource {
            resource_type: kind,
            resource_name: Str::copied(name),
            configs: configs.collect(),
            ..incremental::AlterConfigsResource::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..IncrementalAlterConfigsRequest::default()
        };
        match self.ask(Request::IncrementalAlterConfigs(request)).1 {
            Reply::IncrementalAlterConfigs(r) => {
                shown(r.responses[0].error_code, &r.responses[0].error_message)
            }
            other => panic!("{other:?}"),
        }
    }

    fn replace(&mut self, kind: i8, name: &str, pairs: &[(&str, Option<&str>)]) -> String {
        let configs = pairs.iter().map(|(key, value)| legacy::AlterableConfig {
            name: Str::copied(key),
            value: value.map(Str::copied),
            ..legacy::AlterableConfig::default()
        });
        let resource = legacy::AlterConfigsResource {
            resource_type: kind,
            resource_name: Str::copied(name),
            configs: configs.collect(),
            ..legacy::AlterConfigsResource::default()
        };
        let request = AlterConfigsRequest {
            resources: vec![resource],
            ..AlterConfigsRequest::default()
        };
        match self.ask(Request::AlterConfigs(request)).1 {
            Reply::AlterConfigs(r) => shown(r.responses[0].error_code, &r.responses[0].error_message),
            other => panic!("{other:?}"),
        }
    }

    fn configured(&self, kind: i8, name: &str) -> String {
        let resource = ConfigResource {
            kind,
            name: Str::copied(name),
        };
        let Some(configs) = self.controller.image().configs(&resource) else {
            return String::new();
        };
        let pairs: Vec<String> = configs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(" ")
    }
}

#[test]
fn keys_are_set_deleted_appended_and_subtracted() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 1, 1));
    let (set, delete, append, subtract) = (0, 1, 2, 3);
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (set, "retention.ms", Some("5")),
                (append, "cleanup.policy", Some("compact,delete"))
            ]
        ),
        "NONE"
    );
    assert_eq!(
        c.configured(TOPIC, "a"),
        "cleanup.policy=delete,compact retention.ms=5"
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (delete, "retention.ms", None),
                (subtract, "cleanup.policy", Some("delete"))
            ]
        ),
        "NONE"
    );
    assert_eq!(c.configured(TOPIC, "a"), "cleanup.policy=compact");
    let offset = c.next_offset;
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (set, "cleanup.policy", Some("compact")),
                (delete, "retention.ms", None)
            ]
        ),
        "NONE"
    );
    assert_eq!(c.next_offset, offset, "what stays as it is isn't written");
    assert_eq!(
        c.alter(TOPIC, "a", &[(append, "retention.ms", Some("1"))]),
        "INVALID_CONFIG: Can't APPEND to key retention.ms because its type is not LIST."
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[(set, "retention.ms", Some("x")), (set, "flush.ms", Some("5"))]
        ),
        "INVALID_CONFIG: Invalid value x for configuration retention.ms: Not a number of type LONG"
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[
                (set, "min.compaction.lag.ms", Some("9")),
                (set, "max.compaction.lag.ms", Some("8"))
            ]
        ),
        "INVALID_CONFIG: conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)"
    );
    assert_eq!(
        c.alter(
            TOPIC,
            "a",
            &[(set, "flush.ms", Some("1")), (delete, "flush.ms", None)]
        ),
        "INVALID_REQUEST: Error due to duplicate config keys"
    );
    assert_eq!(
        c.alter(TOPIC, "a", &[(set, "flush.ms", None)]),
        "INVALID_REQUEST: Null value not supported for : flush.ms"
    );
    assert_eq!(
        c.alter(TOPIC, "a", &[(7, "flush.ms", Some("1"))]),
        "INVALID_REQUEST: Unknown operations type 7"
    );
    assert_eq!(
        c.alter(TOPIC, "b", &[(set, "flush.ms", Some("1"))]),
        "UNKNOWN_TOPIC_OR_PARTITION: The topic 'b' does not exist."
    );
    assert_eq!(
        c.alter(TOPIC, "", &[]),
        "INVALID_REQUEST: Default topic resources are not allowed."
    );
    assert_eq!(c.alter(77, "a", &[]), "INVALID_REQUEST: Unknown resource type 77");
    let long = "x".repeat(32_768);
    assert_eq!(
        c.alter(TOPIC, "a", &[(set, "cleanup.policy", Some(&long))]),
        "INVALID_CONFIG: The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes."
    );
    assert_eq!(c.configured(TOPIC, "a"), "cleanup.policy=compact");
}

#[test]
fn brokers_are_configured_one_by_one_or_all() {
    let mut c = Cluster::of_one();
    let set = 0;
    assert_eq!(
        c.alter(BROKER, "", &[(set, "log.retention.ms", Some("60000"))]),
        "NONE"
    );
    assert_eq!(
        c.alter(BROKER, "1", &[(set, "log.retention.ms", Some("50000"))]),
        "NONE"
    );
    assert_eq!(
        (c.configured(BROKER, ""), c.configured(BROKER, "1")),
        ("log.retention.ms=60000".into(), "log.retention.ms=50000".into())
    );
    let offset = c.next_offset;
    assert_eq!(
        c.alter(BROKER, "1", &[(set, "log.retention.ms", Some("50000"))]),
        "NONE"
    );
    assert_eq!(
        c.next_offset,
        offset + 1,
        "written again: a broker looks again at what stands behind it"
    );
    assert_eq!(
        c.alter(BROKER, "1", &[(set, "node.id", Some("3"))]),
        "INVALID_REQUEST: Cannot update these configs dynamically: [node.id]"
    );
    assert_eq!(
        c.alter(BROKER, "2", &[(set, "log.retention.ms", Some("1"))]),
        "INVALID_REQUEST: Unexpected broker id, expected 1, but received 2"
    );
    assert_eq!(
        c.alter(BROKER, "x", &[]),
        "INVALID_REQUEST: Node id must be an integer, but it is: x"
    );
    assert_eq!(
        c.alter(BROKER, "", &[(set, "log.retention.ms", Some("soon"))]),
        "INVALID_REQUEST: Invalid value soon for configuration log.retention.ms: Not a number of type LONG"
    );
    // A new topic without values of its own goes by them.
    let key = crate::config::topic_key("retention.ms").expect("known");
    let resolved = c.controller.layers().topic_value(key, None);
    assert_eq!(resolved.value.and_then(|v| v.as_integer()), Some(50_000));
}

#[test]
fn all_of_a_resources_values_are_replaced() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 1, 1));
    assert_eq!(
        c.replace(
            TOPIC,
            "a",
            &[("retention.ms", Some("5")), ("flush.ms", Some("6"))]
        ),
        "NONE"
    );
    assert_eq!(c.replace(TOPIC, "a", &[("flush.ms", Some("7"))]), "NONE");
    assert_eq!(c.configured(TOPIC, "a"), "flush.ms=7");
    assert_eq!(
        c.replace(TOPIC, "a", &[("flush.ms", None)]),
        "INVALID_REQUEST: Null value not supported for : flush.ms"
    );
    assert_eq!(
        c.replace(TOPIC, "a", &[("nonsense", Some("1"))]),
        "INVALID_CONFIG: Unknown topic config name: nonsense"
    );
    assert_eq!(c.replace(TOPIC, "a", &[]), "NONE");
    assert_eq!(c.configured(TOPIC, "a"), "");
}
