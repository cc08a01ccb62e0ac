//! A log compared with a plain list of batches, in any environment: random appends, reads, truncations, retention,
//! checkpoints and clean stops, over several lives. The caller decides when a life ends (D1, L6, I1, I2, P4, P7, P9,
//! P10, P13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use brokkr_env::Env;
use brokkr_log::{AppendError, Event, Log, LogConfig, LogDir, LogReader, UpTo, checkpoint};
use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::records::{Batch, BatchBuilder, Origin, batches};

const FOLDER: &str = "t-0";
const PRODUCERS: u64 = 3;

/// A disk fault: see [`Model::fault`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The next sync fails.
    Sync,
    /// The next write fails after an unknown number of bytes.
    Write,
    /// The disk has this many bytes of free space.
    Room(u64),
    /// Faults end.
    None,
}

/// A batch in the model.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    base: i64,
    count: i64,
    /// Its first record's value, unique among the batches.
    value: i64,
    producer: Option<(ProducerId, Sequence)>,
    epoch: i32,
}

impl Known {
    fn end(&self) -> i64 {
        self.base + self.count
    }
}

#[derive(Default)]
struct State {
    /// For each offset, every batch that may be there after a crash; the last one is the one staged last.
    possible: BTreeMap<i64, Vec<Known>>,
    /// The log, including staged batches.
    current: BTreeMap<i64, Known>,
    /// The end of the acknowledged batches.
    durable: i64,
    log_start: i64,
    /// A truncation to the first offset, or a log start offset in this range, that has not returned or has failed:
    /// after a crash it may have happened or not.
    cutting: Option<i64>,
    starting: Option<(i64, i64)>,
    /// The truncation count before the removal of the whole log began, until that returns.
    restart: Option<u64>,
    next_value: i64,
    epoch: i32,
    created: bool,
    /// Rare states that were reached, so that the caller can check that the runs are worth something.
    reached: BTreeMap<&'static str, u64>,
}

/// A model that continues over several lives. Clones share it.
#[derive(Clone)]
pub struct Model {
    state: Arc<Mutex<State>>,
    pub config: LogConfig,
    pub fault: Arc<dyn Fn(Fault) + Send + Sync>,
}

/// A random number generator: the script of a life.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

impl Model {
    pub fn new(config: LogConfig, fault: impl Fn(Fault) + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::default(),
            config,
            fault: Arc::new(fault),
        }
    }

    /// Rare states, with their counts.
    pub fn reached(&self) -> BTreeMap<&'static str, u64> {
        self.lock().reached.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn reach(&self, what: &'static str) {
        *self.lock().reached.entry(what).or_insert(0) += 1;
    }
}

/// One life: opens the log in the directory at `path`, checks it, and changes it for `steps` steps, unless the caller
/// ends it before. Panics if the log differs from the model.
pub async fn life<E: Env>(env: E, path: String, model: Model, seed: u64, steps: u64) {
    (model.fault)(Fault::None);
    let dir = env.open_dir(&path).await.expect("a directory");
    let dir = LogDir::new(env.clone(), dir, idle_files(4));
    let mut draw = Draw(seed);
    let mut log = start(&dir, &model).await;
    judge(&mut log, &model).await;
    for _ in 0..steps {
        match draw.below(100) {
            0..=44 => append(&mut log, &model, &mut draw, &env),
            45..=49 => repeat(&mut log, &model, &mut draw, &env),
            50..=74 => drive(&mut log, &model, &env, draw.below(3_000_000)).await,
            75..=81 => read_some(&mut log, &model, &mut draw).await,
            82..=84 => truncate(&mut log, &model, &mut draw, &env).await,
            85..=86 => raise_start(&mut log, &model, &mut draw).await,
            87..=88 => retire(&mut log, &model, &env, &mut draw).await,
            89..=92 => record(&dir, &log, &model).await,
            93..=94 => lead(&mut log, &model).await,
            95..=96 => inject(&model, &mut draw),
            97 => match stop_and_start(&dir, log, &model, &env).await {
                Some(again) => log = again,
                None => return,
            },
            _ => read_times(&mut log, &model, &mut draw).await,
        }
        drain(&mut log, &model).await;
        if log.broken().is_some() {
            model.reach("broken");
            return;
        }
    }
    (model.fault)(Fault::None);
    drive(&mut log, &model, &env, 50_000_000).await;
}

async fn start<E: Env>(dir: &LogDir<E>, model: &Model) -> Log<E> {
    let remembered = checkpoint::load_and_mark_unclean(dir)
        .await
        .expect("a directory that can be read");
    let folders = checkpoint::partitions(dir).await.expect("listed");
    let id = Uuid::from_random([1; 16]);
    if folders.is_empty() {
        assert!(!model.lock().created, "a log that was made is there");
        let log = Log::create(dir, FOLDER, id, model.config.clone())
            .await
            .expect("made");
        model.lock().created = true;
        return log;
    }
    let recorded = remembered.logs.get(FOLDER).cloned().unwrap_or_default();
    let (mut log, recovery) = Log::open(dir, FOLDER, model.config.clone(), &recorded)
        .await
        .expect("nothing durable was damaged");
    if log.topic_id().is_zero() {
        assert!(!model.lock().created, "the topic's id is there");
        log.set_topic_id(id).await.expect("written");
    }
    model.lock().created = true;
    model.reach(if recovery.clean { "clean start" } else { "recovery" });
    if recovery.cut_bytes > 0 {
        model.reach("tail cut");
    }
    if recovery.cut_segments > 0 {
        model.reach("segment cut");
    }
    if recovery.kept_batches > 0 {
        model.reach("kept above the point");
    }
    log
}

/// After a start: the log is a prefix of the written batches, has all acknowledged ones, and its producers, leader
/// epochs and indexes match its batches.
async fn judge<E: Env>(log: &mut Log<E>, model: &Model) {
    let found = all_batches(&log.reader()).await;
    let mut guard = model.lock();
    let state = &mut *guard;
    let (start, end) = (log.log_start().0, log.log_end().0);
    let least = state.cutting.map_or(state.durable, |to| to.min(state.durable));
    assert!(end >= least, "the log ends at {end}, {least} was acknowledged");
    let raised = state
        .starting
        .is_some_and(|(from, to)| from <= start && start <= to);
    let cut_below = state.cutting.is_some_and(|to| start == to);
    assert!(
        start == state.log_start || raised || cut_below,
        "starts at {start}, was at {}",
        state.log_start
    );
    if state
        .restart
        .is_some_and(|before| log.checkpoint().truncations > before)
    {
        state.possible.clear();
        state.current.clear();
    }
    let mut at = None;
    for batch in &found {
        let Some(known) = state
            .possible
            .get(&batch.base)
            .and_then(|all| all.iter().find(|k| *k == batch))
        else {
            panic!(
                "{batch:?} was never written there: {:?}",
                state.possible.get(&batch.base)
            );
        };
        assert!(at.is_none_or(|at| at == known.base), "a gap before {known:?}");
        at = Some(known.end());
    }
    assert_eq!(at.unwrap_or(end), end, "the batches reach to the end");
    // A cut is durable: the batches above it no longer exist.
    let first = found.first().map_or(end, |k| k.base);
    state.current.retain(|base, _| *base < first);
    state.current.extend(found.into_iter().map(|k| (k.base, k)));
    state.possible = state
        .current
        .iter()
        .map(|(base, k)| (*base, vec![k.clone()]))
        .collect();
    (state.durable, state.log_start) = (end, start);
    (state.cutting, state.starting, state.restart) = (None, None, None);
    assert_eq!(log.ackable().offset().0, end);
    judge_state(log, state);
}

fn judge_state<E: Env>(log: &Log<E>, state: &State) {
    let in_log = || state.current.values().filter(|k| k.end() > state.log_start);
    for known in in_log() {
        let at = known.base.max(state.log_start);
        let epoch = log.leader_epochs().epoch_for(Offset(at));
        assert_eq!(
            epoch,
            Some(LeaderEpoch(known.epoch)),
            "epoch of {known:?} in {:?}",
            log.leader_epochs()
        );
    }
    let ids: BTreeSet<ProducerId> = in_log().filter_map(|k| k.producer).map(|(id, _)| id).collect();
    for id in ids {
        let of_it = |k: &&Known| k.producer.is_some_and(|(of, _)| of == id);
        let all: Vec<&Known> = state.current.values().filter(of_it).collect();
        let window: Vec<_> = all[all.len().saturating_sub(5)..]
            .iter()
            .map(|k| (k.base, k.end() - 1))
            .collect();
        let known = log
            .producers()
            .get(id)
            .map(|p| p.window.batches().to_vec())
            .unwrap_or_default();
        let known: Vec<_> = known
            .iter()
            .map(|b| (b.first_offset().0, b.last_offset.0))
            .collect();
        assert_eq!(known, window, "the window of producer {id}");
    }
}

async fn all_batches<E: Env>(reader: &LogReader<E>) -> Vec<Known> {
    let mut found = Vec::new();
    let mut at = reader.log_start();
    while let Some(bytes) = reader.read_bytes(at, UpTo::LogEnd, 700).await.expect("readable") {
        for batch in batches(bytes) {
            let batch = batch.expect("whole batches");
            at = batch.header.next_offset();
            found.push(known(&batch));
        }
    }
    found
}

fn known(batch: &Batch) -> Known {
    batch.check_crc().expect("undamaged");
    let records = batch.records(1 << 20).expect("records");
    let first = records.iter().next().expect("one").expect("sound");
    let value = first
        .value
        .and_then(|v| v.try_into().ok())
        .map(i64::from_be_bytes);
    let header = &batch.header;
    Known {
        base: header.base_offset.0,
        count: i64::from(header.last_offset_delta) + 1,
        value: value.expect("eight bytes"),
        producer: header
            .has_producer_id()
            .then_some((header.producer_id, header.base_sequence)),
        epoch: header.partition_leader_epoch.0,
    }
}

fn time_of(value: i64) -> i64 {
    1000 + (value ^ 1) * 10
}

fn build(value: i64, count: i64, producer: Option<(ProducerId, Sequence)>) -> Batch {
    let mut builder = BatchBuilder::new();
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, ProducerEpoch(0), sequence);
    }
    for n in value..value + count {
        builder.push(UnixMillis(time_of(n)), None, Some(&n.to_be_bytes()), &[]);
    }
    builder.build()
}

fn append<E: Env>(log: &mut Log<E>, model: &Model, draw: &mut Draw, env: &E) {
    if !log.can_stage() {
        return;
    }
    let count = 1 + draw.below(6) as i64;
    let id = ProducerId(draw.below(PRODUCERS + 1) as i64);
    let next = |p: &brokkr_log::Producer| p.window.batches().last().map(|b| b.last_sequence.plus(1));
    let producer = (id.0 > 0).then(|| (id, log.producers().get(id).and_then(next).unwrap_or(Sequence(0))));
    let mut state = model.lock();
    let (value, epoch) = (state.next_value, state.epoch);
    state.next_value += count;
    let batch = build(value, count, producer);
    let appended = match log.append(&batch, Origin::Client, LeaderEpoch(epoch), env.now(), env.wall()) {
        Ok(appended) => appended,
        Err(AppendError::Broken(_)) => return,
        Err(other) => panic!("{other}"),
    };
    let end = state
        .current
        .last_key_value()
        .map_or(state.log_start, |(_, k)| k.end())
        .max(state.log_start);
    assert_eq!((appended.base_offset.0, appended.duplicate), (end, false));
    let known = Known {
        base: end,
        count,
        value,
        producer,
        epoch,
    };
    state.possible.entry(end).or_default().push(known.clone());
    state.current.insert(end, known);
}

/// Retries one of the last five batches of a producer (I2), or sends one that leaves a gap.
fn repeat<E: Env>(log: &mut Log<E>, model: &Model, draw: &mut Draw, env: &E) {
    let id = ProducerId(1 + draw.below(PRODUCERS) as i64);
    let state = model.lock();
    let mine = state
        .current
        .values()
        .filter(|k| k.producer.is_some_and(|(of, _)| of == id));
    let in_window = log.producers().get(id).map_or(0, |p| p.window.batches().len());
    let all: Vec<&Known> = mine.collect();
    let nth = draw.below(5) as usize;
    let Some(known) = all
        .len()
        .checked_sub(nth + 1)
        .map(|i| all[i])
        .filter(|_| nth < in_window)
    else {
        return;
    };
    let epoch = LeaderEpoch(state.epoch);
    let batch = build(known.value, known.count, known.producer);
    match log.append(&batch, Origin::Client, epoch, env.now(), env.wall()) {
        Ok(again) => assert_eq!((again.duplicate, again.base_offset.0), (true, known.base)),
        Err(AppendError::Broken(_)) => return,
        Err(other) => panic!("{other}"),
    }
    let last = all.last().expect("there is one");
    let gap = last.producer.map(|(_, s)| (id, s.plus(last.count as i32 + 1)));
    let refused = log.append(&build(-10, 1, gap), Origin::Client, epoch, env.now(), env.wall());
    assert!(matches!(refused, Err(AppendError::Sequence(_))), "{refused:?}");
}

async fn drive<E: Env>(log: &mut Log<E>, model: &Model, env: &E, nanos: u64) {
    let mut until = Box::pin(env.sleep_until(env.now() + Duration::from_nanos(nanos)));
    loop {
        let event = tokio::select! {
            biased;
            event = log.next_event() => event,
            () = &mut until => return,
        };
        note(log, model, event);
    }
}

/// Takes the queued events without waiting for more, such as failures during another operation.
async fn drain<E: Env>(log: &mut Log<E>, model: &Model) {
    loop {
        let event = tokio::select! {
            biased;
            event = log.next_event() => event,
            () = std::future::ready(()) => return,
        };
        note(log, model, event);
    }
}

fn note<E: Env>(log: &Log<E>, model: &Model, event: Event) {
    let mut state = model.lock();
    match event {
        Event::Ackable(end) => {
            let end = end.offset().0;
            assert!(
                end >= state.durable,
                "only ever further: {end} after {}",
                state.durable
            );
            assert!(end <= log.written_end().0);
            state.durable = end;
        }
        Event::Failed { from, .. } => {
            assert!(from.0 >= state.durable, "{from} was acknowledged");
            *state.reached.entry("failed append").or_insert(0) += 1;
            // Removed from the log; a crash may bring it back.
            state.current.retain(|base, _| *base < from.0);
        }
    }
    judge_end(log, &state);
}

/// The staged log end offset is the model's, unless a queued event changes it.
fn judge_end<E: Env>(log: &Log<E>, state: &State) {
    let end = state
        .current
        .last_key_value()
        .map_or(state.log_start, |(_, k)| k.end())
        .max(state.log_start);
    assert!(
        log.log_end().0 <= end,
        "the log ends at {}, the model at {end}",
        log.log_end()
    );
}

async fn read_some<E: Env>(log: &mut Log<E>, model: &Model, draw: &mut Draw) {
    let (start, end) = (log.log_start().0, log.written_end().0);
    if start == end {
        return;
    }
    let hw = start + draw.below((end - start) as u64 + 1) as i64;
    log.set_high_watermark(Offset(hw));
    let reader = log.reader();
    let at = start + draw.below((end - start) as u64) as i64;
    let max_bytes = 1 + draw.below(900) as u32;
    let up_to = if draw.below(2) == 0 {
        UpTo::LogEnd
    } else {
        UpTo::HighWatermark
    };
    let bytes = reader
        .read_bytes(Offset(at), up_to, max_bytes)
        .await
        .expect("readable");
    let found: Vec<Known> = bytes
        .into_iter()
        .flat_map(batches)
        .map(|b| known(&b.expect("whole batches")))
        .collect();
    let state = model.lock();
    let limit = if up_to == UpTo::LogEnd { end } else { hw };
    // A batch that contains the limit is left out.
    let model: Vec<Known> = state
        .current
        .values()
        .filter(|k| k.end() > at && k.end() <= limit)
        .take(found.len())
        .cloned()
        .collect();
    assert_eq!(found, model, "read at {at} up to {limit}");
    let first = state.current.values().find(|k| k.end() > at);
    let readable = at < limit && first.is_some_and(|k| k.end() <= limit);
    assert_eq!(
        !found.is_empty(),
        readable,
        "read at {at} up to {limit}: something or nothing"
    );
}

async fn read_times<E: Env>(log: &mut Log<E>, model: &Model, draw: &mut Draw) {
    let reader = log.reader();
    let target = draw.below(time_of(model.lock().next_value) as u64 + 20) as i64;
    let found = reader
        .offset_for_timestamp(UnixMillis(target), UpTo::LogEnd, 1 << 20)
        .await
        .expect("readable");
    let state = model.lock();
    let (start, end) = (reader.log_start().0, reader.log_end().0);
    let records = state
        .current
        .values()
        .flat_map(|k| (0..k.count).map(move |i| (k.base + i, k.value + i)));
    let model = { records }
        .filter(|(offset, _)| *offset >= start && *offset < end)
        .find(|(_, value)| time_of(*value) >= target);
    assert_eq!(
        found.map(|f| (f.offset.0, f.timestamp.0)),
        model.map(|(o, v)| (o, time_of(v))),
        "time {target}"
    );
}

async fn truncate<E: Env>(log: &mut Log<E>, model: &Model, draw: &mut Draw, env: &E) {
    drive(log, model, env, 1_000_000).await;
    let (start, end) = (log.log_start().0, log.log_end().0);
    let before = log.checkpoint().truncations;
    let mut restart = draw.below(12) == 0;
    let result = if restart {
        let at = end + draw.below(20) as i64;
        {
            let mut state = model.lock();
            (state.cutting, state.starting, state.restart) = (Some(i64::MIN), Some((at, at)), Some(before));
        }
        log.truncate_fully_and_start_at(Offset(at)).await
    } else {
        // Mostly near the end, as followers do; sometimes everything.
        let back = if draw.below(4) == 0 {
            draw.below((end - start) as u64 + 1)
        } else {
            draw.below(12)
        };
        let to = (end - back as i64).max(start);
        let aligned = model
            .lock()
            .current
            .values()
            .find(|k| k.end() > to && k.base < to)
            .map_or(to, |k| k.base);
        {
            let mut state = model.lock();
            state.cutting = Some(aligned);
            // The log start offset is inside the batch: the log restarts there.
            restart = aligned < start && to < end;
            if restart {
                (state.cutting, state.starting, state.restart) =
                    (Some(i64::MIN), Some((to, to)), Some(before));
            }
        }
        log.truncate_to(Offset(to)).await
    };
    if result.is_err() {
        if log.broken().is_none() {
            // The truncation was not begun.
            let mut state = model.lock();
            (state.cutting, state.starting, state.restart) = (None, None, None);
        }
        return;
    }
    let mut state = model.lock();
    (state.cutting, state.starting, state.restart) = (None, None, None);
    if log.checkpoint().truncations == before {
        return;
    }
    *state
        .reached
        .entry(if restart { "begun anew" } else { "truncated" })
        .or_insert(0) += 1;
    // Batches that were staged or undone before are removed, too.
    let end = log.log_end().0;
    let keep = if restart { i64::MIN } else { end };
    state.current.retain(|base, _| *base < keep);
    state.possible.retain(|base, _| *base < keep);
    (state.durable, state.log_start) = (end, log.log_start().0);
    judge_state(log, &state);
}

async fn raise_start<E: Env>(log: &mut Log<E>, model: &Model, draw: &mut Draw) {
    let (start, end) = (log.log_start().0, log.ackable().offset().0);
    log.set_high_watermark(Offset(end));
    let to = start + draw.below((end - start) as u64 + 1).min(draw.below(40)) as i64;
    model.lock().starting = Some((start, to));
    // On a full disk it fails; after a crash it may have happened.
    if log.advance_log_start(Offset(to)).await.is_ok() {
        model.reach("start raised");
        model.lock().starting = None;
    }
    assert!(log.log_start() == Offset(to) || log.log_start() == Offset(start));
    model.lock().log_start = log.log_start().0;
}

async fn retire<E: Env>(log: &mut Log<E>, model: &Model, env: &E, draw: &mut Draw) {
    let end = log.ackable().offset();
    log.set_high_watermark(end);
    let most = log.size_bytes().saturating_sub(draw.below(2500)) as i64;
    log.set_config(LogConfig {
        retention_bytes: most,
        ..model.config.clone()
    });
    model.lock().starting = Some((log.log_start().0, end.0));
    let result = log.enforce_retention(env.now(), env.wall()).await;
    log.set_config(model.config.clone());
    model.lock().log_start = log.log_start().0;
    if let Ok(retired) = result {
        model.lock().starting = None;
        if retired.segments > 0 {
            model.reach("segments retired");
        }
    }
}

async fn record<E: Env>(dir: &LogDir<E>, log: &Log<E>, model: &Model) {
    let point = log.checkpoint();
    assert!(
        point
            .recovery_point
            .is_some_and(|p| p.0 <= model.lock().durable.max(log.durable_end().0))
    );
    // On a full disk the older checkpoint stays.
    drop(checkpoint::write(dir, &BTreeMap::from([(FOLDER.to_owned(), point)])).await);
}

async fn lead<E: Env>(log: &mut Log<E>, model: &Model) {
    let epoch = {
        let mut state = model.lock();
        state.epoch += 1;
        LeaderEpoch(state.epoch)
    };
    if log.assign_epoch(epoch).await.is_ok() {
        assert_eq!(log.latest_epoch(), Some(epoch));
    }
}

fn inject(model: &Model, draw: &mut Draw) {
    (model.fault)(match draw.below(12) {
        0 => Fault::Sync,
        1 => Fault::Write,
        2..=6 => Fault::Room(draw.below(3000)),
        _ => Fault::None,
    });
}

async fn stop_and_start<E: Env>(dir: &LogDir<E>, mut log: Log<E>, model: &Model, env: &E) -> Option<Log<E>> {
    (model.fault)(Fault::None);
    drive(&mut log, model, env, 20_000_000).await;
    if log.broken().is_some() || dir.dir().poisoned().is_some() {
        assert!(
            dir.dir().poisoned().is_none() || log.close().await.is_err(),
            "a poisoned stop is no clean one"
        );
        return None;
    }
    let recorded = log.close().await.expect("a clean stop");
    let logs = BTreeMap::from([(FOLDER.to_owned(), recorded)]);
    checkpoint::write_clean_stop(dir, &logs, 1)
        .await
        .expect("written");
    model.reach("clean stop");
    let mut log = start(dir, model).await;
    judge(&mut log, model).await;
    Some(log)
}

fn idle_files(log_idle_files: usize) -> brokkr_log::LogLimits {
    brokkr_log::LogLimits {
        log_idle_files,
        ..Default::default()
    }
}
