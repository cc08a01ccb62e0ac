//! Names of the files in a log directory.

use brokkr_types::Offset;

pub(crate) const LOG: &str = "log";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
/// Brokkr's: the batches of producers' windows that Kafka's snapshot does not have.
pub(crate) const WINDOW: &str = "window";
/// Suffix of a file that is to be removed.
pub(crate) const DELETED: &str = "deleted";
/// Suffix of a segment that an interrupted compaction left.
pub(crate) const CLEANED: &str = "cleaned";
/// Suffix of a compacted segment that Kafka's cleaner is about to put in place.
pub(crate) const SWAP: &str = "swap";
/// Suffix of a file that is renamed once it is complete.
pub(crate) const TMP: &str = "tmp";

/// Suffix of the folder of a deleted partition.
pub(crate) const DELETE_FOLDER: &str = "-delete";

/// Suffix of the folder of a log that belongs to no partition.
pub(crate) const STRAY_FOLDER: &str = "-stray";
/// The longest file name that common file systems allow, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A partition's folder name with one of Kafka's suffixes: `TOPIC-N.UNIQUEID-suffix`. The topic is shortened to fit.
pub(crate) fn folder_with_suffix(folder: &str, unique: u128, suffix: &str) -> String {
    let (topic, partition) = match folder.rsplit_once('-') {
        Some((topic, partition)) => (topic, format!("-{partition}")),
        None => (folder, String::new()),
    };
    let end = format!("{partition}.{unique:032x}{suffix}");
    let mut topic = topic.to_owned();
    topic.truncate(topic.floor_char_boundary(NAME_BYTES_MAX.saturating_sub(end.len())));
    topic + &end
}

pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// Brokkr's: the segments of the log, checksummed.
pub(crate) const MANIFEST: &str = "brokkr-manifest";

/// The path of a segment's file in the log directory.
pub(crate) fn path(folder: &str, offset: Offset, suffix: &str) -> String {
    format!("{folder}/{:020}.{suffix}", offset.0)
}

/// The offset and suffix of a file name that begins with an offset.
pub(crate) fn parse(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset(digits.parse().ok()?), suffix))
}

/// Whether Brokkr or Kafka left this file: a temporary file, one marked as deleted, or one of an interrupted
/// compaction. Files with other names are never removed.
pub(crate) fn is_leftover(name: &str) -> bool {
    const SEGMENT_SUFFIXES: [&str; 6] = [LOG, INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT, WINDOW];
    const FOLDER_FILES: [&str; 4] = [EPOCHS, PARTITION_METADATA, MANIFEST, "quorum-state"];
    let Some((rest, suffix)) = name.rsplit_once('.') else {
        return false;
    };
    let of_a_segment = parse(rest).is_some_and(|(_, suffix)| SEGMENT_SUFFIXES.contains(&suffix));
    // A snapshot of the metadata log: `OFFSET-EPOCH.checkpoint`.
    let of_metadata = rest.split_once('-').is_some_and(|(offset, rest)| {
        let epoch = rest.strip_suffix(".checkpoint").unwrap_or("");
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
        digits(offset, 20) && digits(epoch, 10)
    });
    match suffix {
        // A `.log` file is never written under a temporary name.
        TMP => FOLDER_FILES.contains(&rest) || of_metadata || of_a_segment && !rest.ends_with(".log"),
        DELETED => of_a_segment || of_metadata,
        CLEANED => of_a_segment,
        _ => false,
    }
}

/// Whether a folder is to be removed: renamed by [`folder_with_suffix`], or by Kafka.
pub(crate) fn is_deleted_folder(name: &str) -> bool {
    let unique = name
        .strip_suffix(DELETE_FOLDER)
        .and_then(|rest| rest.rsplit_once('.'));
    unique.is_some_and(|(_, unique)| unique.len() == 32 && unique.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_clips_the_topic_and_nothing_else() {
        assert_eq!(
            folder_with_suffix("a-b-12", 0xf, STRAY_FOLDER),
            "a-b-12.0000000000000000000000000000000f-stray"
        );
        let long = folder_with_suffix(&format!("{}-7", "t".repeat(249)), 1, DELETE_FOLDER);
        assert_eq!(long.len(), NAME_BYTES_MAX);
        assert!(long.ends_with("t-7.00000000000000000000000000000001-delete"));
    }

    #[test]
    fn only_names_that_we_or_kafka_give_are_left_over() {
        for ours in [
            "leader-epoch-checkpoint.tmp",
            "00000000000000000007.index.tmp",
            "00000000000000000007.log.deleted",
            "00000000000000000007.timeindex.cleaned",
            "00000000000000000007-0000000001.checkpoint.deleted",
            "quorum-state.tmp",
        ] {
            assert!(is_leftover(ours), "{ours}");
        }
        for other in [
            "notes.tmp",
            "backup.deleted",
            "00000000000000000007.log.tmp",
            "00000000000000000007.log",
            "tmp",
            ".tmp",
        ] {
            assert!(!is_leftover(other), "{other}");
        }
        assert!(is_deleted_folder("t-0.0123456789abcdef0123456789ABCDEF-delete"));
        for other in ["t-0.deadbeef-delete", "t-0-delete", "delete"] {
            assert!(!is_deleted_folder(other), "{other}");
        }
    }

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
