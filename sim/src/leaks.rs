//! S1: a client that comes, asks everything and leaves, again and again, does not make the broker's memory grow.
//!
//! Runs AFTER the run's hash is taken, when all other clients have left, with some of the seeds: it costs as much as a run. Each round
//! does the same, in a connection of its own: it asks about what is there, fetches where nothing is, in sessions, some of which it
//! leaves waiting, and closes. What a round leaves behind is seen as growth of all that is allocated. A table that doubles when it is full
//! does not grow in each round, so the check compares what was allocated after numbers of rounds that more than double.

use std::time::Duration;

use brokkr_client::admin::OffsetSpec;
use brokkr_client::client::{Link, Peer};
use brokkr_client::{Client, ClientConfig, IsolationLevel, Result, TopicPartition};
use brokkr_env::Env;
use brokkr_types::Uuid;
use brokkr_wire::Str;
use brokkr_wire::messages::{
    CreateTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, FetchRequest, FetchResponse, MetadataRequest, OffsetForLeaderEpochRequest,
    create_topics_request, describe_configs_request, describe_producers_request, fetch_request,
    offset_for_leader_epoch_request,
};

use crate::account::{Account, Rule, why};
use crate::allocated::live_bytes;
use crate::check::Violation;
use crate::env::SimEnv;
use crate::exec::lock;
use crate::net::addr_of;
use crate::plan::{BROKER, FIRST_CLIENT, PORT};
use crate::shared::Shared;

/// The node of the client.
const NODE: u32 = FIRST_CLIENT - 4;
/// The check runs for each seed that is `TURN` modulo `EVERY`.
const EVERY: u64 = 8;
/// See [`EVERY`].
const TURN: u64 = 3;
/// After how many rounds the allocated memory is read.
const READ_AFTER: [u32; 3] = [48, 120, 264];
/// The least growth for each round that counts, in the first part and in the second: the smallest thing that a broker could keep, and
/// half of it where a table has doubled just before.
const GROWTH_MIN: [isize; 2] = [8, 16];
/// Most partitions that it asks about.
const PARTITIONS_MAX: usize = 3;
/// `max_wait_ms` of a fetch whose response the client awaits, and of one that it abandons.
const WAITS_MS: [i32; 2] = [2, 500];
/// Time in which the broker notices closed connections and ends abandoned fetches.
const SETTLED: Duration = Duration::from_millis(1_500);

/// Whether a plan's run is checked.
fn is_turn(seed: u64) -> bool {
    seed % EVERY == TURN
}

/// Checks whether the broker's memory grows. All clients have left.
pub(crate) async fn check(shared: &Shared) {
    // A trace grows.
    let is_traced = shared.world.exec().tap().is_open();
    if is_traced || !is_turn(shared.plan.seed) || live_bytes() == 0 {
        return;
    }
    let guest = Guest::new(shared.world.env(NODE));
    let mut account = Account::default();
    let grown = match guest.partitions().await {
        Ok(of) if !of.is_empty() => guest.growth(&of).await,
        _ => None,
    };
    let waiver = grown.is_none().then_some(why::UNANSWERED);
    account.judges(Rule::Growth, waiver);
    lock(&shared.account).add(&account);
    let Some(grown) = grown else { return };
    if grown.iter().zip(GROWTH_MIN).all(|(bytes, min)| *bytes >= min) {
        let what = format!(
            "each of {} connections that asked, fetched and closed left {} bytes behind (before, {})",
            READ_AFTER[2] - READ_AFTER[1],
            grown[1],
            grown[0]
        );
        shared.violation(Violation::new("S1", what));
    }
}

/// A partition, where its log ends, and its leader's epoch.
struct Asked {
    tp: TopicPartition,
    topic_id: Uuid,
    epoch: i32,
    end: i64,
}

/// The client that comes again and again.
struct Guest {
    env: SimEnv,
}

impl Guest {
    fn new(env: SimEnv) -> Self {
        Self { env }
    }

    fn client(&self) -> Client<SimEnv> {
        let host = addr_of(BROKER, PORT).ip().to_string();
        Client::new(&self.env, ClientConfig::new(&host, PORT))
    }

    async fn partitions(&self) -> Result<Vec<Asked>> {
        let client = self.client();
        let all = client
            .ask_any(MetadataRequest {
                topics: None,
                ..Default::default()
            })
            .await?;
        let mut found = Vec::new();
        for topic in all.topics {
            let led = topic
                .partitions
                .iter()
                .filter(|p| p.error_code == 0 && p.leader_id >= 0);
            let (Some(name), Some(p)) = (topic.name, led.max_by_key(|p| p.partition_index)) else {
                continue;
            };
            let tp = TopicPartition {
                topic: name,
                partition: p.partition_index,
            };
            let Ok(end) = client
                .list_offsets(&tp, OffsetSpec::Latest, IsolationLevel::ReadUncommitted)
                .await
            else {
                continue;
            };
            found.push(Asked {
                tp,
                topic_id: topic.topic_id,
                epoch: p.leader_epoch,
                end: end.offset.map_or(0, |offset| offset.0),
            });
            if found.len() == PARTITIONS_MAX {
                break;
            }
        }
        Ok(found)
    }

    /// The growth for each round, in the first part and in the second; `None` if a round was not answered.
    async fn growth(&self, of: &[Asked]) -> Option<[isize; 2]> {
        let (mut rounds, mut read) = (0, Vec::with_capacity(READ_AFTER.len()));
        for until in READ_AFTER {
            while rounds < until {
                self.round(of, rounds).await.ok()?;
                rounds += 1;
            }
            self.env.sleep_until(self.env.now() + SETTLED).await;
            let of_world = self.env.world().exec().table_bytes().cast_signed();
            read.push((rounds, live_bytes() - of_world));
        }
        let per_round = |i: usize| (read[i + 1].1 - read[i].1) / (read[i + 1].0 - read[i].0) as isize;
        Some([per_round(0), per_round(1)])
    }

    async fn round(&self, of: &[Asked], round: u32) -> Result<()> {
        let client = self.client();
        let link = client.link(Peer::Bootstrap(0)).await?;
        self.ask(&link, of).await?;
        let first: FetchResponse = link.ask(fetch(of, 0, 0, WAITS_MS[0])).await?;
        let id = first.session_id;
        link.ask(fetch(&of[..1], id, 1, WAITS_MS[0])).await?;
        // Every other time a fetch is left waiting at all of them.
        let left = fetch(of, 0, -1, WAITS_MS[(round % 2) as usize]);
        let version = link.version::<FetchRequest>()?;
        let reply = link.submit(left, version);
        if round.is_multiple_of(2) {
            reply.await?;
        }
        Ok(())
    }

    /// Asks about everything that there is, at once.
    async fn ask(&self, link: &Link<SimEnv>, of: &[Asked]) -> Result<()> {
        let names = || of.iter().map(|a| a.tp.topic.clone());
        let configs = |name: Str| describe_configs_request::DescribeConfigsResource {
            resource_type: 2,
            resource_name: name,
            ..Default::default()
        };
        let producers = |a: &Asked| describe_producers_request::TopicRequest {
            name: a.tp.topic.clone(),
            partition_indexes: vec![a.tp.partition],
            ..Default::default()
        };
        let ends = |a: &Asked| offset_for_leader_epoch_request::OffsetForLeaderTopic {
            topic: a.tp.topic.clone(),
            partitions: vec![offset_for_leader_epoch_request::OffsetForLeaderPartition {
                partition: a.tp.partition,
                current_leader_epoch: a.epoch,
                leader_epoch: a.epoch,
                ..Default::default()
            }],
            ..Default::default()
        };
        let new = create_topics_request::CreatableTopic {
            name: "leak".into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        tokio::try_join!(
            biased;
            link.ask(MetadataRequest { topics: None, ..Default::default() }),
            link.ask(DescribeClusterRequest::default()),
            link.ask(DescribeConfigsRequest { resources: names().map(configs).collect(), ..Default::default() }),
            link.ask(DescribeProducersRequest { topics: of.iter().map(producers).collect(), ..Default::default() }),
            link.ask(OffsetForLeaderEpochRequest { replica_id: -1, topics: of.iter().map(ends).collect(), ..Default::default() }),
            link.ask(DescribeLogDirsRequest::default()),
            link.ask(CreateTopicsRequest { topics: vec![new], timeout_ms: 1_000, validate_only: true, ..Default::default() }),
        )?;
        Ok(())
    }
}

fn fetch(of: &[Asked], session_id: i32, session_epoch: i32, max_wait_ms: i32) -> FetchRequest {
    let topic = |a: &Asked| fetch_request::FetchTopic {
        topic: a.tp.topic.clone(),
        topic_id: a.topic_id,
        partitions: vec![fetch_request::FetchPartition {
            partition: a.tp.partition,
            current_leader_epoch: a.epoch,
            fetch_offset: a.end,
            partition_max_bytes: 1 << 16,
            ..Default::default()
        }],
        ..Default::default()
    };
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_id,
        session_epoch,
        topics: of.iter().map(topic).collect(),
        ..Default::default()
    }
}
