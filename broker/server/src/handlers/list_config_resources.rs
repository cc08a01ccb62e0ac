//! ListConfigResources: the resources that can have a configuration (KIP-1142). Version 0 lists only client metrics
//! subscriptions.

use brokkr_env::Env;
use brokkr_metadata::Image;
use brokkr_metadata::image::resource_type::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use brokkr_wire::messages::list_config_resources_response::ConfigResource;
use brokkr_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use brokkr_wire::{ErrorCode, Str};

use super::common::brokers;
use crate::ctx::{Ctx, Peer};

/// All types; a request without types asks for all.
const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

/// The first version with resource types in the request.
const TYPES_SINCE: i16 = 1;

/// Upper bound of a resource in the response, without its name, in bytes.
const RESOURCE_BYTES: usize = 64;

/// Upper bound of the response, in bytes.
pub fn bytes<E: Env>(ctx: &mut Ctx<E>, _request: &ListConfigResourcesRequest) -> usize {
    let image = ctx.image();
    let topics = image.topics.iter().map(|t| t.name.len() + RESOURCE_BYTES);
    let others = image.configured().map(|r| r.name.len() + RESOURCE_BYTES);
    topics.chain(others).sum()
}

/// Returns the response.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: ListConfigResourcesRequest,
    version: i16,
    peer: Peer,
) -> ListConfigResourcesResponse {
    let mut types = match request.resource_types {
        _ if version < TYPES_SINCE => vec![CLIENT_METRICS],
        none if none.is_empty() => TYPES.to_vec(),
        some => some,
    };
    types.sort_unstable();
    types.dedup();
    if types.iter().any(|kind| !TYPES.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION.0,
            ..ListConfigResourcesResponse::default()
        };
    }
    let image = ctx.image();
    let mut config_resources = Vec::new();
    for resource_type in types {
        let names = names(image, resource_type, &peer.listener).into_iter();
        config_resources.extend(names.map(|resource_name| ConfigResource {
            resource_name,
            resource_type,
            ..ConfigResource::default()
        }));
    }
    ListConfigResourcesResponse {
        config_resources,
        ..ListConfigResourcesResponse::default()
    }
}

fn names(image: &Image, kind: i8, listener: &str) -> Vec<Str> {
    match kind {
        TOPIC => image.topics.iter().map(|topic| topic.name.clone()).collect(),
        BROKER | BROKER_LOGGER => brokers(image, listener, false)
            .into_iter()
            .map(|b| Str::from(b.id.to_string()))
            .collect(),
        // Resources of the other types exist only if they have a configuration.
        kind => image
            .configured()
            .filter(|r| r.kind == kind)
            .map(|r| r.name.clone())
            .collect(),
    }
}
