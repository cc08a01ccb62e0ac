//! The changes that committed records made to an image, so that followers of the image visit only those.

use std::collections::BTreeSet;
use std::sync::Arc;

use brokkr_types::Uuid;
use brokkr_wire::Str;
use brokkr_wire::messages::MetadataRecord;

use super::{Image, TopicImage, resource_type};

/// The difference between two images.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImageDelta {
    /// Unknown: a first image, or a change that concerns every topic.
    Everything,
    /// At most these topics.
    Changed(Changed),
}

/// The topics that a change concerns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// Created, deleted, or with created or changed partitions.
    pub topics: BTreeSet<Uuid>,
    /// With a changed configuration.
    pub configured: BTreeSet<Str>,
}

impl ImageDelta {
    /// The changes that these records make to an image outside of a metadata transaction.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a MetadataRecord>) -> Self {
        let mut changed = Changed::default();
        for record in records {
            match record {
                MetadataRecord::Topic(r) => drop(changed.topics.insert(r.topic_id)),
                MetadataRecord::Partition(r) => drop(changed.topics.insert(r.topic_id)),
                MetadataRecord::PartitionChange(r) => drop(changed.topics.insert(r.topic_id)),
                MetadataRecord::RemoveTopic(r) => drop(changed.topics.insert(r.topic_id)),
                MetadataRecord::Config(r) if r.resource_type == resource_type::TOPIC => {
                    changed.configured.insert(r.resource_name.clone());
                }
                // Topics inherit defaults from these.
                MetadataRecord::Config(r) if r.resource_type == resource_type::BROKER => {
                    return Self::Everything;
                }
                MetadataRecord::Config(_)
                | MetadataRecord::RegisterBroker(_)
                | MetadataRecord::UnregisterBroker(_)
                | MetadataRecord::BrokerRegistrationChange(_)
                | MetadataRecord::FenceBroker(_)
                | MetadataRecord::UnfenceBroker(_)
                | MetadataRecord::ProducerIds(_)
                | MetadataRecord::NoOp(_) => {}
                _ => return Self::Everything,
            }
        }
        Self::Changed(changed)
    }

    /// The changed topics of `image`; `None` means all topics.
    pub fn topics_touched(&self, image: &Image) -> Option<Vec<Arc<TopicImage>>> {
        let Self::Changed(changed) = self else {
            return None;
        };
        let topics = &image.topics;
        let configured = changed.configured.iter().filter_map(|name| topics.by_name(name));
        let mut ids: BTreeSet<Uuid> = configured.map(|topic| topic.id).collect();
        ids.extend(&changed.topics);
        let mut touched: Vec<_> = ids.iter().filter_map(|id| topics.by_id(*id).cloned()).collect();
        // In the order of an iteration over all topics.
        touched.sort_by(|a, b| a.name.cmp(&b.name));
        Some(touched)
    }
}
