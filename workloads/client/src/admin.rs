//! Administrative calls. A retriable failure is retried until `api_timeout`.
//!
//! An attempt whose outcome is unknown is retried as well: after TOPIC_ALREADY_EXISTS the topic may be the one that an
//! earlier attempt created. Callers who must tell these cases apart call [`Client::ask_controller`] once.

use std::collections::BTreeMap;

use brokkr_env::Env;
use brokkr_types::{LeaderEpoch, Offset, UnixMillis, Uuid};
use brokkr_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeProducersRequest,
    IncrementalAlterConfigsRequest, ListOffsetsRequest, create_partitions_request, create_topics_request,
    delete_records_request, delete_topics_request, describe_configs_request, describe_producers_request,
    describe_producers_response, incremental_alter_configs_request, list_offsets_request,
};
use brokkr_wire::{ErrorCode, Request, Str};

use crate::client::Peer;
use crate::{Client, Error, IsolationLevel, Result, TopicPartition};

/// `ConfigResource.Type.TOPIC`.
const RESOURCE_TOPIC: i8 = 2;
/// `ConfigResource.Type.BROKER`.
const RESOURCE_BROKER: i8 = 4;
/// `ConfigSource.DYNAMIC_TOPIC_CONFIG`.
const SOURCE_TOPIC: i8 = 1;
/// `AlterConfigOp.OpType.SET`.
const OP_SET: i8 = 0;
/// `AlterConfigOp.OpType.DELETE`.
const OP_DELETE: i8 = 1;

/// Which offset ListOffsets returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetSpec {
    /// The log end: the high watermark, or the last stable offset for read_committed.
    Latest,
    /// The log start offset.
    Earliest,
    /// The first record at or after this time.
    At(UnixMillis),
    /// The record with the largest timestamp (KIP-734).
    MaxTimestamp,
}

impl OffsetSpec {
    fn timestamp(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::At(t) => t.0,
        }
    }
}

/// Result of ListOffsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    /// The offset; `None` if no record is at or after the requested time.
    pub offset: Option<Offset>,
    /// The record's timestamp, if the spec asks for one.
    pub timestamp: UnixMillis,
    /// The leader epoch of that offset, or -1.
    pub leader_epoch: LeaderEpoch,
}

fn one<T>(mut items: Vec<T>) -> Result<T> {
    match items.pop() {
        Some(item) if items.is_empty() => Ok(item),
        last => {
            let n = items.len() + usize::from(last.is_some());
            Err(Error::Protocol(format!("{n} results for one thing asked")))
        }
    }
}

fn millis(d: std::time::Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}

fn describe_topic(topic: &str) -> DescribeConfigsRequest {
    let resource = describe_configs_request::DescribeConfigsResource {
        resource_type: RESOURCE_TOPIC,
        resource_name: Str::copied(topic),
        configuration_keys: None,
        ..Default::default()
    };
    DescribeConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    }
}

impl<E: Env> Client<E> {
    /// Sends a request to the controller, with retries, and returns `pick` of the response.
    ///
    /// # Errors
    /// The first that is not retriable, or the last within `api_timeout`.
    pub async fn manage<R: Request + Send + Sync + 'static, T>(
        &self,
        request: R,
        pick: impl Fn(R::Response) -> Result<T>,
    ) -> Result<T> {
        let mut retrying = self.retrying(self.config().api_timeout);
        loop {
            match self.ask_controller(request.clone()).await.and_then(&pick) {
                Ok(value) => return Ok(value),
                Err(e) => {
                    retrying.wait(e).await?;
                    // The controller may have moved; without metadata any broker is asked.
                    drop(self.refresh_metadata().await);
                }
            }
        }
    }

    /// Sends a request to a partition's leader, with retries, and returns `pick` of the response.
    ///
    /// # Errors
    /// As for [`Client::manage`].
    pub async fn ask_leader<R: Request + Send + Sync + 'static, T>(
        &self,
        tp: &TopicPartition,
        request: impl Fn(crate::metadata::Leader) -> R,
        pick: impl Fn(R::Response) -> Result<T>,
    ) -> Result<T> {
        let mut retrying = self.retrying(self.config().api_timeout);
        loop {
            let leader = match self.leader_of(tp).await {
                Ok(leader) => self.ask(Peer::Node(leader.node), request(leader)).await,
                Err(e) => Err(e),
            };
            match leader.and_then(&pick) {
                Ok(value) => return Ok(value),
                Err(e) => {
                    retrying.wait(e).await?;
                    drop(self.refresh_metadata().await);
                }
            }
        }
    }

    /// Creates a topic. Returns its id, zero if the broker does not return ids.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication_factor: i16,
        configs: &[(&str, &str)],
    ) -> Result<Uuid> {
        let config = |(name, value): &(&str, &str)| create_topics_request::CreatableTopicConfig {
            name: Str::copied(name),
            value: Some(Str::copied(value)),
            ..Default::default()
        };
        let topic = create_topics_request::CreatableTopic {
            name: Str::copied(name),
            num_partitions: partitions,
            replication_factor,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: millis(self.config().request_timeout),
            ..Default::default()
        };
        self.manage(request, |response| {
            let topic = one(response.topics)?;
            Error::check(topic.error_code, topic.error_message.as_deref())?;
            Ok(topic.topic_id)
        })
        .await
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let name = Str::copied(name);
        let request = DeleteTopicsRequest {
            topics: vec![delete_topics_request::DeleteTopicState {
                name: Some(name.clone()),
                ..Default::default()
            }],
            topic_names: vec![name],
            timeout_ms: millis(self.config().request_timeout),
            ..Default::default()
        };
        self.manage(request, |response| {
            let topic = one(response.responses)?;
            Error::check(topic.error_code, topic.error_message.as_deref())
        })
        .await
    }

    /// Deletes the topic of this id, and no later topic of its name. Returns `false` if it does not exist, or an earlier
    /// attempt deleted it.
    pub async fn delete_topic_id(&self, topic_id: Uuid) -> Result<bool> {
        let request = DeleteTopicsRequest {
            topics: vec![delete_topics_request::DeleteTopicState {
                name: None,
                topic_id,
                ..Default::default()
            }],
            timeout_ms: millis(self.config().request_timeout),
            ..Default::default()
        };
        self.manage(request, |response| {
            let topic = one(response.responses)?;
            if ErrorCode(topic.error_code) == ErrorCode::UNKNOWN_TOPIC_ID {
                return Ok(false);
            }
            Error::check(topic.error_code, topic.error_message.as_deref())?;
            Ok(true)
        })
        .await
    }

    /// Increases a topic's partitions to `count`.
    pub async fn create_partitions(&self, topic: &str, count: i32) -> Result<()> {
        self.create_partitions_or_validate(topic, count, false).await
    }

    /// As [`Client::create_partitions`]; with `validate_only` nothing is created.
    pub async fn create_partitions_or_validate(
        &self,
        topic: &str,
        count: i32,
        validate_only: bool,
    ) -> Result<()> {
        let topic = create_partitions_request::CreatePartitionsTopic {
            name: Str::copied(topic),
            count,
            assignments: None,
            ..Default::default()
        };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: millis(self.config().request_timeout),
            validate_only,
            ..Default::default()
        };
        self.manage(request, |response| {
            let result = one(response.results)?;
            Error::check(result.error_code, result.error_message.as_deref())
        })
        .await
    }

    /// Sets configurations of a topic, or removes those with the value `None`.
    pub async fn alter_topic_configs(&self, topic: &str, changes: &[(&str, Option<&str>)]) -> Result<()> {
        self.alter_configs(RESOURCE_TOPIC, topic, changes).await
    }

    /// Sets or removes (`None`) configurations of a broker, by its node id, or of all brokers, by the empty name.
    pub async fn alter_broker_configs(&self, broker: &str, changes: &[(&str, Option<&str>)]) -> Result<()> {
        self.alter_configs(RESOURCE_BROKER, broker, changes).await
    }

    async fn alter_configs(&self, kind: i8, name: &str, changes: &[(&str, Option<&str>)]) -> Result<()> {
        let change =
            |(name, value): &(&str, Option<&str>)| incremental_alter_configs_request::AlterableConfig {
                name: Str::copied(name),
                config_operation: if value.is_some() { OP_SET } else { OP_DELETE },
                value: value.map(Str::copied),
                ..Default::default()
            };
        let resource = incremental_alter_configs_request::AlterConfigsResource {
            resource_type: kind,
            resource_name: Str::copied(name),
            configs: changes.iter().map(change).collect(),
            ..Default::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..Default::default()
        };
        self.manage(request, |response| {
            let result = one(response.responses)?;
            Error::check(result.error_code, result.error_message.as_deref())
        })
        .await
    }

    /// A topic's configurations, by name.
    pub async fn describe_topic_configs(&self, topic: &str) -> Result<Vec<(String, Option<String>)>> {
        let request = describe_topic(topic);
        self.manage(request, |response| {
            let result = one(response.results)?;
            Error::check(result.error_code, result.error_message.as_deref())?;
            let text = |s: Str| s.to_string();
            let configs = result.configs.into_iter();
            Ok(configs.map(|c| (text(c.name), c.value.map(text))).collect())
        })
        .await
    }

    /// The configurations of a topic itself, by name: those that somebody set for it.
    pub async fn describe_topic_overrides(&self, topic: &str) -> Result<BTreeMap<String, Option<String>>> {
        let request = describe_topic(topic);
        self.manage(request, |response| {
            let result = one(response.results)?;
            Error::check(result.error_code, result.error_message.as_deref())?;
            let own = result
                .configs
                .into_iter()
                .filter(|c| c.config_source == SOURCE_TOPIC);
            let text = |s: Str| s.to_string();
            Ok(own.map(|c| (text(c.name), c.value.map(text))).collect())
        })
        .await
    }

    /// The cluster as seen by the broker that answers.
    pub async fn describe_cluster(&self) -> Result<DescribeClusterResponse> {
        let request = DescribeClusterRequest::default();
        self.manage(request, |response| {
            Error::check(response.error_code, response.error_message.as_deref())?;
            Ok(response)
        })
        .await
    }

    /// Deletes the records below `before` (`None`: below the high watermark). Returns the new log start offset.
    pub async fn delete_records(&self, tp: &TopicPartition, before: Option<Offset>) -> Result<Offset> {
        let partition = delete_records_request::DeleteRecordsPartition {
            partition_index: tp.partition,
            offset: before.map_or(-1, |o| o.0),
            ..Default::default()
        };
        let request = DeleteRecordsRequest {
            topics: vec![delete_records_request::DeleteRecordsTopic {
                name: tp.topic.clone(),
                partitions: vec![partition],
                ..Default::default()
            }],
            timeout_ms: millis(self.config().request_timeout),
            ..Default::default()
        };
        self.ask_leader(
            tp,
            |_| request.clone(),
            |response| {
                let partition = one(one(response.topics)?.partitions)?;
                Error::check(partition.error_code, None)?;
                Ok(Offset(partition.low_watermark))
            },
        )
        .await
    }

    /// Looks up an offset of a partition.
    pub async fn list_offsets(
        &self,
        tp: &TopicPartition,
        spec: OffsetSpec,
        isolation: IsolationLevel,
    ) -> Result<ListedOffset> {
        let request = |leader: crate::metadata::Leader| ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation.id(),
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: tp.topic.clone(),
                partitions: vec![list_offsets_request::ListOffsetsPartition {
                    partition_index: tp.partition,
                    current_leader_epoch: leader.epoch,
                    timestamp: spec.timestamp(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            timeout_ms: millis(self.config().request_timeout),
            ..Default::default()
        };
        self.ask_leader(tp, request, |response| {
            let partition = one(one(response.topics)?.partitions)?;
            Error::check(partition.error_code, None)?;
            Ok(ListedOffset {
                offset: (partition.offset >= 0).then_some(Offset(partition.offset)),
                timestamp: UnixMillis(partition.timestamp),
                leader_epoch: LeaderEpoch(partition.leader_epoch),
            })
        })
        .await
    }

    /// The active producers of a partition.
    pub async fn describe_producers(
        &self,
        tp: &TopicPartition,
    ) -> Result<Vec<describe_producers_response::ProducerState>> {
        let request = DescribeProducersRequest {
            topics: vec![describe_producers_request::TopicRequest {
                name: tp.topic.clone(),
                partition_indexes: vec![tp.partition],
                ..Default::default()
            }],
            ..Default::default()
        };
        self.ask_leader(
            tp,
            |_| request.clone(),
            |response| {
                let partition = one(one(response.topics)?.partitions)?;
                Error::check(partition.error_code, partition.error_message.as_deref())?;
                Ok(partition.active_producers)
            },
        )
        .await
    }
}
