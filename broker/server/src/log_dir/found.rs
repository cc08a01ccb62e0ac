//! Checks the contents of a log directory at a start: this broker's, new, Apache Kafka's, or unsupported.
//!
//! A directory that Kafka 4 wrote for a cluster of one node is taken over: its topics, configurations and records are
//! served as they are. Unsupported contents are rejected before anything is written.

use brokkr_env::{EntryKind, Env};
use brokkr_log::LogDir;
use brokkr_log::checkpoint::{MetaProperties, split_folder};

use super::LogDirError;
use crate::controller;

/// The file that Kafka's format command writes, and this broker never does.
const KAFKAS: &str = "bootstrap.checkpoint";
/// The prefix of this broker's own files.
const OURS: &str = "brokkr-";
/// The folders of Kafka's transaction coordinator. Without their records it is unknown which transactions were aborted.
const TRANSACTIONS: &str = "__transaction_state-";
/// The folders of Kafka's group coordinator.
const GROUPS: &str = "__consumer_offsets-";

/// Checks a directory whose `meta.properties` is `meta`.
///
/// # Errors
/// `LogDirError::Unsupported` with the reason.
pub async fn check_supported<E: Env>(
    logs: &LogDir<E>,
    meta: Option<&MetaProperties>,
    path: &str,
) -> Result<(), LogDirError> {
    let entries = logs.dir().list("").await;
    let entries = entries.map_err(|e| LogDirError::Io(path.to_owned(), e))?;
    let has = |what: &str| entries.iter().any(|e| e.name.starts_with(what));
    let refuse = |what: String| Err(LogDirError::Unsupported(path.to_owned(), what));
    let Some(meta) = meta else {
        let log = entries
            .iter()
            .find(|e| e.kind == EntryKind::Dir && split_folder(&e.name).is_some());
        return match log {
            Some(log) => refuse(format!(
                "it has logs ({}), but no meta.properties: put that back from a backup",
                log.name
            )),
            None => Ok(()),
        };
    };
    let was_kafkas = has(KAFKAS) && !has(OURS);
    if has(TRANSACTIONS) {
        let what = "Apache Kafka kept transactions in it, which are not served yet";
        return refuse(what.to_owned());
    }
    if let Some((snapshot, voters)) = controller::voters_in(logs).await {
        let others = voters.iter().filter(|(id, _)| *id != meta.node_id.0);
        let others: Vec<String> = others.map(|(id, _)| id.to_string()).collect();
        if !others.is_empty() {
            let ids = others.join(", ");
            return refuse(format!(
                "its cluster has other controllers (node {ids}); only a cluster of one node is served yet"
            ));
        }
        if let Some((_, theirs)) = voters.iter().find(|(_, id)| Some(*id) != meta.directory_id) {
            let ours = match meta.directory_id {
                Some(ours) => format!("is of directory {ours}"),
                None => "has no directory.id".to_owned(),
            };
            return refuse(format!(
                "meta.properties {ours}, but the cluster metadata beside it is of directory {theirs} ({snapshot})"
            ));
        }
    }
    if was_kafkas {
        tracing::warn!("log directory {path} was made by Apache Kafka and is taken over");
    }
    if has(GROUPS) {
        tracing::warn!(
            "log directory {path} has consumer groups of Apache Kafka: they are not served yet, and stay as they are"
        );
    }
    Ok(())
}
