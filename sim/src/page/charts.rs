//! The offsets of each partition over time.
//!
//! The log's end and its durable end come from the writes, syncs, truncates and power losses of its segments; what the broker
//! promised from its responses; what consumers got from the operations of the clients.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::exec::Nanos;
use crate::explain::{key_of, shown};
use crate::trace::{Answer, Event, EventKind, ObservedBatch};

/// Times and offsets, alternating.
type Points = Vec<i64>;

/// A partition's offsets. Lines change at their points and stay until the next.
#[derive(Default, PartialEq, Eq, Debug, Serialize)]
pub struct Chart {
    /// The offset after the last record in the page cache.
    pub log_end: Points,
    /// The same, of what a power loss can't take.
    pub durable_end: Points,
    /// As Fetch responses carry it.
    pub high_watermark: Points,
    /// As Fetch responses carry it.
    pub last_stable_offset: Points,
    /// As responses carry it.
    pub log_start: Points,
    /// Base offsets of acknowledged batches.
    pub acknowledged: Points,
    /// The last offset of each poll that returned records.
    pub polled: Points,
}

/// The charts, by partition.
pub fn charts(events: &[Event]) -> BTreeMap<String, Chart> {
    let mut charts = Charts::default();
    events.iter().for_each(|event| charts.take(event));
    charts.all
}

/// A write of batches that is in the page cache.
struct Written {
    /// The number of the event.
    n: u64,
    /// Its last byte's position.
    end: u64,
    /// The offset after its last record.
    next_offset: i64,
    durable: bool,
}

#[derive(Default)]
struct Charts {
    all: BTreeMap<String, Chart>,
    /// By partition, then by segment.
    logs: BTreeMap<String, BTreeMap<String, Vec<Written>>>,
    /// Writes that are under way: the offset after their last record.
    writes: BTreeMap<u64, i64>,
    /// Syncs that have begun: how many bytes they cover.
    syncs: BTreeMap<u64, u64>,
}

impl Charts {
    fn take(&mut self, event: &Event) {
        let t = event.t;
        match &event.what {
            EventKind::Write { write, batches, .. } => {
                let next = batches.iter().map(|b: &ObservedBatch| b.last + 1).max();
                self.writes.extend(next.map(|next| (*write, next)));
            }
            EventKind::Wrote {
                write,
                file,
                at,
                len,
                error,
            } => {
                let written = self.writes.remove(write).filter(|_| error.is_none());
                if let Some(next_offset) = written {
                    let written = Written {
                        n: event.n,
                        end: at + len,
                        next_offset,
                        durable: false,
                    };
                    self.change(t, file, |segment| segment.push(written));
                }
            }
            EventKind::Sync { len: Some(len), .. } => drop(self.syncs.insert(event.n, *len)),
            EventKind::Synced { file, begun, error } => {
                let covered = self.syncs.remove(begun).filter(|_| error.is_none());
                if let Some(len) = covered {
                    let is_covered = |w: &&mut Written| w.n < *begun && w.end <= len;
                    self.change(t, file, |segment| {
                        segment
                            .iter_mut()
                            .filter(is_covered)
                            .for_each(|w| w.durable = true);
                    });
                }
            }
            EventKind::Truncate { file, to } => self.change(t, file, |s| s.retain(|w| w.end <= *to)),
            EventKind::Lost { file, at, how, .. } if how != "there again" => {
                self.change(t, file, |segment| segment.retain(|w| w.end <= *at));
            }
            EventKind::Name {
                op,
                file,
                error: None,
                ..
            } if op != "create_dir" => self.renamed(t, file),
            EventKind::Response { answers, .. } => answers.iter().for_each(|a| self.answer(t, a)),
            EventKind::Op { type_, f, .. } if f == "poll" && type_ == "ok" => self.poll(event),
            _ => {}
        }
    }

    /// Changes a segment, if the file is one that was written to, and charts what follows from it.
    fn change(&mut self, t: Nanos, file: &str, change: impl FnOnce(&mut Vec<Written>)) {
        let Some(key) = key_of(file).filter(|_| file.ends_with(".log")) else {
            return;
        };
        let segments = self.logs.entry(key.to_owned()).or_default();
        change(segments.entry(file.to_owned()).or_default());
        self.chart_log(t, key);
    }

    /// A segment or a log was removed or renamed.
    fn renamed(&mut self, t: Nanos, file: &str) {
        let folder = file.rsplit('/').next().unwrap_or_default();
        if self.logs.remove(folder).is_some() {
            self.chart_log(t, folder);
        } else if let Some(key) = key_of(file)
            && let Some(segments) = self.logs.get_mut(key)
            && segments.remove(file).is_some()
        {
            self.chart_log(t, key);
        }
    }

    fn chart_log(&mut self, t: Nanos, key: &str) {
        let segments = self.logs.get(key);
        let writes = || segments.into_iter().flat_map(BTreeMap::values).flatten();
        let log_end = writes().last().map_or(0, |w| w.next_offset);
        let durable_end = writes().take_while(|w| w.durable).last().map(|w| w.next_offset);
        let chart = self.all.entry(key.to_owned()).or_default();
        line(&mut chart.log_end, t, log_end);
        if let Some(end) = durable_end.or((log_end == 0).then_some(0)) {
            line(&mut chart.durable_end, t, end);
        }
    }

    fn answer(&mut self, t: Nanos, answer: &Answer) {
        let Some(topic) = answer.topic.as_ref().filter(|_| answer.error.is_none()) else {
            return;
        };
        let chart = self
            .all
            .entry(format!("{topic}-{}", answer.partition))
            .or_default();
        if let Some(base) = answer.base.filter(|base| *base >= 0) {
            chart.acknowledged.extend([time(t), base]);
        }
        let known = [
            (&mut chart.high_watermark, answer.high_watermark),
            (&mut chart.last_stable_offset, answer.last_stable_offset),
            (&mut chart.log_start, answer.log_start),
        ];
        for (points, offset) in known {
            if let Some(offset) = offset.filter(|offset| *offset >= 0) {
                line(points, t, offset);
            }
        }
    }

    fn poll(&mut self, event: &Event) {
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        for (key, offset, _) in shown(event) {
            let at = last.entry(partition(&key)).or_insert(offset);
            *at = offset.max(*at);
        }
        for (key, offset) in last {
            let chart = self.all.entry(key).or_default();
            chart.polled.extend([time(event.t), offset]);
        }
    }
}

/// `t0-0` of a key `t0@id-0`: a topic that was deleted and created again keeps its folder's name.
fn partition(key: &str) -> String {
    match key.split_once('@') {
        Some((topic, rest)) => {
            let number = rest.rsplit('-').next().unwrap_or_default();
            format!("{topic}-{number}")
        }
        None => key.to_owned(),
    }
}

/// Continues a line, if its offset changes.
fn line(points: &mut Points, t: Nanos, offset: i64) {
    if points.last() != Some(&offset) {
        points.extend([time(t), offset]);
    }
}

fn time(t: Nanos) -> i64 {
    i64::try_from(t).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LOG: &str = "data/t0-0/00000000000000000000.log";

    fn chart_of(kinds: Vec<EventKind>) -> Chart {
        let event = |(n, what): (u64, EventKind)| Event {
            n,
            t: n * 10,
            node: 1,
            life: 0,
            task: None,
            id: None,
            by: None,
            what,
        };
        let events: Vec<Event> = (1..).zip(kinds).map(event).collect();
        let mut all = charts(&events);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove("t0-0").expect("the partition")
    }

    fn written(write: u64, at: u64, base: i64, last: i64) -> [EventKind; 2] {
        let batch = ObservedBatch {
            base,
            last,
            producer: -1,
            epoch: -1,
            sequence: -1,
            values: Vec::new(),
        };
        let (file, len) = (LOG.to_owned(), 100);
        let begun = EventKind::Write {
            write,
            file: file.clone(),
            at,
            len,
            crc: 0,
            batches: vec![batch],
        };
        let ended = EventKind::Wrote {
            write,
            file,
            at,
            len,
            error: None,
        };
        [begun, ended]
    }

    fn synced(begun: u64) -> EventKind {
        EventKind::Synced {
            file: LOG.to_owned(),
            begun,
            error: None,
        }
    }

    #[test]
    fn ends_follow_writes_syncs_and_power_losses() {
        let sync = EventKind::Sync {
            file: LOG.to_owned(),
            len: Some(200),
        };
        let lost = EventKind::Lost {
            file: LOG.to_owned(),
            at: 150,
            len: 50,
            how: "gone".into(),
            batches: Vec::new(),
        };
        let [a, b] = written(1, 0, 0, 4);
        let [c, d] = written(2, 100, 5, 6);
        // The second write ends after the sync began, so the sync does not cover it.
        let chart = chart_of(vec![a, b, sync, c, d, synced(3), lost]);
        assert_eq!(chart.log_end, [20, 5, 50, 7, 70, 5]);
        assert_eq!(chart.durable_end, [60, 5]);
    }

    #[test]
    fn a_log_that_is_renamed_begins_again() {
        let [a, b] = written(1, 0, 0, 4);
        let renamed = EventKind::Name {
            op: "rename".into(),
            file: "data/t0-0".to_owned(),
            to: Some("data/t0-0.x-delete".to_owned()),
            error: None,
        };
        assert_eq!(chart_of(vec![a, b, renamed]).log_end, [20, 5, 30, 0]);
    }

    #[test]
    fn responses_and_polls_are_charted() {
        let answer = |answer: Answer| EventKind::Response {
            conn: 1,
            to: 10,
            api: "Fetch".into(),
            correlation: 1,
            len: 1,
            answers: vec![Answer {
                topic: Some("t0".to_owned()),
                ..answer
            }],
        };
        let chart = chart_of(vec![
            answer(Answer {
                base: Some(3),
                ..Answer::default()
            }),
            answer(Answer {
                high_watermark: Some(4),
                last_stable_offset: Some(4),
                log_start: Some(0),
                ..Answer::default()
            }),
            answer(Answer {
                high_watermark: Some(4),
                error: Some("OFFSET_OUT_OF_RANGE".to_owned()),
                ..Answer::default()
            }),
            EventKind::Op {
                process: 100,
                type_: "ok".to_owned(),
                f: "poll".to_owned(),
                value: json!([["poll", {"t0@AAAA-BB-0": [[2, 20], [3, 30]]}]]),
            },
        ]);
        assert_eq!(
            (chart.acknowledged, chart.high_watermark),
            (vec![10, 3], vec![20, 4])
        );
        assert_eq!(
            (chart.last_stable_offset, chart.log_start),
            (vec![20, 4], vec![20, 0])
        );
        assert_eq!(chart.polled, [40, 3]);
    }
}
