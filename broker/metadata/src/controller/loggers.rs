//! A broker's loggers, as Kafka's tools would set them (KIP-412). Brokkr has only the root logger, and its level can't be
//! changed while the broker runs.

use brokkr_wire::messages::MetadataRecord;
use brokkr_wire::messages::incremental_alter_configs_request::AlterableConfig;
use brokkr_wire::{ErrorCode, Str};

use super::configs::operation::{APPEND, DELETE, SET, SUBTRACT};
use super::{ApiError, Controller, Outcome};

/// The only logger.
pub const ROOT_LOGGER: &str = "root";

/// The log levels that Kafka accepts.
const LEVELS: [&str; 6] = ["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

impl Controller {
    /// Refuses all operations on the loggers of this broker; the error depends on the operation.
    pub(super) fn set_levels(&self, id: &Str, ops: &[AlterableConfig]) -> Outcome<Vec<MetadataRecord>> {
        let expected = self.settings.node_id;
        let why = match id.parse::<i32>() {
            Ok(id) if id == expected => return ops.iter().map(refused).collect(),
            Ok(id) => format!("Unexpected node id. Expected {expected}, but received {id}"),
            Err(_) => format!("Node id must be an integer, but it is: {id}"),
        };
        Err(ApiError::new(ErrorCode::INVALID_REQUEST, why))
    }
}

/// The error message.
fn refused(op: &AlterableConfig) -> Outcome<MetadataRecord> {
    let (logger, level) = (&op.name, op.value.as_ref().map_or("", |v| v.as_str()));
    let (request, config) = (ErrorCode::INVALID_REQUEST, ErrorCode::INVALID_CONFIG);
    let refused = |code, why: &str| Err(ApiError::new(code, why));
    match op.config_operation {
        APPEND => refused(
            request,
            "APPEND operation is not allowed for the BROKER_LOGGER resource",
        ),
        SUBTRACT => refused(
            request,
            "SUBTRACT operation is not allowed for the BROKER_LOGGER resource",
        ),
        SET | DELETE if *logger != *ROOT_LOGGER => {
            refused(config, &format!("Logger {logger} does not exist!"))
        }
        SET if !LEVELS.contains(&level) => {
            let why = format!(
                "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels \
                 are {}",
                LEVELS.join(", ")
            );
            refused(config, &why)
        }
        SET => refused(
            request,
            "This broker's log level can't be changed while it runs: it is started with --log",
        ),
        DELETE => refused(
            request,
            "Removing the log level of the root logger is not allowed",
        ),
        other => refused(request, &format!("Unknown operations type {other}")),
    }
}
