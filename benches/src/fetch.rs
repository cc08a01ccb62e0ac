//! Fetch load, and reading back written records.
//!
//! Each connection reads its own partitions from the first offset to the end and begins again. It reads batch headers only,
//! and checks that each batch begins at the offset after the previous one.

use crate::client::{Client, FETCH_VERSION};
use crate::clock::{Clock, sleep_until};
use crate::error::BenchError;
use crate::frames::Shape;
use crate::produce::{histogram, record};
use brokkr_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use brokkr_wire::records::batches;
use brokkr_wire::{Records, Str};
use bytes::Bytes;
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::time::Instant;

/// Parameters of a fetch load.
#[derive(Clone, Copy, Debug)]
pub struct FetchSpec {
    /// Partitions of the topic.
    pub partitions: i32,
    /// Connections; partition p is read by connection p modulo this.
    pub connections: usize,
    /// Maximum bytes of one fetch.
    pub fetch_bytes: i32,
    /// The batches in the topic.
    pub batch: Shape,
}

const READ_BACK_BYTES: i32 = 8 << 20;
const READ_BACK_CONNECTIONS: usize = 2;
const WAIT_MS: i32 = 500;
/// How often a fetch below the end that returns nothing is repeated.
const EMPTY_MAX: u32 = 20;

/// Fetches batches from `offset` on.
fn fetch(
    client: &mut Client,
    topic: &Str,
    partition: i32,
    offset: i64,
    bytes: i32,
) -> Result<Bytes, BenchError> {
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: WAIT_MS,
        min_bytes: 1,
        max_bytes: bytes,
        topics: vec![FetchTopic {
            topic: topic.clone(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: bytes,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let response = client.call(&request, FETCH_VERSION)?;
    BenchError::check(response.error_code, || format!("fetching {}", &**topic))?;
    let answered = response.responses.into_iter().flat_map(|t| t.partitions).next();
    let Some(answered) = answered.filter(|p| p.partition_index == partition) else {
        return Err(BenchError::Check(format!(
            "the response to a fetch of {}-{partition} lacks the partition",
            &**topic
        )));
    };
    BenchError::check(answered.error_code, || {
        format!("fetching {}-{partition} at {offset}", &**topic)
    })?;
    match answered.records {
        None => Ok(Bytes::new()),
        Some(Records::Bytes(bytes)) => Ok(bytes),
        Some(Records::External { .. }) => Err(BenchError::Wire("external records".into())),
    }
}

/// Checks that the batches begin at `offset` and are contiguous; returns the next offset and the bytes of whole batches.
fn follow(records: Bytes, mut offset: i64, crc: bool) -> Result<(i64, usize), BenchError> {
    let mut found = batches(records);
    for batch in &mut found {
        let batch = match batch {
            Ok(batch) => batch,
            Err(e) if e.is_partial() => break,
            Err(e) => return Err(BenchError::Check(format!("a batch after offset {offset}: {e}"))),
        };
        if batch.header.base_offset.0 != offset {
            return Err(BenchError::Check(format!(
                "expected a batch at offset {offset}, got one at {}",
                batch.header.base_offset
            )));
        }
        if batch.header.records_count != batch.header.last_offset_delta + 1 {
            return Err(BenchError::Check(format!("the batch at {offset} has gaps")));
        }
        if crc {
            let crc = batch.check_crc();
            crc.map_err(|e| BenchError::Check(format!("the batch at {offset}: {e}")))?;
        }
        offset = batch.header.next_offset().0;
    }
    Ok((offset, found.position()))
}

/// The position of a connection in its partitions.
struct Cursor {
    client: Client,
    topic: Str,
    /// Partition, end, next offset.
    partitions: Vec<(i32, i64, i64)>,
    next: usize,
    fetch_bytes: i32,
    crc: bool,
    empty: u32,
}

impl Cursor {
    fn new(
        addr: SocketAddr,
        topic: &str,
        ends: &[i64],
        (number, of): (usize, usize),
        fetch_bytes: i32,
        crc: bool,
    ) -> Result<Self, BenchError> {
        let mine = (0..).zip(ends).skip(number).step_by(of);
        Ok(Self {
            client: Client::connect(addr)?,
            topic: Str::copied(topic),
            partitions: mine.map(|(index, end)| (index, *end, 0)).collect(),
            next: 0,
            fetch_bytes,
            crc,
            empty: 0,
        })
    }

    /// Fetches once; returns the bytes of whole batches, or `None` at the end of all partitions.
    fn step(&mut self) -> Result<Option<usize>, BenchError> {
        let count = self.partitions.len();
        let unread = (0..count)
            .map(|i| (self.next + i) % count)
            .find(|i| self.partitions[*i].2 < self.partitions[*i].1);
        let Some(at) = unread else {
            return Ok(None);
        };
        let (index, end, offset) = self.partitions[at];
        let records = fetch(&mut self.client, &self.topic, index, offset, self.fetch_bytes)?;
        let (next, bytes) = follow(records, offset, self.crc)?;
        self.empty = if next == offset { self.empty + 1 } else { 0 };
        if next > end || self.empty > EMPTY_MAX {
            return Err(BenchError::Check(format!(
                "{}-{index} ends at {end}, but records were read up to {next}",
                &*self.topic
            )));
        }
        self.partitions[at].2 = next;
        self.next = (at + 1) % count;
        Ok(Some(bytes))
    }

    fn rewind(&mut self) {
        self.partitions.iter_mut().for_each(|partition| partition.2 = 0);
    }
}

/// Reads every partition once from 0 to its end and checks all CRCs. Returns the bytes read.
pub fn read_back(addr: SocketAddr, topic: &str, ends: &[i64]) -> Result<usize, BenchError> {
    let read = |number: usize| {
        let place = (number, READ_BACK_CONNECTIONS);
        let mut cursor = Cursor::new(addr, topic, ends, place, READ_BACK_BYTES, true)?;
        let mut read = 0;
        while let Some(bytes) = cursor.step()? {
            read += bytes;
        }
        Ok::<_, BenchError>(read)
    };
    std::thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> = (0..READ_BACK_CONNECTIONS)
            .map(|number| scope.spawn(move || read(number)))
            .collect();
        let mut all = 0;
        for reader in readers {
            all += reader.join().expect("the thread panicked")?;
        }
        Ok(all)
    })
}

/// Runs readers until the clock stops. `again` runs before a connection starts over. Returns the latency of single fetches.
pub fn run(
    addr: SocketAddr,
    topic: &str,
    ends: &[i64],
    spec: FetchSpec,
    clock: &Clock,
    again: &(dyn Fn() -> Result<(), BenchError> + Sync),
) -> Result<Histogram<u64>, BenchError> {
    let read = |cursor: &mut Cursor| {
        let mut latency = histogram();
        sleep_until(clock.begin);
        while !clock.stopped() {
            let sent_at = Instant::now();
            match cursor.step()? {
                Some(bytes) => clock.count(1, bytes as u64),
                None => {
                    again()?;
                    cursor.rewind();
                    continue;
                }
            }
            if sent_at >= clock.measure_from {
                record(&mut latency, sent_at.elapsed());
            }
        }
        Ok::<_, BenchError>(latency)
    };
    let mut cursors = Vec::new();
    for number in 0..spec.connections {
        cursors.push(Cursor::new(
            addr,
            topic,
            ends,
            (number, spec.connections),
            spec.fetch_bytes,
            false,
        )?);
    }
    std::thread::scope(|scope| {
        let read = &read;
        let readers: Vec<_> = cursors
            .iter_mut()
            .map(|cursor| scope.spawn(move || read(cursor).inspect_err(|_| clock.stop())))
            .collect();
        let mut all = histogram();
        for reader in readers {
            all += reader.join().expect("the thread panicked")?;
        }
        Ok(all)
    })
}
