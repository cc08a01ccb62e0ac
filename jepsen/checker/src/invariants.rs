//! The invariant that an anomaly breaks, by the ids of `sim/INVARIANTS.md`.

/// The invariant that an anomaly of any judge breaks; `None` if it is no broken promise of Kafka's, or depends on the model.
pub fn invariant(anomaly: &str) -> Option<&'static str> {
    Some(match anomaly {
        "lost-write" | "unseen" => "L1",
        "latest-too-low" => "L4",
        "inconsistent-offsets"
        | "poll-skip"
        | "int-poll-skip"
        | "nonmonotonic-poll"
        | "int-nonmonotonic-poll"
        | "wrong-start" => "L6",
        "append-before-past" => "L8",
        "earliest-too-low" | "deleted-read" => "D1",
        "phantom" => "D2",
        "wrong-content" => "C1",
        "lag" => "V1",
        "nonmonotonic-send" | "int-nonmonotonic-send" => "I3",
        "duplicate" => "I4",
        "G1c" | "G1c-process" | "G1c-realtime" => "T1",
        "input-twice" | "effect-duplicated" | "effect-missing" | "effect-ahead" | "effect-unknown"
        | "effect-reordered" | "offset-behind" | "offset-ahead" => "T1",
        "G1a" | "G1b" | "precommitted-read" | "effect-aborted" => "T2",
        "two-leaders" => "L3",
        "untrue-topic" | "nonmonotonic-metadata" => "M2",
        "id-reused" | "acked-after-deletion" | "shown-after-deletion" | "shown-in-later-topic" => "M2",
        "untrue-offset" | "nonmonotonic-offset" => "G2",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kafka does not promise, searches that gave up, and what the model decides.
    const WITHOUT: [&str; 11] = [
        "int-send-skip",
        "G0",
        "G0-process",
        "G0-realtime",
        "empty-transaction-graph",
        "PL-1-cycle-exists",
        "PL-2-cycle-exists",
        "strong-PL-1-cycle-exists",
        "strong-PL-2-cycle-exists",
        "cycle-search-timeout",
        "nonlinearizable",
    ];

    #[test]
    fn every_anomaly_has_an_invariant_or_is_known_to_have_none() {
        let all = [
            crate::kafka::ANOMALIES,
            crate::exactly_once::ANOMALIES,
            crate::linear::ANOMALIES,
            crate::metadata::ANOMALIES,
            crate::topic_ids::ANOMALIES,
        ];
        for anomaly in all.concat() {
            assert_eq!(
                invariant(anomaly).is_none(),
                WITHOUT.contains(&anomaly),
                "{anomaly}"
            );
        }
    }
}
