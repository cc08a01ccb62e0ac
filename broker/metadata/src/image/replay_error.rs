//! Records that can't be replayed.

use std::fmt;

use brokkr_types::Uuid;
use brokkr_wire::Str;

use crate::features::METADATA_VERSIONS;

/// A committed record that can't be replayed: neither this controller nor Kafka's wrote this log. Takes the log offline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// No topic has this id.
    UnknownTopic(Uuid),
    /// No topic has this name.
    UnknownTopicName(Str),
    /// A topic of this name or its id exists.
    DuplicateTopic(Str),
    /// The topic has no such partition.
    UnknownPartition(Uuid, i32),
    /// The partition index is negative or leaves a gap.
    PartitionOrder(Uuid, i32),
    /// The numbers of directories and replicas differ.
    Directories {
        /// How many directories there are.
        directories: usize,
        /// How many replicas there are.
        replicas: usize,
    },
    /// No broker of this id is registered.
    UnknownBroker(i32),
    /// The record is for another broker epoch.
    BrokerEpoch {
        /// Which broker.
        broker: i32,
        /// The record's.
        record: i64,
        /// The registration's.
        registered: i64,
    },
    /// An invalid value of a field.
    BadValue {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// The next producer id is not above the previous one (I4).
    ProducerIds {
        /// The record's.
        record: i64,
        /// The one before.
        before: i64,
    },
    /// An unsupported level of `metadata.version`.
    MetadataVersion(i16),
    /// A transaction begins inside another, or ends without a beginning.
    Transaction(&'static str),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTopic(id) => write!(f, "no topic has the id {id}"),
            Self::UnknownTopicName(name) => write!(f, "no topic has the name {name}"),
            Self::DuplicateTopic(name) => write!(f, "topic {name}, or one of its id, exists already"),
            Self::UnknownPartition(id, p) => write!(f, "topic {id} has no partition {p}"),
            Self::PartitionOrder(id, p) => write!(f, "partition {p} of topic {id} is out of order"),
            Self::Directories {
                directories,
                replicas,
            } => {
                write!(f, "{directories} directories for {replicas} replicas")
            }
            Self::UnknownBroker(id) => write!(f, "broker {id} is not registered"),
            Self::BrokerEpoch {
                broker,
                record,
                registered,
            } => {
                write!(f, "broker {broker} is registered at {registered}, not {record}")
            }
            Self::BadValue { field, value } => write!(f, "{field} is {value}"),
            Self::ProducerIds { record, before } => {
                write!(
                    f,
                    "the next producer id is {record}, but {before} was handed out already"
                )
            }
            Self::MetadataVersion(level) => write!(
                f,
                "metadata.version {level} is not one of {} to {}",
                METADATA_VERSIONS.start(),
                METADATA_VERSIONS.end()
            ),
            Self::Transaction(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ReplayError {}
