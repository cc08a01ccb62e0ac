//! A log directory that fails while the broker runs: its partitions go offline, the others are served and written. Also whole runs
//! with two directories.

mod common;

use std::future::Future;

use brokkr_sim::disk::FileDamage;
use brokkr_sim::node::{self, Started};
use brokkr_sim::plan::{Family, Fault, Faults, Kind, Plan};
use brokkr_sim::report::{Report, Verdict};
use brokkr_sim::scenario;
use brokkr_sim::world::World;
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::DescribeLogDirsRequest;
use common::*;

/// Runs `script` beside a broker with the log directories `a` and `b` and a topic `t` of four partitions with one record each: 0
/// and 2 are in `a`, with the metadata log, 1 and 3 in `b`.
fn play<F>(script: impl FnOnce(World, Client) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    beside_a_broker_of("a,b", 60, &[], |world, client| async move {
        assert_eq!(client.create("t", 4).await, ErrorCode::NONE);
        for partition in 0..4 {
            assert_eq!(
                client.produce("t", partition, &["value"]).await.0,
                ErrorCode::NONE
            );
        }
        script(world, client).await;
    });
}

/// Whether each kind of request for a partition succeeds.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    metadata: ErrorCode,
    leader: i32,
    isr: Vec<i32>,
    offline: Vec<i32>,
    produce: ErrorCode,
    fetch: ErrorCode,
    list_offsets: ErrorCode,
}

impl Answers {
    fn of(served: bool) -> Self {
        let code = |code: ErrorCode| if served { ErrorCode::NONE } else { code };
        Self {
            metadata: code(ErrorCode::LEADER_NOT_AVAILABLE),
            leader: if served { 1 } else { -1 },
            isr: vec![1],
            offline: if served { vec![] } else { vec![1] },
            produce: code(ErrorCode::KAFKA_STORAGE_ERROR),
            fetch: code(ErrorCode::KAFKA_STORAGE_ERROR),
            list_offsets: code(ErrorCode::KAFKA_STORAGE_ERROR),
        }
    }
}

impl Client {
    async fn answers(&self, name: &str, index: i32) -> Answers {
        let of_metadata = self.metadata(name).await.partitions.remove(index as usize);
        Answers {
            metadata: ErrorCode(of_metadata.error_code),
            leader: of_metadata.leader_id,
            isr: of_metadata.isr_nodes.clone(),
            offline: of_metadata.offline_replicas.clone(),
            produce: self.produce(name, index, &["value"]).await.0,
            fetch: ErrorCode(self.fetch(name, index, -1).await.0.error_code),
            list_offsets: ErrorCode(self.list_offsets(name, index, -1).await.error_code),
        }
    }

    async fn directories(&self) -> Vec<(String, ErrorCode, usize)> {
        let request = DescribeLogDirsRequest {
            topics: None,
            ..Default::default()
        };
        let results = self.ask(request, 4).await.results;
        let each = results.into_iter().map(|dir| {
            let partitions = dir.topics.iter().map(|t| t.partitions.len()).sum();
            (dir.log_dir.to_string(), ErrorCode(dir.error_code), partitions)
        });
        each.collect()
    }
}

/// Makes the next sync of this partition's log fail, and with it the directory.
async fn fail(world: &World, client: &Client, index: i32) {
    world
        .lock()
        .disks
        .get_mut(&SERVER)
        .expect("its disk")
        .failing_syncs = 1;
    assert_eq!(
        client.produce("t", index, &["value"]).await.0,
        ErrorCode::KAFKA_STORAGE_ERROR
    );
    pause(world, 2).await;
}

#[test]
fn a_failing_directory_takes_only_its_own_partitions_offline() {
    play(|world, client| async move {
        fail(&world, &client, 1).await;
        for partition in 0..4 {
            let answers = client.answers("t", partition).await;
            assert_eq!(answers, Answers::of(partition % 2 == 0), "partition {partition}");
        }
        let failed = ("b".to_owned(), ErrorCode::KAFKA_STORAGE_ERROR, 0);
        let works = |n| ("a".to_owned(), ErrorCode::NONE, n);
        assert_eq!(client.directories().await, [works(2), failed.clone()]);
        // New partitions are placed in a working directory.
        assert_eq!(client.create("u", 3).await, ErrorCode::NONE);
        for partition in 0..3 {
            assert_eq!(client.answers("u", partition).await, Answers::of(true));
        }
        assert_eq!(client.directories().await, [works(5), failed]);
        // The next start finds the directory working.
        world.end_quietly(SERVER);
        let (_running, started) = node::start(&world, SERVER, config("a,b", &[]));
        assert_eq!(started.await, Ok(Started::Ready));
        let client = Client::connected(&world).await;
        for partition in 0..4 {
            assert_eq!(client.answers("t", partition).await, Answers::of(true));
        }
    });
}

#[test]
fn a_consumer_of_an_offline_partition_is_throttled() {
    play(|world, client| async move {
        fail(&world, &client, 1).await;
        let alone = || fetch_of("t", 1, 0, 500);
        let beside_a_quiet_one = || {
            let mut request = alone();
            let quiet = fetch_of("t", 0, 1, 500).topics.remove(0).partitions.remove(0);
            request.topics[0].partitions.push(quiet);
            request
        };
        for (request, partitions) in [(alone(), 1), (beside_a_quiet_one(), 2)] {
            let (mut fetches, until) = (0, world.exec().now() + 10 * SECOND);
            while world.exec().now() < until {
                let found = client
                    .ask(request.clone(), 12)
                    .await
                    .responses
                    .remove(0)
                    .partitions;
                assert_eq!(found.len(), partitions);
                assert_eq!(ErrorCode(found[0].error_code), ErrorCode::KAFKA_STORAGE_ERROR);
                fetches += 1;
            }
            assert!((15..=20).contains(&fetches), "{fetches} fetches in 10 s");
        }
    });
}

#[test]
fn without_the_metadata_directory_partitions_are_written_but_no_metadata() {
    play(|world, client| async move {
        fail(&world, &client, 0).await;
        for partition in 0..4 {
            let answers = client.answers("t", partition).await;
            assert_eq!(answers, Answers::of(partition % 2 == 1), "partition {partition}");
        }
        assert_eq!(client.create("u", 1).await, ErrorCode::KAFKA_STORAGE_ERROR);
        let failed = ("a".to_owned(), ErrorCode::KAFKA_STORAGE_ERROR, 0);
        let works = ("b".to_owned(), ErrorCode::NONE, 2);
        assert_eq!(client.directories().await, [failed, works]);
    });
}

/// The first plans with two log directories, reduced to these faults.
fn plans(n: usize, faults: &[Kind]) -> Vec<Plan> {
    let plans = (0..).map(|seed| Plan::of(seed, 20, &Faults::Only(vec![Family::Sched])));
    let two = plans.filter(|plan| plan.roots().len() == 2 && plan.workload.recreator.is_none());
    let with = |mut plan: Plan| {
        let faults = faults.iter().zip(1..);
        let faults = faults.map(|(kind, id)| Fault {
            when: None,
            id,
            at_ms: 3_000 * id,
            kind: kind.clone(),
        });
        plan.faults = faults.collect();
        plan
    };
    two.take(n).map(with).collect()
}

fn passes(plan: Plan) -> Report {
    let report = scenario::run(plan);
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    report
}

#[test]
fn a_run_goes_on_while_one_of_its_directories_fails() {
    for directory in [0, 1] {
        let fails = Kind::DirectoryFails {
            directory,
            for_ms: 4_000,
        };
        for plan in plans(4, &[fails]) {
            let report = passes(plan);
            assert_eq!(report.faults.get("log directory failed"), Some(&1), "{report:?}");
        }
    }
}

#[test]
fn a_start_leaves_out_a_failing_directory() {
    let fails = Kind::DirectoryFails {
        directory: 1,
        for_ms: 8_000,
    };
    for plan in plans(4, &[fails, Kind::Kill { down_ms: 5 }]) {
        passes(plan);
    }
}

#[test]
fn a_damaged_file_of_the_second_directory_affects_only_that_directory() {
    let damage = Kind::DamageFile {
        file: "brokkr-checkpoint".to_owned(),
        how: FileDamage::Zeroed,
        kill: false,
        down_ms: 5,
    };
    let (mut left_out, mut refused) = (0, 0);
    for plan in plans(12, &[damage]) {
        let faults = passes(plan).faults;
        left_out += faults.get("directory left out for a file").copied().unwrap_or(0);
        refused += faults.get("refused for a file").copied().unwrap_or(0);
    }
    assert!(
        left_out > 1 && refused > 1,
        "left out {left_out}, refused {refused}"
    );
}
