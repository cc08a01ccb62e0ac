//! The text files of a log directory and of a partition's folder, as Kafka writes and reads them.
//!
//! ```text
//! leader-epoch-checkpoint            "0\n" count "\n" ( epoch " " start_offset "\n" )*
//! partition.metadata                 "version: 0\ntopic_id: " id
//! recovery-point-offset-checkpoint   "0\n" count "\n" ( topic " " partition " " offset "\n" )*
//! log-start-offset-checkpoint        the same
//! replication-offset-checkpoint      the same: high watermarks
//! ```

use brokkr_types::{LeaderEpoch, Offset, Uuid};

use crate::epochs::{EpochStart, LeaderEpochs};

/// `leader-epoch-checkpoint`.
pub(crate) fn encode_epochs(epochs: &LeaderEpochs) -> String {
    let mut out = format!("0\n{}\n", epochs.entries().len());
    for entry in epochs.entries() {
        out.push_str(&format!("{} {}\n", entry.epoch, entry.start));
    }
    out
}

/// Reads `leader-epoch-checkpoint`; what is wrong with it otherwise.
pub(crate) fn decode_epochs(text: &[u8]) -> Result<LeaderEpochs, String> {
    let entries = decode_lines(text, |words| {
        let &[epoch, start] = words else { return None };
        let entry = EpochStart {
            epoch: LeaderEpoch(epoch.parse().ok()?),
            start: Offset(start.parse().ok()?),
        };
        (entry.epoch.0 >= 0 && entry.start.0 >= 0).then_some(entry)
    })?;
    Ok(LeaderEpochs::new(entries))
}

/// The lines of a checkpoint of version 0, each made a `T` of its words.
fn decode_lines<T>(text: &[u8], line: impl Fn(&[&str]) -> Option<T>) -> Result<Vec<T>, String> {
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    let mut lines = text.lines();
    match lines.next().map(str::trim) {
        Some("0") => {}
        other => return Err(format!("version {other:?}, 0 expected")),
    }
    let count: usize = lines
        .next()
        .and_then(|l| l.trim().parse().ok())
        .ok_or("no count of entries")?;
    let mut all = Vec::new();
    for text in lines {
        let words: Vec<&str> = text.split_whitespace().collect();
        all.push(line(&words).ok_or_else(|| format!("malformed line {text:?}"))?);
    }
    if all.len() == count {
        Ok(all)
    } else {
        Err(format!("{count} entries announced, {} there", all.len()))
    }
}

/// `partition.metadata`.
pub(crate) fn encode_partition_metadata(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

/// Reads `partition.metadata`.
pub(crate) fn decode_partition_metadata(text: &[u8]) -> Result<Uuid, String> {
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    let mut lines = text.lines();
    let mut field = |name: &str| {
        let line = lines.next().ok_or_else(|| format!("no {name}"))?;
        line.strip_prefix(name)
            .and_then(|l| l.strip_prefix(": "))
            .map(str::trim)
            .ok_or(format!("no {name}"))
    };
    field("version")?.parse::<u32>().map_err(|e| e.to_string())?;
    let id: Uuid = field("topic_id")?.parse().map_err(|e| format!("{e}"))?;
    if id.is_zero() {
        Err("the topic's id is zero".to_owned())
    } else {
        Ok(id)
    }
}
