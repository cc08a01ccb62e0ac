//! A consumer process.

use std::collections::BTreeMap;
use std::time::Duration;

use brokkr_client::admin::OffsetSpec;
use brokkr_client::consumer::{ConsumerRecord, Fault};
use brokkr_client::{Client, Consumer, Polled, StartAt, TopicPartition};
use brokkr_env::{Env, Rng};
use brokkr_history::{MicroOp, Op, Polls, Val};
use brokkr_types::{Offset, Uuid};
use brokkr_wire::ErrorCode;

use crate::recorder::Drained;
use crate::spec::{self, ClientSpec, ConsumerSpec};
use crate::value::parse_value;
use crate::{Recorder, Stop};

/// Longest time to ask for one partition's end before the next partition is asked.
const LIST_OFFSETS_TIMEOUT: Duration = Duration::from_secs(1);
const LIST_OFFSETS_PAUSE: Duration = Duration::from_millis(1);
/// Of how many polls the beginning is kept: a fetch is seldom answered in a later one.
const POLLS_KEPT: u64 = 1_000;

/// A consumer that was shown so many records no longer begins again: it would read a long log for ever.
const REWINDING_RECORDS_MAX: usize = 100_000;

struct ConsumerProcess<'a, E: Env> {
    env: &'a E,
    spec: &'a ConsumerSpec,
    recorder: &'a Recorder,
    partitions: Vec<TopicPartition>,
    consumer: Consumer<E>,
    polls: u64,
    /// Records that it was shown.
    shown: usize,
    /// When each of the last polls began, in the history's time.
    began: BTreeMap<u64, i64>,
    client: Client<E>,
    rng: Rng,
}

/// Reads from the beginning until stopped, then to the end of each partition at that time.
pub async fn run_consumer<E: Env>(
    env: &E,
    client_spec: &ClientSpec,
    spec: &ConsumerSpec,
    recorder: &Recorder,
    stop: &Stop,
) {
    let client = Client::new(env, client_spec.config());
    let mut consumer_process = ConsumerProcess {
        env,
        spec,
        recorder,
        partitions: spec::partitions(&spec.partitions),
        consumer: Consumer::new(&client, spec.config()),
        polls: 0,
        shown: 0,
        began: BTreeMap::new(),
        rng: env.rng("workload consumer"),
        client,
    };
    consumer_process.assign_from_beginning();
    while !stop.is_stopped() {
        consumer_process.poll().await;
        if spec
            .rewind_after
            .is_some_and(|n| consumer_process.polls.is_multiple_of(n))
            && consumer_process.shown < REWINDING_RECORDS_MAX
        {
            consumer_process.assign_from_beginning();
        }
        consumer_process.pause_between_polls(stop).await;
    }
    // A separate client: the consumer's may be in the middle of connecting, which proceeds only while it is polled.
    let mut config = client_spec.config();
    config.api_timeout = config.api_timeout.min(LIST_OFFSETS_TIMEOUT);
    consumer_process.drain(&Client::new(env, config)).await;
}

impl<E: Env> ConsumerProcess<'_, E> {
    fn assign_from_beginning(&mut self) {
        let all = self.partitions.clone();
        self.reassign(&all, |consumer, partitions| {
            consumer.assign(&[], StartAt::Earliest);
            consumer.assign(partitions, StartAt::Earliest);
        });
    }

    /// Changes the assignment and records it in the history: the next reads of the sought partitions are from the beginning.
    fn reassign(
        &mut self,
        sought: &[TopicPartition],
        begin: impl FnOnce(&mut Consumer<E>, &[TopicPartition]),
    ) {
        let key = |tp| self.recorder.key_of(tp, Uuid::ZERO);
        let sought = sought.iter().map(key).collect();
        let keys: Vec<_> = self.partitions.iter().map(key).collect();
        let (now, process) = (self.env.now(), self.spec.process);
        self.recorder.invoke(now, process, Op::Assign(keys.clone()));
        begin(&mut self.consumer, &self.partitions);
        self.recorder.assigned(now, process, keys, sought);
    }

    /// Pauses. Fetched data stays in this process, or unread in the connection if the consumer stalls.
    async fn pause_between_polls(&mut self, stop: &Stop) {
        let stuck = self
            .spec
            .stuck_after
            .is_some_and(|n| self.polls.is_multiple_of(n));
        let pause = match stuck {
            true => Duration::from_millis(self.spec.stuck_ms),
            false if self.spec.pause_max_ms == 0 => return,
            false => Duration::from_micros(self.rng.below(self.spec.pause_max_ms * 1000 + 1)),
        };
        let until = self.env.now() + pause;
        if stuck {
            brokkr_types::reached!("a consumer stood still");
            self.client.config().connection.hold.until(until);
            // It sleeps to the end even if it is stopped: a stalled consumer does not react.
            self.env.sleep_until(until).await;
        }
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = self.env.sleep_until(until) => {}
        }
    }

    async fn poll(&mut self) {
        self.polls += 1;
        let process = self.spec.process;
        let invoked = Op::Poll(vec![MicroOp::Poll(None)]);
        self.recorder.invoke(self.env.now(), process, invoked);
        let timeout = Duration::from_millis(self.spec.poll_timeout_ms);
        let began = self.recorder.nanos(self.env.now());
        self.began.insert(self.polls, began);
        let polled = self.consumer.poll(timeout).await;
        let now = self.env.now();
        for round in &polled.fetches {
            let asked = self.began.get(&round.poll).copied().unwrap_or(0);
            self.recorder.fetched(asked, now, process, round);
        }
        self.began = self.began.split_off(&self.polls.saturating_sub(POLLS_KEPT));
        self.recorder.shown(now, process, &polled);
        self.shown += polled.records.values().map(Vec::len).sum::<usize>();
        let shown = polls(self.recorder, &polled);
        self.recorder.poll_ended(now, process, shown, &polled);
        let mut lost = Vec::new();
        for (tp, fault) in polled.faults {
            if fault == Fault::Recreated {
                brokkr_types::reached!("a consumer found its topic created again");
                self.consumer.seek(&tp, StartAt::Earliest);
                continue;
            }
            let at = match &fault {
                Fault::Gap { expected, .. } | Fault::Backwards { expected, .. } => Some(*expected),
                _ => self.consumer.position(&tp),
            };
            let at = at.map_or(-1, |offset| offset.0);
            self.recorder.fault(now, process, &tp, at, format!("{fault:?}"));
            if fault == Fault::Refused(ErrorCode::OFFSET_OUT_OF_RANGE) {
                lost.push(tp);
            }
        }
        // Only the lost partitions: a consumer that retention overtakes repeatedly must still reach the end of the others.
        if !lost.is_empty() {
            self.reassign(&lost, |consumer, _| {
                lost.iter().for_each(|tp| consumer.seek(tp, StartAt::Earliest));
            });
        }
    }

    /// Reads to the current end of every partition. A partition whose end can't be determined does not delay the others.
    async fn drain(&mut self, client: &Client<E>) {
        let timeout = Duration::from_millis(self.spec.drain_timeout_ms);
        let isolation = self.spec.config().isolation;
        let mut ends: Vec<_> = self.partitions.iter().map(|tp| (tp.clone(), None)).collect();
        let asked_until = self.env.now() + timeout;
        while ends.iter().any(|(_, end)| end.is_none()) && self.env.now() < asked_until {
            for (tp, end) in ends.iter_mut().filter(|(_, end)| end.is_none()) {
                let listed = client.list_offsets(tp, OffsetSpec::Latest, isolation).await;
                *end = listed.ok().and_then(|l| l.offset);
            }
            // A request that can't even be sent fails at once.
            self.env.sleep_until(self.env.now() + LIST_OFFSETS_PAUSE).await;
        }
        let until = self.env.now() + timeout;
        let reached = |consumer: &Consumer<E>| {
            let reached =
                |(tp, end): &(TopicPartition, Option<Offset>)| end.is_none() || consumer.position(tp) >= *end;
            ends.iter().all(reached)
        };
        while !reached(&self.consumer) && self.env.now() < until {
            self.poll().await;
        }
        for (tp, end) in ends {
            self.recorder.drained(Drained {
                process: self.spec.process,
                topic: tp.topic.to_string(),
                partition: tp.partition,
                position: self.consumer.position(&tp).map(|o| o.0),
                end: end.map(|o| o.0),
            });
        }
    }
}

fn polls(recorder: &Recorder, polled: &Polled) -> Polls {
    let message = |r: &ConsumerRecord| {
        let value = match &r.value {
            None => Val::Null,
            Some(bytes) => match parse_value(bytes) {
                Some(value) => Val::Int(value),
                None => Val::from(&*String::from_utf8_lossy(bytes)),
            },
        };
        (r.offset.0, value)
    };
    let mut all = Polls::new();
    for (tp, records) in &polled.records {
        // If a topic was recreated meanwhile, there may be records of both.
        for same in records.chunk_by(|a, b| a.topic_id == b.topic_id) {
            let key = recorder.key_of(tp, same[0].topic_id);
            all.entry(key).or_default().extend(same.iter().map(message));
        }
    }
    all
}
