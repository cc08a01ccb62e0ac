//! Creating and deleting topics, adding partitions.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_types::Uuid;
use brokkr_wire::messages::create_partitions_request::CreatePartitionsTopic;
use brokkr_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use brokkr_wire::messages::create_topics_request::CreatableTopic;
use brokkr_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use brokkr_wire::messages::delete_topics_response::DeletableTopicResult;
use brokkr_wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, MetadataRecord, PartitionRecord, RemoveTopicRecord,
    TopicRecord,
};
use brokkr_wire::{ErrorCode, Str};

use super::placement::{Placed, Spread};
use super::{ApiError, Budget, Controller, CreateTopics, Outcome, code_and_message, too_large};
use crate::config::resolve::Configs;
use crate::image::{ConfigResource, TopicImage};
use crate::records::RECORDS_PER_REQUEST_MAX;
use crate::topic_name;

/// The result of creating a topic.
struct Created {
    id: Uuid,
    partitions: usize,
    factor: usize,
    records: Vec<MetadataRecord>,
    configs: Configs,
}

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Outcome<T> {
    Err(ApiError::new(code, message))
}

fn duplicate_name<T>() -> Outcome<T> {
    refuse(ErrorCode::INVALID_REQUEST, "Duplicate topic name.")
}

/// The names in a request with their number of occurrences. The result for a name is at its first occurrence.
struct Names<'a>(BTreeMap<&'a Str, usize>);

impl<'a> Names<'a> {
    fn of(names: impl Iterator<Item = &'a Str>) -> Self {
        let mut times = BTreeMap::new();
        names.for_each(|name| *times.entry(name).or_default() += 1);
        Self(times)
    }

    /// Whether the name occurs once; `None` if it was handled already.
    fn first(&mut self, name: &Str) -> Option<bool> {
        self.0.remove(name).map(|times| times == 1)
    }
}

/// The response to a CreateTopics request that exceeds the maximum of partitions, `None` for any other. Handlers call it
/// before they send the request to the controller, whose single task serves all clients.
pub fn refuse_excessive(
    request: &CreateTopicsRequest,
    num_partitions_default: i32,
) -> Option<CreateTopicsResponse> {
    let asked = |topic: &CreatableTopic| match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        -1 => usize::try_from(num_partitions_default).unwrap_or_default(),
        n => usize::try_from(n).unwrap_or_default(),
    };
    let partitions = request.topics.iter().map(asked).fold(0, usize::saturating_add);
    if partitions.max(request.topics.len()) <= RECORDS_PER_REQUEST_MAX {
        return None;
    }
    let mut names = Names::of(request.topics.iter().map(|t| &t.name));
    let excessive = || {
        refuse(
            ErrorCode::POLICY_VIOLATION,
            "Excessively large number of partitions per request.",
        )
    };
    let results = request.topics.iter().filter_map(|topic| {
        let outcome: Outcome<()> = match names.first(&topic.name)? {
            true => excessive(),
            false => duplicate_name(),
        };
        let (error_code, error_message) = code_and_message(&outcome);
        Some(CreatableTopicResult {
            name: topic.name.clone(),
            error_code,
            error_message,
            configs: Some(Vec::new()),
            ..CreatableTopicResult::default()
        })
    });
    Some(CreateTopicsResponse {
        topics: results.collect(),
        ..CreateTopicsResponse::default()
    })
}

impl Controller {
    pub(super) fn create_topics(&self, create: &CreateTopics) -> (Vec<MetadataRecord>, CreateTopicsResponse) {
        let topics = &create.request.topics;
        if let Some(refused) = refuse_excessive(&create.request, self.settings.num_partitions) {
            return (Vec::new(), refused);
        }
        let (mut records, mut results, mut budget) = (Vec::new(), Vec::new(), Budget::new());
        let mut names = Names::of(topics.iter().map(|t| &t.name));
        let mut spread = self.spread();
        for (i, topic) in topics.iter().enumerate() {
            let Some(once) = names.first(&topic.name) else {
                continue;
            };
            let outcome = if !once {
                duplicate_name()
            } else {
                self.check_new_name(&topic.name)
                    .and_then(|()| self.create_topic(topic, create.random.get(i), &mut spread))
            };
            let outcome = budget.spend(outcome, |created| &created.records);
            if let Ok(created) = &outcome {
                records.extend(created.records.iter().cloned());
            }
            results.push(self.creatable_result(&topic.name, outcome));
        }
        if create.request.validate_only {
            records.clear();
        }
        let response = CreateTopicsResponse {
            topics: results,
            ..CreateTopicsResponse::default()
        };
        (records, response)
    }

    fn check_new_name(&self, name: &Str) -> Outcome<()> {
        if *name == *topic_name::CLUSTER_METADATA_TOPIC {
            let message = format!("Creation of internal topic {name} is prohibited.");
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        if self.image().topics.by_name(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return refuse(ErrorCode::TOPIC_ALREADY_EXISTS, message);
        }
        if let Some(why) = topic_name::invalid(name) {
            return refuse(ErrorCode::INVALID_TOPIC_EXCEPTION, why);
        }
        // As in Kafka, checked only against existing topics: two topics of one request may collide.
        if let Some(other) = self.image().topics.colliding(name) {
            let message = format!("Topic '{name}' collides with existing topic: {other}");
            return refuse(ErrorCode::INVALID_TOPIC_EXCEPTION, message);
        }
        Ok(())
    }

    fn create_topic(
        &self,
        topic: &CreatableTopic,
        random: Option<&[u8; 16]>,
        spread: &mut Spread,
    ) -> Outcome<Created> {
        let nulls: Vec<&str> = topic
            .configs
            .iter()
            .filter(|c| c.value.is_none())
            .map(|c| c.name.as_str())
            .collect();
        if !nulls.is_empty() {
            let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
            return refuse(ErrorCode::INVALID_CONFIG, message);
        }
        let configs: Configs = topic
            .configs
            .iter()
            .filter_map(|c| Some((c.name.clone(), c.value.clone()?)))
            .collect();
        let resource = ConfigResource {
            kind: crate::image::resource_type::TOPIC,
            name: topic.name.clone(),
        };
        self.check_values(&resource, &configs)?;
        let id = match random {
            Some(random) => Uuid::from_random(*random),
            None => {
                return refuse(
                    ErrorCode::UNKNOWN_SERVER_ERROR,
                    "No randomness is left for a topic id.",
                );
            }
        };
        if self.image().topics.by_id(id).is_some() {
            return refuse(ErrorCode::UNKNOWN_SERVER_ERROR, "A topic of this id exists.");
        }
        let placed = if topic.assignments.is_empty() {
            self.place_by_number(topic, id, spread)?
        } else {
            self.place_by_hand(topic, spread)?
        };
        let mut records: Vec<MetadataRecord> = vec![
            TopicRecord {
                name: topic.name.clone(),
                topic_id: id,
                ..TopicRecord::default()
            }
            .into(),
        ];
        // BEFORE the partitions: their logs are opened with this configuration.
        records.extend(
            configs
                .iter()
                .map(|(name, value)| resource.record(name, Some(value))),
        );
        let factor = placed.first().map_or(0, |p| p.replicas.len());
        let by_hand = !topic.assignments.is_empty();
        for (index, placed) in placed.iter().enumerate() {
            records.push(self.partition_record(id, index, placed, by_hand)?.into());
        }
        Ok(Created {
            id,
            partitions: placed.len(),
            factor,
            records,
            configs,
        })
    }

    fn place_by_number(&self, topic: &CreatableTopic, id: Uuid, spread: &mut Spread) -> Outcome<Vec<Placed>> {
        let factor = topic.replication_factor;
        if factor < -1 || factor == 0 {
            return refuse(
                ErrorCode::INVALID_REPLICATION_FACTOR,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            );
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            return refuse(
                ErrorCode::INVALID_PARTITIONS,
                "Number of partitions was set to an invalid non-positive value.",
            );
        }
        let default = |asked: i32, default: i32| if asked == -1 { default } else { asked };
        let partitions = default(topic.num_partitions, self.settings.num_partitions);
        let factor = if factor == -1 {
            self.settings.default_replication_factor
        } else {
            factor
        };
        let partitions = usize::try_from(partitions).unwrap_or_default();
        self.place(id, 0, partitions, factor, spread)
    }

    fn place_by_hand(&self, topic: &CreatableTopic, spread: &mut Spread) -> Outcome<Vec<Placed>> {
        if topic.replication_factor != -1 {
            return refuse(
                ErrorCode::INVALID_REQUEST,
                "A manual partition assignment was specified, but replication factor was not set to -1.",
            );
        }
        if topic.num_partitions != -1 {
            return refuse(
                ErrorCode::INVALID_REQUEST,
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            );
        }
        let mut by_index: BTreeMap<i32, Placed> = BTreeMap::new();
        let mut factor = None;
        for assignment in &topic.assignments {
            let index = assignment.partition_index;
            if by_index.contains_key(&index) {
                let message = format!("Found multiple manual partition assignments for partition {index}");
                return refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
            }
            self.check_by_hand(&assignment.broker_ids, factor)?;
            factor = Some(assignment.broker_ids.len());
            self.check_active(&assignment.broker_ids, index)?;
            by_index.insert(index, self.placed(assignment.broker_ids.clone(), spread));
        }
        if by_index.keys().copied().ne(0..by_index.len() as i32) {
            return refuse(
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                "partitions should be a consecutive 0-based integer sequence",
            );
        }
        Ok(by_index.into_values().collect())
    }

    fn check_by_hand(&self, brokers: &[i32], factor: Option<usize>) -> Outcome<()> {
        const CODE: ErrorCode = ErrorCode::INVALID_REPLICA_ASSIGNMENT;
        if brokers.is_empty() {
            return refuse(
                CODE,
                "The manual partition assignment includes an empty replica list.",
            );
        }
        let mut sorted = brokers.to_vec();
        sorted.sort_unstable();
        for (i, id) in sorted.iter().enumerate() {
            if self.image().broker(*id).is_none() {
                let message = format!(
                    "The manual partition assignment includes broker {id}, but no such broker is registered."
                );
                return refuse(CODE, message);
            }
            if i > 0 && sorted[i - 1] == *id {
                let message =
                    format!("The manual partition assignment includes the broker {id} more than once.");
                return refuse(CODE, message);
            }
        }
        match factor {
            Some(factor) if factor != brokers.len() => refuse(
                CODE,
                format!(
                    "The manual partition assignment includes a partition with {} replica(s), but this is not \
                     consistent with previous partitions, which have {factor} replica(s).",
                    brokers.len()
                ),
            ),
            _ => Ok(()),
        }
    }

    fn check_active(&self, brokers: &[i32], index: i32) -> Outcome<()> {
        if brokers.iter().any(|id| self.image().is_active(*id)) {
            return Ok(());
        }
        let message = format!(
            "All brokers specified in the manual partition assignment for partition {index} are fenced or in \
             controlled shutdown."
        );
        refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message)
    }

    /// A new partition: its unfenced replicas are in the ISR, the first of them leads.
    fn partition_record(
        &self,
        topic: Uuid,
        index: usize,
        placed: &Placed,
        by_hand: bool,
    ) -> Outcome<PartitionRecord> {
        let active = placed
            .replicas
            .iter()
            .copied()
            .filter(|id| self.image().is_active(*id));
        let isr: Vec<i32> = active.collect();
        let Some(leader) = isr.first().copied() else {
            assert!(!by_hand, "manually assigned brokers were checked to be active");
            let message = format!(
                "Unable to replicate the partition {} time(s): All brokers are currently fenced or in controlled \
                 shutdown.",
                placed.replicas.len()
            );
            return refuse(ErrorCode::INVALID_REPLICATION_FACTOR, message);
        };
        Ok(PartitionRecord {
            partition_id: i32::try_from(index).expect("a request creates far fewer partitions"),
            topic_id: topic,
            replicas: placed.replicas.clone(),
            directories: placed.directories.clone(),
            isr,
            leader,
            leader_epoch: 0,
            partition_epoch: 0,
            ..PartitionRecord::default()
        })
    }

    fn creatable_result(&self, name: &Str, outcome: Outcome<Created>) -> CreatableTopicResult {
        let (error_code, error_message) = code_and_message(&outcome);
        let mut result = CreatableTopicResult {
            name: name.clone(),
            error_code,
            error_message,
            ..CreatableTopicResult::default()
        };
        let Ok(created) = outcome else {
            result.configs = Some(Vec::new());
            return result;
        };
        let values = self.layers().topic_values(Some(&created.configs));
        // As in Kafka, the values as the request spelled them, with blanks. DescribeConfigs shows the parsed values.
        let shown = values.into_iter().map(|resolved| CreatableTopicConfigs {
            name: Str::from_static(resolved.key.name),
            value: match created.configs.get(resolved.key.name) {
                Some(given) => Some(given.clone()),
                None => resolved.value.map(|value| Str::from(value.to_string())),
            },
            read_only: false,
            config_source: resolved.source.id(),
            is_sensitive: resolved.key.is_sensitive(),
            ..CreatableTopicConfigs::default()
        });
        result.configs = Some(shown.collect());
        result.topic_id = created.id;
        result.num_partitions = created.partitions as i32;
        result.replication_factor = created.factor as i16;
        result
    }

    pub(super) fn delete_topics(
        &self,
        request: &DeleteTopicsRequest,
    ) -> (Vec<MetadataRecord>, DeleteTopicsResponse) {
        let named = request.topic_names.iter().map(|name| (Some(name), Uuid::ZERO));
        let both = request.topics.iter().map(|t| (t.name.as_ref(), t.topic_id));
        let asked: Vec<(Option<&Str>, Uuid)> = named.chain(both).collect();
        let mut times: BTreeMap<(Option<&Str>, Uuid), usize> = BTreeMap::new();
        asked.iter().for_each(|one| *times.entry(*one).or_default() += 1);
        let (mut ids, mut responses, mut answered) = (Vec::new(), Vec::new(), BTreeSet::new());
        for one @ (name, id) in asked {
            let says_nothing = name.is_none() && id.is_zero();
            if !answered.insert(one) && !says_nothing {
                continue;
            }
            let found = self.deletable(name, id, times[&one] > 1);
            let topic = found.as_ref().ok().copied();
            let other_way = topic.and_then(|topic| match name {
                Some(_) => times.get(&(None, topic.id)),
                None => times.get(&(Some(&topic.name), Uuid::ZERO)),
            });
            // As in Kafka, a topic given by name and by id is not deleted; the error is at its name.
            let outcome = match (name, other_way) {
                (None, Some(1)) => continue,
                (Some(_), Some(_)) => refuse(
                    ErrorCode::INVALID_REQUEST,
                    "The provided topic name maps to an ID that was already supplied.",
                ),
                _ => found,
            };
            let (error_code, error_message) = code_and_message(&outcome);
            ids.extend(outcome.ok().map(|topic| topic.id));
            responses.push(DeletableTopicResult {
                name: topic.map(|topic| &topic.name).or(name).cloned(),
                topic_id: topic.map_or(id, |topic| topic.id),
                error_code,
                error_message,
                ..DeletableTopicResult::default()
            });
        }
        let remove = |topic_id| {
            MetadataRecord::from(RemoveTopicRecord {
                topic_id,
                ..RemoveTopicRecord::default()
            })
        };
        let response = DeleteTopicsResponse {
            responses,
            ..DeleteTopicsResponse::default()
        };
        (ids.into_iter().map(remove).collect(), response)
    }

    fn deletable(&self, name: Option<&Str>, id: Uuid, twice: bool) -> Outcome<&TopicImage> {
        const CODE: ErrorCode = ErrorCode::INVALID_REQUEST;
        let topics = &self.image().topics;
        match (name, id.is_zero()) {
            (None, true) => refuse(CODE, "Neither topic name nor id were specified."),
            (Some(_), false) => refuse(CODE, "You may not specify both topic name and topic id."),
            (Some(_), true) if twice => refuse(CODE, "Duplicate topic name."),
            (None, false) if twice => refuse(CODE, "Duplicate topic id."),
            (Some(name), true) => topics.by_name(name).map(AsRef::as_ref).ok_or_else(|| {
                ApiError::new(
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    "This server does not host this topic-partition.",
                )
            }),
            (None, false) => topics.by_id(id).map(AsRef::as_ref).ok_or_else(|| {
                ApiError::new(
                    ErrorCode::UNKNOWN_TOPIC_ID,
                    "This server does not host this topic ID.",
                )
            }),
        }
    }

    pub(super) fn create_partitions(
        &self,
        request: &CreatePartitionsRequest,
    ) -> (Vec<MetadataRecord>, CreatePartitionsResponse) {
        let (mut records, mut results, mut budget) = (Vec::new(), Vec::new(), Budget::new());
        let mut names = Names::of(request.topics.iter().map(|t| &t.name));
        let mut spread = self.spread();
        for topic in &request.topics {
            let Some(once) = names.first(&topic.name) else {
                continue;
            };
            let outcome = match once {
                true => self.more_partitions(topic, budget.records, &mut spread),
                false => duplicate_name(),
            };
            let outcome = budget.spend(outcome, Vec::as_slice);
            let (error_code, error_message) = code_and_message(&outcome);
            records.extend(outcome.into_iter().flatten());
            results.push(CreatePartitionsTopicResult {
                name: topic.name.clone(),
                error_code,
                error_message,
                ..CreatePartitionsTopicResult::default()
            });
        }
        if request.validate_only {
            records.clear();
        }
        let response = CreatePartitionsResponse {
            results,
            ..CreatePartitionsResponse::default()
        };
        (records, response)
    }

    /// The records of a topic's new partitions, at most `records_max`.
    fn more_partitions(
        &self,
        asked: &CreatePartitionsTopic,
        records_max: usize,
        spread: &mut Spread,
    ) -> Outcome<Vec<MetadataRecord>> {
        let Some(topic) = self.image().topics.by_name(&asked.name) else {
            return Err(ApiError::bare(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        };
        let have = topic.partitions.len();
        let count = usize::try_from(asked.count).unwrap_or_default();
        if count == have {
            let message = format!("Topic already has {have} partition(s).");
            return refuse(ErrorCode::INVALID_PARTITIONS, message);
        }
        if count < have {
            let message = format!(
                "The topic {} currently has {have} partition(s); {} would not be an increase.",
                asked.name, asked.count
            );
            return refuse(ErrorCode::INVALID_PARTITIONS, message);
        }
        let more = count - have;
        if more > RECORDS_PER_REQUEST_MAX {
            return refuse(
                ErrorCode::POLICY_VIOLATION,
                "Excessively large number of partitions per request.",
            );
        }
        if more > records_max {
            // BEFORE placement: a request could name many topics with many partitions each.
            return Err(too_large());
        }
        let factor = topic.partitions.first().map_or(1, |p| p.replicas.len());
        let placed = match &asked.assignments {
            None => {
                let factor = i16::try_from(factor).unwrap_or(i16::MAX);
                self.place(topic.id, have, more, factor, spread)?
            }
            Some(by_hand) if by_hand.len() != more => {
                let message = format!(
                    "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                    by_hand.len()
                );
                return refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
            }
            Some(by_hand) => {
                let mut placed = Vec::with_capacity(more);
                for (i, assignment) in by_hand.iter().enumerate() {
                    self.check_by_hand(&assignment.broker_ids, Some(factor))?;
                    self.check_active(&assignment.broker_ids, (have + i) as i32)?;
                    placed.push(self.placed(assignment.broker_ids.clone(), spread));
                }
                placed
            }
        };
        let by_hand = asked.assignments.is_some();
        let records = placed.iter().enumerate().map(|(i, placed)| {
            self.partition_record(topic.id, have + i, placed, by_hand)
                .map(MetadataRecord::from)
        });
        records.collect()
    }
}
