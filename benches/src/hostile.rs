//! Hostile peers: many connections that misbehave, and one well-behaved client beside them that must not notice.
//!
//! Two figures count: the broker's memory above its idle memory, and the latency of the client's small produces. Responses to
//! hostile connections don't matter.

use crate::client::{Client, connect, request_bytes};
use crate::error::BenchError;
use crate::proc;
use brokkr_types::UnixMillis;
use brokkr_wire::Str;
use brokkr_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use brokkr_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use brokkr_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use brokkr_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use brokkr_wire::records::{BatchBuilder, CompressionType};
use bytes::Bytes;
use hdrhistogram::Histogram;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The version of the Produce requests.
const VERSION: i16 = 9;
/// The topic of the hostile connections, and the client's.
const THEIRS: &str = "hostile";
const OURS: &str = "victim";
const MIB: usize = 1 << 20;
/// Limit of a decoded request under the memory budget that this command is meant for (128 MiB): a sixteenth of it.
const DECODED_BYTES_MAX: usize = 8 * MIB;

/// Parameters.
pub struct HostilePlan {
    /// The broker.
    pub addr: SocketAddr,
    /// Its process.
    pub pid: i32,
    /// Number of hostile connections.
    pub connections: usize,
    /// Duration.
    pub time: Duration,
    /// The client's requests per second.
    pub rate: u32,
}

/// Results.
pub struct Outcome {
    /// The broker's resident memory before the hostile connections, and its peak while they were open.
    pub idle_bytes: u64,
    pub peak_bytes: u64,
    /// Latencies of the client's small requests, from the time each was due, in microseconds.
    pub latency: Histogram<u64>,
    /// Latencies of a second client's produces of 1 MiB, one at a time, and how many were refused.
    pub large: Histogram<u64>,
    pub large_refused: u64,
    /// Name of each attack, and how often it was carried out.
    pub done: Vec<(&'static str, u64)>,
}

/// An attack, which one connection repeats until it is closed.
struct Attack {
    name: &'static str,
    act: fn(&mut Peer<'_>) -> std::io::Result<()>,
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "unfinished frames",
        act: idle_frame,
    },
    Attack {
        name: "slow frames",
        act: trickling_frame,
    },
    Attack {
        name: "slow readers",
        act: slow_reader,
    },
    Attack {
        name: "parked fetches",
        act: parked_fetches,
    },
    Attack {
        name: "large decompression bombs",
        act: large_bomb,
    },
    Attack {
        name: "small decompression bombs",
        act: small_bomb,
    },
    Attack {
        name: "names repeated up to the request limit",
        act: duplicates,
    },
    Attack {
        name: "floods of acks=0 produces",
        act: flood,
    },
    Attack {
        name: "floods of small acks=0 produces",
        act: small_flood,
    },
    Attack {
        name: "garbage",
        act: garbage,
    },
];

/// Frames that are expensive to encode, encoded once.
struct AttackFrames {
    large_bombs: Vec<Vec<u8>>,
    small_bombs: Vec<Vec<u8>>,
    duplicates: Vec<Vec<u8>>,
    parked: Vec<u8>,
    flood: Vec<u8>,
    small_flood: Vec<u8>,
    metadata: Vec<u8>,
}

struct Peer<'a> {
    socket: TcpStream,
    frames: &'a AttackFrames,
    round: usize,
    stop: &'a AtomicBool,
    done: &'a AtomicU64,
}

impl Peer<'_> {
    fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.socket.write_all(frame)
    }

    /// Reads and drops what has arrived, for at most `time`.
    fn read(&mut self, time: Duration) -> std::io::Result<()> {
        self.socket.set_read_timeout(Some(time))?;
        let mut buf = [0; 64 << 10];
        match self.socket.read(&mut buf) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Reads one response.
    fn answer(&mut self) -> std::io::Result<()> {
        self.socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut size = [0; 4];
        self.socket.read_exact(&mut size)?;
        let mut left = u64::from(u32::from_be_bytes(size));
        let mut buf = [0; 64 << 10];
        while left > 0 {
            let most = left.min(buf.len() as u64) as usize;
            match self.socket.read(&mut buf[..most])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => left -= n as u64,
            }
        }
        Ok(())
    }

    fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stop.load(Ordering::Relaxed)
    }

    fn next_frame<'f>(&mut self, of: &'f [Vec<u8>]) -> &'f [u8] {
        self.round += 1;
        &of[self.round % of.len()]
    }
}

fn idle_frame(peer: &mut Peer<'_>) -> std::io::Result<()> {
    peer.send(&(100 * MIB as u32).to_be_bytes())?;
    peer.send(&vec![0; 256 << 10])?;
    peer.pause(Duration::from_secs(3600));
    Ok(())
}

fn trickling_frame(peer: &mut Peer<'_>) -> std::io::Result<()> {
    peer.send(&(100 * MIB as u32).to_be_bytes())?;
    for _ in 0..8 {
        peer.send(&vec![0; MIB])?;
    }
    while !peer.pause(Duration::from_millis(100)) {
        peer.send(&[0])?;
    }
    Ok(())
}

fn slow_reader(peer: &mut Peer<'_>) -> std::io::Result<()> {
    peer.socket.set_write_timeout(Some(Duration::from_millis(100)))?;
    let frames = peer.frames;
    let mut byte = [0];
    while !peer.pause(Duration::from_millis(10)) {
        match peer.send(&frames.metadata) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
            _ => {}
        }
        peer.socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        drop(peer.socket.read(&mut byte));
    }
    Ok(())
}

fn parked_fetches(peer: &mut Peer<'_>) -> std::io::Result<()> {
    let frames = peer.frames;
    for _ in 0..900 {
        peer.send(&frames.parked)?;
    }
    peer.pause(Duration::from_secs(5));
    Ok(())
}

fn large_bomb(peer: &mut Peer<'_>) -> std::io::Result<()> {
    let frames = peer.frames;
    let frame = peer.next_frame(&frames.large_bombs);
    peer.send(frame)?;
    peer.answer()
}

fn small_bomb(peer: &mut Peer<'_>) -> std::io::Result<()> {
    let frames = peer.frames;
    let frame = peer.next_frame(&frames.small_bombs);
    peer.send(frame)?;
    peer.answer()
}

fn duplicates(peer: &mut Peer<'_>) -> std::io::Result<()> {
    let frames = peer.frames;
    let frame = peer.next_frame(&frames.duplicates);
    peer.send(frame)?;
    peer.answer()
}

fn flood(peer: &mut Peer<'_>) -> std::io::Result<()> {
    let frames = peer.frames;
    peer.send(&frames.flood)
}

fn small_flood(peer: &mut Peer<'_>) -> std::io::Result<()> {
    let frames = peer.frames;
    peer.send(&frames.small_flood)
}

fn garbage(peer: &mut Peer<'_>) -> std::io::Result<()> {
    peer.round += 1;
    let noise: Vec<u8> = (0..5000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761).rotate_left(peer.round as u32 % 31)) as u8)
        .collect();
    peer.send(&(noise.len() as u32).to_be_bytes())?;
    peer.send(&noise)?;
    peer.read(Duration::from_millis(100))
}

fn batch(value: &[u8], records: i32, codec: CompressionType) -> Bytes {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis());
    let now = UnixMillis(i64::try_from(now).unwrap_or(i64::MAX));
    let mut builder = BatchBuilder::new().compression(codec, codec.default_level());
    for _ in 0..records {
        builder.push(now, None, Some(value), &[]);
    }
    builder.build().bytes
}

fn produce(topic: &str, acks: i16, records: Bytes) -> Result<Vec<u8>, BenchError> {
    let request = ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Str::copied(topic),
            partition_data: vec![PartitionProduceData {
                records: Some(records.into()),
                ..PartitionProduceData::default()
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    request_bytes(&request, VERSION, 0)
}

/// How many elements of an array fit in a request; a request that decodes to more is refused before it is handled.
fn as_many<T>() -> usize {
    DECODED_BYTES_MAX / 10 * 9 / size_of::<T>()
}

/// Requests that repeat one name very often.
fn duplicate_frames() -> Result<Vec<Vec<u8>>, BenchError> {
    let name = || Str::from_static("d");
    let topics = (0..as_many::<CreatableTopic>()).map(|_| CreatableTopic {
        name: name(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    });
    let create = CreateTopicsRequest {
        topics: topics.collect(),
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let resources = (0..as_many::<DescribeConfigsResource>()).map(|_| DescribeConfigsResource {
        resource_type: 4,
        resource_name: Str::from_static("1"),
        ..DescribeConfigsResource::default()
    });
    let describe = DescribeConfigsRequest {
        resources: resources.collect(),
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    let topics = (0..as_many::<MetadataRequestTopic>()).map(|_| MetadataRequestTopic {
        name: Some(Str::from_static(THEIRS)),
        ..MetadataRequestTopic::default()
    });
    let metadata = MetadataRequest {
        topics: Some(topics.collect()),
        ..MetadataRequest::default()
    };
    // Each element has its own array.
    let forgotten = (0..as_many::<(ForgottenTopic, i32)>()).map(|i| ForgottenTopic {
        topic: Str::from_static(THEIRS),
        partitions: vec![i as i32],
        ..ForgottenTopic::default()
    });
    let fetch = FetchRequest {
        forgotten_topics_data: forgotten.collect(),
        session_epoch: -1,
        ..FetchRequest::default()
    };
    Ok(vec![
        request_bytes(&create, 5, 0)?,
        request_bytes(&describe, 2, 0)?,
        request_bytes(&metadata, 8, 0)?,
        request_bytes(&fetch, 11, 0)?,
    ])
}

impl AttackFrames {
    fn new() -> Result<Self, BenchError> {
        let codecs = &CompressionType::ALL[1..];
        let zeros = vec![0; 15 * MIB];
        let bombs = |records| {
            let bomb =
                |codec: &CompressionType| produce(THEIRS, 1, batch(&zeros[..MIB / 2], records, *codec));
            codecs.iter().map(bomb).collect::<Result<Vec<_>, _>>()
        };
        let fetch = FetchRequest {
            max_wait_ms: i32::MAX,
            min_bytes: i32::MAX,
            max_bytes: i32::MAX,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: Str::from_static(OURS),
                partitions: vec![FetchPartition {
                    partition_max_bytes: 1,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let noise: Vec<u8> = (0..60_000u32)
            .map(|i| i.wrapping_mul(2_654_435_761) as u8)
            .collect();
        Ok(Self {
            large_bombs: bombs(120)?,
            small_bombs: bombs(1)?,
            duplicates: duplicate_frames()?,
            parked: request_bytes(&fetch, 11, 0)?,
            flood: produce(THEIRS, 0, batch(&noise, 1, CompressionType::None))?,
            small_flood: produce(THEIRS, 0, batch(&noise[..100], 1, CompressionType::None))?,
            metadata: request_bytes(
                &MetadataRequest {
                    topics: None,
                    ..MetadataRequest::default()
                },
                8,
                0,
            )?,
        })
    }
}

/// Runs the attacks and the clients.
pub fn run(plan: &HostilePlan) -> Result<Outcome, BenchError> {
    let mut admin = Client::connect(plan.addr)?;
    for topic in [THEIRS, OURS] {
        let configs = [("retention.bytes", "67108864"), ("segment.bytes", "16777216")];
        admin.create_topic(topic, 1, &configs)?;
    }
    let frames = AttackFrames::new()?;
    std::thread::sleep(Duration::from_secs(1));
    let idle_bytes = proc::usage(plan.pid)?.resident_bytes;
    let stop = AtomicBool::new(false);
    let done: Vec<AtomicU64> = ATTACKS.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for i in 0..plan.connections {
            let (attack, done, frames, stop) = (
                &ATTACKS[i % ATTACKS.len()],
                &done[i % ATTACKS.len()],
                &frames,
                &stop,
            );
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, move || hostile(plan.addr, attack, i, frames, stop, done))
                .map_err(BenchError::io("a thread"))?;
        }
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while !stop.load(Ordering::Relaxed) {
                peak = peak.max(proc::usage(plan.pid)?.resident_bytes);
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok::<u64, BenchError>(peak)
        });
        let large = scope.spawn(|| large_victim(plan));
        let latency = victim(plan);
        let (large, large_refused) = large.join().expect("the client doesn't panic")?;
        stop.store(true, Ordering::Relaxed);
        let peak_bytes = sampler.join().expect("the sampler doesn't panic")?;
        Ok(Outcome {
            idle_bytes,
            peak_bytes,
            latency: latency?,
            large,
            large_refused,
            done: ATTACKS
                .iter()
                .zip(&done)
                .map(|(k, n)| (k.name, n.load(Ordering::Relaxed)))
                .collect(),
        })
    })
}

/// One hostile connection, reopened whenever it is closed.
fn hostile(
    addr: SocketAddr,
    attack: &Attack,
    i: usize,
    frames: &AttackFrames,
    stop: &AtomicBool,
    done: &AtomicU64,
) {
    let mut round = i;
    while !stop.load(Ordering::Relaxed) {
        let Ok(socket) = connect(addr) else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        drop(socket.set_write_timeout(Some(Duration::from_secs(1))));
        let mut peer = Peer {
            socket,
            frames,
            round,
            stop,
            done,
        };
        while !stop.load(Ordering::Relaxed) && (attack.act)(&mut peer).is_ok() {}
        round = peer.round;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sets the time after which a response is given up.
fn give_up_reading(socket: &TcpStream) -> Result<(), BenchError> {
    let set = socket.set_read_timeout(Some(Duration::from_secs(60)));
    set.map_err(BenchError::io("a socket"))
}

/// The well-behaved client: small produces at a fixed rate, each timed from when it was due.
fn victim(plan: &HostilePlan) -> Result<Histogram<u64>, BenchError> {
    let frame = produce(OURS, -1, batch(&[7; 100], 1, CompressionType::None))?;
    let socket = connect(plan.addr)?;
    let mut writing = socket.try_clone().map_err(BenchError::io("a socket"))?;
    let mut reading = socket;
    give_up_reading(&reading)?;
    let every = Duration::from_secs(1) / plan.rate;
    let count = (plan.time.as_secs_f64() * f64::from(plan.rate)) as u32;
    let begun = Instant::now() + Duration::from_secs(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..count {
                let due = begun + every * i;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if writing.write_all(&frame).is_err() {
                    return;
                }
            }
        });
        let mut latency = Histogram::new_with_max(600_000_000, 3).expect("three digits are possible");
        for i in 0..count {
            let mut size = [0; 4];
            reading
                .read_exact(&mut size)
                .map_err(BenchError::io("the client's answer"))?;
            let mut answer = vec![0; u32::from_be_bytes(size) as usize];
            reading
                .read_exact(&mut answer)
                .map_err(BenchError::io("the client's answer"))?;
            let late = Instant::now().saturating_duration_since(begun + every * i);
            latency.saturating_record(late.as_micros() as u64);
        }
        Ok(latency)
    })
}

/// A client that produces 1 MiB twice a second, each on a new connection: latencies, and how many got no response.
fn large_victim(plan: &HostilePlan) -> Result<(Histogram<u64>, u64), BenchError> {
    let noise: Vec<u8> = (0..MIB as u32 - 1000)
        .map(|i| i.wrapping_mul(2_654_435_761) as u8)
        .collect();
    let frame = produce(OURS, -1, batch(&noise, 1, CompressionType::None))?;
    let mut latency = Histogram::new_with_max(600_000_000, 3).expect("three digits are possible");
    let (begun, mut refused) = (Instant::now(), 0);
    while begun.elapsed() < plan.time {
        let sent_at = Instant::now();
        let mut socket = connect(plan.addr)?;
        give_up_reading(&socket)?;
        let mut size = [0; 4];
        match socket
            .write_all(&frame)
            .and_then(|()| socket.read_exact(&mut size))
        {
            Ok(()) => latency.saturating_record(sent_at.elapsed().as_micros() as u64),
            Err(_) => refused += 1,
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok((latency, refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_wire::frame::decode_request_header;
    use brokkr_wire::{Reader, Request};

    /// Whether a broker decodes the frame: it limits the decoded size absolutely, and to 16 times the frame.
    fn is_decoded<R: Request>(frame: &[u8], version: i16) -> bool {
        let frame = Bytes::copy_from_slice(&frame[4..]);
        let max = (frame.len() * 16 + (128 << 10)).min(DECODED_BYTES_MAX);
        let mut r = Reader::limited(frame, max);
        decode_request_header(&mut r).is_ok() && R::decode(&mut r, version).is_ok()
    }

    #[test]
    fn repeated_names_stay_below_the_decoded_size_limit() {
        let frames = duplicate_frames().expect("encodable");
        assert!(is_decoded::<CreateTopicsRequest>(&frames[0], 5));
        assert!(is_decoded::<DescribeConfigsRequest>(&frames[1], 2));
        assert!(is_decoded::<MetadataRequest>(&frames[2], 8));
        assert!(is_decoded::<FetchRequest>(&frames[3], 11));
    }
}
