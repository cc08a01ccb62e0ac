//! Runs the binary `brokkr` as a process, with a client over a plain socket.

#![allow(dead_code, reason = "each test file takes what it needs")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world: processes, sockets, directories"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime};

use brokkr_types::{Offset, UnixMillis};
use brokkr_wire::frame::{decode_response_header, encode_request};
use brokkr_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use brokkr_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use brokkr_wire::messages::delete_topics_request::DeleteTopicState;
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use brokkr_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use brokkr_wire::messages::metadata_request::MetadataRequestTopic;
use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use brokkr_wire::messages::produce_response::PartitionProduceResponse;
use brokkr_wire::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, InitProducerIdRequest,
    MetadataRequest, ProduceRequest,
};
use brokkr_wire::records::{BatchBuilder, DECOMPRESSED_MAX, batches};
use brokkr_wire::{ErrorCode, Message, Part, Reader, Request, Str};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};

/// Maximum duration of any step before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Tests run in parallel, but the endpoint for metrics has one default port.
const WITHOUT_METRICS: [&str; 2] = ["--set", "metrics.listen=none"];

/// The command under test.
pub fn brokkr() -> Command {
    Command::new(env!("CARGO_BIN_EXE_brokkr"))
}

/// The path of a directory of this name that does not exist yet.
pub fn fresh_dir(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(&path),
        false => std::fs::remove_file(&path),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("an old one can be removed: {e}"),
        _ => {}
    }
    path
}

/// Polls until the condition holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command that ends by itself: its status, stdout and stderr. Killed after [`PATIENCE`]; then it has no status.
pub fn output(command: &mut Command) -> (Option<i32>, String, String) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("it runs");
    let pid = Pid::from_child(&child);
    let (ended, watched) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if watched.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let out = child.wait_with_output().expect("it ends");
    drop(ended);
    watch.join().expect("no panic in it");
    let text = |b: Vec<u8>| String::from_utf8(b).expect("UTF-8");
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// The length and modification time of each file under a directory.
pub fn file_states(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("listed") {
        let entry = entry.expect("listed");
        let meta = entry.metadata().expect("it is there");
        if meta.is_dir() {
            all.extend(file_states(&entry.path()));
        }
        all.insert(entry.path(), (meta.len(), meta.modified().expect("a time")));
    }
    all
}

/// The exit code and the one line of a start that fails.
pub fn start_error(args: &[&str]) -> (i32, String) {
    let mut command = brokkr();
    command.args(args);
    let (status, stdout, stderr) = output(without_metrics(&mut command));
    assert_eq!(stdout, "", "{args:?}");
    assert!(
        stderr.ends_with('\n') && stderr.lines().count() == 1,
        "one line for {args:?}: {stderr}"
    );
    (status.expect("no signal"), stderr.trim_end().to_owned())
}

/// Adds [`WITHOUT_METRICS`], unless the command sets `metrics.listen`.
pub fn without_metrics(command: &mut Command) -> &mut Command {
    let has = |arg: &std::ffi::OsStr| arg.to_string_lossy().starts_with("metrics.listen=");
    match command.get_args().any(has) {
        true => command,
        false => command.args(WITHOUT_METRICS),
    }
}

/// A path as a command line argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A running broker. Dropping it kills it.
pub struct Running {
    child: Child,
    /// Its first line on stdout.
    pub ready: String,
    /// Its address.
    pub addr: String,
    stdout: BufReader<std::process::ChildStdout>,
    stderr: PathBuf,
}

/// Starts a broker in `dir` on a free port; `more` are further arguments.
pub fn start(dir: &Path, more: &[&str]) -> Running {
    let mut command = brokkr();
    command
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen", "127.0.0.1:0"])
        .args(more);
    running(&mut command, dir)
}

/// Starts `command`. Its stderr goes to a file beside `dir`.
pub fn running(command: &mut Command, dir: &Path) -> Running {
    let stderr = dir.with_extension("stderr");
    let log = std::fs::File::create(&stderr).expect("a file for its log");
    let mut child = without_metrics(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("it runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("its stdout"));
    let mut ready = String::new();
    stdout.read_line(&mut ready).expect("UTF-8");
    let addr = ready.split(' ').nth(1).map(str::to_owned).unwrap_or_else(|| {
        panic!(
            "no ready line but {ready:?}: {}",
            std::fs::read_to_string(&stderr).expect("its log")
        )
    });
    Running {
        child,
        ready,
        addr,
        stdout,
        stderr,
    }
}

impl Running {
    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("its log")
    }

    /// The number of log lines that contain `text`.
    pub fn lines_with(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a process has an id")
    }

    /// Its resident memory.
    pub fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .expect("it has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(&self.addr)
    }

    /// Sends SIGTERM. Returns the exit status, the rest of stdout, and the log.
    pub fn terminate(self) -> (ExitStatus, String, String) {
        self.send_signals(&[Signal::TERM])
    }

    /// Sends all these signals at once. Returns the exit status, the rest of stdout, and the log.
    pub fn send_signals(mut self, signals: &[Signal]) -> (ExitStatus, String, String) {
        for signal in [&[Signal::STOP], signals, &[Signal::CONT]].concat() {
            kill_process(self.pid(), signal).expect("it lives");
        }
        let status = self.child.wait().expect("it ends");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("UTF-8");
        (status, rest, self.log())
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it is dead");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A Fetch without a session, from the start of one partition.
pub fn fetch_of(topic: &str, partition: i32) -> FetchRequest {
    let requested = FetchPartition {
        partition,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = FetchTopic {
        topic: Str::copied(topic),
        partitions: vec![requested],
        ..Default::default()
    };
    FetchRequest {
        max_bytes: 1 << 22,
        topics: vec![topic],
        session_epoch: -1,
        ..Default::default()
    }
}

/// A record: its offset and its value.
pub type FetchedRecord = (Offset, Vec<u8>);

/// A client with one request in flight.
pub struct Client {
    socket: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Connects.
    pub fn connect(addr: &str) -> Self {
        let socket = TcpStream::connect(addr).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            correlation_id: 0,
        }
    }

    /// Sends a request; `false` if it can't.
    pub fn try_send<R: Request>(&mut self, request: &R, version: i16) -> bool {
        self.correlation_id += 1;
        let mut frame = Vec::new();
        for part in encode_request(request, version, self.correlation_id, None).expect("encodable") {
            let Part::Bytes(bytes) = part else {
                panic!("no file goes out here")
            };
            frame.extend_from_slice(&bytes);
        }
        self.socket.write_all(&frame).is_ok()
    }

    /// Makes the socket nonblocking: sends and receives that would wait fail.
    pub fn set_nonblocking(&mut self) {
        self.socket.set_nonblocking(true).expect("a socket can");
    }

    /// Whether the broker has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        match self.socket.read(&mut [0]) {
            Ok(0) => true,
            Ok(_) => panic!("no response was expected"),
            Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    /// Sends a request and waits for the response.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.try_call(request, version)
            .expect("a response, not the connection's end")
    }

    /// Sends a request and waits for the response; `None` if the broker closes the connection.
    pub fn try_call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        if !self.try_send(request, version) {
            return None;
        }
        let mut r = Reader::new(self.frame()?);
        let header = decode_response_header(&mut r, R::API_KEY, version).expect("a header");
        assert_eq!(header.correlation_id, self.correlation_id);
        let response = R::Response::decode(&mut r, version).expect("a body");
        r.expect_end().expect("nothing behind it");
        Some(response)
    }

    /// The next frame; `None` if the broker has closed the connection.
    pub fn frame(&mut self) -> Option<Bytes> {
        let mut size = [0; 4];
        match self.socket.read_exact(&mut size) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no response within {PATIENCE:?}"),
            Err(_) => return None,
        }
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.socket.read_exact(&mut frame).expect("a whole frame");
        Some(frame.into())
    }

    /// Sends raw bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("sent");
    }

    pub fn create(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> (ErrorCode, Option<String>) {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: Str::copied(name),
            value: Some(Str::copied(value)),
            ..Default::default()
        });
        let topic = CreatableTopic {
            name: Str::copied(name),
            num_partitions: partitions,
            replication_factor: -1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let result = self.call(&request, 7).topics.remove(0);
        // The response comes before the logs exist; ListOffsets waits for them.
        let partition = |partition_index| ListOffsetsPartition {
            partition_index,
            timestamp: -1,
            ..Default::default()
        };
        let opened = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: Str::copied(name),
                partitions: (0..result.num_partitions).map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        if result.error_code == 0 {
            drop(self.call(&opened, 7));
        }
        (
            ErrorCode(result.error_code),
            result.error_message.map(|m| m.as_str().to_owned()),
        )
    }

    pub fn delete_topic(&mut self, name: &str) -> ErrorCode {
        let topic = DeleteTopicState {
            name: Some(Str::copied(name)),
            ..Default::default()
        };
        let request = DeleteTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        ErrorCode(self.call(&request, 6).responses[0].error_code)
    }

    /// The number of partitions of a topic in Metadata, or its error.
    pub fn partitions(&mut self, name: &str) -> Result<usize, ErrorCode> {
        let topic = MetadataRequestTopic {
            name: Some(Str::copied(name)),
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let topic = self.call(&request, 12).topics.remove(0);
        match topic.error_code {
            0 => Ok(topic.partitions.len()),
            code => Err(ErrorCode(code)),
        }
    }

    /// Produces one batch of one record with acks=all.
    pub fn produce(&mut self, topic: &str, partition: i32, value: &[u8]) -> PartitionProduceResponse {
        self.try_produce(topic, partition, value)
            .expect("a response, not the connection's end")
    }

    /// The same; `None` if the broker closes the connection.
    pub fn try_produce(
        &mut self,
        topic: &str,
        partition: i32,
        value: &[u8],
    ) -> Option<PartitionProduceResponse> {
        let mut builder = BatchBuilder::new();
        builder.push(UnixMillis(1_700_000_000_000), None, Some(value), &[]);
        let data = PartitionProduceData {
            index: partition,
            records: Some(builder.build().bytes.into()),
            ..Default::default()
        };
        let topic = TopicProduceData {
            name: Str::copied(topic),
            partition_data: vec![data],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        let mut response = self.try_call(&request, 11)?;
        Some(response.responses.remove(0).partition_responses.remove(0))
    }

    /// All records of a partition from `from` on, and the log start offset.
    pub fn read(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
    ) -> Result<(Vec<FetchedRecord>, i64), ErrorCode> {
        let (mut all, mut at, mut log_start) = (Vec::new(), from, -1);
        loop {
            let mut request = fetch_of(topic, partition);
            request.topics[0].partitions[0].fetch_offset = at;
            let answer = self.call(&request, 12).responses.remove(0).partitions.remove(0);
            if answer.error_code != 0 {
                return Err(ErrorCode(answer.error_code));
            }
            log_start = log_start.max(answer.log_start_offset);
            let bytes = answer
                .records
                .and_then(|r| r.as_bytes().cloned())
                .unwrap_or_default();
            if bytes.is_empty() {
                return Ok((all, log_start));
            }
            for batch in batches(bytes) {
                let batch = batch.expect("whole batches");
                batch.check_crc().expect("as they were written");
                for record in &batch.records(DECOMPRESSED_MAX).expect("records") {
                    let record = record.expect("a record");
                    let offset = batch.header.record_offset(record.offset_delta);
                    if offset.0 >= from {
                        all.push((offset, record.value.unwrap_or_default().to_vec()));
                    }
                }
                at = batch.header.next_offset().0;
            }
        }
    }

    /// InitProducerId without a transactional id.
    pub fn init_producer_id(&mut self, producer_id: i64, producer_epoch: i16) -> ErrorCode {
        let request = InitProducerIdRequest {
            transactional_id: None,
            producer_id,
            producer_epoch,
            ..Default::default()
        };
        ErrorCode(self.call(&request, 4).error_code)
    }

    pub fn delete_records(&mut self, topic: &str, partition: i32, before: i64) -> Result<i64, ErrorCode> {
        let partition = DeleteRecordsPartition {
            partition_index: partition,
            offset: before,
            ..Default::default()
        };
        let topic = DeleteRecordsTopic {
            name: Str::copied(topic),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = DeleteRecordsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let result = self.call(&request, 2).topics.remove(0).partitions.remove(0);
        match result.error_code {
            0 => Ok(result.low_watermark),
            code => Err(ErrorCode(code)),
        }
    }
}
