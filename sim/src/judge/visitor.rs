//! V1 and S1: connections live as long as the broker's configuration says.
//!
//! Once all faults have ended, an idle connection and one with a part of a request are closed after `connections.max.idle.ms`, not
//! much earlier and not much later; one that is in use stays; and as many connections of an address are served as
//! `max.connections.per.ip` allows, whatever was open or refused before.

use brokkr_history::{Operation, Type};
use brokkr_workloads::VisitorSpec;

use super::calm::SETTLING_NS;
use super::operations::name_and_value;
use crate::account::{Account, Rule, why};
use crate::violation::Violation;

/// How long the broker may take to close a connection beyond its limit, and to hear of one that is closed.
const SLACK_MS: u64 = 1_500;
const MS: i64 = 1_000_000;

/// Returns the violations. The broker's clock may drift by this.
pub(super) fn judge(
    spec: &VisitorSpec,
    history: &[Operation],
    calm_since: i64,
    drift_ppm: u64,
    account: &mut Account,
) -> Vec<Violation> {
    let calm = calm_since.saturating_add(SETTLING_NS);
    // By then connections are closed that the broker did not hear the end of.
    let idle_ns = i64::try_from(spec.idle_ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(2 * MS);
    let all_heard = match spec.idle_ms {
        0 => i64::MAX,
        _ => calm.saturating_add(idle_ns),
    };
    let (mut began, mut found) = (0, Vec::new());
    for o in history {
        let Some(("visit", value)) = name_and_value(o) else {
            continue;
        };
        if o.type_ == Type::Invoke {
            began = o.time;
            continue;
        }
        let what = value["what"].as_str().unwrap_or_default();
        let waiver = match () {
            // Nothing is said of a visit that did not come to its end.
            () if o.type_ != Type::Ok && began < all_heard => Some(why::FAULTS),
            () => (began < if what == "flood" { all_heard } else { calm }).then_some(why::FAULTS),
        };
        if !account.judges(Rule::Connections, waiver) || o.type_ != Type::Ok {
            continue;
        }
        let number = |name: &str| value[name].as_u64();
        let drift = |ms: u64| ms * drift_ppm / 1_000_000;
        let limit = spec.idle_ms;
        let open = number("open_ms");
        let wrong = match (what, open) {
            ("idle", Some(ms)) if limit == 0 || ms + SLACK_MS / 10 + drift(limit) < limit => {
                Some(("V1", format!("an idle connection was closed after {ms} ms")))
            }
            ("idle" | "half", Some(ms)) if limit > 0 && ms > limit + limit / 4 + drift(limit) + SLACK_MS => {
                Some((
                    "S1",
                    format!("a connection without traffic was closed after {ms} ms"),
                ))
            }
            ("idle" | "half", None) if limit * 3 > SLACK_MS * 4 => {
                Some(("S1", "a connection without traffic stays open".to_owned()))
            }
            ("active", _) if number("answers") != number("asked") => {
                let (answers, asked) = (number("answers").unwrap_or(0), number("asked").unwrap_or(0));
                Some((
                    "V1",
                    format!("a connection in use was closed after {answers} of {asked} requests"),
                ))
            }
            ("flood", _) if number("answers") != Some(spec.connections_max) => {
                let (answers, tried) = (number("answers").unwrap_or(0), number("tried").unwrap_or(0));
                Some(("V1", format!("{answers} of {tried} connections were served")))
            }
            _ => None,
        };
        if let Some((id, what)) = wrong {
            let (at, most) = (began / MS, spec.connections_max);
            found.push(Violation::new(
                id,
                format!("all is calm, and at {at} ms {what}: idle ones for {limit} ms (0: always), and at most {most} of an address"),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_history::Op;
    use serde_json::{Value, json};

    fn ids(idle_ms: u64, seen: Value) -> Vec<&'static str> {
        let spec = VisitorSpec {
            process: 1,
            pause_max_ms: 0,
            idle_ms,
            connections_max: 12,
        };
        let op = |ms: i64, type_, value| {
            Operation::new(0, ms * MS, type_, 1, Op::Other("visit".to_owned(), value))
        };
        let history = [
            op(30_000, Type::Invoke, json!({"what": seen["what"]})),
            op(31_000, Type::Ok, seen),
        ];
        let found = |calm_ms: i64| judge(&spec, &history, calm_ms * MS, 0, &mut Account::default());
        assert_eq!(found(29_000), [], "faults have just ended");
        found(10_000).into_iter().map(|v| v.id).collect()
    }

    #[test]
    fn connections_live_as_long_as_they_may() {
        let idle = |ms: Value| json!({"what": "idle", "open_ms": ms});
        let half = |ms: Value| json!({"what": "half", "open_ms": ms});
        for (ms, wrong) in [
            (2_000, None),
            (4_000, None),
            (4_001, Some("S1")),
            (1_849, Some("V1")),
        ] {
            assert_eq!(ids(2_000, idle(ms.into())), Vec::from_iter(wrong), "{ms}");
        }
        assert_eq!(ids(2_400, idle(Value::Null)), ["S1"]);
        assert_eq!(ids(0, idle(Value::Null)), [""; 0]);
        assert_eq!(ids(0, idle(3_000.into())), ["V1"]);
        // A request must come in time.
        assert_eq!(ids(2_000, half(100.into())), [""; 0]);
        assert_eq!(ids(2_400, half(Value::Null)), ["S1"]);
        let active = |answers: u64| json!({"what": "active", "asked": 6, "answers": answers});
        assert_eq!(ids(2_000, active(6)), [""; 0]);
        assert_eq!(ids(2_000, active(3)), ["V1"]);
        let flood = |answers: u64| json!({"what": "flood", "tried": 15, "answers": answers});
        assert_eq!(ids(2_000, flood(12)), [""; 0]);
        for wrong in [11, 13] {
            assert_eq!(ids(2_000, flood(wrong)), ["V1"]);
        }
        assert_eq!(
            ids(0, flood(11)),
            [""; 0],
            "connections may be left that the broker did not hear the end of"
        );
    }
}
