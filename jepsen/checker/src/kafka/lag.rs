//! How far consumers were behind, and how many records were unread, over time. These are measures; a lag is an anomaly only above
//! [`super::Options::lag_max`].

use std::collections::{BTreeMap, BTreeSet};

use brokkr_history::{Process, Seek, Type, UNKNOWN_OFFSET};
use serde_json::{Value, json};

use super::order::send_outcome;
use super::records::HistoryView;
use super::store::{OpKind, OpRow, Store};
use crate::Finding;

/// The lag of a poll in one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lag {
    /// When the poll began, in nanoseconds.
    pub time: i64,
    /// The process that polled.
    pub process: Process,
    /// The key.
    pub key: String,
    /// For how long, at least, the process's last record of the key had not been the newest, in nanoseconds.
    pub lag: i64,
}

impl Lag {
    pub(super) fn to_json(&self) -> Value {
        json!({"time": self.time, "process": self.process, "key": self.key, "lag": self.lag})
    }
}

/// When each key was first known to reach an offset: steps of (offset, time), both ascending.
struct ReachTimes(Vec<Vec<(i64, i64)>>);

impl ReachTimes {
    fn of(store: &Store) -> Self {
        let mut steps = vec![Vec::<(i64, i64)>::new(); store.keys.len()];
        for (op, row) in store
            .rows()
            .filter(|(_, row)| row.type_ != Type::Fail && !row.open)
        {
            for row_of in store.writes_of(op).iter().chain(store.reads_of(op)) {
                let steps = &mut steps[store.key_of(row_of.value) as usize];
                if row_of.offset > steps.last().map_or(UNKNOWN_OFFSET, |s| s.0) {
                    steps.push((row_of.offset, row.time));
                }
            }
        }
        Self(steps)
    }

    /// When the record at `offset` was known not to be the newest any more; the far future if never.
    fn outdated(&self, key: u32, offset: i64) -> i64 {
        let steps = &self.0[key as usize];
        let at = steps.partition_point(|(reach_times, _)| *reach_times <= offset);
        steps.get(at).map_or(i64::MAX, |(_, time)| *time)
    }
}

/// The position of a process: for each key the offset and the time since when it is outdated; and the same by that time.
#[derive(Default)]
struct ReadPosition {
    at: BTreeMap<u32, (i64, i64)>,
    oldest: BTreeSet<(i64, u32)>,
}

impl ReadPosition {
    fn reach(&mut self, reach_times: &ReachTimes, key: u32, offset: i64) {
        let before = self.at.get(&key).copied();
        if before.is_some_and(|(at, _)| at >= offset) {
            return;
        }
        if let Some((_, time)) = before {
            self.oldest.remove(&(time, key));
        }
        let time = reach_times.outdated(key, offset);
        self.at.insert(key, (offset, time));
        self.oldest.insert((time, key));
    }

    fn keep(&mut self, keys: &[u32]) {
        let gone: Vec<_> = self
            .at
            .iter()
            .filter(|(k, _)| !keys.contains(k))
            .map(|(k, (_, t))| (*t, *k))
            .collect();
        for (time, key) in gone {
            self.at.remove(&key);
            self.oldest.remove(&(time, key));
        }
    }
}

/// Iterates over all polls; `each` receives the reader's state after a poll.
fn for_each_poll(store: &Store, mut each: impl FnMut(u32, &OpRow, &ReadPosition)) {
    let reach_times = ReachTimes::of(store);
    let mut readers: BTreeMap<Process, ReadPosition> = BTreeMap::new();
    for (op, row) in store.rows().filter(|(_, row)| row.type_ == Type::Ok) {
        let reader = readers.entry(row.process).or_default();
        match row.f {
            OpKind::Assign => {
                let keys = store.keys_assigned(op);
                let seeks = store.seeks_of(op);
                let sought = |key: &u32| seeks.iter().find(|(k, _)| k == key).map(|(_, seek)| *seek);
                let kept: Vec<_> = keys.iter().copied().filter(|k| sought(k).is_none()).collect();
                reader.keep(&kept);
                for key in keys {
                    match sought(key) {
                        None | Some(Seek::Beginning) => reader.reach(&reach_times, *key, UNKNOWN_OFFSET),
                        Some(Seek::Offset(offset)) => reader.reach(&reach_times, *key, offset - 1),
                        // What it may miss shows at its first record.
                        Some(Seek::End) => {}
                    }
                }
            }
            // Other processes may have got all of the topics' partitions.
            OpKind::Subscribe => *reader = ReadPosition::default(),
            OpKind::Micro => {
                let rows = store.writes_of(op).iter().chain(store.reads_of(op));
                // A process that only sends has no read position.
                if !row.polls {
                    continue;
                }
                for record in rows {
                    reader.reach(&reach_times, store.key_of(record.value), record.offset);
                }
                each(op, row, reader);
            }
        }
    }
}

fn lag_of(store: &Store, time: i64, process: Process, key: u32, outdated: i64) -> Lag {
    let lag = time.saturating_sub(outdated).max(0);
    let key = store.key_name(key).to_owned();
    Lag {
        time,
        process,
        key,
        lag,
    }
}

/// The lag of every successful poll in each key that its process reads, in the order of the history.
pub(super) fn realtime_lags(store: &Store) -> Vec<Lag> {
    let mut lags = Vec::new();
    for_each_poll(store, |_, row, reader| {
        for (key, (_, outdated)) in &reader.at {
            lags.push(lag_of(store, row.began_time, row.process, *key, *outdated));
        }
    });
    lags
}

/// Calls `each` with the time of every successful poll and the largest of its lags.
pub(super) fn for_each_lag(store: &Store, mut each: impl FnMut(i64, i64)) {
    for_each_poll(store, |_, row, reader| {
        if let Some((outdated, _)) = reader.oldest.first() {
            each(row.began_time, row.began_time.saturating_sub(*outdated).max(0));
        }
    });
}

/// The largest of [`realtime_lags`], the first of equals.
pub(super) fn worst(store: &Store) -> Option<Lag> {
    let mut worst: Option<(i64, i64, Process, u32, i64)> = None;
    for_each_poll(store, |_, row, reader| {
        if let Some((outdated, key)) = reader.oldest.first() {
            let lag = row.began_time.saturating_sub(*outdated).max(0);
            if worst.is_none_or(|w| lag > w.0) {
                worst = Some((lag, row.began_time, row.process, *key, *outdated));
            }
        }
    });
    worst.map(|(_, time, process, key, outdated)| lag_of(store, time, process, key, outdated))
}

/// `lag`: a poll, although it began more than `max` nanoseconds after its process's last record of a key was outdated, ended
/// without a newer one. One finding, the worst, for each process and key.
pub(super) fn too_far_behind(store: &Store, max: i64) -> Vec<Finding> {
    let mut worst: BTreeMap<(Process, u32), (i64, i64, u32)> = BTreeMap::new();
    for_each_poll(store, |op, row, reader| {
        for (outdated, key) in &reader.oldest {
            let lag = row.began_time.saturating_sub(*outdated);
            if lag <= max {
                break;
            }
            let known = worst
                .entry((row.process, *key))
                .or_insert((lag, row.began_time, op));
            if lag > known.0 {
                *known = (lag, row.began_time, op);
            }
        }
    });
    let finding = |((process, key), (lag, time, op)): ((Process, u32), (i64, i64, u32))| {
        let (key, op) = (store.key_name(key), store.index(op));
        let data = json!({"key": key, "process": process, "time": time, "lag": lag, "op": op});
        let text = format!(
            "process {process} was {:.3} s behind in {key} after operation {op}, and at most {:.3} s are allowed",
            seconds(lag),
            seconds(max)
        );
        Finding::new(data, [op], text)
    };
    worst.into_iter().map(finding).collect()
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a message")]
fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// The number of acknowledged unread records of all keys after each successful operation, and its time.
pub(super) fn unread_totals(view: HistoryView<'_>) -> Vec<(i64, u64)> {
    let store = view.store;
    let (mut acked, mut read) = (vec![false; store.values_len()], vec![false; store.values_len()]);
    let (mut unread, mut totals) = (0u64, Vec::new());
    for (op, row) in store
        .rows()
        .filter(|(_, row)| row.f == OpKind::Micro && !row.open)
    {
        for send in store.writes_of(op).iter().filter(|w| store.is_known(w.value)) {
            let new = send_outcome(row.type_, send) == Type::Ok;
            let new = new && !std::mem::replace(&mut acked[send.value as usize], true);
            unread += u64::from(new && !read[send.value as usize]);
        }
        for record in store.reads_of(op).iter().filter(|_| row.type_ == Type::Ok) {
            let new = !std::mem::replace(&mut read[record.value as usize], true);
            unread -= u64::from(new && acked[record.value as usize]);
        }
        if row.type_ != Type::Fail {
            totals.push((row.time, unread));
        }
    }
    totals
}

/// The number of acknowledged unread records at some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unseen {
    /// When, in nanoseconds.
    pub time: i64,
    /// By key.
    pub unseen: BTreeMap<String, u64>,
}

/// The number of unread records after each successful operation. Quadratic in keys and operations; meant for plots.
pub(super) fn unseen_series(view: HistoryView<'_>) -> Vec<Unseen> {
    let store = view.store;
    let mut state = vec![0u8; store.values_len()];
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut series = Vec::new();
    for (op, row) in store
        .rows()
        .filter(|(_, row)| row.f == OpKind::Micro && row.type_ == Type::Ok)
    {
        let sent = store
            .writes_of(op)
            .iter()
            .map(|w| (w.value, super::order::SENT_OK));
        let read = store
            .reads_of(op)
            .iter()
            .map(|r| (r.value, super::order::READ_OK));
        for (value, flag) in sent.chain(read).filter(|(v, _)| store.is_known(*v)) {
            let before = state[value as usize];
            state[value as usize] |= flag;
            let key = || store.key_name(store.key_of(value)).to_owned();
            match (before, flag) {
                (0, super::order::SENT_OK) => *counts.entry(key()).or_default() += 1,
                (super::order::SENT_OK, super::order::READ_OK) => *counts.entry(key()).or_default() -= 1,
                _ => {}
            }
        }
        let (time, unseen) = (row.time, counts.clone());
        series.push(Unseen { time, unseen });
    }
    series
}
