//! InitProducerId: allocates an id for an idempotent producer.

use brokkr_env::Env;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::ctx::{Ctx, Peer};

/// Returns the response. A request with a transactional id is rejected: there is no transaction coordinator.
pub async fn handle<E: Env>(
    ctx: Ctx<E>,
    request: InitProducerIdRequest,
    _version: i16,
    _peer: Peer,
) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.0,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    match &request.transactional_id {
        Some(id) if id.is_empty() => return refused(ErrorCode::INVALID_REQUEST),
        Some(_) => return refused(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        // Kafka checks these, though only transactional producers send any.
        None if (request.producer_id == -1) != (request.producer_epoch == -1) => {
            return refused(ErrorCode::INVALID_REQUEST);
        }
        None => {}
    }
    match ctx.producer_ids.next().await {
        Ok(id) => InitProducerIdResponse {
            producer_id: id.0,
            producer_epoch: 0,
            ..Default::default()
        },
        Err(code) => refused(code),
    }
}
