//! A process that reads.

use std::time::Duration;

use brokkr_client::admin::OffsetSpec;
use brokkr_client::consumer::{ConsumerRecord, Fault};
use brokkr_client::{Client, Consumer, Polled, StartAt, TopicPartition};
use brokkr_env::{Env, Rng};
use brokkr_history::{MicroOp, Op, Polls, Type, Val};
use brokkr_types::{Offset, Uuid};
use brokkr_wire::ErrorCode;

use crate::produce::parse_value;
use crate::recorder::Drained;
use crate::spec::{self, ClientSpec, ConsumerSpec};
use crate::{Recorder, Stop};

/// How long one partition is asked where it ends, before another is.
const DRAIN_ASK_MAX: Duration = Duration::from_secs(1);

struct Reader<'a, E: Env> {
    env: &'a E,
    spec: &'a ConsumerSpec,
    recorder: &'a Recorder,
    partitions: Vec<TopicPartition>,
    consumer: Consumer<E>,
    polls: u64,
    client: Client<E>,
    rng: Rng,
}

/// Reads from the beginning until stopped, then to the end as it is at that time.
pub async fn run_consumer<E: Env>(
    env: &E,
    client_spec: &ClientSpec,
    spec: &ConsumerSpec,
    recorder: &Recorder,
    stop: &Stop,
) {
    let client = Client::new(env, client_spec.config());
    let mut reader = Reader {
        env,
        spec,
        recorder,
        partitions: spec::partitions(&spec.partitions),
        consumer: Consumer::new(&client, spec.config()),
        polls: 0,
        rng: env.rng("workload consumer"),
        client,
    };
    reader.begin_at_the_beginning();
    while !stop.is_stopped() {
        reader.poll().await;
        if spec.rewind_after.is_some_and(|n| reader.polls.is_multiple_of(n)) {
            reader.begin_at_the_beginning();
        }
        reader.rest(stop).await;
    }
    // A client of its own: the consumer's may be in the middle of connecting, which goes on only while it is polled.
    let mut asks = client_spec.config();
    asks.api_timeout = asks.api_timeout.min(DRAIN_ASK_MAX);
    reader.drain(&Client::new(env, asks)).await;
}

impl<E: Env> Reader<'_, E> {
    fn begin_at_the_beginning(&mut self) {
        self.assigned(|consumer, partitions| {
            consumer.assign(&[], StartAt::Earliest);
            consumer.assign(partitions, StartAt::Earliest);
        });
    }

    /// A new assignment, for the history as well: what is read next need not follow what was read last.
    fn assigned(&mut self, begin: impl FnOnce(&mut Consumer<E>, &[TopicPartition])) {
        let key = |tp| self.recorder.key_of(tp, Uuid::ZERO);
        let keys: Vec<_> = self.partitions.iter().map(key).collect();
        let (now, process) = (self.env.now(), self.spec.process);
        self.recorder.invoke(now, process, Op::Assign(keys.clone()));
        begin(&mut self.consumer, &self.partitions);
        self.recorder.assigned_from_beginning(now, process, keys);
    }

    /// Does nothing for a while: what was fetched meanwhile waits in this process, or where it stands still before it.
    async fn rest(&mut self, stop: &Stop) {
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
            // To its end, whoever asks it to stop: who stands still doesn't hear that.
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
        let polled = self.consumer.poll(timeout).await;
        let now = self.env.now();
        let completed = Op::Poll(vec![MicroOp::Poll(Some(polls(self.recorder, &polled)))]);
        self.recorder.complete(now, process, Type::Ok, completed);
        let mut lost = Vec::new();
        for (tp, fault) in polled.faults {
            if fault == Fault::Recreated {
                brokkr_types::reached!("a consumer found its topic created again");
                self.consumer.seek(&tp, StartAt::Earliest);
                continue;
            }
            self.recorder.fault(now, process, &tp, format!("{fault:?}"));
            if fault == Fault::Refused(ErrorCode::OFFSET_OUT_OF_RANGE) {
                lost.push(tp);
            }
        }
        // Only there: who is outrun by retention again and again must come to the end of all else.
        if !lost.is_empty() {
            self.assigned(|consumer, _| lost.iter().for_each(|tp| consumer.seek(tp, StartAt::Earliest)));
        }
    }

    /// Reads until every partition's end, as it is now, is reached. One that nobody can tell the end of holds up no other.
    async fn drain(&mut self, client: &Client<E>) {
        let patience = Duration::from_millis(self.spec.drain_timeout_ms);
        let isolation = self.spec.config().isolation;
        let mut ends: Vec<_> = self.partitions.iter().map(|tp| (tp.clone(), None)).collect();
        let asked_until = self.env.now() + patience;
        while ends.iter().any(|(_, end)| end.is_none()) && self.env.now() < asked_until {
            for (tp, end) in ends.iter_mut().filter(|(_, end)| end.is_none()) {
                let listed = client.list_offsets(tp, OffsetSpec::Latest, isolation).await;
                *end = listed.ok().and_then(|l| l.offset);
            }
        }
        let until = self.env.now() + patience;
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
        // Of a topic that was recreated meanwhile there may be records of both.
        for same in records.chunk_by(|a, b| a.topic_id == b.topic_id) {
            let key = recorder.key_of(tp, same[0].topic_id);
            all.entry(key).or_default().extend(same.iter().map(message));
        }
    }
    all
}
