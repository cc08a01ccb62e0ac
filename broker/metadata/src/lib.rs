//! The cluster's metadata, replayed from Kafka's metadata log, and the controller's decisions on it.
//!
//! Pure: no clock, no randomness, no IO. Random values (topic ids) come with the request.
//!
//! - [`image`]: the cluster's metadata up to an offset of the log.
//! - [`controller`]: decisions on requests.
//! - [`records`], [`snapshot`]: the log's batches and snapshot files.
//! - [`config`]: configuration keys and effective values.

pub mod bootstrap;
pub mod config;
pub mod controller;
mod features;
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
