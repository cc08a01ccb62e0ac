//! Kafka's text files in a log directory and in a partition's folder.
//!
//! ```text
//! leader-epoch-checkpoint            "0\n" count "\n" ( epoch " " start_offset "\n" )*
//! partition.metadata                 "version: 0\ntopic_id: " id
//! recovery-point-offset-checkpoint   "0\n" count "\n" ( topic " " partition " " offset "\n" )*
//! log-start-offset-checkpoint        the same
//! replication-offset-checkpoint      the same: high watermarks
//! .kafka_cleanshutdown               {"version":0,"brokerEpoch":7}
//! meta.properties                    Java properties: version=1, cluster.id, node.id, directory.id
//! ```
//! None of them has a checksum. What recovery depends on is also in `brokkr-manifest` or `brokkr-checkpoint`, which
//! have one.

use std::collections::BTreeMap;

use brokkr_types::{LeaderEpoch, NodeId, Offset, Uuid};

use crate::state::epochs::{EpochStart, LeaderEpochs};

/// Encodes `leader-epoch-checkpoint`.
pub(crate) fn encode_epochs(epochs: &LeaderEpochs) -> String {
    let mut out = format!("0\n{}\n", epochs.entries().len());
    for entry in epochs.entries() {
        out.push_str(&format!("{} {}\n", entry.epoch, entry.start));
    }
    out
}

/// Decodes `leader-epoch-checkpoint`. The error is a description.
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

/// The entries of a checkpoint file of version 0; `line` decodes the words of one.
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

/// Encodes `partition.metadata`.
pub(crate) fn encode_partition_metadata(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

/// Decodes `partition.metadata`. The error is a description.
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

/// Encodes a checkpoint of an offset for each partition. The keys are folders, `topic-3`.
pub(crate) fn encode_offsets(offsets: &BTreeMap<String, Offset>) -> String {
    let lines: Vec<String> = offsets
        .iter()
        .filter_map(|(folder, offset)| {
            split_folder(folder).map(|(topic, p)| format!("{topic} {p} {offset}\n"))
        })
        .collect();
    format!("0\n{}\n{}", lines.len(), lines.concat())
}

/// Decodes a checkpoint of an offset for each partition. The error is a description.
pub(crate) fn decode_offsets(text: &[u8]) -> Result<BTreeMap<String, Offset>, String> {
    let entries = decode_lines(text, |words| {
        let &[topic, partition, offset] = words else {
            return None;
        };
        let partition: i32 = partition.parse().ok()?;
        Some((format!("{topic}-{partition}"), Offset(offset.parse().ok()?)))
    })?;
    Ok(entries.into_iter().collect())
}

/// The topic and partition of a folder name.
pub fn split_folder(folder: &str) -> Option<(&str, i32)> {
    let (topic, partition) = folder.rsplit_once('-')?;
    let digits = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit());
    (digits && !topic.is_empty()).then(|| Some((topic, partition.parse().ok()?)))?
}

/// The partition of a folder name; -1 if it is not that of a partition.
pub(crate) fn partition_of(folder: &str) -> i32 {
    split_folder(folder).map_or(-1, |(_, partition)| partition)
}

/// Encodes `.kafka_cleanshutdown`.
pub(crate) fn encode_clean_shutdown(broker_epoch: i64) -> String {
    format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}")
}

/// The broker epoch in `.kafka_cleanshutdown`. Kafka before 3.9 wrote an empty file.
pub(crate) fn decode_clean_shutdown(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once("\"brokerEpoch\"")?;
    let value = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = value
        .find(|c: char| c != '-' && !c.is_ascii_digit())
        .unwrap_or(value.len());
    value[..end].parse().ok()
}

/// `meta.properties`: the cluster, node and directory ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaProperties {
    /// The cluster id.
    pub cluster_id: String,
    /// The node id.
    pub node_id: NodeId,
    /// The directory id; absent if Kafka before 3.7 wrote the file.
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    /// Encodes the file, in version 1.
    pub fn encode(&self) -> String {
        let mut out = String::from("#\n");
        out.push_str(&format!("cluster.id={}\n", self.cluster_id));
        if let Some(id) = &self.directory_id {
            out.push_str(&format!("directory.id={id}\n"));
        }
        out.push_str(&format!("node.id={}\nversion=1\n", self.node_id));
        out
    }

    /// Decodes the file.
    ///
    /// # Errors
    /// A description of the malformed field.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| format!("malformed line {line:?}"))?;
            fields.insert(key.trim_end(), value.trim_start());
        }
        let field = |key: &str| fields.get(key).copied().ok_or_else(|| format!("no {key}"));
        match field("version")? {
            "1" => {}
            other => {
                return Err(format!(
                    "version {other}, 1 expected: format the directory for KRaft"
                ));
            }
        }
        let directory_id = match fields.get("directory.id") {
            Some(id) => Some(id.parse().map_err(|e| format!("directory.id: {e}"))?),
            None => None,
        };
        Ok(Self {
            cluster_id: field("cluster.id")?.to_owned(),
            node_id: NodeId(field("node.id")?.parse().map_err(|e| format!("node.id: {e}"))?),
            directory_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kafkas() {
        let epochs = LeaderEpochs::new([(0, 0), (3, 17)].map(|(e, s)| EpochStart {
            epoch: LeaderEpoch(e),
            start: Offset(s),
        }));
        assert_eq!(encode_epochs(&epochs), "0\n2\n0 0\n3 17\n");
        let offsets = BTreeMap::from([("a-b-0".to_owned(), Offset(5)), ("a.c-12".to_owned(), Offset(0))]);
        assert_eq!(encode_offsets(&offsets), "0\n2\na-b 0 5\na.c 12 0\n");
        let id = Uuid::METADATA_TOPIC;
        assert_eq!(
            encode_partition_metadata(id),
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ"
        );
        assert_eq!(encode_clean_shutdown(7), r#"{"version":0,"brokerEpoch":7}"#);

        assert_eq!(decode_epochs(encode_epochs(&epochs).as_bytes()), Ok(epochs));
        assert_eq!(decode_offsets(encode_offsets(&offsets).as_bytes()), Ok(offsets));
        assert_eq!(
            decode_partition_metadata(encode_partition_metadata(id).as_bytes()),
            Ok(id)
        );
        assert_eq!(
            decode_clean_shutdown(br#"{ "brokerEpoch" : -1, "version" : 0 }"#),
            Some(-1)
        );
        assert_eq!(decode_clean_shutdown(b""), None);
    }

    #[test]
    fn truncated_or_malformed_files_are_refused() {
        for bad in [
            "",
            "1\n0\n",
            "0\n",
            "0\n2\n0 0\n",
            "0\n1\n0 0 0\n",
            "0\n1\n0 x\n",
            "0\n1\n-1 4\n",
        ] {
            assert!(decode_epochs(bad.as_bytes()).is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "version: 0\n",
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
            "topic_id: x",
        ] {
            assert!(decode_partition_metadata(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn meta_properties_are_javas() {
        let meta = MetaProperties {
            cluster_id: "c-1".to_owned(),
            node_id: NodeId(4),
            directory_id: Some(Uuid::METADATA_TOPIC),
        };
        let expected = "#\ncluster.id=c-1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\nnode.id=4\nversion=1\n";
        assert_eq!(meta.encode(), expected);
        assert_eq!(MetaProperties::decode(expected.as_bytes()), Ok(meta));
        let older = "#\n#Thu Jan 01\nnode.id=1\nversion=1\ncluster.id = x\n";
        assert_eq!(
            MetaProperties::decode(older.as_bytes()).map(|m| m.directory_id),
            Ok(None)
        );
        assert!(MetaProperties::decode(b"version=0\nbroker.id=1\n").is_err());
    }

    #[test]
    fn folders_are_split_at_the_last_dash() {
        assert_eq!(split_folder("a-b-12"), Some(("a-b", 12)));
        for other in ["a", "a-", "-1", "a-b", "a-0.0123-delete", "a-99999999999"] {
            assert_eq!(split_folder(other), None, "{other}");
        }
    }
}
