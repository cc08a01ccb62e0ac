//! How the files of a log directory are called.

use brokkr_types::Offset;

pub(crate) const LOG: &str = "log";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
/// Ours: the batches of the producers' windows that Kafka's snapshot leaves out.
pub(crate) const WINDOW: &str = "window";
/// What a file that waits to be removed ends in.
pub(crate) const DELETED: &str = "deleted";
/// What a compaction that was interrupted left.
pub(crate) const CLEANED: &str = "cleaned";
/// A compacted segment that is about to take its place (Apache Kafka's cleaner).
pub(crate) const SWAP: &str = "swap";
/// What a scratch file ends in: a leftover wherever it is found.
pub(crate) const TMP: &str = "tmp";

/// What the folder of a deleted partition ends in.
pub(crate) const DELETE_FOLDER: &str = "-delete";

pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// Ours: what the log is made of, checksummed.
pub(crate) const MANIFEST: &str = "brokkr-manifest";

/// The path of a segment's file in the log directory.
pub(crate) fn path(folder: &str, offset: Offset, suffix: &str) -> String {
    format!("{folder}/{:020}.{suffix}", offset.0)
}

/// The offset and suffix of a file that is named by an offset.
pub(crate) fn parse(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(path("t-0", Offset(170_210), LOG), "t-0/00000000000000170210.log");
        assert_eq!(
            parse("00000000000000170210.timeindex"),
            Some((Offset(170_210), TIME_INDEX))
        );
        assert_eq!(
            parse("00000000000000000001.log.deleted"),
            Some((Offset(1), "log.deleted"))
        );
        for other in [
            "leader-epoch-checkpoint",
            "1.log",
            "99999999999999999999.log",
            "0000000000000000000x.log",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
