//! A plan in words: what exists at first, each client, and each fault, in order of time.

use std::fmt::Write as _;

use brokkr_workloads::{ConsumerSpec, ProducerSpec, TopicSpec};

use crate::explain::{capital, fault_text};
use crate::plan::{BROKER_ALWAYS, FIRST_CLIENT, Fault, Plan, node_name};
use crate::report::many;
use crate::rude::{Reads, RudeConnection};

/// What a line of a story is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// A setting of the broker, or of the world.
    Setting,
    /// A topic or a prepared log.
    Topic,
    /// A client.
    Client,
    /// A fault.
    Fault,
    /// The end of the faults, and of the run.
    End,
}

impl Part {
    /// Its name as a class of the style sheet.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Topic => "topic",
            Self::Client => "client",
            Self::Fault => "fault",
            Self::End => "end",
        }
    }
}

/// A line of a story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoryLine {
    /// When, in milliseconds from the start of the run.
    pub at_ms: u64,
    /// What it is about.
    pub part: Part,
    /// Names its subject: the same in the plan that a plan was shrunk to.
    pub key: String,
    /// The sentence.
    pub text: String,
}

/// Tells a plan.
pub fn story(plan: &Plan) -> Vec<StoryLine> {
    let mut lines = Vec::new();
    let mut put = |at_ms, part, key: String, text| {
        lines.push(StoryLine {
            at_ms,
            part,
            key,
            text,
        });
    };
    let settings = plan
        .broker
        .iter()
        .filter(|(key, _)| !BROKER_ALWAYS.contains(&key.as_str()));
    for (key, value) in settings {
        let text = format!("The broker has {key} = {value}.");
        put(0, Part::Setting, key.clone(), text);
    }
    for (key, text) in world(plan) {
        put(0, Part::Setting, key, text);
    }
    for topic in &plan.workload.topics {
        put(0, Part::Topic, format!("topic {}", topic.name), topic_text(topic));
    }
    for log in &plan.prepared {
        let how = if log.compacted {
            ", emptied by compaction"
        } else {
            ""
        };
        let text = format!(
            "The log of {}-{} begins and ends at offset {}{how}.",
            log.topic, log.partition, log.next_offset
        );
        put(
            0,
            Part::Topic,
            format!("log {}-{}", log.topic, log.partition),
            text,
        );
    }
    for (key, text) in clients(plan) {
        put(0, Part::Client, key, text);
    }
    for (i, connection) in plan.rude.iter().enumerate() {
        let key = format!("rude {i}");
        put(connection.at_ms, Part::Client, key, rude_text(i, connection));
    }
    for fault in &plan.faults {
        let Fault { id, at_ms, .. } = fault;
        put(
            *at_ms,
            Part::Fault,
            format!("fault {id}"),
            fault_text(plan, fault),
        );
    }
    let (calm_ms, end_ms) = (plan.secs * 1000 * 3 / 4, plan.secs * 1000);
    let calm = "All faults end; the broker must serve.";
    put(calm_ms, Part::End, "calm".to_owned(), calm.to_owned());
    let end = "The clients stop; the last reader reads every partition to its end.";
    put(end_ms, Part::End, "end".to_owned(), end.to_owned());
    lines.sort_by_key(|l| (l.at_ms, l.part));
    lines
}

/// The story as lines of text.
pub fn story_text(plan: &Plan) -> String {
    let mut text = String::new();
    let mut before = None;
    for line in story(plan) {
        if before.replace(line.part).is_some_and(|part| part != line.part) && line.at_ms == 0 {
            text.push('\n');
        }
        let (s, ms) = (line.at_ms / 1000, line.at_ms % 1000);
        writeln!(text, "{s:>5}.{ms:03} s  {}", line.text).expect("memory has room");
    }
    text
}

/// Settings of the world that differ from the usual.
fn world(plan: &Plan) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut put = |key: &str, text| all.push((key.to_owned(), text));
    if let crate::exec::Strategy::Pct(one_in) = plan.scheduler {
        let text = format!("Tasks run by priority; a task loses its priority once in {one_in} polls.");
        put("scheduler", text);
    }
    if (plan.drift_ppm, plan.wall_ahead_ms) != (0, 0) {
        put(
            "clock",
            clock_text("The broker", plan.drift_ppm, plan.wall_ahead_ms),
        );
    }
    for (node, clock) in &plan.clocks {
        let of = capital(&node_name(plan, *node));
        let text = clock_text(&of, clock.drift_ppm, clock.wall_ahead_ms);
        put(&format!("clock {node}"), text);
    }
    if plan.buffer_bytes != crate::net::BUFFER_BYTES {
        let text = format!(
            "Each direction of a connection buffers {} bytes.",
            plan.buffer_bytes
        );
        put("buffer", text);
    }
    all
}

fn clock_text(of: &str, drift_ppm: i64, wall_ahead_ms: i64) -> String {
    format!(
        "{of} has a monotonic clock that drifts by {drift_ppm} ppm and a wall clock {wall_ahead_ms} ms ahead."
    )
}

fn topic_text(topic: &TopicSpec) -> String {
    let configs: Vec<String> = topic.configs.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    let with = if configs.is_empty() {
        String::new()
    } else {
        format!(" with {}", configs.join(", "))
    };
    let partitions = usize::try_from(topic.partitions).unwrap_or(0);
    format!(
        "Topic {} has {}{with}.",
        topic.name,
        many(partitions, "partition")
    )
}

fn clients(plan: &Plan) -> Vec<(String, String)> {
    let w = &plan.workload;
    let mut all = Vec::new();
    let nodes = FIRST_CLIENT..;
    for (spec, node) in w.producers.iter().zip(nodes) {
        all.push((format!("client {}", spec.process), producer_text(spec, node)));
    }
    let nodes = FIRST_CLIENT + w.producers.len() as u32..;
    for (spec, node) in w.consumers.iter().zip(nodes) {
        all.push((format!("client {}", spec.process), consumer_text(spec, node)));
    }
    if let Some(spec) = &w.admin {
        let queried = match &spec.queried[..] {
            [] => String::new(),
            some => format!(", and asks for offsets by time in {}", partitions(some)),
        };
        let text = format!(
            "The admin (process {}) deletes records of {}{queried}, with pauses up to {} ms.",
            spec.process,
            partitions(&spec.partitions),
            spec.pause_max_ms
        );
        all.push((format!("client {}", spec.process), text));
    }
    if let Some(spec) = &w.recreator {
        let text = format!(
            "The recreator (process {}) deletes and creates again {}: each exists up to {} ms and is gone up to {} ms.",
            spec.process,
            spec.topics.join(", "),
            spec.stays_max_ms,
            spec.gone_max_ms
        );
        all.push((format!("client {}", spec.process), text));
    }
    if let Some(spec) = &w.inspector {
        let text = format!(
            "The inspector (process {}) changes up to {} of its own, named {}…, and asks everything about them, with pauses up to {} ms.",
            spec.process,
            many(spec.topics_max, "topic"),
            spec.prefix,
            spec.pause_max_ms
        );
        all.push((format!("client {}", spec.process), text));
    }
    if let Some(spec) = &w.operator {
        let text = format!(
            "The operator (process {}) creates, changes and deletes up to {} of its own, named {}…, with pauses up to {} ms.",
            spec.process,
            many(spec.topics_max, "topic"),
            spec.prefix,
            spec.pause_max_ms
        );
        all.push((format!("client {}", spec.process), text));
    }
    all
}

fn producer_text(p: &ProducerSpec, node: u32) -> String {
    let mut features = Vec::new();
    let mut feature = |is: bool, text: String| features.extend(is.then_some(text));
    feature(p.idempotent, "idempotent".to_owned());
    feature(!p.idempotent, "not idempotent".to_owned());
    feature(
        true,
        format!(
            "acks={}",
            if p.acks < 0 {
                "all".to_owned()
            } else {
                p.acks.to_string()
            }
        ),
    );
    feature(true, format!("{} in flight", many(p.in_flight_max, "request")));
    feature(p.linger_ms > 0, format!("linger {} ms", p.linger_ms));
    feature(p.compression > 0, format!("compression {}", p.compression));
    feature(p.keys > 0, many(p.keys as usize, "key"));
    feature(
        p.headers_max > 0,
        format!("up to {}", many(p.headers_max as usize, "header")),
    );
    feature(
        p.older_max_ms > 0,
        format!("timestamps up to {} ms old", p.older_max_ms),
    );
    feature(
        p.first_sequence > 0,
        format!("first sequence {}", p.first_sequence),
    );
    let mut text = format!(
        "Producer {} (node {node}) sends up to {} at a time to {}, with pauses up to {} ms: {}.",
        p.process,
        many(p.sends_max as usize, "record"),
        partitions(&p.partitions),
        p.pause_max_ms,
        features.join(", ")
    );
    if let Some(n) = p.operations_max {
        let _ = write!(text, " It stops after {}.", many(n as usize, "operation"));
    }
    if let Some(n) = p.restarts_after {
        let _ = write!(
            text,
            " It restarts with another producer id after {}.",
            many(n as usize, "operation")
        );
    }
    text
}

fn consumer_text(c: &ConsumerSpec, node: u32) -> String {
    let mut text = format!(
        "Consumer {} (node {node}) reads {} from the beginning{}{}.",
        c.process,
        partitions(&c.partitions),
        if c.read_committed { ", read_committed" } else { "" },
        if c.sessions { ", with fetch sessions" } else { "" },
    );
    if let Some(n) = c.rewind_after {
        let _ = write!(text, " It begins again after {}.", many(n as usize, "poll"));
    }
    if let Some(n) = c.stuck_after {
        let _ = write!(
            text,
            " After {} it stalls for {} ms.",
            many(n as usize, "poll"),
            c.stuck_ms
        );
    }
    text
}

fn rude_text(i: usize, c: &RudeConnection) -> String {
    let mut apis: Vec<&str> = c.requests.iter().map(|r| r.api.as_str()).collect();
    apis.sort_unstable();
    apis.dedup();
    let reads = match c.reads {
        Reads::All => "reads the responses".to_owned(),
        Reads::Slowly { bytes, pause_ms } => {
            format!("reads {bytes} bytes of the responses every {pause_ms} ms")
        }
        Reads::Never => "reads no response".to_owned(),
    };
    let cut = c.cut.map_or(String::new(), |n| {
        format!(" It sends only {n} bytes of the last.")
    });
    format!(
        "Rude connection {i} sends {} ({}) and {reads}.{cut}",
        many(c.requests.len(), "request"),
        apis.join(", ")
    )
}

/// `t0-0, t0-1`
fn partitions(all: &[(String, i32)]) -> String {
    match all {
        [] => "no partition".to_owned(),
        some => {
            let names: Vec<String> = some.iter().map(|(t, p)| format!("{t}-{p}")).collect();
            names.join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FAMILIES, Faults, Kind};

    #[test]
    fn a_story_is_in_order_of_time_and_names_everything() {
        let mut plan = Plan::of(4, 60, &Faults::Only(FAMILIES.to_vec()));
        plan.faults.push(Fault {
            when: None,
            id: 77_777,
            at_ms: 1234,
            kind: Kind::Kill { down_ms: 5 },
        });
        let lines = story(&plan);
        assert!(lines.windows(2).all(|w| w[0].at_ms <= w[1].at_ms));
        let of = |part| lines.iter().filter(|l| l.part == part).count();
        assert_eq!(of(Part::Fault), plan.faults.len());
        let w = &plan.workload;
        assert!(of(Part::Client) >= w.producers.len() + w.consumers.len() + plan.rude.len());
        assert!(of(Part::Topic) >= w.topics.len());
        let kill = lines
            .iter()
            .find(|l| l.key == "fault 77777")
            .expect("a line for each fault");
        assert_eq!(
            (kill.at_ms, kill.text.as_str()),
            (1234, "The broker is killed (kill -9) and is started 5 ms later.")
        );
        let mut keys: Vec<&str> = lines.iter().map(|l| l.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), lines.len(), "each line has its own key");
        let text = story_text(&plan);
        assert!(text.contains("    1.234 s  The broker is killed"), "{text}");
        assert!(text.contains("   45.000 s  All faults end"), "{text}");
        assert!(text.ends_with("reads every partition to its end.\n"), "{text}");
    }

    #[test]
    fn rude_connections_are_told_with_their_apis() {
        let plan = Plan::of(1, 12, &Faults::Requests(200));
        let text = story_text(&plan);
        assert!(text.contains("Rude connection 0 sends "), "{text}");
    }
}
