//! What an error code in a Produce response says about the batch.

use brokkr_wire::ErrorCode;

/// Whether a broker that answers with this code has certainly not written the batch in this attempt.
///
/// After all other codes the outcome is unknown. Among them are the codes with which Kafka answers a batch that it *has*
/// appended and that waits for its replicas: NOT_LEADER_OR_FOLLOWER, UNKNOWN_TOPIC_OR_PARTITION, KAFKA_STORAGE_ERROR,
/// REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND (SCENARIOS P8, KAFKA-13574), and unknown codes.
pub fn is_refusal(code: ErrorCode) -> bool {
    const REFUSALS: &[ErrorCode] = &[
        ErrorCode::CORRUPT_MESSAGE,
        ErrorCode::MESSAGE_TOO_LARGE,
        ErrorCode::INVALID_TOPIC_EXCEPTION,
        ErrorCode::RECORD_LIST_TOO_LARGE,
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::INVALID_REQUIRED_ACKS,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_TIMESTAMP,
        ErrorCode::UNSUPPORTED_VERSION,
        ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT,
        ErrorCode::POLICY_VIOLATION,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::INVALID_TXN_STATE,
        ErrorCode::INVALID_PRODUCER_ID_MAPPING,
        ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ErrorCode::UNKNOWN_PRODUCER_ID,
        ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
        ErrorCode::INVALID_RECORD,
        ErrorCode::PRODUCER_FENCED,
        ErrorCode::UNKNOWN_TOPIC_ID,
    ];
    REFUSALS.contains(&code)
}

/// Whether the code says that another producer has our producer id, or that the broker does not know the id.
pub(super) fn is_fenced(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::INVALID_PRODUCER_EPOCH
            | ErrorCode::PRODUCER_FENCED
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING
    )
}

/// Whether the code says that the broker's sequence state differs from ours.
pub(super) fn is_sequence_loss(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID
    )
}
