//! IncrementalAlterConfigs: sets, deletes, appends to and subtracts from single keys of a resource (KIP-339).

use brokkr_env::Env;
use brokkr_metadata::{Reply, Request};
use brokkr_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use brokkr_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::without_effect;
use crate::ctx::{Ctx, Peer};

/// Responds once the changes are committed and the partitions use them.
pub async fn handle<E: Env>(
    ctx: Ctx<E>,
    request: IncrementalAlterConfigsRequest,
    _version: i16,
    _peer: Peer,
) -> IncrementalAlterConfigsResponse {
    for resource in &request.resources {
        for config in &resource.configs {
            let value = config.value.as_deref();
            without_effect::log_if_ineffective(&ctx.error_log, resource.resource_type, &config.name, value);
        }
    }
    let requested: Vec<_> = request
        .resources
        .iter()
        .map(|r| (r.resource_type, r.resource_name.clone()))
        .collect();
    match ctx
        .controller
        .submit(Request::IncrementalAlterConfigs(request))
        .await
    {
        Ok(Reply::IncrementalAlterConfigs(response)) => response,
        Ok(other) => unreachable!("the reply is not to IncrementalAlterConfigs: {other:?}"),
        Err(code) => {
            let responses =
                requested
                    .into_iter()
                    .map(|(resource_type, resource_name)| AlterConfigsResourceResponse {
                        error_code: code.0,
                        resource_type,
                        resource_name,
                        ..AlterConfigsResourceResponse::default()
                    });
            IncrementalAlterConfigsResponse {
                responses: responses.collect(),
                ..IncrementalAlterConfigsResponse::default()
            }
        }
    }
}
