//! Validation of topic names.

/// Longest name: with `-` and a partition number it must be a file name on all file systems.
pub const TOPIC_NAME_LEN_MAX: usize = 249;

/// Internal topics.
pub const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// The name of the metadata log.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Whether the topic is internal.
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// Kafka's error message for an invalid topic name.
pub fn invalid(name: &str) -> Option<String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let why = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.encode_utf16().count() > TOPIC_NAME_LEN_MAX {
        format!("the length of '{name}' is longer than the max allowed length {TOPIC_NAME_LEN_MAX}")
    } else if !name.bytes().all(legal) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return None;
    };
    Some(format!("Topic name is invalid: {why}"))
}

/// The name with `.` replaced by `_`, if it contains either: topics that differ only in that would share metric names.
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a.b_c-D9", "...", &"x".repeat(249)] {
            assert_eq!(invalid(good), None);
        }
        for (bad, why) in [
            ("", "Topic name is invalid: the empty string is not allowed"),
            (".", "Topic name is invalid: '.' is not allowed"),
            ("..", "Topic name is invalid: '..' is not allowed"),
            (
                "a b",
                "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
            ),
        ] {
            assert_eq!(invalid(bad).as_deref(), Some(why));
        }
        assert!(invalid(&"x".repeat(250)).is_some());
        assert_eq!(collision_key("a.b_c").as_deref(), Some("a_b_c"));
        assert_eq!(collision_key("abc"), None);
    }
}
