//! What responses carry besides records, against everything that clients were told before (C1, L4, L5, D1).
//!
//! - Fetch: the high watermark is above all that was acknowledged or shown before the request, at or above the records of the
//!   response, and at or below the log's end when all has ended. Without transactions the last stable offset equals it. The log's
//!   start is at or above what was deleted before the request, and not above what may be gone.
//! - Fetch: a response without records comes when its time is up, and says that there are none.
//! - Fetch: a response has as many bytes as were asked for (C1).
//! - Fetch: in calm a response comes as soon as there is a record (V1).
//! - ListOffsets by time: the offset is that of the first record at or after the time; by the largest timestamp: no record that was
//!   there has a larger one. The timestamp in the response is that record's.
//! - A record is shown with the key, headers, value and timestamp that it was sent with. With `LogAppendTime` the timestamp is the one
//!   that its producer was told.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{MicroOp, Op, Operation, Process, Type, Val};
use brokkr_workloads::{ConsumerSpec, Difference, FetchResponded, FetchedEnds, Notes, Workload};

use super::calm::SETTLING_NS;
use super::deleted::{Deleted, Place};
use super::facts::RunFacts;
use super::operations::name_and_value;
use crate::account::{Account, Rule, why};
use crate::violation::Violation;

/// ListOffsets' timestamp for the record with the largest one.
const MAX_TIMESTAMP: i64 = -3;

/// How long after a record is there a waiting fetch is answered at the latest: request and response may each take 40 ms.
const LATE_NS: i64 = 100_000_000;

/// Buffers of a connection that hold a usual response.
const BUFFER_BYTES_USUAL: u64 = 64 << 10;
/// At most so many bytes a partition are in a response besides records.
const BESIDE_RECORDS_BYTES: u64 = 100;

/// Violations of each invariant that are reported.
const NAMED_MAX: usize = 5;

/// Something that a client learned: the value at an offset, and since when it is known.
#[derive(Clone, Copy)]
struct Known {
    value: i64,
    since: i64,
    /// Whether another value was there, too.
    is_reused: bool,
}

/// A bound that never falls: (time in nanoseconds, offset), both rising.
#[derive(Default)]
struct Rising(Vec<(i64, i64)>);

impl Rising {
    /// Adds what was learned at a time, in any order.
    fn add(&mut self, time: i64, offset: i64) {
        self.0.push((time, offset));
    }

    /// Sorts, and drops what adds nothing.
    fn settle(&mut self) {
        self.0.sort_unstable();
        let mut most = i64::MIN;
        self.0.retain(|(_, offset)| {
            let rises = *offset > most;
            most = most.max(*offset);
            rises
        });
    }

    /// The bound at a time.
    fn at(&self, time: i64) -> i64 {
        let n = self.0.partition_point(|(t, _)| *t <= time);
        n.checked_sub(1).map_or(0, |i| self.0[i].1)
    }
}

/// What clients know of a partition.
#[derive(Default)]
struct Partition {
    /// Records by offset.
    records: BTreeMap<i64, Known>,
    /// Lower bounds of the high watermark.
    latest: Rising,
    /// Lower bounds of the log's start.
    earliest: Rising,
    /// The log's end when all has ended.
    end: Option<i64>,
    /// What was sent to it: when, when it was acknowledged (never: `i64::MAX`), and the value.
    sends: Vec<(i64, i64, i64)>,
}

impl Partition {
    fn learn(&mut self, offset: i64, value: &Val, since: i64) {
        if let Val::Int(value) = value {
            let known = self.records.entry(offset).or_insert(Known {
                value: *value,
                since,
                is_reused: false,
            });
            known.is_reused |= known.value != *value;
            known.since = known.since.min(since);
        }
        self.latest.add(since, offset + 1);
    }
}

/// `fetch.max.wait.ms` of a consumer, in nanoseconds.
fn wait_ns(spec: &ConsumerSpec) -> i64 {
    i64::try_from(spec.max_wait_ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000)
}

pub(super) struct Responses<'a> {
    partitions: BTreeMap<String, Partition>,
    deleted: &'a Deleted,
    /// The timestamp of each value whose timestamp is known.
    timestamps: BTreeMap<i64, i64>,
    /// Topics whose records have the time of their append.
    append_time: BTreeSet<&'a str>,
    /// The consumers.
    consumers: BTreeMap<Process, &'a ConsumerSpec>,
    /// Consumers that poll without a pause, and want any record at once.
    prompt: BTreeSet<Process>,
    /// When the last reader began, and so asked for the ends.
    last_began: i64,
    /// Bytes of each direction of a connection.
    buffer_bytes: u64,
    /// When faults have long ended.
    calm_since: i64,
    /// See [`RunFacts::followed_max`].
    followed_max: Option<u64>,
    /// When each consumer assigned partitions to itself: it gives up the fetches before.
    assigned: BTreeMap<Process, Vec<i64>>,
    /// When the latest fetch of each consumer was asked for that was answered so far.
    answered: BTreeMap<Process, i64>,
    violations: Vec<Violation>,
}

/// Judges the responses of a run.
pub(super) fn judge<'a>(
    workload: &'a Workload,
    history: &[Operation],
    notes: &Notes,
    facts: &'a RunFacts,
    account: &mut Account,
) -> Vec<Violation> {
    let append_time = workload
        .topics
        .iter()
        .filter(|t| {
            t.configs
                .get("message.timestamp.type")
                .is_some_and(|v| v == "LogAppendTime")
        })
        .map(|t| t.name.as_str())
        .collect();
    let mut responses = Responses {
        partitions: BTreeMap::new(),
        deleted: &facts.deleted,
        timestamps: BTreeMap::new(),
        append_time,
        consumers: workload.consumers.iter().map(|c| (c.process, c)).collect(),
        prompt: workload
            .consumers
            .iter()
            .filter(|c| c.pause_max_ms == 0 && c.stuck_after.is_none() && c.min_bytes <= 1)
            .map(|c| c.process)
            .collect(),
        last_began: history
            .iter()
            .find(|o| o.process == facts.last)
            .map_or(i64::MAX, |o| o.time),
        buffer_bytes: facts.buffer_bytes,
        calm_since: facts.calm_since.saturating_add(SETTLING_NS),
        followed_max: facts.followed_max,
        assigned: BTreeMap::new(),
        answered: BTreeMap::new(),
        violations: Vec::new(),
    };
    responses.learn(history, notes);
    for fetch in &notes.fetches {
        responses.check_fetch(fetch, facts.life, account);
    }
    responses.check_altered(notes, account);
    responses.check_times(history, account);
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    responses.violations.retain(|v| {
        let n = named.entry(v.id).or_default();
        *n += 1;
        *n <= NAMED_MAX
    });
    responses.violations
}

impl Responses<'_> {
    fn add_violation(&mut self, id: &'static str, what: String) {
        self.violations.push(Violation::new(id, what));
    }

    fn of(&mut self, key: &str) -> &mut Partition {
        if !self.partitions.contains_key(key) {
            self.partitions.insert(key.to_owned(), Partition::default());
        }
        self.partitions.get_mut(key).expect("it was just added")
    }

    fn learn(&mut self, history: &[Operation], notes: &Notes) {
        let mut open: BTreeMap<Process, &Operation> = BTreeMap::new();
        for o in history {
            if o.type_ == Type::Invoke {
                if matches!(o.op, Op::Assign(_)) {
                    self.assigned.entry(o.process).or_default().push(o.time);
                }
                open.insert(o.process, o);
                continue;
            }
            let began = open.remove(&o.process).map_or(0, |o| o.time);
            for micro in o.op.micro_ops() {
                match micro {
                    MicroOp::Send { key, offset, value } => {
                        let partition = self.of(key.as_str());
                        if let (Val::Int(value), true) = (value, o.type_ != Type::Fail) {
                            let ended = offset.map_or(i64::MAX, |_| o.time);
                            partition.sends.push((began, ended, *value));
                        }
                        if let Some(offset) = offset {
                            partition.learn(*offset, value, o.time);
                        }
                    }
                    MicroOp::Poll(Some(polls)) => {
                        for (key, messages) in polls {
                            let partition = self.of(key.as_str());
                            messages
                                .iter()
                                .for_each(|(offset, value)| partition.learn(*offset, value, o.time));
                        }
                    }
                    MicroOp::Poll(None) => {}
                }
            }
            let Some((f, value)) = name_and_value(o).filter(|_| o.type_ == Type::Ok) else {
                continue;
            };
            let Some(key) = value["key"].as_str() else {
                continue;
            };
            let partition = self.of(key);
            match f {
                "list_offsets" => {
                    let end = |name: &str| value[name].as_i64().unwrap_or(0);
                    partition.latest.add(o.time, end("latest"));
                    partition.earliest.add(o.time, end("earliest"));
                }
                "delete_records" => {
                    let low = value["low_watermark"].as_i64().unwrap_or(0);
                    partition.earliest.add(o.time, low);
                }
                _ => {}
            }
        }
        // What a process did when it was killed.
        for o in open.into_values() {
            for micro in o.op.micro_ops() {
                if let MicroOp::Send {
                    key,
                    value: Val::Int(value),
                    ..
                } = micro
                {
                    self.of(key.as_str()).sends.push((o.time, i64::MAX, *value));
                }
            }
        }
        for fetch in &notes.fetches {
            for ends in &fetch.partitions {
                let partition = self.of(ends.key.as_str());
                partition.latest.add(fetch.time, ends.high_watermark);
                partition.earliest.add(fetch.time, ends.log_start);
            }
        }
        for drained in &notes.drained {
            let key = format!("{}-{}", drained.topic, drained.partition);
            let partition = self.of(&key);
            partition.end = partition.end.max(drained.end);
        }
        for partition in self.partitions.values_mut() {
            partition.latest.settle();
            partition.earliest.settle();
        }
        self.timestamps.clone_from(&notes.timestamps);
        if !self.append_time.is_empty() {
            self.learn_append_times(history, notes);
        }
    }

    /// A topic with `LogAppendTime` stores the broker's time: replaces the timestamps of its records by those in the acknowledgements.
    fn learn_append_times(&mut self, history: &[Operation], notes: &Notes) {
        for micro in history.iter().flat_map(|o| o.op.micro_ops()) {
            if let MicroOp::Send {
                key,
                value: Val::Int(value),
                ..
            } = micro
                && self.append_time.contains(Place::of(key.as_str()).topic)
            {
                self.timestamps.remove(value);
            }
        }
        for batch in &notes.acked {
            // A plain producer's record may be there twice, each with a time of its own.
            if !self.append_time.contains(batch.topic.as_str()) || batch.producer_id < 0 {
                continue;
            }
            let told = |value: &i64| Some((*value, batch.log_append_time?));
            self.timestamps
                .extend(batch.records.iter().filter_map(|(_, value)| told(value)));
        }
    }

    fn waiver(&self, key: &str) -> Option<&'static str> {
        self.deleted.is_damaged(key).then_some(why::DAMAGED)
    }

    fn check_fetch(&mut self, fetch: &FetchResponded, life: u64, account: &mut Account) {
        self.check_late(fetch, life, account);
        self.check_sizes(fetch, life, account);
        for ends in fetch.partitions.iter().chain(&fetch.unchanged) {
            let waiver = self.waiver(ends.key.as_str());
            if account.judges(Rule::FetchedEnds, waiver) {
                self.check_ends(fetch, ends);
            }
        }
        if !fetch.is_whole || fetch.requested == 0 || fetch.partitions.iter().any(|p| p.next > p.position) {
            return;
        }
        let damaged = fetch.partitions.iter().find_map(|p| self.waiver(p.key.as_str()));
        if !account.judges(Rule::EmptyFetches, damaged) {
            return;
        }
        let process = fetch.process;
        if let Some(p) = fetch.partitions.iter().find(|p| p.high_watermark > p.position) {
            let what = format!(
                "process {process} was shown nothing of {} from offset {} on, with the high watermark {}",
                p.key, p.position, p.high_watermark
            );
            self.add_violation("C1", what);
        }
        let waiver = self
            .followed_max
            .is_none_or(|max| fetch.followed_by >= max)
            .then_some(why::FOLLOWED);
        if !account.judges(Rule::EarlyFetches, waiver) {
            return;
        }
        let Some(max_wait) = self.consumers.get(&(process % life)).map(|c| wait_ns(c)) else {
            return;
        };
        // The broker's clock may drift.
        let took = fetch.time - fetch.asked;
        if took < max_wait / 10 * 9 {
            let what = format!(
                "process {process} was answered with nothing at {} ms, after at most {} of {} ms, with {} requests behind it",
                fetch.time / 1_000_000,
                took / 1_000_000,
                max_wait / 1_000_000,
                fetch.followed_by
            );
            self.add_violation("V1", what);
        }
    }

    /// C1: a response has no more bytes than were asked for, except for its first batch; and no fewer before its time is up.
    fn check_sizes(&mut self, fetch: &FetchResponded, life: u64, account: &mut Account) {
        let Some(spec) = self.consumers.get(&(fetch.process % life)) else {
            return;
        };
        let most = |bytes: i32| u64::from(bytes.unsigned_abs());
        let bytes: u64 = fetch.partitions.iter().map(|p| p.bytes).sum();
        let batches: usize = fetch.partitions.iter().map(|p| p.batches).sum();
        if bytes == 0 || !account.judges(Rule::FetchSizes, None) {
            return;
        }
        let (process, ms) = (fetch.process, fetch.time / 1_000_000);
        let large = |p: &&FetchedEnds| p.batches > 1 && p.bytes > most(spec.partition_max_bytes);
        let mut found = Vec::new();
        if let Some(p) = fetch.partitions.iter().find(large) {
            let (key, bytes, max) = (&p.key, p.bytes, spec.partition_max_bytes);
            found.push(format!("{bytes} bytes of {key}, with at most {max} asked for"));
        }
        if batches > 1 && bytes > most(spec.max_bytes) {
            found.push(format!(
                "{bytes} bytes, with at most {} asked for",
                spec.max_bytes
            ));
        }
        let gives_way = self.followed_max.is_none_or(|max| fetch.followed_by >= max);
        let is_full = bytes >= most(spec.min_bytes) || !fetch.is_whole || gives_way;
        if !is_full && fetch.took < wait_ns(spec) / 10 * 9 {
            let (took, min) = (fetch.took / 1_000_000, spec.min_bytes);
            found.push(format!(
                "{bytes} bytes after {took} ms, with at least {min} asked for"
            ));
        }
        for what in found {
            self.add_violation(
                "C1",
                format!("process {process} was answered at {ms} ms with {what}"),
            );
        }
    }

    /// V1: in calm a fetch is answered as soon as there is a record.
    fn check_late(&mut self, fetch: &FetchResponded, life: u64, account: &mut Account) {
        // The response to a fetch that the consumer gave up may be in front of the first one that it then asked for.
        let assigned = self.assigned.get(&fetch.process).map_or(&[][..], Vec::as_slice);
        let assigned = &assigned[..assigned.partition_point(|at| *at <= fetch.asked)];
        let before = self.answered.insert(fetch.process, fetch.asked);
        let is_first = matches!(assigned, [.., _, last] if before.is_none_or(|before| before < *last));
        let sent = fetch.time - fetch.took;
        if sent < self.calm_since || !self.prompt.contains(&(fetch.process % life)) {
            return;
        }
        let read = fetch.partitions.iter().filter(|p| p.next > p.position);
        let known = read.filter_map(|p| {
            let records = &self.partitions.get(p.key.as_str())?.records;
            records
                .range(p.position..p.next)
                .map(|(_, known)| known.since)
                .min()
        });
        let Some(there) = known.min() else { return };
        let waiver = (is_first && self.buffer_bytes < BUFFER_BYTES_USUAL).then_some(why::NARROW);
        if !account.judges(Rule::LateFetches, waiver) {
            return;
        }
        let bytes: u64 = fetch.partitions.iter().map(|p| p.bytes).sum();
        // Each part of the response waits for the one before it, and is not always as long as the buffer.
        let parts = 1
            + (bytes + BESIDE_RECORDS_BYTES * fetch.partitions.len() as u64) / self.buffer_bytes.max(1) * 5
                / 4;
        let late = fetch.time - there.max(sent);
        if late > LATE_NS.saturating_mul(i64::try_from(parts).unwrap_or(i64::MAX)) {
            let what = format!(
                "all is calm, and process {} was answered at {} ms, {} ms after there was a record",
                fetch.process,
                fetch.time / 1_000_000,
                late / 1_000_000
            );
            self.add_violation("V1", what);
        }
    }

    fn check_ends(&mut self, fetch: &FetchResponded, ends: &FetchedEnds) {
        let key = ends.key.as_str();
        let Some(partition) = self.partitions.get(key) else {
            return;
        };
        let (latest, earliest) = (
            partition.latest.at(fetch.asked),
            partition.earliest.at(fetch.asked),
        );
        let (hw, start, end) = (ends.high_watermark, ends.log_start, partition.end);
        let below = self.deleted.below(key);
        let who = format!(
            "{key}: process {} was told at {} ms",
            fetch.process,
            fetch.time / 1_000_000
        );
        let mut add = |id, what: String| self.violations.push(Violation::new(id, format!("{who} {what}")));
        if hw < latest {
            add(
                "L4",
                format!("that the high watermark is {hw}, and {latest} before"),
            );
        }
        // Later something that was still on its way may be appended.
        let is_before = fetch.time <= self.last_began;
        if let Some(end) = end.filter(|end| is_before && hw > *end) {
            add(
                "L4",
                format!("that the high watermark is {hw}, and the log ends at {end}"),
            );
        }
        if ends.next > hw {
            add(
                "L5",
                format!(
                    "that the high watermark is {hw}, with records up to {}",
                    ends.next
                ),
            );
        }
        if ends.last_stable != hw {
            let lso = ends.last_stable;
            add(
                "C1",
                format!("that the last stable offset is {lso}, and the high watermark {hw}"),
            );
        }
        if start < earliest {
            add(
                "D1",
                format!("that the log starts at {start}, though it was deleted up to {earliest}"),
            );
        }
        if start > below.max(0) {
            add(
                "C1",
                format!("that the log starts at {start}, though nothing from {below} on may be gone"),
            );
        }
        if start > hw {
            add(
                "C1",
                format!("that the log starts at {start}, and the high watermark is {hw}"),
            );
        }
    }

    fn check_altered(&mut self, notes: &Notes, account: &mut Account) {
        account.count(Rule::Unaltered, None, notes.compared);
        for altered in &notes.altered {
            let place = Place::of(&altered.key);
            let told = self.timestamps.get(&altered.value);
            let of_append = self.append_time.contains(place.topic);
            let what = match altered.difference {
                Difference::Content => "another key, value or headers than it was sent with".to_owned(),
                Difference::Timestamp { shown, .. } if of_append && told.is_none_or(|t| *t == shown) => {
                    continue;
                }
                // The disk may have lost the record, so that the producer sent it again; the acknowledgement is of the second copy.
                Difference::Timestamp { shown, .. }
                    if of_append
                        && told.is_some_and(|t| shown < *t)
                        && self.deleted.is_damaged(&altered.key) =>
                {
                    continue;
                }
                Difference::Timestamp { sent, shown } => {
                    let told = told.copied().unwrap_or(sent);
                    format!("the timestamp {shown}, and was told {told}")
                }
            };
            let (key, offset, value, process) =
                (&altered.key, altered.offset, altered.value, altered.process);
            self.add_violation(
                "C1",
                format!("process {process} was shown {value} at {key} offset {offset} with {what}"),
            );
        }
    }

    fn check_times(&mut self, history: &[Operation], account: &mut Account) {
        let mut asked: BTreeMap<Process, i64> = BTreeMap::new();
        for o in history {
            let Some(("offset_for_time", value)) = name_and_value(o) else {
                continue;
            };
            if o.type_ == Type::Invoke {
                asked.insert(o.process, o.time);
            }
            let (Some(asked), Some(key)) = (asked.get(&o.process).copied(), value["key"].as_str()) else {
                continue;
            };
            if o.type_ != Type::Ok {
                continue;
            }
            let field = |name: &str| value[name].as_i64().unwrap_or(i64::MIN);
            let (time, offset, of) = (field("timestamp"), field("offset"), field("of"));
            let ms = o.time / 1_000_000;
            if let Some(what) = self.check_own_time(key, offset, of, account) {
                self.add_violation("D2", format!("{key} at {ms} ms: {what}"));
                continue;
            }
            if !account.judges(Rule::OffsetForTime, self.waiver(key)) {
                continue;
            }
            let found = self.check_time(key, (asked, o.time), time, offset, of);
            found
                .into_iter()
                .for_each(|what| self.add_violation("C1", format!("{key} at {ms} ms: {what}")));
        }
    }

    /// Whether the record with the largest timestamp may be above the high watermark, or deleted: as in Kafka there is no answer
    /// then.
    fn is_largest_hidden(&self, partition: &Partition, key: &str, (asked, answered): (i64, i64)) -> bool {
        let largest = |values: &mut dyn Iterator<Item = i64>| {
            let known = values.filter_map(|value| self.timestamps.get(&value).copied());
            known.max().unwrap_or(i64::MIN)
        };
        let below = self.deleted.below(key);
        let records = |is_deleted: bool| {
            let of_it = partition
                .records
                .iter()
                .filter(move |(at, _)| (**at < below) == is_deleted);
            of_it
                .filter(move |(_, known)| is_deleted || known.since <= asked)
                .map(|(_, known)| known.value)
        };
        let (mut deleted, mut there) = (records(true), records(false));
        let sends = partition.sends.iter();
        let open: Vec<i64> = sends
            .filter(|(began, ended, _)| *began <= answered && *ended > asked)
            .map(|(_, _, value)| *value)
            .collect();
        // With the time of its append a record may be the largest.
        if open.iter().any(|value| !self.timestamps.contains_key(value)) {
            return true;
        }
        let mut open = open.into_iter();
        largest(&mut there) <= largest(&mut open).max(largest(&mut deleted))
    }

    /// A record is answered with its own timestamp, whatever happened to the others: what is damaged is refused.
    fn check_own_time(&self, key: &str, offset: i64, of: i64, account: &mut Account) -> Option<String> {
        let known = self.partitions.get(key)?.records.get(&offset)?;
        let own = *self.timestamps.get(&known.value)?;
        // The tail of a damaged log may be gone, and the offset given to another record.
        let waiver = known.is_reused.then_some(why::DAMAGED);
        let is_other = account.judges(Rule::OwnTime, waiver) && own != of;
        is_other.then(|| format!("the record at {offset} is found by {of}, and its timestamp is {own}"))
    }

    fn check_time(
        &self,
        key: &str,
        (asked, answered): (i64, i64),
        time: i64,
        offset: i64,
        of: i64,
    ) -> Option<String> {
        let partition = self.partitions.get(key)?;
        let what = match time {
            MAX_TIMESTAMP => "the record with the largest timestamp".to_owned(),
            time => format!("the first record at or after {time}"),
        };
        let timestamp = |known: &Known| self.timestamps.get(&known.value).copied();
        if offset >= 0 && time != MAX_TIMESTAMP && of < time {
            return Some(format!("{what} is at {offset} with {of}"));
        }
        if time == MAX_TIMESTAMP && offset < 0 && self.is_largest_hidden(partition, key, (asked, answered)) {
            return None;
        }
        // Records that were there before, and can't have been deleted.
        let there = partition.records.range(self.deleted.below(key)..);
        let mut there = there.filter(|(_, known)| known.since <= asked);
        let better = |(at, known): &(&i64, &Known)| match timestamp(known) {
            None => false,
            Some(its) if time == MAX_TIMESTAMP => offset < 0 || its > of,
            Some(its) => its >= time && (offset < 0 || **at < offset),
        };
        let (at, known) = there.find(better)?;
        let its = timestamp(known).unwrap_or_default();
        Some(format!("{what} is at {offset} with {of}, and {its} is at {at}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use brokkr_workloads::{AckedBatch, Altered, ClientSpec, Drained, TopicSpec, value_of};
    use serde_json::json;

    const MS: i64 = 1_000_000;
    const CONSUMER: Process = 100;

    fn workload(timestamps: &str) -> Workload {
        let configs = [("message.timestamp.type".to_owned(), timestamps.to_owned())];
        Workload {
            client: ClientSpec::new("b", 1),
            topics: vec![TopicSpec {
                name: "t".to_owned(),
                partitions: 1,
                replication_factor: 1,
                configs: configs.into(),
            }],
            producers: Vec::new(),
            consumers: vec![ConsumerSpec::tailing(CONSUMER, Vec::new())],
            admin: None,
            recreator: None,
            operator: None,
            inspector: None,
            visitor: None,
        }
    }

    fn at(ms: i64, type_: Type, op: Op) -> Operation {
        Operation::new(0, ms * MS, type_, 0, op)
    }

    /// The record of this counter is acknowledged at this offset.
    fn acked(ms: i64, counter: u64, offset: i64) -> Operation {
        let send = MicroOp::Send {
            key: "t-0".into(),
            offset: Some(offset),
            value: value_of(0, counter).into(),
        };
        at(ms, Type::Ok, Op::Send(vec![send]))
    }

    fn fetch(asked_ms: i64, ms: i64, ends: [i64; 5]) -> FetchResponded {
        let [position, next, log_start, high_watermark, last_stable] = ends;
        FetchResponded {
            asked: asked_ms * MS,
            time: ms * MS,
            process: CONSUMER + 3 * (1 << 20),
            took: (ms - asked_ms) * MS,
            followed_by: 0,
            is_whole: true,
            requested: 1,
            partitions: vec![FetchedEnds {
                key: "t-0".into(),
                position,
                next,
                bytes: if next > position { 100 } else { 0 },
                batches: usize::from(next > position),
                log_start,
                high_watermark,
                last_stable,
            }],
            unchanged: Vec::new(),
        }
    }

    fn found(workload: &Workload, history: &[Operation], notes: &Notes, damaged: bool) -> Vec<&'static str> {
        let mut deleted = Deleted::requested(history);
        if damaged {
            deleted.damage("t-0");
        }
        let facts = RunFacts {
            last: 9,
            deleted,
            followed_max: Some(16),
            life: 1 << 20,
            calm_since: i64::MAX,
            ..RunFacts::default()
        };
        let found = judge(workload, history, notes, &facts, &mut Account::default());
        found.iter().map(|v| v.id).collect()
    }

    #[test]
    fn the_ends_of_a_fetch_are_judged() {
        let deletion = json!({"key": "t-0", "before": 2, "low_watermark": 2});
        let history = [
            acked(10, 0, 0),
            acked(20, 1, 1),
            at(25, Type::Ok, Op::Other("delete_records".to_owned(), deletion)),
        ];
        let ids = |fetch: FetchResponded, damaged| {
            let drained = Drained {
                process: 9,
                topic: "t".to_owned(),
                partition: 0,
                position: Some(3),
                end: Some(3),
            };
            let notes = Notes {
                fetches: vec![fetch],
                drained: vec![drained],
                ..Notes::default()
            };
            found(&workload("CreateTime"), &history, &notes, damaged)
        };
        assert_eq!(ids(fetch(12, 15, [0, 1, 0, 1, 1]), false), [""; 0]);
        assert_eq!(ids(fetch(20, 25, [0, 1, 0, 1, 1]), false), ["L4"]);
        assert_eq!(ids(fetch(20, 25, [0, 1, 0, 1, 1]), true), [""; 0]);
        assert_eq!(ids(fetch(20, 25, [0, 2, 0, 4, 4]), false), ["L4"]);
        assert_eq!(ids(fetch(12, 15, [0, 2, 0, 1, 1]), false), ["L5"]);
        assert_eq!(ids(fetch(12, 15, [0, 1, 0, 2, 1]), false), ["C1"]);
        assert_eq!(ids(fetch(30, 35, [2, 3, 2, 3, 3]), false), [""; 0]);
        assert_eq!(ids(fetch(30, 35, [2, 3, 0, 3, 3]), false), ["D1"]);
        assert_eq!(ids(fetch(30, 35, [2, 3, 3, 3, 3]), false), ["C1"]);
    }

    #[test]
    fn a_fetch_without_records_waits() {
        let ids = |fetch: FetchResponded| {
            let notes = Notes {
                fetches: vec![fetch],
                ..Notes::default()
            };
            found(&workload("CreateTime"), &[acked(1, 0, 0)], &notes, false)
        };
        let empty = [1, 1, 0, 1, 1];
        assert_eq!(ids(fetch(10, 210, empty)), [""; 0]);
        assert_eq!(ids(fetch(10, 100, empty)), ["V1"]);
        let followed = FetchResponded {
            followed_by: 17,
            ..fetch(10, 100, empty)
        };
        assert_eq!(ids(followed), [""; 0]);
        let in_part = FetchResponded {
            is_whole: false,
            ..fetch(10, 100, empty)
        };
        assert_eq!(ids(in_part), [""; 0]);
        assert_eq!(ids(fetch(10, 210, [0, 0, 0, 1, 1])), ["C1"]);
    }

    #[test]
    fn a_response_has_as_many_bytes_as_were_asked_for() {
        let ids = |bytes: u64, batches: usize, ms: i64| {
            let mut workload = workload("CreateTime");
            let spec = &mut workload.consumers[0];
            (spec.min_bytes, spec.max_bytes, spec.partition_max_bytes) = (100, 1_000, 500);
            let mut fetch = fetch(0, ms, [0, 1, 0, 1, 1]);
            (fetch.partitions[0].bytes, fetch.partitions[0].batches) = (bytes, batches);
            let other = FetchedEnds {
                key: "t-1".into(),
                ..fetch.partitions[0].clone()
            };
            fetch.partitions.push(other);
            let notes = Notes {
                fetches: vec![fetch],
                ..Notes::default()
            };
            found(&workload, &[acked(1, 0, 0)], &notes, false)
        };
        assert_eq!(ids(50, 1, 10), [""; 0]);
        assert_eq!(ids(49, 1, 10), ["C1"]);
        assert_eq!(ids(49, 1, 190), [""; 0]);
        assert_eq!(ids(500, 3, 10), [""; 0]);
        assert_eq!(ids(501, 3, 10), ["C1", "C1"]);
        assert_eq!(ids(501, 1, 10), ["C1"]);
    }

    #[test]
    fn a_fetch_of_records_is_answered_at_once_in_calm() {
        let found = |calm_ms: i64, acked_ms: i64, ms: i64, buffer_bytes: u64| {
            let notes = Notes {
                fetches: vec![fetch(9_000, ms, [0, 1, 0, 1, 1])],
                ..Notes::default()
            };
            let facts = RunFacts {
                followed_max: Some(16),
                life: 1 << 20,
                calm_since: calm_ms * MS,
                buffer_bytes,
                ..RunFacts::default()
            };
            let history = [acked(acked_ms, 0, 0)];
            let workload = workload("CreateTime");
            judge(&workload, &history, &notes, &facts, &mut Account::default()).len()
        };
        let ids = |calm_ms: i64, acked_ms: i64, ms: i64| found(calm_ms, acked_ms, ms, 1 << 16);
        assert_eq!(ids(5_000, 9_100, 9_200), 0);
        assert_eq!(ids(5_000, 9_100, 9_201), 1);
        assert_eq!(ids(5_000, 8_000, 9_100), 0);
        assert_eq!(ids(5_000, 8_000, 9_101), 1);
        // 200 bytes come in two parts.
        assert_eq!(found(5_000, 9_100, 9_300, 150), 0);
        assert_eq!(found(5_000, 9_100, 9_301, 150), 1);
        // Faults have just ended.
        assert_eq!(ids(5_001, 9_100, 9_300), 0);
    }

    #[test]
    fn a_record_is_shown_as_it_was_sent() {
        let ids = |timestamps: &str, told: Option<i64>, difference| {
            let batch = AckedBatch {
                time: 0,
                process: 0,
                topic: "t".to_owned(),
                topic_id: None,
                partition: 0,
                producer_id: 1,
                producer_epoch: -1,
                base_sequence: -1,
                base_offset: Some(0),
                records_count: 1,
                acks: -1,
                attempts: 1,
                refused_as_gap: false,
                log_append_time: told,
                records: vec![(Some(0), 1)],
            };
            let altered = Altered {
                time: 0,
                process: 0,
                key: "t-0".to_owned(),
                offset: 0,
                value: 1,
                difference,
            };
            let notes = Notes {
                acked: vec![batch],
                altered: vec![altered],
                timestamps: [(1, 5)].into(),
                ..Notes::default()
            };
            let send = MicroOp::Send {
                key: "t-0".into(),
                offset: None,
                value: 1.into(),
            };
            let send = at(1, Type::Invoke, Op::Send(vec![send]));
            found(&workload(timestamps), &[send], &notes, true)
        };
        let late = Difference::Timestamp { sent: 5, shown: 8 };
        assert_eq!(ids("CreateTime", None, late), ["C1"]);
        assert_eq!(ids("LogAppendTime", Some(8), late), [""; 0]);
        assert_eq!(ids("LogAppendTime", Some(7), late), ["C1"]);
        assert_eq!(ids("LogAppendTime", None, late), [""; 0]);
        // The log is damaged: what was shown may be gone, and sent again.
        assert_eq!(ids("LogAppendTime", Some(9), late), [""; 0]);
        assert_eq!(ids("LogAppendTime", Some(8), Difference::Content), ["C1"]);
    }

    #[test]
    fn offsets_by_time_are_judged() {
        // Timestamps 50, 30, 70 at the offsets 0, 1, 2; the last is acknowledged at 40 ms.
        let timestamps = [(value_of(0, 0), 50), (value_of(0, 1), 30), (value_of(0, 2), 70)];
        let ids_of = |asked_ms: i64, time: i64, offset: i64, of: i64, damaged: bool| {
            let op = |type_, value| at(asked_ms, type_, Op::Other("offset_for_time".to_owned(), value));
            let history = [
                acked(10, 0, 0),
                acked(20, 1, 1),
                op(Type::Invoke, json!({"key": "t-0", "timestamp": time})),
                op(
                    Type::Ok,
                    json!({"key": "t-0", "timestamp": time, "offset": offset, "of": of}),
                ),
                acked(40, 2, 2),
            ];
            let notes = Notes {
                timestamps: timestamps.into(),
                ..Notes::default()
            };
            found(&workload("CreateTime"), &history, &notes, damaged)
        };
        let ids = |asked_ms, time, offset, of| ids_of(asked_ms, time, offset, of, false);
        assert_eq!(ids(30, 20, 0, 50), [""; 0]);
        // The later record may be there.
        assert_eq!(ids(30, 60, -1, -1), [""; 0]);
        assert_eq!(ids(30, 60, 2, 70), [""; 0]);
        assert_eq!(ids(50, 60, -1, -1), ["C1"]);
        assert_eq!(ids(50, 30, 1, 30), ["C1"]);
        assert_eq!(ids(50, 40, 1, 30), ["C1"]);
        assert_eq!(ids(50, 60, 2, 69), ["D2"]);
        assert_eq!(ids_of(50, 60, 2, 69, true), ["D2"]);
        assert_eq!(ids_of(50, 60, -1, -1, true), [""; 0]);
        assert_eq!(ids(50, MAX_TIMESTAMP, 2, 70), [""; 0]);
        assert_eq!(ids(50, MAX_TIMESTAMP, 0, 50), ["C1"]);
        assert_eq!(ids(50, MAX_TIMESTAMP, -1, -1), ["C1"]);
    }
}
