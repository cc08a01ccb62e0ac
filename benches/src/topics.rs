//! Many topics: how long it takes to create them, to serve them and to start with them, and what they cost while idle.
//!
//! One broker at a time, on a new directory: create the topics in batches, wait, produce one record to each, stop cleanly and
//! start, kill -9 and start. After each start every topic's end offset is requested and must be as before.

use crate::client::{Client, PRODUCE_VERSION};
use crate::error::BenchError;
use crate::proc;
use crate::report::{Figure, Subject, Table};
use crate::start::{RunningBroker, Startable};
use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use brokkr_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use brokkr_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use brokkr_wire::records::BatchBuilder;
use brokkr_wire::{ErrorCode, Records, Str};
use std::time::{Duration, Instant};

const CREATE_TOPICS_VERSION: i16 = 5;
const LIST_OFFSETS_VERSION: i16 = 7;
const TIMEOUT_MS: i32 = 60_000;
/// Topics in one Produce or ListOffsets.
const TOPICS_PER_REQUEST: u32 = 50;
/// Longest time until a topic is served.
const SERVING_MAX: Duration = Duration::from_secs(300);
const SERVING_POLL: Duration = Duration::from_millis(50);

/// Parameters.
#[derive(Clone, Copy, Debug)]
pub struct TopicsPlan {
    /// Number of topics.
    pub topics: u32,
    /// Partitions of each topic.
    pub partitions: i32,
    /// Topics in one CreateTopics.
    pub batch: u32,
    /// Topics whose partitions get a record: a broker has a descriptor for each of their logs.
    pub written: u32,
    /// Time over which idle CPU time is measured.
    pub idle: Duration,
}

/// Measures each broker on its own. Its data directory must be empty at first.
pub fn run(brokers: &[Startable], reference: Option<String>, plan: TopicsPlan, say: &dyn Fn(&str)) -> Table {
    let measure = |broker: &Startable| {
        let mut subject = Subject::new(&broker.name, None);
        match measure_once(broker, plan, say) {
            Ok(figures) => subject.rounds.push(figures),
            Err(e) => subject.failure = Some(e.to_string()),
        }
        subject
    };
    Table {
        work: "topics".to_owned(),
        about: format!(
            "{} topics of {} partitions, created in batches of {}, {} of them written",
            plan.topics, plan.partitions, plan.batch, plan.written
        ),
        subjects: brokers.iter().map(measure).collect(),
        reference,
    }
}

fn measure_once(broker: &Startable, plan: TopicsPlan, say: &dyn Fn(&str)) -> Result<Vec<Figure>, BenchError> {
    let partitions = f64::from(plan.topics) * f64::from(plan.partitions);
    let mut figures = Vec::new();
    let mut note = |name: &'static str, value: f64| {
        say(&format!("{}: {name} {value:.2}", broker.name));
        figures.push(Figure { name, value });
    };
    let running = RunningBroker::start(broker)?;
    std::thread::sleep(plan.idle.min(Duration::from_secs(3)));
    let empty = proc::usage(running.pid())?.resident_bytes;
    let kb = |resident: u64| resident.saturating_sub(empty) as f64 / 1e3 / partitions;

    let begun = Instant::now();
    create(&mut running.client()?, plan)?;
    note("create s", begun.elapsed().as_secs_f64());
    ends_are(&mut running.client()?, TopicsPlan { written: 0, ..plan })?;
    note("all serving s", begun.elapsed().as_secs_f64());
    let (cpu, resident) = idle(&running, plan)?;
    note("idle CPU %", cpu);
    note("unused, KB a partition", kb(resident));

    let begun = Instant::now();
    produce(&mut running.client()?, plan)?;
    note("a record to each s", begun.elapsed().as_secs_f64());
    let (_, resident) = idle(&running, plan)?;
    note("used, KB a partition", kb(resident));

    note("clean stop s", running.stop()?.as_secs_f64());
    let running = RunningBroker::start(broker)?;
    note("ready after a clean stop s", running.ready().as_secs_f64());
    ends_are(&mut running.client()?, plan)?;
    note("serving after a clean stop s", running.age().as_secs_f64());
    let (cpu, resident) = idle(&running, plan)?;
    note("idle CPU after a clean stop %", cpu);
    note("after a clean stop, KB a partition", kb(resident));

    running.kill()?;
    let running = RunningBroker::start(broker)?;
    note("ready after kill -9 s", running.ready().as_secs_f64());
    ends_are(&mut running.client()?, plan)?;
    note("serving after kill -9 s", running.age().as_secs_f64());
    let (cpu, resident) = idle(&running, plan)?;
    note("idle CPU after kill -9 %", cpu);
    note("after kill -9, KB a partition", kb(resident));
    running.kill()?;
    Ok(figures)
}

/// Waits while nothing happens. Returns the broker's share of a core, and its memory afterwards.
fn idle(running: &RunningBroker, plan: TopicsPlan) -> Result<(f64, u64), BenchError> {
    // Background work ends first.
    std::thread::sleep(Duration::from_secs(3));
    let before = proc::usage(running.pid())?;
    std::thread::sleep(plan.idle);
    let after = proc::usage(running.pid())?;
    let cpu = (after.cpu_s - before.cpu_s) / plan.idle.as_secs_f64() * 100.0;
    Ok((cpu, after.resident_bytes))
}

fn name(topic: u32) -> Str {
    Str::from(format!("topic-{topic:06}"))
}

/// The numbers of `topics` topics, in groups of `size`.
fn groups(topics: u32, size: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    let size = size.max(1);
    (0..topics.div_ceil(size)).map(move |i| i * size..((i + 1) * size).min(topics))
}

fn create(client: &mut Client, plan: TopicsPlan) -> Result<(), BenchError> {
    for group in groups(plan.topics, plan.batch) {
        let topic = |topic| CreatableTopic {
            name: name(topic),
            num_partitions: plan.partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: group.map(topic).collect(),
            timeout_ms: TIMEOUT_MS,
            ..CreateTopicsRequest::default()
        };
        for topic in client.call(&request, CREATE_TOPICS_VERSION)?.topics {
            BenchError::check(topic.error_code, || format!("creating {}", topic.name))?;
        }
    }
    Ok(())
}

/// Repeats a request until no topic in it fails with a retriable error.
fn until_served(
    mut ask: impl FnMut() -> Result<ErrorCode, BenchError>,
    what: &str,
) -> Result<(), BenchError> {
    let deadline = Instant::now() + SERVING_MAX;
    loop {
        match ask()? {
            ErrorCode::NONE => return Ok(()),
            code if code.is_retriable() && Instant::now() < deadline => std::thread::sleep(SERVING_POLL),
            code => {
                return Err(BenchError::Broker {
                    what: what.to_owned(),
                    code,
                });
            }
        }
    }
}

/// Waits until every partition is served, and checks its end offset: 1 where it was written, or 0.
fn ends_are(client: &mut Client, plan: TopicsPlan) -> Result<(), BenchError> {
    let written: Vec<Str> = (0..plan.written).map(name).collect();
    for group in groups(plan.topics, TOPICS_PER_REQUEST) {
        let partition = |partition_index| ListOffsetsPartition {
            partition_index,
            timestamp: -1,
            ..ListOffsetsPartition::default()
        };
        let topic = |topic| ListOffsetsTopic {
            name: name(topic),
            partitions: (0..plan.partitions).map(partition).collect(),
            ..ListOffsetsTopic::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: group.map(topic).collect(),
            ..ListOffsetsRequest::default()
        };
        let ask = || {
            let response = client.call(&request, LIST_OFFSETS_VERSION)?;
            let mut refused = ErrorCode::NONE;
            for topic in &response.topics {
                let end = i64::from(written.binary_search(&topic.name).is_ok());
                for partition in &topic.partitions {
                    if partition.error_code != 0 {
                        refused = ErrorCode(partition.error_code);
                    } else if partition.offset != end {
                        let what = format!("{} ends at {} instead of {end}", topic.name, partition.offset);
                        return Err(BenchError::Check(what));
                    }
                }
            }
            Ok(refused)
        };
        until_served(ask, "ListOffsets")?;
    }
    Ok(())
}

/// Produces one record to each partition. Records that a partly refused request appended are not sent again.
fn produce(client: &mut Client, plan: TopicsPlan) -> Result<(), BenchError> {
    let mut builder = BatchBuilder::new().at(Offset(0), LeaderEpoch(-1));
    builder.push(UnixMillis(0), None, Some(&[7; 100]), &[]);
    let batch = builder.build().bytes;
    for group in groups(plan.written, TOPICS_PER_REQUEST) {
        let mut left: Vec<(u32, i32)> = group
            .flat_map(|topic| (0..plan.partitions).map(move |partition| (topic, partition)))
            .collect();
        until_served(
            || {
                let topic = |(topic, index): &(u32, i32)| TopicProduceData {
                    name: name(*topic),
                    partition_data: vec![PartitionProduceData {
                        index: *index,
                        records: Some(Records::Bytes(batch.clone())),
                        ..PartitionProduceData::default()
                    }],
                    ..TopicProduceData::default()
                };
                let request = ProduceRequest {
                    acks: -1,
                    timeout_ms: TIMEOUT_MS,
                    topic_data: left.iter().map(topic).collect(),
                    ..ProduceRequest::default()
                };
                let response = client.call(&request, PRODUCE_VERSION)?;
                let mut refused = ErrorCode::NONE;
                for topic in &response.responses {
                    for partition in &topic.partition_responses {
                        let at = (topic.name.clone(), partition.index);
                        match ErrorCode(partition.error_code) {
                            ErrorCode::NONE => left.retain(|(t, p)| (name(*t), *p) != at),
                            code => refused = code,
                        }
                    }
                }
                Ok(refused)
            },
            "Produce",
        )?;
    }
    Ok(())
}
