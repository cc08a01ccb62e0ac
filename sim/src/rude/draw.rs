//! Draws a seed's rude requests: walks the schema, and gives each field a plausible or an extreme value.

use std::collections::BTreeMap;

use super::value::{Special, Value};
use super::{Reads, RecordBatch, Records, RudeConnection, RudeRequest, SharedConnection, TOPICS};
use crate::keyed::{mix, text};
use crate::schema::{Api, Field, Message, Struct, Type, api, apis};

/// The APIs that the broker serves, by Kafka's names. The run compares them with the ApiVersions response.
pub(super) const SERVED: [&str; 19] = [
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "ApiVersions",
    "CreateTopics",
    "DeleteTopics",
    "DeleteRecords",
    "InitProducerId",
    "OffsetForLeaderEpoch",
    "DescribeConfigs",
    "AlterConfigs",
    "DescribeLogDirs",
    "CreatePartitions",
    "IncrementalAlterConfigs",
    "DescribeCluster",
    "DescribeProducers",
    "ListConfigResources",
    "DescribeTopicPartitions",
];

/// APIs that change what they name, so they name only topics that no judge checks.
const CHANGES: [&str; 8] = [
    "Produce",
    "CreateTopics",
    "DeleteTopics",
    "DeleteRecords",
    "AlterConfigs",
    "CreatePartitions",
    "IncrementalAlterConfigs",
    "InitProducerId",
];

/// String lengths near limits: 249 for a topic's name, 32,767 for a string with a two-byte length.
const LENGTHS: [u64; 6] = [0, 1, 249, 250, 32_686, 32_767];
const INTEGERS: [i64; 14] = [
    i64::MIN,
    i32::MIN as i64,
    -3,
    -2,
    -1,
    0,
    1,
    2,
    127,
    i16::MAX as i64,
    i32::MAX as i64 - 1,
    i32::MAX as i64,
    i64::MAX - 1,
    i64::MAX,
];
/// How many copies of an element a long array has.
const MANY: [u64; 5] = [1_000, 3_000, 10_000, 30_000, 100_000];
/// Size limit of a request, in bytes.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// Limit of requests on one connection.
const CONNECTION_REQUESTS_MAX: u64 = 24;

/// The connections of a run with this many requests, until `span_ms`.
pub(crate) fn fuzz(seed: u64, requests: u64, span_ms: u64) -> Vec<SharedConnection> {
    let mut draw = RequestDraw::new(mix(seed, text("requests")));
    let mut all = vec![set_up().into()];
    let mut left = requests;
    while left > 0 {
        let connection = draw.connection(span_ms, left);
        left -= connection.requests.len() as u64;
        all.push(connection.into());
    }
    all
}

/// The connections of rude clients beside an ordinary run.
pub(crate) fn connections(seed: u64, span_ms: u64) -> Vec<SharedConnection> {
    let requests = 20 + Dice(mix(seed, text("how rude"))).below(180);
    fuzz(mix(seed, text("rude")), requests, span_ms)
}

/// Creates the topics that the other connections name.
fn set_up() -> RudeConnection {
    let topic = |(i, name): (usize, &&str)| {
        fields([
            ("name", Value::from(*name)),
            ("num_partitions", Value::Int(1 + 2 * (i as i64 % 2))),
            ("replication_factor", Value::Int(1)),
        ])
    };
    let topics = TOPICS.iter().enumerate().map(topic).collect();
    let request = |api: &str, version, body| RudeRequest {
        api: api.to_owned(),
        version,
        client_id: None,
        times: 1,
        announces: None,
        body_cut: None,
        body,
    };
    RudeConnection {
        at_ms: 0,
        in_flight_max: 1,
        reads: Reads::All,
        cut: None,
        stays_ms: 0,
        requests: vec![
            request("ApiVersions", 4, Value::default()),
            request("CreateTopics", 7, fields([("topics", Value::List(topics))])),
        ],
    }
}

fn fields<const N: usize>(all: [(&str, Value); N]) -> Value {
    Value::Struct(
        all.into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// Sequential choices.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        ((u128::from(mix(self.0, 0xd1ce)) * u128::from(n)) >> 64) as u64
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// How a request is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Like a client's.
    Plausible,
    /// A third of its fields are extreme.
    Extreme,
    /// One of its arrays is long.
    Many,
}

struct RequestDraw {
    dice: Dice,
    /// Features of this seed: some seeds lack each, so that one does not hide another.
    lies: bool,
    announces: bool,
    many: bool,
    bombs: bool,
    mode: Mode,
    version: i16,
    /// Whether it may change what it names.
    changes: bool,
    /// Whether it creates missing topics.
    creates: bool,
    /// Whether it names settings that don't exist: only then it may name the broker.
    junk: bool,
}

impl RequestDraw {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        Self {
            lies: dice.one_in(2),
            announces: dice.one_in(4),
            many: dice.one_in(2),
            bombs: dice.one_in(4),
            mode: Mode::Plausible,
            version: 0,
            changes: false,
            creates: false,
            junk: false,
            dice,
        }
    }

    fn connection(&mut self, span_ms: u64, left: u64) -> RudeConnection {
        let n = (1 + self.dice.below(CONNECTION_REQUESTS_MAX)).min(left);
        let mut requests: Vec<RudeRequest> = Vec::new();
        // After a request that may end the connection, no response is required.
        while (requests.len() as u64) < n && !requests.last().is_some_and(RudeRequest::may_end_it) {
            requests.push(self.request());
        }
        let slowly = Reads::Slowly {
            bytes: self.dice.of(&[1, 50, 5_000]),
            pause_ms: self.dice.of(&[1, 20, 300]),
        };
        RudeConnection {
            at_ms: 300 + self.dice.below(span_ms.max(301) - 300),
            in_flight_max: self.dice.of(&[1, 1, 5, 1_000]),
            reads: match self.dice.below(14) {
                0 => slowly,
                1 => Reads::Never,
                _ => Reads::All,
            },
            cut: self
                .dice
                .one_in(16)
                .then(|| self.dice.of(&[0, 1, 3, 4, 5, 9, 30, 1_000])),
            stays_ms: if self.dice.one_in(6) {
                self.dice.below(5_000)
            } else {
                0
            },
            requests,
        }
    }

    fn request(&mut self) -> RudeRequest {
        let (api, version) = self.which();
        self.mode = match self.dice.below(20) {
            0 if self.many => Mode::Many,
            1..8 => Mode::Extreme,
            _ => Mode::Plausible,
        };
        self.version = version.clamp(api.versions.lo, api.versions.hi);
        self.changes = CHANGES.contains(&&*api.name);
        self.creates = self.changes || api.name == "Metadata";
        self.junk = self.dice.one_in(3);
        let body = self.structure(&api.request, &api.request.structs[0], 0);
        RudeRequest {
            api: if self.dice.one_in(300) {
                self.dice.of(&["-1", "4", "999", "32767"]).to_owned()
            } else {
                api.name.clone()
            },
            version,
            client_id: match self.dice.below(20) {
                0 => Some(Value::Null),
                1 => Some(self.long_text()),
                _ => Some("rude".into()),
            },
            times: 1,
            announces: (self.announces && self.dice.one_in(80)).then(|| {
                self.dice
                    .of(&[i32::MIN, -1, 0, 1, 7, 1 << 20, 100 << 20, i32::MAX])
            }),
            body_cut: (self.lies && self.dice.one_in(40))
                .then(|| self.dice.of(&[0, 1, 2, 3, 5, 8, 13, 40, 200])),
            body,
        }
    }

    /// Mostly an API and version that the broker serves.
    fn which(&mut self) -> (&'static Api, i16) {
        let all = apis();
        if self.dice.one_in(40) {
            let api = &all[self.dice.below(all.len() as u64) as usize];
            let any = self.dice.of(&[-1, 0, 1, 2, 3, 9, 99, i16::MAX, i16::MIN]);
            return (api, any);
        }
        let served: Vec<(&Api, i16)> = SERVED
            .iter()
            .filter_map(|name| api(name))
            .flat_map(|api| (api.versions.lo..=api.versions.hi).map(move |v| (api, v)))
            .collect();
        self.dice.of(&served)
    }

    fn structure(&mut self, message: &Message, of: &Struct, depth: u32) -> Value {
        let mut all = BTreeMap::new();
        let version = self.version;
        for f in of.fields.iter().filter(|f| f.versions.contains(version)) {
            if let Some(value) = self.field(message, of, f, depth) {
                all.insert(f.name.clone(), value);
            }
        }
        if message.is_flexible(version) && self.mode != Mode::Plausible && self.dice.one_in(6) {
            let tag = |tag: i64, bytes: i64| Value::List(vec![Value::Int(tag), Value::Int(bytes)]);
            let tags = vec![
                tag(100, self.dice.of(&[0, 1, 1_000])),
                tag(i64::from(i32::MAX), 1),
            ];
            all.insert("@tags".to_owned(), Value::List(tags));
        }
        Value::Struct(all)
    }

    fn field(&mut self, message: &Message, of: &Struct, f: &Field, depth: u32) -> Option<Value> {
        if f.is_nullable(self.version) && self.dice.one_in(if self.mode == Mode::Plausible { 8 } else { 4 }) {
            return Some(Value::Null);
        }
        if self.mode == Mode::Extreme && self.dice.one_in(3) {
            return self.extreme(message, f, depth);
        }
        match &f.ty {
            Type::Array(element) => Some(self.array(message, of, f, element, depth)),
            Type::Struct(name) => {
                let inner = message.structure(name);
                Some(self.structure(message, inner, depth + 1))
            }
            _ => self.plausible(of, f),
        }
    }

    fn array(&mut self, message: &Message, of: &Struct, f: &Field, element: &Type, depth: u32) -> Value {
        let is_long = self.mode == Mode::Many && self.dice.one_in(2 + u64::from(depth > 0));
        let n = match self.dice.below(8) {
            _ if is_long => 1,
            0 => 0,
            1 => 2,
            2 => 3,
            _ => 1,
        };
        // An assignment, or a replica on another broker, is refused at once.
        if matches!(&*f.name, "assignments") && !is_long && !self.dice.one_in(4) {
            return Value::List(Vec::new());
        }
        let mut all: Vec<Value> = (0..n)
            .map(|_| match element {
                Type::Struct(name) => self.structure(message, message.structure(name), depth + 1),
                _ => self.plausible(of, f).unwrap_or(Value::Int(0)),
            })
            .collect();
        if is_long {
            self.mode = Mode::Plausible;
            let one = all.pop().expect("one element was drawn");
            return self.repeated(one);
        }
        let list = Value::List(all);
        if self.lies && self.dice.one_in(200) {
            let count = self.dice.of(&[-2, 2, 1_000_000, i64::from(i32::MAX)]);
            return Special::Claims { count, of: list }.into();
        }
        list
    }

    fn repeated(&mut self, of: Value) -> Value {
        let times = self
            .dice
            .of(&MANY)
            .min(REQUEST_BYTES_MAX / size(&of).max(1))
            .max(1);
        if self.dice.one_in(2) {
            return Special::Same { of, times }.into();
        }
        // Each created topic has folders: limit their number.
        let times = if self.creates { times.min(300) } else { times };
        Special::Numbered {
            of: numbered(of),
            times,
        }
        .into()
    }

    fn extreme(&mut self, message: &Message, f: &Field, depth: u32) -> Option<Value> {
        Some(match &f.ty {
            Type::Bool => Value::Bool(self.dice.one_in(2)),
            Type::Str => self.long_text(),
            Type::Uuid => match self.dice.below(3) {
                0 => Value::Int(0),
                1 => Value::Int(1),
                _ => Value::Text("f".repeat(32)),
            },
            Type::Bytes => Special::Zeros(self.dice.of(&[0, 1, 1_000])).into(),
            Type::Records => self.records(),
            Type::Array(element) => {
                let one = match &**element {
                    Type::Struct(name) if depth < 3 => {
                        self.structure(message, message.structure(name), depth + 1)
                    }
                    Type::Str => self.long_text(),
                    Type::Uuid | Type::Struct(_) => return None,
                    _ => Value::Int(self.dice.of(&INTEGERS)),
                };
                let most = (REQUEST_BYTES_MAX / 8 / size(&one).max(1)).max(1);
                let times = self.dice.of(&[0, 1, 2, 100]).min(most);
                Special::Same { of: one, times }.into()
            }
            Type::Struct(name) => self.structure(message, message.structure(name), depth + 1),
            // Each partition has a folder: limit their number.
            _ if matches!(&*f.name, "num_partitions" | "count") => Value::Int(self.partitions()),
            // The broker's own settings are named only with care.
            _ if f.name == "resource_type" => Value::Int(self.dice.of(&[-128, -1, 0, 1, 3, 8, 32, 127])),
            _ => Value::Int(self.dice.of(&INTEGERS)),
        })
    }

    fn long_text(&mut self) -> Value {
        let times = self.dice.of(&LENGTHS);
        Special::Text {
            of: self.dice.of(&["a", "b", "/", " "]).to_owned(),
            times,
        }
        .into()
    }

    fn partitions(&mut self) -> i64 {
        self.dice
            .of(&[i64::MIN, -2, -1, 0, 1, 2, 3, 3, 20, 10_100, 1_000_000, i64::MAX])
    }

    fn topic(&mut self) -> String {
        let strange = ["", "..", "../x0", "__cluster_metadata", "é", "nobody"];
        let name = match self.dice.below(20) {
            0 if !self.changes => "t0",
            1..7 => self.dice.of(&strange),
            _ => self.dice.of(&TOPICS),
        };
        name.to_owned()
    }

    fn setting(&mut self) -> Value {
        if self.junk {
            return self.dice.of(&["no.such", "", "cleanup..policy", "é"]).into();
        }
        self.dice
            .of(&[
                "cleanup.policy",
                "retention.ms",
                "retention.bytes",
                "segment.bytes",
                "segment.ms",
                "max.message.bytes",
                "compression.type",
                "message.timestamp.type",
                "min.insync.replicas",
                "delete.retention.ms",
                "unclean.leader.election.enable",
                "segment.index.bytes",
            ])
            .into()
    }

    /// A plausible value for a field that is neither array nor structure, chosen by its name.
    fn plausible(&mut self, of: &Struct, f: &Field) -> Option<Value> {
        let is_config = of.name.contains("Config") && !of.name.starts_with("DescribeConfigsRequest");
        Some(match &*f.name {
            "name" if is_config => self.setting(),
            "configuration_keys" => self.setting(),
            "value" if is_config => self
                .dice
                .of(&[
                    "delete",
                    "compact",
                    "-1",
                    "0",
                    "1",
                    "1000000",
                    "gzip",
                    "true",
                    "no",
                    "9999999999999999999",
                ])
                .into(),
            "resource_name" => match self.dice.below(6) {
                0 => "".into(),
                1 => "1".into(),
                _ => Value::Text(self.topic()),
            },
            "resource_type" if self.changes && !self.junk => Value::Int(2),
            "resource_type" | "resource_types" => Value::Int(self.dice.of(&[2, 2, 4, 8, 16, 32])),
            "name" | "topic" | "topic_name" | "topic_names" | "topics" => Value::Text(self.topic()),
            "topic_id" => Special::IdOf(self.topic()).into(),
            "partition" | "index" | "partition_index" | "partition_indexes" | "partitions" => {
                Value::Int(self.dice.of(&[0, 0, 0, 0, 1, 2, -1, 7]))
            }
            "broker_ids" => Value::Int(self.dice.of(&[1, 1, 1, 0, 2])),
            "num_partitions" => Value::Int(self.dice.of(&[-1, 1, 1, 2, 3])),
            "count" => Value::Int(self.dice.of(&[1, 2, 3, 4, 5])),
            "replication_factor" => Value::Int(self.dice.of(&[-1, 1, 1, 2])),
            "acks" => Value::Int(self.dice.of(&[-1, -1, 1, 0, 2])),
            "timeout_ms" => Value::Int(self.dice.of(&[0, 1, 1_000, 30_000])),
            "max_wait_ms" => Value::Int(self.dice.of(&[0, 0, 10, 200, 2_000])),
            "min_bytes" => Value::Int(self.dice.of(&[0, 1, 1, 1_000])),
            "max_bytes" | "partition_max_bytes" => {
                Value::Int(
                    self.dice
                        .of(&[0, 1, 1_000, 1 << 20, 1 << 20, i64::from(i32::MAX)]),
                )
            }
            "replica_id" if of.name.starts_with("ListOffsets") => Value::Int(-1),
            "timestamp" => Value::Int(self.dice.of(&[-1, -2, -3, -4, -5, 0, 1_767_225_600_000])),
            "fetch_offset" | "offset" => Value::Int(self.dice.of(&[0, 0, 1, 5, 100, -1])),
            "session_id" | "session_epoch" => Value::Int(self.dice.of(&[0, 0, -1, 1, 2])),
            "records" => self.records(),
            "transactional_id" => Value::Null,
            "validate_only" => Value::Bool(self.dice.one_in(3)),
            _ => return self.by_type(f),
        })
    }

    fn by_type(&mut self, f: &Field) -> Option<Value> {
        Some(match f.ty {
            // A missing field has its default.
            _ if self.dice.one_in(2) => return None,
            Type::Bool => Value::Bool(self.dice.one_in(2)),
            Type::Str => self.dice.of(&["", "a", "rude"]).into(),
            Type::Uuid => Value::Int(self.dice.of(&[0, 1])),
            Type::Bytes => Special::Zeros(self.dice.below(20)).into(),
            _ => Value::Int(self.dice.of(&[0, 1, 2, -1])),
        })
    }

    fn records(&mut self) -> Value {
        let n = self.dice.of(&[1, 1, 1, 1, 0, 2, 3]);
        let batches = (0..n).map(|_| self.batch()).collect();
        let cut = self.dice.one_in(12).then(|| self.dice.below(200));
        Special::Records(Records { batches, cut }).into()
    }

    fn batch(&mut self) -> RecordBatch {
        let plain = RecordBatch {
            records: self.dice.of(&[1, 1, 3, 20]),
            value_bytes: self.dice.of(&[0, 10, 100, 1_000]),
            compression: self.dice.of(&[0, 0, 1, 2, 3, 4]),
            ..RecordBatch::default()
        };
        match self.dice.below(24) {
            0 => RecordBatch {
                magic: Some(self.dice.of(&[-1, 0, 1, 3, 127])),
                ..plain
            },
            1 => RecordBatch {
                length: Some(self.dice.of(&[i32::MIN, -1, 0, 48, 49, 1 << 20, i32::MAX])),
                ..plain
            },
            2 => RecordBatch {
                count: Some(self.dice.of(&[i32::MIN, -1, 0, 2, 1_000_000, i32::MAX])),
                ..plain
            },
            3 => RecordBatch {
                last_offset_delta: Some(self.dice.of(&[i32::MIN, -1, 7, i32::MAX])),
                ..plain
            },
            4 => RecordBatch {
                attributes: Some(self.dice.of(&[-1, 5, 7, 8, 0x10, 0x20, 0x30, 0x40])),
                ..plain
            },
            5 => RecordBatch {
                base_offset: Some(self.dice.of(&[i64::MIN, -1, 7, i64::MAX])),
                ..plain
            },
            6 => RecordBatch {
                timestamps: Some((self.dice.of(&INTEGERS), self.dice.of(&INTEGERS))),
                ..plain
            },
            7 => RecordBatch {
                wrong_crc: true,
                ..plain
            },
            8 => RecordBatch {
                flipped: Some(self.dice.below(60) as u32),
                ..plain
            },
            9 => RecordBatch { records: 0, ..plain },
            10 | 11 => RecordBatch {
                producer: Some((
                    self.dice.of(&[-2, -1, 0, 1, 900, i64::MAX]),
                    self.dice.of(&[-2, -1, 0, 1, i16::MAX]),
                    self.dice.of(&[-2, -1, 0, 1, i32::MAX]),
                )),
                ..plain
            },
            12 if self.bombs && self.dice.one_in(6) => RecordBatch {
                records: 1,
                value_bytes: self.dice.of(&[2 << 20, 8 << 20, 30 << 20]),
                compression: self.dice.of(&[1, 3, 4]),
                ..RecordBatch::default()
            },
            _ => plain,
        }
    }
}

/// The element with its number in each copy, so that copies differ.
fn numbered(of: Value) -> Value {
    match of {
        Value::Text(text) => Value::Text(text + "#"),
        Value::Int(_) => Special::Number {}.into(),
        Value::Struct(all) => {
            let one = |(name, value): (String, Value)| {
                let identifies = [
                    "name",
                    "topic",
                    "partition",
                    "index",
                    "partition_index",
                    "resource_name",
                    "topic_name",
                ];
                let value = if identifies.contains(&&*name) {
                    numbered(value)
                } else {
                    value
                };
                (name, value)
            };
            Value::Struct(all.into_iter().map(one).collect())
        }
        other => other,
    }
}

/// The approximate encoded size of a value.
fn size(of: &Value) -> u64 {
    match of {
        Value::Text(text) => text.len() as u64 + 2,
        Value::List(all) => all.iter().map(size).sum::<u64>() + 4,
        Value::Struct(all) => all.values().map(size).sum::<u64>() + 1,
        Value::Special(special) => match &**special {
            Special::Text { of, times } => of.len() as u64 * times,
            Special::Same { of, times } | Special::Numbered { of, times } => size(of) * times,
            Special::Claims { of, .. } => size(of),
            Special::Zeros(n) => *n,
            Special::Records(records) => {
                let batch = |b: &RecordBatch| 61 + u64::from(b.records) * (u64::from(b.value_bytes) + 8);
                records.batches.iter().map(batch).sum()
            }
            Special::IdOf(_) => 16,
            Special::Number {} => 4,
        },
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_requests_and_every_served_version() {
        let all = fuzz(3, 3_000, 10_000);
        assert_eq!(all, fuzz(3, 3_000, 10_000));
        assert_eq!(all.iter().map(|c| c.requests.len()).sum::<usize>(), 3_002);
        for name in SERVED {
            let api = api(name).expect("an API of Kafka's");
            for version in api.versions.lo..=api.versions.hi {
                let is_it = |r: &RudeRequest| r.api == name && r.version == version;
                assert!(
                    all.iter().flat_map(|c| &c.requests).any(is_it),
                    "{name} {version}"
                );
            }
        }
    }

    #[test]
    fn judged_topics_are_not_changed() {
        for seed in 0..5 {
            for r in fuzz(seed, 2_000, 1_000).iter().flat_map(|c| &c.requests) {
                let text = serde_json::to_string(&r.body).expect("it can be written");
                if CHANGES.contains(&&*r.api) {
                    assert!(!text.contains("\"t0"), "{}: {text}", r.api);
                }
            }
        }
    }
}
