//! The cluster's metadata, as a replay of Kafka's metadata log, and the controller's decisions about it.
//!
//! Pure: no clock, no randomness, no IO. What is random (topic ids) comes with the request.
//!
//! - [`image`]: the cluster up to an offset of the log.
//! - [`controller`]: what becomes of requests.
//! - [`records`], [`snapshot`]: the log's batches and snapshot files.
//! - [`config`]: what can be configured, and which value holds.

pub mod bootstrap;
pub mod config;
pub mod controller;
pub mod image;
pub mod records;
pub mod snapshot;
pub mod topic_name;

pub use controller::{
    ApiError, Controller, CreateTopics, Registration, Reply, Request, Settings, refuse_excessive,
};
pub use image::{
    BrokerImage, ConfigResource, Image, ImageDelta, MetadataState, PartitionImage, ReplayError, TopicImage,
};
