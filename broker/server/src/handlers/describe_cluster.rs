//! DescribeCluster: the brokers and the controller of the cluster (KIP-700, KIP-919).

use brokkr_env::Env;
use brokkr_wire::messages::DescribeClusterRequest;
use brokkr_wire::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use brokkr_wire::{ErrorCode, Str};

use super::common::{CLUSTER_OPERATIONS, NO_OPERATIONS, brokers};
use crate::ctx::{Ctx, Peer};

/// The endpoint type of brokers. 2 is controllers, which only a controller listener describes.
const BROKERS: i8 = 1;

/// Returns the response.
pub async fn handle<E: Env>(
    mut ctx: Ctx<E>,
    request: DescribeClusterRequest,
    _version: i16,
    peer: Peer,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        let (code, why) = match request.endpoint_type {
            2 => (
                ErrorCode::MISMATCHED_ENDPOINT_TYPE,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".to_owned(),
            ),
            other => (
                ErrorCode::UNSUPPORTED_ENDPOINT_TYPE,
                format!("Unsupported endpoint type {other}"),
            ),
        };
        return DescribeClusterResponse {
            error_code: code.0,
            error_message: Some(Str::message(&why)),
            endpoint_type: BROKERS,
            cluster_authorized_operations: NO_OPERATIONS,
            ..Default::default()
        };
    }
    let image = ctx.image().clone();
    let endpoints = brokers(&image, &peer.listener, request.include_fenced_brokers).into_iter();
    let brokers = endpoints.map(|b| DescribeClusterBroker {
        broker_id: b.id,
        host: b.host,
        port: b.port,
        rack: b.rack,
        is_fenced: b.fenced,
        ..Default::default()
    });
    let operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        NO_OPERATIONS
    };
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: Str::copied(&ctx.identity.cluster_id),
        controller_id: ctx.identity.node_id,
        brokers: brokers.collect(),
        cluster_authorized_operations: operations,
        ..Default::default()
    }
}
