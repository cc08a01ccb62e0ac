//! Topics that are deleted and created again: a correct history, and each way to break it.

mod common;

use brokkr_checker::topic_ids::TopicIds;
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{Key, Op, Operation, Seek, Type};
use common::{HistoryWriter, send};
use serde_json::json;

fn verdict(history: &[Operation]) -> Verdict {
    let mut judge = TopicIds::default();
    for operation in history {
        judge.push(operation.clone()).expect("a history");
    }
    judge.finish().expect("a history")
}

impl HistoryWriter {
    fn topic(&mut self, f: &str, id: &str) {
        let op = |value| Op::Other(f.to_owned(), value);
        let asked = op(json!({"topic": "t", "id": id}));
        self.both(9, asked.clone(), Type::Ok, asked);
    }

    /// Sends to the topic of an unknown id; the response names it.
    fn sent(&mut self, id: &str, offset: i64, value: i64) {
        let acked = send(&format!("t@{id}-0"), Some(offset), value);
        self.both(
            0,
            Op::Send(vec![send("t-0", None, value)]),
            Type::Ok,
            Op::Send(vec![acked]),
        );
    }

    fn shown(&mut self, id: &str, records: &[(i64, i64)]) {
        self.poll(1, &format!("t@{id}-0"), records);
    }

    fn seek(&mut self) {
        let assign = Op::Assign(vec![Key::from("t-0")]);
        self.both(1, assign.clone(), Type::Ok, assign);
        let last = self.0.last_mut().expect("written");
        last.seeks.insert("t-0".into(), Seek::Beginning);
    }
}

/// Topic A, then topic B of the same name.
fn recreated() -> HistoryWriter {
    let mut writer = HistoryWriter::default();
    writer.topic("create-topic", "A");
    writer.sent("A", 0, 1);
    writer.shown("A", &[(0, 1)]);
    writer.topic("delete-topic", "A");
    writer.topic("create-topic", "B");
    writer.sent("B", 0, 2);
    writer
}

fn found(writer: &HistoryWriter) -> Vec<&'static str> {
    let verdict = verdict(&writer.0);
    assert_eq!(verdict.valid() == Valid::Yes, verdict.anomalies.is_empty());
    for name in verdict.anomalies.keys() {
        assert_eq!(verdict.invariants[name], "M2");
    }
    verdict.anomalies.keys().copied().collect()
}

#[test]
fn each_topic_has_its_records() {
    let mut writer = recreated();
    writer.shown("B", &[(0, 2)]);
    assert_eq!(found(&writer), Vec::<&str>::new());
    let counted = verdict(&writer.0).counted;
    assert_eq!(
        counted,
        [("created", 2), ("deleted", 1), ("acked", 2), ("shown", 2)].into()
    );
}

#[test]
fn an_id_is_assigned_once() {
    let mut writer = recreated();
    writer.topic("create_topic", "A");
    assert_eq!(found(&writer), ["id-reused"]);
}

#[test]
fn nothing_is_acknowledged_in_a_deleted_topic() {
    let mut writer = recreated();
    writer.sent("A", 1, 3);
    assert_eq!(found(&writer), ["acked-after-deletion"]);
    // A send that began before the deletion had ended may be acknowledged after it.
    let mut writer = HistoryWriter::default();
    writer.topic("create-topic", "A");
    writer.write(Type::Invoke, 0, Op::Send(vec![send("t-0", None, 1)]));
    writer.topic("delete-topic", "A");
    writer.write(Type::Ok, 0, Op::Send(vec![send("t@A-0", Some(0), 1)]));
    assert_eq!(found(&writer), Vec::<&str>::new());
}

#[test]
fn nothing_is_shown_of_a_deleted_topic() {
    for (seeks, anomalies) in [(false, vec![]), (true, vec!["shown-after-deletion"])] {
        let mut writer = recreated();
        writer.seek();
        if !seeks {
            // An assignment without a seek.
            writer.0.last_mut().expect("written").seeks.clear();
        }
        // Without a seek it may have fetched the record before.
        writer.shown("A", &[(0, 1)]);
        writer.shown("A", &[(0, 1)]);
        assert_eq!(found(&writer), anomalies);
    }
}

#[test]
fn a_record_is_not_shown_in_a_later_topic() {
    let mut writer = recreated();
    writer.shown("B", &[(0, 1)]);
    assert_eq!(found(&writer), ["shown-in-later-topic"]);
    // A send whose response was lost, and that may have been carried out later.
    for (type_, anomalies) in [(Type::Info, vec![]), (Type::Ok, vec!["shown-in-later-topic"])] {
        let mut writer = HistoryWriter::default();
        writer.topic("create-topic", "A");
        writer.send(0, &[("t-0", None, 1)], type_);
        writer.topic("delete-topic", "A");
        writer.topic("create-topic", "B");
        writer.shown("B", &[(0, 1)]);
        assert_eq!(found(&writer), anomalies, "{type_:?}");
    }
}

#[test]
fn without_topics_or_records_the_verdict_is_unknown() {
    let mut writer = HistoryWriter::default();
    writer.sent("A", 0, 1);
    assert_eq!(verdict(&writer.0).valid(), Valid::Unknown);
    let mut writer = HistoryWriter::default();
    writer.topic("create-topic", "A");
    assert_eq!(verdict(&writer.0).valid(), Valid::Unknown);
    writer.sent("A", 0, 1);
    assert_eq!(verdict(&writer.0).valid(), Valid::Yes);
}
