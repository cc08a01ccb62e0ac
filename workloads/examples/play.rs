//! Runs a workload against a real broker: `cargo run -p brokkr-workloads --example play -- HOST:PORT SECONDS`.
//!
//! The history is written to standard output as JSON lines, the clients' notes to standard error as JSON.

use std::io::{BufWriter, stderr, stdout};
use std::time::Duration;

use brokkr_env::Env;
use brokkr_env::tokio::TokioEnv;
use brokkr_history::Writer;
use brokkr_workloads::{
    AdminSpec, ClientSpec, ConsumerSpec, ProducerSpec, Recorder, Stop, TopicSpec, Workload, run,
};

/// More than the number of processes.
const STRIDE: u64 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(seconds)) = (args.next(), args.next()) else {
        return Err("usage: play HOST:PORT SECONDS [KAFKA_VERSION_CAPS: KEY=VERSION ...]".into());
    };
    let (host, port) = address.rsplit_once(':').ok_or("HOST:PORT")?;
    let mut client = ClientSpec::new(host, port.parse()?);
    for cap in args {
        let (key, version) = cap.split_once('=').ok_or("KEY=VERSION")?;
        client.versions_max.insert(key.parse()?, version.parse()?);
    }
    let env = TokioEnv::new(1);
    let topic = TopicSpec {
        name: format!("play-{}", env.wall()),
        partitions: 3,
        replication_factor: -1,
        configs: Default::default(),
    };
    let all = topic.all();
    let with = |process, change: fn(&mut ProducerSpec)| {
        let mut spec = ProducerSpec::idempotent(process, STRIDE, all.clone());
        change(&mut spec);
        spec
    };
    let mut incremental = ConsumerSpec::tailing(10, all.clone());
    incremental.rewind_after = Some(50);
    let mut full = ConsumerSpec::tailing(11, all.clone());
    full.sessions = false;
    full.partition_max_bytes = 500;
    let mut committed = ConsumerSpec::tailing(12, all.clone());
    committed.read_committed = true;
    let workload = Workload {
        client,
        topics: vec![topic],
        producers: vec![
            with(0, |_| {}),
            with(1, |p| p.compression = 3),
            with(2, |p| (p.acks, p.idempotent) = (1, false)),
            with(3, |p| (p.acks, p.idempotent) = (0, false)),
        ],
        consumers: vec![incremental, full, committed],
        recreator: None,
        operator: None,
        inspector: None,
        visitor: None,
        admin: Some(AdminSpec {
            process: 20,
            process_stride: STRIDE,
            partitions: all[..1].to_vec(),
            queried: all.clone(),
            pause_max_ms: 4_000,
        }),
    };
    let (recorder, stop) = (Recorder::new(), Stop::new());
    let (timer, later, until) = (env.clone(), stop.clone(), Duration::from_secs(seconds.parse()?));
    env.spawn("timer", async move {
        timer.sleep_until(timer.now() + until).await;
        later.stop();
    });
    run(&env, &workload, &recorder, &stop).await?;
    let mut history = Writer::new(BufWriter::new(stdout().lock()));
    for operation in recorder.history().take() {
        history.write(&operation)?;
    }
    history.finish()?;
    serde_json::to_writer(stderr().lock(), &recorder.notes())?;
    Ok(())
}
