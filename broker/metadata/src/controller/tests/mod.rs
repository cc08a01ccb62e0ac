//! Scripts: requests in, records and replies out. A script reads as lines: `create`, `delete` …, then the reply and the
//! records.

mod brokers;
mod configs;
mod histories;
mod topics;

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

/// A controller with its log, as in a host.
struct Cluster {
    controller: Controller,
    next_offset: i64,
    random: u128,
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

    /// A controller with one registered broker.
    fn of_one() -> Self {
        let mut cluster = Self::new();
        cluster.register(1, 1, -1);
        cluster
    }

    fn append(&mut self, records: &[MetadataRecord]) {
        if records.is_empty() {
            return;
        }
        // Encodes and decodes the records, to test that they can be written and read.
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
                .expect("decided records can be replayed");
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
            moved: Vec::new(),
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
                self.random.to_be_bytes()
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
