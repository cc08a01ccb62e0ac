//! Load by produce requests over raw sockets.
//!
//! A connection has a thread that writes and one that reads. At a rate the load is open: a request is due at its own
//! time whatever became of the others, and its latency counts from when it was due, also when the socket was full or this
//! process was late (coordinated omission). Without a rate a connection keeps a number of requests in flight and the
//! latency counts from the write. Threads and blocking sockets, not a runtime: its timers tick in milliseconds.

use crate::client::connect;
use crate::clock::{Clock, sleep_exactly, sleep_until};
use crate::error::BenchError;
use crate::frames::{Answers, Frames, Shape};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// What a load of produce requests is.
#[derive(Clone, Copy, Debug)]
pub struct ProduceSpec {
    /// Partitions of the topic, written in turns.
    pub partitions: i32,
    /// Connections, each of which writes to all partitions.
    pub connections: usize,
    /// Requests in flight on each connection, where there is no rate.
    pub in_flight: usize,
    /// What is in a request.
    pub shape: Shape,
    /// Requests a second over all connections.
    pub rate: Option<f64>,
}

/// What a connection saw.
pub struct Tally {
    /// Nanoseconds until the answer of each request that was due in the window.
    pub latency: Histogram<u64>,
    /// The base offsets each partition gave.
    pub offsets: Vec<Vec<i64>>,
    /// Requests due in the window that were never sent: the load was too much. Their latency so far is in `latency`.
    pub unsent: u64,
}

/// Requests of this size are written by themselves, from where they are.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Small requests are collected up to this.
const WRITE_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 256 << 10;
/// An answer to a produce request to one partition is small.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What is due when the window ends may still be sent for this part of the window.
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

/// What the two threads of a connection share.
#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    room: Condvar,
}

impl Lane {
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

/// Connections that wait for their start.
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

    /// Begins when the clock does.
    pub fn start<'scope, 'env>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        clock: &'env Clock,
    ) -> Result<Load<'scope>, BenchError> {
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
        Ok(Load { workers })
    }
}

type Worker<'scope> = ScopedJoinHandle<'scope, Result<Tally, BenchError>>;

/// A load under way.
pub struct Load<'scope> {
    workers: Vec<Worker<'scope>>,
}

impl Load<'_> {
    /// Waits until all that was sent is answered.
    pub fn join(self) -> Result<Tally, BenchError> {
        let mut all: Option<Tally> = None;
        for worker in self.workers {
            let tally = worker
                .join()
                .expect("a panic has ended the process' thread already")?;
            match &mut all {
                None => all = Some(tally),
                Some(all) => all.add(tally),
            }
        }
        all.ok_or_else(|| BenchError::Usage("a load needs a connection".into()))
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
                answers: Answers::new(topic)?,
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

    /// One request at a time, on one thread.
    fn lockstep(mut self, clock: &Clock) -> Result<Tally, BenchError> {
        let mut turns = Turns::new(self.spec.partitions, self.number);
        sleep_until(clock.begin);
        while !clock.stopped() {
            let sent = Sent {
                due: Instant::now(),
                partition: turns.next(),
            };
            self.sender
                .send(std::slice::from_ref(&sent))
                .map_err(BenchError::io("sending"))?;
            while self.receiver.whole_answers()? == 0 {
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
        let lane = Lane::default();
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || receiver.run(&lane, clock))
                .map_err(BenchError::io("starting a thread"))?;
            sleep_until(clock.begin);
            let sent = match spec.rate {
                Some(rate) => sender.at_rate(&lane, clock, spec, number, rate),
                None => sender.in_flight(&lane, clock, spec, number),
            };
            let mut queue = lane.lock();
            queue.done = true;
            // The reader may be waiting for an answer that nobody owes.
            if queue.sent.is_empty() || sent.is_err() {
                let _already_closed = sender.stream.shutdown(Shutdown::Both);
            }
            drop(queue);
            let mut tally = reader
                .join()
                .expect("a panic has ended the process' thread already")?;
            for late in sent.map_err(BenchError::io("sending"))? {
                tally.unsent += 1;
                record(&mut tally.latency, late);
            }
            Ok(tally)
        })
    }
}

/// The partitions in turns; connections begin at different ones.
struct Turns {
    partitions: u32,
    next: u32,
}

impl Turns {
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
    /// Keeps `in_flight` requests under way until the clock stops.
    fn in_flight(
        &mut self,
        lane: &Lane,
        clock: &Clock,
        spec: ProduceSpec,
        number: usize,
    ) -> io::Result<Vec<Duration>> {
        // Small requests go out in groups, else each answer would wake the writer.
        let group = if self.frames.batch_bytes() > COPY_BYTES_MAX {
            1
        } else {
            spec.in_flight.div_ceil(4)
        };
        let mut turns = Turns::new(spec.partitions, number);
        let mut due = Vec::new();
        loop {
            let mut queue = lane.lock();
            while queue.sent.len() + group > spec.in_flight && !queue.failed && !clock.stopped() {
                let wait = lane.room.wait_timeout(queue, Duration::from_millis(100));
                queue = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
            if queue.failed || clock.stopped() {
                return Ok(Vec::new());
            }
            due.clear();
            let now = Instant::now();
            for _ in queue.sent.len()..spec.in_flight {
                let partition = turns.next();
                due.push(Sent { due: now, partition });
                queue.sent.push_back(Sent { due: now, partition });
            }
            drop(queue);
            self.send(&due)?;
        }
    }

    /// Sends each request when it is due. Returns how late those are that it gave up on.
    fn at_rate(
        &mut self,
        lane: &Lane,
        clock: &Clock,
        spec: ProduceSpec,
        number: usize,
        rate: f64,
    ) -> io::Result<Vec<Duration>> {
        let step = Duration::from_secs_f64(spec.connections as f64 / rate);
        let mut next = clock.begin + step.mul_f64(number as f64 / spec.connections as f64);
        let give_up = clock.until + (clock.until - clock.measure_from).mul_f64(OVERTIME);
        let mut turns = Turns::new(spec.partitions, number);
        let mut due = Vec::new();
        let most = (WRITE_BYTES_MAX / self.frames.batch_bytes()).max(1);
        while next < clock.until && !clock.stopped() {
            sleep_until(next);
            let now = Instant::now();
            if now > give_up {
                break;
            }
            due.clear();
            let mut queue = lane.lock();
            if queue.failed {
                return Ok(Vec::new());
            }
            while next <= now && next < clock.until && due.len() < most {
                let partition = turns.next();
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
    answers: Answers,
    correlation_id: i32,
    batch_bytes: u64,
    tally: Tally,
}

impl Receiver {
    fn run(mut self, lane: &Lane, clock: &Clock) -> Result<Tally, BenchError> {
        let result = self.receive_all(lane, clock);
        if result.is_err() {
            lane.lock().failed = true;
            lane.room.notify_one();
            let _already_closed = self.stream.shutdown(Shutdown::Both);
        }
        result.map(|()| self.tally)
    }

    fn receive_all(&mut self, lane: &Lane, clock: &Clock) -> Result<(), BenchError> {
        let mut taken = Vec::new();
        loop {
            let open = self.read()?;
            let count = self.whole_answers()?;
            let mut queue = lane.lock();
            if count > queue.sent.len() {
                return Err(BenchError::Check("more answers than requests".into()));
            }
            taken.clear();
            taken.extend(queue.sent.drain(..count));
            let over = queue.done && queue.sent.is_empty();
            drop(queue);
            lane.room.notify_one();
            self.take(&taken, clock)?;
            if over {
                return Ok(());
            }
            if !open {
                return Err(BenchError::Check("the broker closed the connection".into()));
            }
        }
    }

    /// Reads what there is, at least something; false at the stream's end.
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

    /// How many whole answers are there.
    fn whole_answers(&self) -> Result<usize, BenchError> {
        let (mut at, mut count) = (0, 0);
        while let Some(size) = answer_bytes(&self.buffer[at..self.filled])? {
            at += size;
            if at > self.filled {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Checks and counts as many answers as requests are given.
    fn take(&mut self, requests: &[Sent], clock: &Clock) -> Result<(), BenchError> {
        let now = Instant::now();
        let mut at = 0;
        for request in requests {
            let size = answer_bytes(&self.buffer[at..self.filled])?.expect("counted by whole_answers");
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

/// The size of the frame at the front, with its length field, if that is there.
fn answer_bytes(buffer: &[u8]) -> Result<Option<usize>, BenchError> {
    let Some(size) = buffer.first_chunk() else {
        return Ok(None);
    };
    match usize::try_from(i32::from_be_bytes(*size)) {
        Ok(size) if size <= ANSWER_BYTES_MAX => Ok(Some(4 + size)),
        _ => Err(BenchError::Wire(
            "an answer to produce of an impossible length".into(),
        )),
    }
}
