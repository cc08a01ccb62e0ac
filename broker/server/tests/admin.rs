//! Topics and configurations over a socket of a real broker, in every version and after restarts.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr::Broker;
use brokkr::config::BrokerConfig;
use brokkr::production::RealBroker;
use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_wire::messages::create_partitions_request::CreatePartitionsTopic;
use brokkr_wire::messages::create_topics_request::CreatableTopic;
use brokkr_wire::messages::delete_topics_request::DeleteTopicState;
use brokkr_wire::messages::describe_configs_request::DescribeConfigsResource;
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeTopicPartitionsRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest, MetadataRequest, MetadataResponse,
    alter_configs_request, describe_topic_partitions_request, incremental_alter_configs_request,
};
use brokkr_wire::{ApiKey, ErrorCode, Str};
use common::{Client, fresh_dir};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// A broker in a directory of its own, and a connection to it.
struct TestBroker {
    broker: RealBroker,
    client: Client,
}

/// Starts a broker in the directory that the last one of this name left.
async fn restart(name: &str, set: &[(&str, &str)]) -> TestBroker {
    let env = TokioEnv::new(4);
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    let all = [
        ("log.dir", path.as_str()),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
    ];
    let all: BTreeMap<_, _> = all
        .iter()
        .chain(set)
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let (config, _) = BrokerConfig::new(all).expect("valid");
    // Tasks of the stopped broker may end a moment later on a busy machine. One that waits for a minute holds the
    // directory too long.
    let until = env.now() + Duration::from_secs(20);
    let broker = loop {
        match Broker::start(env.clone(), config.clone()).await {
            Err(why) if why.to_string().contains("another process uses it") && env.now() < until => {
                env.sleep_until(env.now() + Duration::from_millis(20)).await;
            }
            started => break started.expect("started"),
        }
    };
    let client = Client::connect(&broker.local_addrs()[0].to_string());
    TestBroker { broker, client }
}

async fn start_fresh(name: &str, set: &[(&str, &str)]) -> TestBroker {
    fresh_dir(name);
    restart(name, set).await
}

impl TestBroker {
    async fn stop(self) {
        drop(self.client);
        assert!(self.broker.stop().await, "a clean stop");
    }
}

impl Client {
    fn metadata(&mut self) -> MetadataResponse {
        let request = MetadataRequest {
            topics: None,
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let mut all = self.call(&request, 13);
        // Only the ports differ after a restart.
        for broker in &mut all.brokers {
            broker.port = 0;
        }
        all
    }

    fn value(&mut self, kind: i8, name: &'static str, key: &'static str) -> (Option<String>, i8) {
        let resource = DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: Some(vec![key.into()]),
            ..Default::default()
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        let response = self.call(&request, 4);
        let config = &response.results[0].configs[0];
        (
            config.value.as_ref().map(|v| v.as_str().to_owned()),
            config.config_source,
        )
    }

    fn set(
        &mut self,
        kind: i8,
        name: &'static str,
        key: &'static str,
        value: Option<&'static str>,
    ) -> ErrorCode {
        let config = incremental_alter_configs_request::AlterableConfig {
            name: key.into(),
            config_operation: i8::from(value.is_none()),
            value: value.map(Str::from),
            ..Default::default()
        };
        let resource = incremental_alter_configs_request::AlterConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configs: vec![config],
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        ErrorCode(self.call(&request, 1).responses[0].error_code)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

/// The same response with leader epochs `bumps` higher.
fn with_raised_epochs(mut metadata: MetadataResponse, bumps: i32) -> MetadataResponse {
    for partition in metadata.topics.iter_mut().flat_map(|t| &mut t.partitions) {
        partition.leader_epoch += bumps;
    }
    metadata
}

#[test]
fn acknowledged_changes_survive_a_restart() {
    runtime().block_on(async {
        for (name, snapshots_every) in [("restart-log", "1000000"), ("restart-snapshot", "1")] {
            let set = [("metadata.log.max.record.bytes.between.snapshots", snapshots_every)];
            let mut first = start_fresh(name, &set).await;
            assert_eq!(
                first.client.create("a", 3, &[("retention.ms", "5000")]).0,
                ErrorCode::NONE
            );
            assert_eq!(first.client.create("b", 1, &[]).0, ErrorCode::NONE);
            assert_eq!(
                first.client.set(BROKER, "", "log.retention.ms", Some("7000")),
                ErrorCode::NONE
            );
            let actual = first.client.metadata();
            first.stop().await;

            for life in 1..3 {
                let mut next = restart(name, &set).await;
                assert_eq!(
                    next.client.metadata(),
                    with_raised_epochs(actual.clone(), life),
                    "{name}, life {life}"
                );
                assert_eq!(
                    next.client.value(TOPIC, "a", "retention.ms"),
                    (Some("5000".into()), 1)
                );
                assert_eq!(
                    next.client.value(TOPIC, "b", "retention.ms"),
                    (Some("7000".into()), 3)
                );
                next.stop().await;
            }
        }
    });
}

#[test]
fn a_deleted_topic_stays_deleted_and_a_new_one_of_its_name_is_another() {
    // A runtime per broker, as for each process: deleted files wait in the background to be removed.
    let old = runtime().block_on(async {
        let mut first = start_fresh("delete", &[]).await;
        assert_eq!(
            first.client.create("a", 2, &[("retention.ms", "1")]).0,
            ErrorCode::NONE
        );
        let old = first.client.metadata().topics[0].topic_id;
        let by_id = DeleteTopicState {
            name: None,
            topic_id: old,
            ..Default::default()
        };
        let request = DeleteTopicsRequest {
            topics: vec![by_id],
            timeout_ms: 30_000,
            ..Default::default()
        };
        assert_eq!(first.client.call(&request, 6).responses[0].error_code, 0);
        assert_eq!(
            first.client.call(&request, 6).responses[0].error_code,
            ErrorCode::UNKNOWN_TOPIC_ID.0
        );
        first.stop().await;
        old
    });
    runtime().block_on(async {
        let mut next = restart("delete", &[]).await;
        assert_eq!(next.client.metadata().topics, []);
        assert_eq!(next.client.create("a", 1, &[]).0, ErrorCode::NONE);
        assert_ne!(next.client.metadata().topics[0].topic_id, old);
        assert_eq!(
            next.client.value(TOPIC, "a", "retention.ms"),
            (Some("604800000".into()), 5)
        );
        next.stop().await;
    });
}

#[test]
fn topics_are_auto_created_if_request_and_configuration_allow_it() {
    runtime().block_on(async {
        for (configured, requested, made) in [(true, true, true), (true, false, false), (false, true, false)]
        {
            let enable = if configured { "true" } else { "false" };
            let mut on = start_fresh(
                &format!("auto-{configured}-{requested}"),
                &[("auto.create.topics.enable", enable), ("num.partitions", "4")],
            )
            .await;
            let name = |name: &'static str| MetadataRequestTopic {
                name: Some(name.into()),
                ..Default::default()
            };
            let request = MetadataRequest {
                topics: Some(vec![name("new"), name("not/valid")]),
                allow_auto_topic_creation: requested,
                ..Default::default()
            };
            let actual = on.client.call(&request, 13);
            let expected = if made {
                (ErrorCode::NONE, 4)
            } else {
                (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 0)
            };
            assert_eq!(
                (
                    ErrorCode(actual.topics[0].error_code),
                    actual.topics[0].partitions.len()
                ),
                expected
            );
            assert_eq!(
                ErrorCode(actual.topics[1].error_code),
                ErrorCode::INVALID_TOPIC_EXCEPTION
            );
            on.stop().await;
        }
    });
}

#[test]
fn every_version_of_every_admin_request_is_answered() {
    runtime().block_on(async {
        let mut on = start_fresh("versions", &[]).await;
        let c = &mut on.client;
        assert_eq!(c.create("a", 1, &[]).0, ErrorCode::NONE);
        for v in ApiKey::CreateTopics.stable_versions() {
            let topic = CreatableTopic {
                name: Str::from(format!("v{v}")),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            };
            let bad = CreatableTopic {
                name: "a".into(),
                ..topic.clone()
            };
            let request = CreateTopicsRequest {
                topics: vec![topic, bad],
                ..Default::default()
            };
            let codes: Vec<i16> = c.call(&request, v).topics.iter().map(|t| t.error_code).collect();
            assert_eq!(codes, [0, ErrorCode::TOPIC_ALREADY_EXISTS.0], "CreateTopics {v}");
        }
        for v in ApiKey::DeleteTopics.stable_versions() {
            let mut request = DeleteTopicsRequest {
                timeout_ms: 30_000,
                ..Default::default()
            };
            for name in [format!("v{}", 1 + v), "none".to_owned()] {
                if v >= 6 {
                    let topic = DeleteTopicState {
                        name: Some(name.into()),
                        ..Default::default()
                    };
                    request.topics.push(topic);
                } else {
                    request.topic_names.push(name.into());
                }
            }
            let codes: Vec<i16> = c
                .call(&request, v)
                .responses
                .iter()
                .map(|t| t.error_code)
                .collect();
            assert_eq!(
                codes,
                [0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0],
                "DeleteTopics {v}"
            );
        }
        for v in ApiKey::CreatePartitions.stable_versions() {
            let more = |name: &'static str, count| CreatePartitionsTopic {
                name: name.into(),
                count,
                assignments: None,
                ..Default::default()
            };
            let topics = vec![more("a", 2 + i32::from(v)), more("none", 3)];
            let request = CreatePartitionsRequest {
                topics,
                timeout_ms: 30_000,
                ..Default::default()
            };
            let codes: Vec<i16> = c.call(&request, v).results.iter().map(|t| t.error_code).collect();
            assert_eq!(
                codes,
                [0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0],
                "CreatePartitions {v}"
            );
        }
        for v in ApiKey::Metadata.stable_versions() {
            let topics = if v == 0 { Some(Vec::new()) } else { None };
            let actual = c.call(
                &MetadataRequest {
                    topics,
                    ..Default::default()
                },
                v,
            );
            assert_eq!(
                (actual.topics.len(), actual.brokers.len()),
                (1, 1),
                "Metadata {v}"
            );
            assert_eq!(actual.topics[0].partitions.len(), 5);
        }
        configs_in_every_version(c);
        for v in ApiKey::DescribeCluster.stable_versions() {
            let actual = c.call(&DescribeClusterRequest::default(), v);
            assert_eq!(
                (actual.error_code, actual.brokers.len(), actual.controller_id),
                (0, 1, 1),
                "DescribeCluster {v}"
            );
        }
        let topic = |name: &'static str| describe_topic_partitions_request::TopicRequest {
            name: name.into(),
            ..Default::default()
        };
        let mut request = DescribeTopicPartitionsRequest {
            topics: vec![topic("a"), topic("none")],
            response_partition_limit: 3,
            ..Default::default()
        };
        let first = c.call(&request, 0);
        let cursor = first.next_cursor.expect("there is more");
        assert_eq!((first.topics[0].partitions.len(), cursor.partition_index), (3, 3));
        request.cursor = Some(describe_topic_partitions_request::Cursor {
            topic_name: cursor.topic_name,
            partition_index: cursor.partition_index,
            ..Default::default()
        });
        let rest = c.call(&request, 0);
        assert_eq!((rest.topics[0].partitions.len(), rest.next_cursor), (2, None));
        assert_eq!(
            ErrorCode(rest.topics[1].error_code),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        );
        on.stop().await;
    });
}

fn configs_in_every_version(c: &mut Client) {
    for v in ApiKey::DescribeConfigs.stable_versions() {
        let of = |resource_type, name: &'static str| DescribeConfigsResource {
            resource_type,
            resource_name: name.into(),
            configuration_keys: None,
            ..Default::default()
        };
        let request = DescribeConfigsRequest {
            resources: vec![
                of(TOPIC, "a"),
                of(BROKER, "1"),
                of(BROKER, ""),
                of(TOPIC, "none"),
                of(BROKER, "2"),
                of(64, "1"),
            ],
            include_synonyms: true,
            ..Default::default()
        };
        let actual = c.call(&request, v);
        let codes: Vec<ErrorCode> = actual.results.iter().map(|r| ErrorCode(r.error_code)).collect();
        let (ok, bad) = (ErrorCode::NONE, ErrorCode::INVALID_REQUEST);
        assert_eq!(
            codes,
            [ok, ok, ok, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, bad, bad],
            "DescribeConfigs {v}"
        );
        assert_eq!(actual.results[0].configs.len(), 33);
    }
    for v in ApiKey::AlterConfigs.stable_versions() {
        let config = alter_configs_request::AlterableConfig {
            name: "retention.ms".into(),
            value: Some(Str::from(format!("{}", 100 + v))),
            ..Default::default()
        };
        let of = |name: &'static str| alter_configs_request::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: name.into(),
            configs: vec![config.clone()],
            ..Default::default()
        };
        let request = AlterConfigsRequest {
            resources: vec![of("a"), of("none")],
            ..Default::default()
        };
        let codes: Vec<i16> = c
            .call(&request, v)
            .responses
            .iter()
            .map(|r| r.error_code)
            .collect();
        assert_eq!(
            codes,
            [0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0],
            "AlterConfigs {v}"
        );
        assert_eq!(
            c.value(TOPIC, "a", "retention.ms"),
            (Some(format!("{}", 100 + v)), 1)
        );
    }
    for v in ApiKey::IncrementalAlterConfigs.stable_versions() {
        let request = IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs_request::AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: "a".into(),
                configs: vec![incremental_alter_configs_request::AlterableConfig {
                    name: "retention.ms".into(),
                    config_operation: 1,
                    value: None,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            c.call(&request, v).responses[0].error_code,
            0,
            "IncrementalAlterConfigs {v}"
        );
    }
    assert_eq!(
        c.value(TOPIC, "a", "retention.ms"),
        (Some("604800000".to_owned()), 5)
    );
    let none = c.call(&ListConfigResourcesRequest::default(), 0);
    assert_eq!(
        (none.error_code, none.config_resources.len()),
        (0, 0),
        "client metrics, of which there are none"
    );
    let all = c.call(&ListConfigResourcesRequest::default(), 1);
    let all: Vec<(i8, &str)> = all
        .config_resources
        .iter()
        .map(|r| (r.resource_type, r.resource_name.as_str()))
        .collect();
    assert_eq!(all, [(TOPIC, "a"), (BROKER, "1"), (8, "1")]);
    let unknown = ListConfigResourcesRequest {
        resource_types: vec![99],
        ..Default::default()
    };
    assert_eq!(
        ErrorCode(c.call(&unknown, 1).error_code),
        ErrorCode::UNSUPPORTED_VERSION
    );
}

#[test]
fn topic_deletion_can_be_disabled() {
    runtime().block_on(async {
        let mut on = start_fresh("undeletable", &[("delete.topic.enable", "false")]).await;
        assert_eq!(on.client.create("a", 1, &[]).0, ErrorCode::NONE);
        let request = DeleteTopicsRequest {
            topic_names: vec!["a".into()],
            timeout_ms: 30_000,
            ..Default::default()
        };
        for (version, code) in [
            (2, ErrorCode::INVALID_REQUEST),
            (3, ErrorCode::TOPIC_DELETION_DISABLED),
        ] {
            assert_eq!(
                ErrorCode(on.client.call(&request, version).responses[0].error_code),
                code
            );
        }
        assert_eq!(on.client.metadata().topics.len(), 1);
        on.stop().await;
    });
}

#[test]
fn delayed_deletion_ends_with_the_broker() {
    runtime().block_on(async {
        let mut a = start_fresh("admin-removal", &[]).await;
        assert_eq!(a.client.create("t", 1, &[]).0, ErrorCode::NONE);
        let gone = DeleteTopicState {
            name: Some("t".into()),
            ..Default::default()
        };
        let request = DeleteTopicsRequest {
            topics: vec![gone],
            timeout_ms: 30_000,
            ..Default::default()
        };
        assert_eq!(a.client.call(&request, 6).responses[0].error_code, 0);
        // The folder is due to be removed in a minute. A task that held the directory until then would block the next
        // broker.
        a.stop().await;
        let a = restart("admin-removal", &[]).await;
        a.stop().await;
    });
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test of the real world: one client deletes while another asks"
)]
fn a_deleted_topic_leaves_metadata_and_its_data_at_once() {
    // So many that deleting their logs takes longer than the requests below.
    const PARTITIONS: i32 = 200;
    runtime().block_on(async {
        let mut running = start_fresh("admin-gone-at-once", &[]).await;
        let addr = running.broker.local_addrs()[0].to_string();
        assert_eq!(running.client.create("t", PARTITIONS, &[]).0, ErrorCode::NONE);
        assert_eq!(running.client.produce("t", 0, b"old").error_code, 0);
        let recreation = std::thread::spawn(move || {
            let mut client = Client::connect(&addr);
            let deleted = client.delete_topic("t");
            (deleted, client.create("t", 1, &[]).0)
        });
        let (mut errors, mut recreated) = (0, false);
        while !recreated {
            // Data first, then Metadata: a topic whose data can't be read must not be in Metadata.
            if running.client.read("t", 0, 0).is_err() {
                errors += 1;
                let shown = running.client.partitions("t");
                assert_ne!(shown, Ok(PARTITIONS as usize), "{errors} errors");
            }
            // Metadata first, then data: a recreated topic must not serve the old data.
            if running.client.partitions("t") == Ok(1) {
                assert_eq!(running.client.read("t", 0, 0), Ok((Vec::new(), 0)));
                recreated = true;
            }
        }
        assert!(errors > 0, "the deletion was seen while it was under way");
        assert_eq!(
            recreation.join().expect("no panic"),
            (ErrorCode::NONE, ErrorCode::NONE)
        );
        running.stop().await;
    });
}
