//! ApiVersions: the served APIs and versions; nothing else is advertised (W1, W2, KIP-511, KIP-584).

use brokkr_metadata::Image;
use brokkr_metadata::bootstrap::{KRAFT_VERSION, SUPPORTED_FEATURES};
use brokkr_wire::messages::ApiVersionsRequest;
use brokkr_wire::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use brokkr_wire::{ApiKey, ErrorCode, Str};

use crate::handlers::served::SERVED;

/// The first version that may contain features whose minimum level is 0 (KAFKA-17011).
const FEATURES_FROM_ZERO_SINCE: i16 = 4;
/// The first version in which clients send their software's name and version.
const CLIENT_SOFTWARE_SINCE: i16 = 3;

/// The response to a request of a known version.
pub fn handle(request: &ApiVersionsRequest, version: i16, image: &Image) -> ApiVersionsResponse {
    let is_named = is_valid_software_name(&request.client_software_name)
        && is_valid_software_name(&request.client_software_version);
    if version >= CLIENT_SOFTWARE_SINCE && !is_named {
        return ApiVersionsResponse {
            error_code: ErrorCode::INVALID_REQUEST.0,
            ..Default::default()
        };
    }
    let supported = SUPPORTED_FEATURES
        .iter()
        .filter(|(_, min, _)| *min > 0 || version >= FEATURES_FROM_ZERO_SINCE);
    let supported = supported.map(|(name, min, max)| SupportedFeatureKey {
        name: Str::from_static(name),
        min_version: *min,
        max_version: *max,
        ..Default::default()
    });
    // `kraft.version` is not in the metadata records: every log starts with it.
    let quorum = (Str::from_static("kraft.version"), KRAFT_VERSION);
    // A directory made by Kafka may have finalized features that this broker does not serve. They are left out, for
    // clients act on them.
    let served = |name: &Str| SUPPORTED_FEATURES.iter().any(|(known, ..)| *name == **known);
    let levels = image
        .features()
        .filter(|(name, _)| served(name))
        .map(|(name, level)| (name.clone(), level));
    let finalized = levels
        .chain([quorum])
        .filter(|(_, level)| *level > 0)
        .map(|(name, level)| FinalizedFeatureKey {
            name,
            max_version_level: level,
            min_version_level: level,
            ..Default::default()
        });
    ApiVersionsResponse {
        api_keys: SERVED.iter().map(|key| advertised(*key)).collect(),
        supported_features: supported.collect(),
        finalized_features_epoch: image.provenance.offset,
        finalized_features: finalized.collect(),
        ..Default::default()
    }
}

/// The response to an unknown version, encoded in version 0: the error, and the versions of ApiVersions.
pub fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION.0,
        api_keys: vec![advertised(ApiKey::ApiVersions)],
        ..Default::default()
    }
}

fn advertised(key: ApiKey) -> ApiVersion {
    let versions = key.stable_versions();
    // Produce 0 to 2 are rejected, but librdkafka stops compressing where they are not advertised (KAFKA-18659).
    let min_version = if key == ApiKey::Produce {
        0
    } else {
        *versions.start()
    };
    ApiVersion {
        api_key: key as i16,
        min_version,
        max_version: *versions.end(),
        ..Default::default()
    }
}

/// KIP-511: letters, digits, dots and dashes; the first and the last character are letters or digits.
fn is_valid_software_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.chars().all(inner) && edge(name.chars().next()) && edge(name.chars().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn produce_is_advertised_from_0_and_features_from_0_only_since_version_4() {
        let image = Image::empty("c");
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("a"),
            client_software_version: Str::from_static("1.0"),
            ..Default::default()
        };
        let (v3, v4) = (handle(&request, 3, &image), handle(&request, 4, &image));
        assert_eq!(
            v3.api_keys[0],
            ApiVersion {
                api_key: 0,
                min_version: 0,
                max_version: 13,
                ..Default::default()
            }
        );
        assert!(v3.supported_features.iter().all(|f| f.min_version > 0));
        assert!(v4.supported_features.iter().any(|f| f.min_version == 0));
        assert_eq!(v3.api_keys.len(), SERVED.len());
        let levels: Vec<_> = v3
            .finalized_features
            .iter()
            .map(|f| (f.name.as_str(), f.max_version_level))
            .collect();
        assert_eq!(levels, [("kraft.version", 1)]);
        let nameless = ApiVersionsRequest::default();
        assert_eq!(
            handle(&nameless, 3, &image).error_code,
            ErrorCode::INVALID_REQUEST.0
        );
        assert_eq!(handle(&nameless, 2, &image).error_code, 0);
        assert_eq!(unsupported().error_code, 35);
    }
}
