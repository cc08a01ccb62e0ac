//! Produce load over raw sockets.
//!
//! A connection has a writer thread and a reader thread. With a rate the load is open: each request is due at a fixed time,
//! independent of the others, and its latency counts from the due time even if the socket was full or this process was late
//! (coordinated omission). Without a rate a connection keeps a number of requests in flight and latency counts from the
//! write. It uses threads and blocking sockets because the timers of an async runtime tick in milliseconds.

use crate::client::connect;
use crate::clock::{Clock, sleep_exactly, sleep_until};
use crate::error::BenchError;
use crate::frames::{Frames, ResponseChecker, Shape};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Parameters of a produce load.
#[derive(Clone, Copy, Debug)]
pub struct ProduceSpec {
    /// Partitions of the topic, written round-robin.
    pub partitions: i32,
    /// Connections, each of which writes to all partitions.
    pub connections: usize,
    /// Requests in flight on each connection, if there is no rate.
    pub in_flight: usize,
    /// Shape of a request.
    pub shape: Shape,
    /// Requests per second over all connections.
    pub rate: Option<f64>,
}

/// Results of one connection, or of several added up.
pub struct Tally {
    /// Nanoseconds until the response, for each request that was due in the window.
    pub latency: Histogram<u64>,
    /// The base offsets that each partition assigned.
    pub offsets: Vec<Vec<i64>>,
    /// Requests due in the window that were never sent because the load was too high. Their latency so far is in `latency`.
    pub unsent: u64,
}

/// Requests of at least this size are written on their own, without a copy.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Maximum size of a group of small requests.
const WRITE_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 256 << 10;
/// Maximum size of a response to a produce request for one partition.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
/// Requests due when the window ends may still be sent for this fraction of the window.
const OVERTIME: f64 = 0.5;
const STACK_BYTES: usize = 128 << 10;

struct Sent {
    due: Instant,
    partition: u32,
}

#[derive(Default)]
struct Queue {
    sent: VecDeque<Sent>,
    done: bool,
    failed: bool,
}

/// The queue that the two threads of a connection share.
#[derive(Default)]
struct SharedQueue {
    queue: Mutex<Queue>,
    room: Condvar,
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A histogram from a microsecond to an hour.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("the bounds are in order")
}

/// Adds a time.
pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1_000));
}

/// Connections that are open and wait for the start.
pub struct Prepared {
    connections: Vec<Connection>,
}

impl Prepared {
    /// Connects. With `producers` (one for each connection) the batches are idempotent.
    pub fn connect(
        addr: SocketAddr,
        topic: &str,
        spec: ProduceSpec,
        producers: &[(i64, i16)],
    ) -> Result<Self, BenchError> {
        let connection = |number: usize| {
            let frames = Frames::new(topic, spec.partitions, spec.shape, producers.get(number).copied())?;
            Connection::new(addr, topic, spec, number, frames)
        };
        let connections = (0..spec.connections).map(connection).collect::<Result<_, _>>()?;
        Ok(Self { connections })
    }

    /// Starts the threads, which begin when the clock does.
    pub fn start<'scope, 'env>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        clock: &'env Clock,
    ) -> Result<RunningLoad<'scope>, BenchError> {
        let start = |connection: Connection| {
            std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, move || connection.run(clock))
                .map_err(BenchError::io("starting a thread"))
        };
        let workers = self
            .connections
            .into_iter()
            .map(start)
            .collect::<Result<_, _>>()?;
        Ok(RunningLoad { workers })
    }
}

type Worker<'scope> = ScopedJoinHandle<'scope, Result<Tally, BenchError>>;

/// A running load.
pub struct RunningLoad<'scope> {
    workers: Vec<Worker<'scope>>,
}

impl RunningLoad<'_> {
    /// Waits until all sent requests are answered.
    pub fn join(self) -> Result<Tally, BenchError> {
        let mut all: Option<Tally> = None;
        for worker in self.workers {
            let tally = worker.join().expect("the thread panicked")?;
            match &mut all {
                None => all = Some(tally),
                Some(all) => all.add(tally),
            }
        }
        all.ok_or_else(|| BenchError::Usage("a load needs at least one connection".into()))
    }
}

impl Tally {
    fn new(partitions: i32) -> Self {
        Self {
            latency: histogram(),
            offsets: vec![Vec::new(); usize::try_from(partitions).unwrap_or(0)],
            unsent: 0,
        }
    }

    fn add(&mut self, other: Self) {
        self.latency += other.latency;
        self.unsent += other.unsent;
        for (mine, theirs) in self.offsets.iter_mut().zip(other.offsets) {
            mine.extend(theirs);
        }
    }
}

struct Connection {
    spec: ProduceSpec,
    number: usize,
    sender: Sender,
    receiver: Receiver,
}

impl Connection {
    fn new(
        addr: SocketAddr,
        topic: &str,
        spec: ProduceSpec,
        number: usize,
        frames: Frames,
    ) -> Result<Self, BenchError> {
        let stream = connect(addr)?;
        let reading = stream.try_clone().map_err(BenchError::io("cloning a socket"))?;
        Ok(Self {
            spec,
            number,
            receiver: Receiver {
                stream: reading,
                buffer: vec![0; READ_BYTES],
                filled: 0,
                answers: ResponseChecker::new(topic)?,
                correlation_id: 0,
                batch_bytes: frames.batch_bytes() as u64,
                tally: Tally::new(spec.partitions),
            },
            sender: Sender {
                stream,
                frames,
                correlation_id: 0,
                scratch: Vec::new(),
            },
        })
    }

    fn run(self, clock: &Clock) -> Result<Tally, BenchError> {
        sleep_exactly();
        let result = match self.spec {
            ProduceSpec {
                rate: None,
                in_flight: 0 | 1,
                ..
            } => self.lockstep(clock),
            _ => self.pipelined(clock),
        };
        result.inspect_err(|_| clock.stop())
    }

    /// Sends one request at a time, on one thread.
    fn lockstep(mut self, clock: &Clock) -> Result<Tally, BenchError> {
        let mut round_robin = RoundRobin::new(self.spec.partitions, self.number);
        sleep_until(clock.begin);
        while !clock.stopped() {
            let sent = Sent {
                due: Instant::now(),
                partition: round_robin.next(),
            };
            self.sender
                .send(std::slice::from_ref(&sent))
                .map_err(BenchError::io("sending"))?;
            while self.receiver.complete_responses()? == 0 {
                if !self.receiver.read()? {
                    return Err(BenchError::Check("the broker closed the connection".into()));
                }
            }
            self.receiver.take(&[sent], clock)?;
        }
        Ok(self.receiver.tally)
    }

    fn pipelined(self, clock: &Clock) -> Result<Tally, BenchError> {
        let Self {
            spec,
            number,
            mut sender,
            receiver,
        } = self;
        let shared = SharedQueue::default();
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || receiver.run(&shared, clock))
                .map_err(BenchError::io("starting a thread"))?;
            sleep_until(clock.begin);
            let sent = match spec.rate {
                Some(rate) => sender.at_rate(&shared, clock, spec, number, rate),
                None => sender.in_flight(&shared, clock, spec, number),
            };
            let mut queue = shared.lock();
            queue.done = true;
            // The reader may be waiting for a response that the broker does not owe.
            if queue.sent.is_empty() || sent.is_err() {
                let _already_closed = sender.stream.shutdown(Shutdown::Both);
            }
            drop(queue);
            let mut tally = reader.join().expect("the thread panicked")?;
            for late in sent.map_err(BenchError::io("sending"))? {
                tally.unsent += 1;
                record(&mut tally.latency, late);
            }
            Ok(tally)
        })
    }
}

/// The partitions round-robin; connections begin at different ones.
struct RoundRobin {
    partitions: u32,
    next: u32,
}

impl RoundRobin {
    fn new(partitions: i32, number: usize) -> Self {
        let partitions = u32::try_from(partitions).unwrap_or(0).max(1);
        let next = u32::try_from(number).unwrap_or(0) % partitions;
        Self { partitions, next }
    }

    fn next(&mut self) -> u32 {
        let partition = self.next;
        self.next = (self.next + 1) % self.partitions;
        partition
    }
}

struct Sender {
    stream: TcpStream,
    frames: Frames,
    correlation_id: i32,
    scratch: Vec<u8>,
}

impl Sender {
    /// Keeps `in_flight` requests in flight until the clock stops.
    fn in_flight(
        &mut self,
        shared: &SharedQueue,
        clock: &Clock,
        spec: ProduceSpec,
        number: usize,
    ) -> io::Result<Vec<Duration>> {
        // Small requests are sent in groups, otherwise each response would wake the writer.
        let group = if self.frames.batch_bytes() > COPY_BYTES_MAX {
            1
        } else {
            spec.in_flight.div_ceil(4)
        };
        let mut round_robin = RoundRobin::new(spec.partitions, number);
        let mut due = Vec::new();
        loop {
            let mut queue = shared.lock();
            while queue.sent.len() + group > spec.in_flight && !queue.failed && !clock.stopped() {
                let wait = shared.room.wait_timeout(queue, Duration::from_millis(100));
                queue = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
            if queue.failed || clock.stopped() {
                return Ok(Vec::new());
            }
            due.clear();
            let now = Instant::now();
            for _ in queue.sent.len()..spec.in_flight {
                let partition = round_robin.next();
                due.push(Sent { due: now, partition });
                queue.sent.push_back(Sent { due: now, partition });
            }
            drop(queue);
            self.send(&due)?;
        }
    }

    /// Sends each request when it is due. Returns how late the requests are that it gave up.
    fn at_rate(
        &mut self,
        shared: &SharedQueue,
        clock: &Clock,
        spec: ProduceSpec,
        number: usize,
        rate: f64,
    ) -> io::Result<Vec<Duration>> {
        let step = Duration::from_secs_f64(spec.connections as f64 / rate);
        let mut next = clock.begin + step.mul_f64(number as f64 / spec.connections as f64);
        let give_up = clock.until + (clock.until - clock.measure_from).mul_f64(OVERTIME);
        let mut round_robin = RoundRobin::new(spec.partitions, number);
        let mut due = Vec::new();
        let most = (WRITE_BYTES_MAX / self.frames.batch_bytes()).max(1);
        while next < clock.until && !clock.stopped() {
            sleep_until(next);
            let now = Instant::now();
            if now > give_up {
                break;
            }
            due.clear();
            let mut queue = shared.lock();
            if queue.failed {
                return Ok(Vec::new());
            }
            while next <= now && next < clock.until && due.len() < most {
                let partition = round_robin.next();
                due.push(Sent { due: next, partition });
                queue.sent.push_back(Sent { due: next, partition });
                next += step;
            }
            drop(queue);
            self.send(&due)?;
        }
        let now = Instant::now();
        let mut late = Vec::new();
        while next < clock.until && !clock.stopped() {
            if next >= clock.measure_from {
                late.push(now.saturating_duration_since(next));
            }
            next += step;
        }
        Ok(late)
    }

    fn send(&mut self, requests: &[Sent]) -> io::Result<()> {
        self.scratch.clear();
        for request in requests {
            let pieces = self.frames.next(request.partition as usize, self.correlation_id);
            self.correlation_id = self.correlation_id.wrapping_add(1);
            if pieces[1].len() > COPY_BYTES_MAX {
                write_pieces(&mut self.stream, pieces)?;
                continue;
            }
            pieces
                .iter()
                .for_each(|piece| self.scratch.extend_from_slice(piece));
            if self.scratch.len() > WRITE_BYTES_MAX {
                self.stream.write_all(&self.scratch)?;
                self.scratch.clear();
            }
        }
        self.stream.write_all(&self.scratch)
    }
}

fn write_pieces(stream: &mut TcpStream, pieces: [&[u8]; 3]) -> io::Result<()> {
    let mut slices = pieces.map(IoSlice::new);
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match stream.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

struct Receiver {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    answers: ResponseChecker,
    correlation_id: i32,
    batch_bytes: u64,
    tally: Tally,
}

impl Receiver {
    fn run(mut self, shared: &SharedQueue, clock: &Clock) -> Result<Tally, BenchError> {
        let result = self.receive_all(shared, clock);
        if result.is_err() {
            shared.lock().failed = true;
            shared.room.notify_one();
            let _already_closed = self.stream.shutdown(Shutdown::Both);
        }
        result.map(|()| self.tally)
    }

    fn receive_all(&mut self, shared: &SharedQueue, clock: &Clock) -> Result<(), BenchError> {
        let mut taken = Vec::new();
        loop {
            let open = self.read()?;
            let count = self.complete_responses()?;
            let mut queue = shared.lock();
            if count > queue.sent.len() {
                return Err(BenchError::Check("more responses than requests".into()));
            }
            taken.clear();
            taken.extend(queue.sent.drain(..count));
            let over = queue.done && queue.sent.is_empty();
            drop(queue);
            shared.room.notify_one();
            self.take(&taken, clock)?;
            if over {
                return Ok(());
            }
            if !open {
                return Err(BenchError::Check("the broker closed the connection".into()));
            }
        }
    }

    /// Reads at least one byte; false at the end of the stream.
    fn read(&mut self) -> Result<bool, BenchError> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(n) => {
                    self.filled += n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BenchError::io("waiting for answers to produce")(e)),
            }
        }
    }

    /// The number of complete responses in the buffer.
    fn complete_responses(&self) -> Result<usize, BenchError> {
        let (mut at, mut count) = (0, 0);
        while let Some(size) = response_bytes(&self.buffer[at..self.filled])? {
            at += size;
            if at > self.filled {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Checks and counts one response for each of the given requests.
    fn take(&mut self, requests: &[Sent], clock: &Clock) -> Result<(), BenchError> {
        let now = Instant::now();
        let mut at = 0;
        for request in requests {
            let size = response_bytes(&self.buffer[at..self.filled])?.expect("counted by complete_responses");
            let index = i32::try_from(request.partition).expect("partitions were an i32");
            let answer = &self.buffer[at + 4..at + size];
            let offset = self.answers.base_offset(answer, self.correlation_id, index)?;
            self.correlation_id = self.correlation_id.wrapping_add(1);
            self.tally.offsets[request.partition as usize].push(offset);
            if request.due >= clock.measure_from && request.due < clock.until {
                record(
                    &mut self.tally.latency,
                    now.saturating_duration_since(request.due),
                );
            }
            at += size;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        clock.count(requests.len() as u64, requests.len() as u64 * self.batch_bytes);
        Ok(())
    }
}

/// The size of the frame at the front including its length field, if that has arrived.
fn response_bytes(buffer: &[u8]) -> Result<Option<usize>, BenchError> {
    let Some(size) = buffer.first_chunk() else {
        return Ok(None);
    };
    match usize::try_from(i32::from_be_bytes(*size)) {
        Ok(size) if size <= RESPONSE_BYTES_MAX => Ok(Some(4 + size)),
        _ => Err(BenchError::Wire(
            "a produce response with an invalid length".into(),
        )),
    }
}
