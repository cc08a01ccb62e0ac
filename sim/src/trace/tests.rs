use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use brokkr_types::{LeaderEpoch, Offset};
use brokkr_wire::records::BatchBuilder;
use bytes::Bytes;

use super::*;
use crate::life::Life;
use perfetto::Perfetto;

/// A writer whose clones share its buffer.
#[derive(Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic under it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SharedBuffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic under it").clone()).expect("text")
    }
}

fn record_some(tracer: &mut Tracer) {
    let life = Life {
        node: 1,
        incarnation: 2,
    };
    let timer = tracer.begin(5, life, None, 0);
    tracer.pause();
    tracer.begin(5, life, Some((7, "partition")), timer);
    tracer.record(EventKind::Write {
        write: 3,
        file: "data/t0-0/0.log".into(),
        at: 10,
        len: 20,
        crc: 7,
        batches: Vec::new(),
    });
    tracer.pause();
    tracer.begin(9, life, None, 2);
    tracer.record(EventKind::Wrote {
        write: 3,
        file: "data/t0-0/0.log".into(),
        at: 10,
        len: 20,
        error: None,
    });
    tracer.pause();
}

#[test]
fn json_lines_have_actor_event_and_cause_and_parse_back() {
    let kept = SharedBuffer::default();
    let mut tracer = Tracer::new(Box::new(JsonLines(kept.clone())));
    tracer.set_probe(|| vec![EventKind::Reached { name: "x".into() }]);
    record_some(&mut tracer);
    tracer.end().expect("memory has room");
    let text = kept.text();
    let all: Vec<Event> = text
        .lines()
        .map(|l| serde_json::from_str(l).expect("an event"))
        .collect();
    let fields: Vec<_> = all.iter().map(|e| (e.n, e.t, e.id, e.by)).collect();
    // The timer; the run that it woke, the write and the probe's event; the end of the write, caused by the run.
    assert_eq!(
        fields,
        [
            (1, 5, None, None),
            (2, 5, Some(7), Some(1)),
            (3, 5, Some(7), Some(2)),
            (4, 5, Some(7), Some(2)),
            (5, 9, None, Some(2)),
            (6, 9, None, Some(5)),
        ]
    );
    assert!(matches!(&all[3].what, EventKind::Reached { name } if name == "x"));
    assert_eq!(
        (all[2].node, all[2].life, all[2].task.as_deref()),
        (1, 2, Some("partition"))
    );
    for (line, event) in text.lines().zip(&all) {
        assert_eq!(serde_json::to_string(event).expect("it can be written"), line);
    }
}

#[test]
fn the_perfetto_document_has_lanes_spans_and_arrows() {
    let kept = SharedBuffer::default();
    let sink = Perfetto::new(kept.clone(), BTreeMap::from([(1, "broker".to_owned())]));
    let mut tracer = Tracer::new(Box::new(sink));
    record_some(&mut tracer);
    tracer.end().expect("memory has room");
    let all: Vec<serde_json::Value> = serde_json::from_str(&kept.text()).expect("a document");
    let of = |ph: &str| all.iter().filter(|e| e["ph"] == ph).collect::<Vec<_>>();
    let named: Vec<_> = of("M").iter().map(|e| e["args"]["name"].clone()).collect();
    assert!(
        named.contains(&"broker".into()) && named.contains(&"partition (life 2)".into()),
        "{named:?}"
    );
    let (starts, ends) = (of("s"), of("f"));
    assert_eq!((starts.len(), ends.len()), (2, 2));
    // From the timer's lane to the task's, and later.
    assert_eq!((&starts[0]["tid"], &ends[0]["tid"]), (&0.into(), &8.into()));
    assert!(ends[0]["ts"].as_f64() > starts[0]["ts"].as_f64());
    let (begin, end) = (of("b"), of("e"));
    assert_eq!((begin.len(), end.len(), &begin[0]["id"]), (1, 1, &end[0]["id"]));
    assert!(begin[0]["ts"].as_f64() < end[0]["ts"].as_f64());
    // No two events have the same position.
    let mut times: Vec<_> = of("X").iter().map(|e| e["ts"].to_string()).collect();
    times.dedup();
    assert_eq!(times.len(), 3);
}

#[test]
fn the_error_of_a_sink_is_returned_at_the_end() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut tracer = Tracer::new(Box::new(JsonLines(Full)));
    record_some(&mut tracer);
    assert!(tracer.end().is_err());
}

#[test]
fn batches_are_observed_with_their_values() {
    let mut builder = BatchBuilder::new().at(Offset(40), LeaderEpoch(0));
    for value in ["4294967297...", "4294967298"] {
        builder.push(brokkr_types::UnixMillis(0), None, Some(value.as_bytes()), &[]);
    }
    let mut bytes = builder.build().bytes.to_vec();
    bytes.extend_from_slice(&[0; 100]);
    let seen = batches_in(Bytes::from(bytes));
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].base, seen[0].last), (40, 41));
    assert_eq!(seen[0].values, [4_294_967_297, 4_294_967_298]);
}
