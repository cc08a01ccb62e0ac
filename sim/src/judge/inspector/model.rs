//! A topic of an inspector as it must be.

use std::collections::{BTreeMap, BTreeSet};

use brokkr_wire::ErrorCode;
use brokkr_workloads::{INSPECTED_CONFIGS, INSPECTED_DEFAULTS, INSPECTED_SECRET};
use serde_json::{Value, json};

use super::answer::{Answer, InspectorFacts, Wrong, is_error, number, numbers, same};

/// Kafka's default of `max.message.bytes`.
const BYTES_MAX: i64 = 1_048_588;

/// A record.
#[derive(Clone, Debug)]
struct ModelRecord {
    n: i64,
    len: i64,
    /// `None` while the broker has not said when it appended the record.
    timestamp: Option<i64>,
    /// Its leader epoch, once it was read.
    epoch: Option<i64>,
}

/// A batch.
#[derive(Clone, Debug)]
struct ModelBatch {
    first: i64,
    last: i64,
    /// The producer's id, epoch and first sequence.
    producer: [i64; 3],
    /// `None` if a default of unknown outcome decides it.
    codec: Option<i64>,
    is_append_time: bool,
    bytes_max: i64,
}

/// A producer in a partition, as its last batch left it.
#[derive(Clone, Debug)]
struct Producer {
    epoch: i64,
    last_sequence: i64,
    last_offset: i64,
    /// The batch's largest timestamp.
    timestamp: Option<i64>,
}

/// A partition: the records from offset 0 on.
#[derive(Clone, Default, Debug)]
pub(super) struct Partition {
    records: Vec<ModelRecord>,
    batches: Vec<ModelBatch>,
    log_start: i64,
    /// The producers, by id.
    producers: BTreeMap<i64, Producer>,
}

/// A topic.
pub(super) struct TopicModel {
    pub id: String,
    pub configs: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
}

/// Where a value is from: `ConfigSource`.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_BROKER: i8 = 2;
const SOURCE_CLUSTER: i8 = 3;
const SOURCE_DEFAULT: i8 = 5;

/// The broker's defaults: what may be set for it alone, and for all brokers. More than one value: the outcome of a change is unknown.
pub(super) struct Defaults {
    set: BTreeMap<(bool, String), BTreeSet<Option<String>>>,
    /// Whether others may change them, so that nothing is known.
    others: bool,
}

impl Defaults {
    pub fn new(others: bool) -> Self {
        // As in Kafka a new cluster sets one (KIP-966).
        let set = [Some("1".to_owned())].into();
        Self {
            set: [((false, "min.insync.replicas".to_owned()), set)].into(),
            others,
        }
    }

    /// Takes in a change.
    pub fn change(&mut self, asked: &Value, is_known: bool) {
        let key = (
            asked["of_one"] == true,
            asked["config"].as_str().unwrap_or_default().to_owned(),
        );
        let may_be = self.set.entry(key).or_insert_with(|| [None].into());
        if is_known && may_be.len() == 1 {
            may_be.clear();
        }
        may_be.insert(asked["value"].as_str().map(str::to_owned));
    }

    /// The configurations of all brokers.
    pub fn check(&self, answer: &Value) -> Answer {
        let keys = INSPECTED_DEFAULTS
            .iter()
            .map(|(broker_key, topic_key, _)| (*broker_key, *topic_key));
        for (broker_key, topic_key) in keys.chain([("min.insync.replicas", "min.insync.replicas")]) {
            let set = self.set(false, topic_key);
            if set.len() > 1 || self.others {
                return Answer::Unknown;
            }
            let is_secret = broker_key == INSPECTED_SECRET;
            let is = match set.into_iter().next().flatten() {
                Some(value) => json!([(!is_secret).then_some(value), is_secret]),
                None => Value::Null,
            };
            if answer[broker_key] != is {
                return Answer::Wrong(("M2", format!("{broker_key} is {}, not {is}", answer[broker_key])));
            }
        }
        Answer::Right
    }

    fn set(&self, of_one: bool, key: &str) -> BTreeSet<Option<String>> {
        let set = self.set.get(&(of_one, key.to_owned())).cloned();
        set.unwrap_or_else(|| [None].into())
    }

    /// All values that a topic without one of its own may have.
    fn possible(&self, key: &str) -> Vec<String> {
        let default = INSPECTED_DEFAULTS
            .iter()
            .find(|(_, topic_key, _)| *topic_key == key);
        let default = default.map(|(_, _, values)| values[0].to_owned());
        let below = self
            .set(false, key)
            .into_iter()
            .filter_map(|v| v.or_else(|| default.clone()));
        let below: Vec<_> = below.collect();
        let all = self
            .set(true, key)
            .into_iter()
            .flat_map(|v| v.map_or_else(|| below.clone(), |v| vec![v]));
        all.collect()
    }

    /// The values that a topic inherits, the effective one first, with their sources; `None` if they are not known.
    fn sources(&self, key: &str, default: &str) -> Option<Vec<(String, i8)>> {
        let mut all = Vec::new();
        for (of_one, source) in [(true, SOURCE_BROKER), (false, SOURCE_CLUSTER)] {
            let set = self.set(of_one, key);
            if set.len() > 1 || self.others {
                return None;
            }
            all.extend(set.into_iter().flatten().map(|value| (value, source)));
        }
        all.push((default.to_owned(), SOURCE_DEFAULT));
        Some(all)
    }
}

/// The texts of a JSON object.
pub(super) fn texts(object: &Value) -> BTreeMap<String, String> {
    let all = object.as_object().into_iter().flatten();
    all.map(|(k, v)| (k.clone(), v.as_str().unwrap_or("null").to_owned()))
        .collect()
}

/// A configuration and its value.
pub(super) fn pair(change: &Value) -> Option<(String, String)> {
    let text = |name: &str| change[name].as_str().map(str::to_owned);
    text("config").zip(text("value"))
}

impl TopicModel {
    pub fn new(asked: &Value) -> Self {
        let partitions = usize::try_from(number(asked, "partitions")).unwrap_or(0);
        Self {
            id: asked["answer"]["id"].as_str().unwrap_or_default().to_owned(),
            configs: texts(&asked["configs"]),
            partitions: vec![Partition::default(); partitions],
        }
    }

    fn number(&self, key: &str, default: i64) -> i64 {
        let set = self.configs.get(key).and_then(|value| value.parse().ok());
        set.unwrap_or(default)
    }

    fn is(&self, key: &str, value: &str) -> bool {
        self.configs.get(key).is_some_and(|set| set == value)
    }

    pub fn alter(&mut self, asked: &Value) {
        if asked["whole"] == true {
            self.configs.clear();
        }
        let key = asked["config"].as_str().unwrap_or_default().to_owned();
        match asked["value"].as_str() {
            Some(value) => drop(self.configs.insert(key, value.to_owned())),
            None => drop(self.configs.remove(&key)),
        }
    }

    /// The values that a configuration may have; none if nothing is known.
    fn possible(&self, key: &str, defaults: &Defaults) -> Vec<String> {
        match self.configs.get(key) {
            Some(set) => vec![set.clone()],
            None if defaults.others => Vec::new(),
            None => defaults.possible(key),
        }
    }

    /// The codec that a batch is stored with, if it is known.
    fn codec(&self, sent: i64, defaults: &Defaults) -> Option<i64> {
        let codec = |name: &String| match name.as_str() {
            "gzip" => 1,
            "uncompressed" => 0,
            _ => sent,
        };
        let all: BTreeSet<_> = self
            .possible("compression.type", defaults)
            .iter()
            .map(codec)
            .collect();
        all.first().copied().filter(|_| all.len() == 1)
    }

    /// Each configuration, its source, and the values that it was chosen from.
    pub fn check_configs(&self, answer: &Value, defaults: &Defaults) -> Answer {
        for (key, values) in INSPECTED_CONFIGS {
            let Some(below) = defaults.sources(key, values[0]) else {
                return Answer::Unknown;
            };
            let own = self.configs.get(key).map(|value| (value.clone(), SOURCE_TOPIC));
            let all: Vec<_> = own.into_iter().chain(below).collect();
            let (value, source) = all[0].clone();
            let is = json!([value, source, all]);
            if answer[key] != is {
                return Answer::Wrong(("M2", format!("{key} is {}, not {is}", answer[key])));
            }
        }
        Answer::Right
    }

    pub fn append(&mut self, asked: &Value, facts: &InspectorFacts, defaults: &Defaults) -> Option<Wrong> {
        let answer = &asked["answer"];
        let records: Vec<Vec<i64>> = asked["records"]
            .as_array()
            .into_iter()
            .flatten()
            .map(numbers)
            .collect();
        let is_append_time = self.is("message.timestamp.type", "LogAppendTime");
        let (now, sent) = (number(asked, "now"), number(asked, "codec"));
        let codec = self.codec(sent, defaults);
        let bytes_max = self.number("max.message.bytes", BYTES_MAX);
        let after = self.possible("message.timestamp.after.max.ms", defaults);
        let after: Vec<i64> = after.iter().filter_map(|v| v.parse().ok()).collect();
        let (after_min, after_max) = (after.iter().min().copied(), after.iter().max().copied());
        let ahead = records.iter().map(|r| r[1] - now).max().unwrap_or(0);
        let mut refusals = Vec::new();
        // Whether it must be refused, and with which code.
        if number(asked, "bytes") > bytes_max {
            refusals.push((true, ErrorCode::MESSAGE_TOO_LARGE));
        } else if codec != Some(sent) {
            // It may grow.
            refusals.push((false, ErrorCode::MESSAGE_TOO_LARGE));
        }
        if !is_append_time && after_min.is_none_or(|min| ahead + facts.clocks_off_ms >= min) {
            let must = after_max.is_some_and(|max| ahead - facts.clocks_off_ms > max);
            refusals.push((must, ErrorCode::INVALID_TIMESTAMP));
        }
        let index = usize::try_from(number(asked, "partition")).ok()?;
        let partition = self.partitions.get_mut(index)?;
        let Ok(producer) = <[i64; 3]>::try_from(numbers(&asked["producer"])) else {
            return None;
        };
        let kind = asked["kind"].as_str().unwrap_or_default();
        // What is known of the producer may be gone with its records.
        let is_known = !facts.forgets
            && partition
                .producers
                .get(&producer[0])
                .is_some_and(|of| of.last_offset >= partition.log_start);
        match kind {
            "gap" => refusals.push((is_known, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)),
            "stale" => refusals.push((is_known, ErrorCode::INVALID_PRODUCER_EPOCH)),
            "flawed" => {
                refusals.push((true, ErrorCode::INVALID_RECORD));
                refusals.push((true, ErrorCode::CORRUPT_MESSAGE));
            }
            _ => {}
        }
        if facts.forgets {
            refusals.push((false, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
            refusals.push((false, ErrorCode::UNKNOWN_PRODUCER_ID));
        }
        if number(answer, "error") != 0 {
            let is_legal = refusals.iter().any(|(_, code)| is_error(answer, *code));
            let code = ErrorCode(i16::try_from(number(answer, "error")).unwrap_or(-1));
            return (!is_legal).then(|| ("C1", format!("refused with {code}")));
        }
        if kind == "again" {
            let of = partition
                .batches
                .iter()
                .rev()
                .find(|batch| batch.producer == producer);
            let is_answered = of.is_some_and(|of| of.first == number(answer, "base"));
            if is_answered {
                return None;
            }
            if is_known {
                return Some((
                    "I1",
                    format!("a duplicate was appended at {}", number(answer, "base")),
                ));
            }
        }
        if let Some((_, code)) = refusals.iter().find(|(must, _)| *must) {
            return Some(("C1", format!("accepted, and must be refused with {code}")));
        }
        let (base, told) = (partition.end(), number(answer, "append_time"));
        let largest = records.iter().map(|r| r[1]).max();
        let timestamp = |own: i64| match (is_append_time, told) {
            (false, _) => Some(own),
            (true, -1) => None,
            (true, told) => Some(told),
        };
        let news = records.iter().map(|r| ModelRecord {
            n: r[0],
            len: r[2],
            timestamp: timestamp(r[1]),
            epoch: None,
        });
        partition.records.extend(news);
        partition.batches.push(ModelBatch {
            first: base,
            last: partition.end() - 1,
            producer,
            codec,
            is_append_time,
            bytes_max,
        });
        let last = Producer {
            epoch: producer[1],
            last_sequence: producer[2] + records.len() as i64 - 1,
            last_offset: partition.end() - 1,
            timestamp: largest.and_then(timestamp),
        };
        partition.producers.insert(producer[0], last);
        // An answer to a duplicate may have the batch's time.
        let is_of_batch = told == -1 || Some(told) == largest;
        same("L1", "the first offset is", number(answer, "base"), base)
            .or_else(|| {
                same(
                    "D1",
                    "the log start is",
                    number(answer, "log_start"),
                    partition.log_start,
                )
            })
            .or_else(|| {
                (!is_append_time && !is_of_batch).then(|| {
                    (
                        "C1",
                        format!("the time of the append {told} of a topic with the time of the record"),
                    )
                })
            })
            .or_else(|| {
                let is_off =
                    is_append_time && told != -1 && (told - now).abs() > facts.clocks_off_ms + LATE_MAX_MS;
                is_off.then(|| ("C1", format!("the time of the append {told}, sent at {now}")))
            })
    }
}

/// How long an append may take, with all of its attempts.
const LATE_MAX_MS: i64 = 60_000;

impl Partition {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    pub fn check_read(&mut self, asked: &Value) -> Option<Wrong> {
        let (answer, from, end) = (&asked["answer"], number(asked, "from"), self.end());
        let is_there = (self.log_start..=end).contains(&from);
        if !is_there || number(answer, "error") != 0 {
            let is = if is_there {
                ErrorCode::NONE
            } else {
                ErrorCode::OFFSET_OUT_OF_RANGE
            };
            return same("C1", "the error is", number(answer, "error"), i64::from(is.0));
        }
        same(
            "L1",
            "the high watermark is",
            number(answer, "high_watermark"),
            end,
        )
        .or_else(|| {
            same(
                "C1",
                "the last stable offset is",
                number(answer, "last_stable"),
                end,
            )
        })
        .or_else(|| {
            same(
                "D1",
                "the log start is",
                number(answer, "log_start"),
                self.log_start,
            )
        })
        .or_else(|| self.check_batches(answer, from))
        .or_else(|| self.check_records(answer))
    }

    fn check_batches(&self, answer: &Value, from: i64) -> Option<Wrong> {
        let seen: Vec<_> = answer["batches"].as_array().into_iter().flatten().collect();
        let first = self.batches.iter().position(|b| b.last >= from);
        let Some(first) = first else {
            return same("L6", "batches behind the end:", seen.len(), 0);
        };
        if seen.is_empty() {
            return Some(("C1", format!("no batch, and offset {from} is there")));
        }
        for (i, seen) in seen.into_iter().enumerate() {
            let Some(batch) = self.batches.get(first + i) else {
                return Some(("L6", format!("the batch {seen} behind the last")));
            };
            let all = numbers(seen);
            let codec = batch.codec.unwrap_or(all[3]);
            let is = (batch.first, batch.last, codec, Some(batch.is_append_time));
            let wrong = same(
                "L6",
                "the batch is",
                (all[0], all[1], all[3], seen[4].as_bool()),
                is,
            );
            let is_large = all[2] > batch.bytes_max;
            let large = || {
                is_large.then(|| {
                    (
                        "C1",
                        format!("a batch of {} bytes, at most {}", all[2], batch.bytes_max),
                    )
                })
            };
            if let Some(wrong) = wrong.or_else(large) {
                return Some(wrong);
            }
        }
        None
    }

    /// Compares records, and learns their times and epochs.
    fn check_records(&mut self, answer: &Value) -> Option<Wrong> {
        let mut last_epoch = i64::MIN;
        for seen in answer["records"].as_array().into_iter().flatten() {
            let all = numbers(seen);
            let (offset, timestamp, epoch) = (all[0], all[2], all[4]);
            let record = usize::try_from(offset).ok().and_then(|i| self.records.get_mut(i));
            let Some(record) = record else {
                return Some(("L6", format!("a record at offset {offset}, behind the end")));
            };
            let told = (
                *record.timestamp.get_or_insert(timestamp),
                *record.epoch.get_or_insert(epoch),
            );
            let is = (record.n, record.len, told.0, told.1);
            let wrong = same(
                "L6",
                &format!("offset {offset} is"),
                (all[1], all[3], timestamp, epoch),
                is,
            );
            if wrong.is_some() {
                return wrong;
            }
            if epoch < last_epoch {
                return Some((
                    "L2",
                    format!("offset {offset} has epoch {epoch}, after {last_epoch}"),
                ));
            }
            last_epoch = epoch;
        }
        None
    }

    pub fn check_offsets(&self, asked: &Value) -> Answer {
        let answer = &asked["answer"];
        let (error, ahead) = (number(answer, "error"), number(answer, "ahead"));
        let is = match ahead {
            0 => ErrorCode::NONE,
            _ if ahead < 0 => ErrorCode::FENCED_LEADER_EPOCH,
            _ => ErrorCode::UNKNOWN_LEADER_EPOCH,
        };
        if error != 0 || is != ErrorCode::NONE {
            return same("C1", "the error is", error, i64::from(is.0)).into();
        }
        let seen = (number(answer, "offset"), number(answer, "of"));
        match number(answer, "timestamp") {
            -1 => same("L1", "the latest offset is", seen.0, self.end()).into(),
            -2 => same("D1", "the earliest offset is", seen.0, self.log_start).into(),
            timestamp => {
                let there: Vec<_> = (self.log_start..)
                    .zip(&self.records[self.log_start as usize..])
                    .collect();
                let Some(times) = there
                    .iter()
                    .map(|(_, r)| r.timestamp)
                    .collect::<Option<Vec<i64>>>()
                else {
                    return Answer::Unknown;
                };
                let least = match timestamp {
                    -3 => times.iter().copied().max().unwrap_or(i64::MAX),
                    at => at,
                };
                let first = there.iter().zip(&times).find(|(_, time)| **time >= least);
                let is = first.map_or((-1, -1), |((offset, _), time)| (*offset, *time));
                let known = first.and_then(|((_, record), _)| record.epoch);
                let epoch = answer["leader_epoch"].as_i64();
                same("C1", "offset and time are", seen, is)
                    .or_else(|| {
                        epoch
                            .zip(known)
                            .and_then(|(epoch, is)| same("C1", "the leader epoch is", epoch, is))
                    })
                    .into()
            }
        }
    }

    /// The end of an epoch, as far as all records were read.
    pub fn check_epoch_end(&self, answer: &Value) -> Answer {
        let (current, asked) = (number(answer, "current"), number(answer, "asked"));
        if number(answer, "error") != 0 {
            return same("C1", "the error is", number(answer, "error"), 0).into();
        }
        let seen = (number(answer, "leader_epoch"), number(answer, "end"));
        if asked > current {
            return same("C1", "epoch and end of an epoch to come are", seen, (-1, -1)).into();
        }
        let there: Vec<_> = (self.log_start..)
            .zip(&self.records[self.log_start as usize..])
            .collect();
        let Some(epochs) = there.iter().map(|(_, r)| r.epoch).collect::<Option<Vec<i64>>>() else {
            return Answer::Unknown;
        };
        let Some(floor) = epochs.iter().copied().filter(|epoch| *epoch <= asked).max() else {
            // Nothing of it is left: what is known of older epochs depends on when they were trimmed.
            return Answer::Unknown;
        };
        let next = there.iter().zip(&epochs).find(|(_, epoch)| **epoch > asked);
        let end = next.map_or(self.end(), |((offset, _), _)| *offset);
        let epoch = if asked == current && seen.0 == current {
            current
        } else {
            floor
        };
        same("C1", "epoch and end are", seen, (epoch, end)).into()
    }

    pub fn check_producers(&self, answer: &Value) -> Option<Wrong> {
        let seen: Vec<_> = answer.as_array().into_iter().flatten().map(numbers).collect();
        for (id, is) in &self.producers {
            let Some(of) = seen.iter().find(|of| of[0] == *id) else {
                // With its records a producer may be gone.
                if is.last_offset < self.log_start {
                    continue;
                }
                return Some(("C1", format!("producer {id} is missing")));
            };
            let timestamp = is.timestamp.unwrap_or(of[3]);
            let is = vec![*id, is.epoch, is.last_sequence, timestamp, -1];
            if let Some(wrong) = same("C1", "the producer is", of.clone(), is) {
                return Some(wrong);
            }
        }
        let stranger = seen.iter().find(|of| !self.producers.contains_key(&of[0]));
        stranger.map(|of| ("C1", format!("the producer {of:?} has sent nothing")))
    }

    pub fn delete_records(&mut self, asked: &Value) -> Option<Wrong> {
        let (answer, end) = (&asked["answer"], self.end());
        let before = match number(asked, "before") {
            -1 => end,
            before => before,
        };
        let is = if before > end {
            ErrorCode::OFFSET_OUT_OF_RANGE
        } else {
            ErrorCode::NONE
        };
        let wrong = same("C1", "the error is", number(answer, "error"), i64::from(is.0));
        if wrong.is_some() || is != ErrorCode::NONE {
            return wrong;
        }
        self.log_start = self.log_start.max(before);
        same(
            "C1",
            "the low watermark is",
            number(answer, "low"),
            self.log_start,
        )
    }
}
