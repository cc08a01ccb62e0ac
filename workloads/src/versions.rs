//! Clients of any age.

use brokkr_client::ClientConfig;
use brokkr_env::Rng;
use brokkr_wire::ApiKey;

/// The first versions with which a process can do its work: topic ids, where a log starts, every codec.
const LEAST: [(ApiKey, i16); 14] = [
    (ApiKey::Produce, 7),
    (ApiKey::Fetch, 10),
    (ApiKey::ListOffsets, 1),
    (ApiKey::Metadata, 10),
    (ApiKey::CreateTopics, 7),
    (ApiKey::DeleteTopics, 6),
    (ApiKey::DeleteRecords, 0),
    (ApiKey::InitProducerId, 0),
    (ApiKey::OffsetForLeaderEpoch, 2),
    (ApiKey::DescribeConfigs, 1),
    (ApiKey::AlterConfigs, 0),
    (ApiKey::IncrementalAlterConfigs, 0),
    (ApiKey::DescribeLogDirs, 1),
    (ApiKey::CreatePartitions, 0),
];

/// This configuration, with any version of each API up to the one that it has.
pub(crate) fn any_versions(mut config: ClientConfig, rng: &Rng) -> ClientConfig {
    for (api, least) in LEAST {
        let max = config.versions_max.get(&api).copied().unwrap_or(api.max_stable());
        let choices = u64::from(max.saturating_sub(least).max(0).unsigned_abs()) + 1;
        // Half of them are as new as can be.
        if rng.below(2) == 0 {
            config.versions_max.insert(api, max - rng.below(choices) as i16);
        }
    }
    config
}
