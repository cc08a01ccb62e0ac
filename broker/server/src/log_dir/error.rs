//! Why a log directory can't be used.

use std::fmt;

use brokkr_env::Error;
use brokkr_log::LogError;

use crate::controller::ControllerError;

/// Why a log directory can't be used.
#[derive(Debug)]
pub enum LogDirError {
    /// Another process has it.
    InUse(String),
    /// It can't be opened or written.
    Io(String, Error),
    /// What is in it can't be read.
    Log(String, LogError),
    /// It is another node's.
    OtherNode { path: String, node_id: i32, ours: i32 },
    /// They can't be those of one broker: why.
    Inconsistent(String),
    /// Something in it is not for this broker: what.
    Unsupported(String, String),
    /// The metadata of the cluster is not such as this broker can begin with.
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
