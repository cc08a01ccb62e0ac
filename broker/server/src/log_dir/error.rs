//! Why a log directory can't be used.

use std::fmt;

use brokkr_env::Error;
use brokkr_log::LogError;

use crate::controller::ControllerError;

/// Why a log directory can't be used.
#[derive(Debug)]
pub enum LogDirError {
    /// Another process has locked it.
    InUse(String),
    /// It can't be opened or written.
    Io(String, Error),
    /// Its files can't be read.
    Log(String, LogError),
    /// It belongs to another node.
    OtherNode { path: String, node_id: i32, ours: i32 },
    /// The directories can't belong to one broker: the reason.
    Inconsistent(String),
    /// This broker does not support its contents: the reason.
    Unsupported(String, String),
    /// This broker can't start with the cluster metadata.
    Metadata(ControllerError),
}

impl fmt::Display for LogDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "log directory {path}: another process uses it"),
            Self::Io(path, e) => write!(f, "log directory {path}: {e}"),
            Self::Log(path, e) => write!(f, "log directory {path}: {e}"),
            Self::Unsupported(path, what) => write!(f, "log directory {path}: {what}"),
            Self::Metadata(e) => e.fmt(f),
            Self::Inconsistent(why) => write!(f, "log directories: {why}"),
            Self::OtherNode { path, node_id, ours } => {
                write!(
                    f,
                    "log directory {path}: meta.properties belongs to node.id {node_id}, but this is node.id {ours}"
                )
            }
        }
    }
}
