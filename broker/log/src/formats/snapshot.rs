//! Producer state on disk: Kafka's snapshot file, and beside it Brokkr's window file.
//!
//! ```text
//! <offset>.snapshot  version i16 = 1 │ crc u32 (CRC-32C of the rest) │ count i32 │ count × (
//!                      producer_id i64 │ epoch i16 │ last_sequence i32 │ last_offset i64 │ offset_delta i32
//!                      │ timestamp i64 │ coordinator_epoch i32 │ current_txn_first_offset i64 )
//! <offset>.window    "BKWN" │ version u16 = 1 │ snapshot's crc u32 │ count u32 │ count × (
//!                      producer_id i64 │ batches u8 │ batches × (
//!                        last_sequence i32 │ last_offset i64 │ offset_delta i32 │ timestamp i64 ) )
//!                    │ crc32 u32
//! ```
//! Big-endian. A snapshot holds the state before `<offset>`. Kafka keeps one batch for each producer, but a client
//! may retry any of the last five (P1), so the window file has the older four. It names its snapshot by the CRC: with
//! another window, or without one, the log is replayed from further back.

use brokkr_types::{Instant, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis};
use bytes::Bytes;

use crate::formats::bytes::{ByteReader, append_crc, verify_crc};
use crate::state::producers::{BatchMeta, Producer, Producers, Window};

const SNAPSHOT_VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = 6;
const WINDOW_MAGIC: &[u8; 4] = b"BKWN";
const WINDOW_VERSION: u16 = 1;

/// A snapshot file and its window file, encoded.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFiles {
    pub(crate) offset: Offset,
    pub(crate) snapshot: Bytes,
    pub(crate) window: Bytes,
}

/// Encodes the state of `producers` at `offset`.
pub(crate) fn encode(offset: Offset, producers: &Producers) -> SnapshotFiles {
    let mut out = Vec::with_capacity(ENTRIES_AT + 4 + producers.len() * 46);
    out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(producers.len() as i32).to_be_bytes());
    for (id, producer) in producers.iter() {
        let last = producer.window.batches().last().copied();
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(&producer.epoch.0.to_be_bytes());
        out.extend_from_slice(&last.map_or(-1, |b| b.last_sequence.0).to_be_bytes());
        out.extend_from_slice(&last.map_or(-1, |b| b.last_offset.0).to_be_bytes());
        out.extend_from_slice(&last.map_or(0, |b| b.offset_delta).to_be_bytes());
        out.extend_from_slice(&producer.last_timestamp.0.to_be_bytes());
        out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&producer.transaction_start.map_or(-1, |o| o.0).to_be_bytes());
    }
    let crc = crc32c::crc32c(&out[ENTRIES_AT..]);
    out[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    SnapshotFiles {
        offset,
        snapshot: out.into(),
        window: encode_window(crc, producers),
    }
}

fn encode_window(snapshot_crc: u32, producers: &Producers) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(WINDOW_MAGIC);
    out.extend_from_slice(&WINDOW_VERSION.to_be_bytes());
    out.extend_from_slice(&snapshot_crc.to_be_bytes());
    let more = |p: &Producer| p.window.batches().len() > 1;
    let count = producers.iter().filter(|(_, p)| more(p)).count();
    out.extend_from_slice(&(count as u32).to_be_bytes());
    for (id, producer) in producers.iter().filter(|(_, p)| more(p)) {
        let [older @ .., _] = producer.window.batches() else {
            continue;
        };
        out.extend_from_slice(&id.0.to_be_bytes());
        out.push(older.len() as u8);
        for batch in older {
            out.extend_from_slice(&batch.last_sequence.0.to_be_bytes());
            out.extend_from_slice(&batch.last_offset.0.to_be_bytes());
            out.extend_from_slice(&batch.offset_delta.to_be_bytes());
            out.extend_from_slice(&batch.timestamp.0.to_be_bytes());
        }
    }
    append_crc(out)
}

/// A decoded snapshot.
#[derive(Debug)]
pub(crate) struct DecodedSnapshot {
    pub(crate) producers: Producers,
    /// Whether the windows are complete; otherwise they have only each producer's last batch.
    pub(crate) whole: bool,
}

/// Decodes a snapshot and its window, if there is one. `None` if the snapshot is damaged. Producers count as last
/// seen at `now`.
pub(crate) fn decode(snapshot: &[u8], window: Option<&[u8]>, now: Instant) -> Option<DecodedSnapshot> {
    let mut bytes = ByteReader(snapshot);
    let (version, crc) = (bytes.i16()?, bytes.u32()?);
    if version != SNAPSHOT_VERSION || crc != crc32c::crc32c(bytes.0) {
        return None;
    }
    let older = window.and_then(|w| decode_window(w, crc));
    let whole = older.is_some();
    let mut older = older.unwrap_or_default().into_iter().peekable();
    let mut producers = Producers::default();
    for _ in 0..bytes.i32()? {
        let (id, mut producer, last) = take_entry(&mut bytes, now)?;
        if let Some((_, batches)) = older.next_if(|(of, _)| *of == id) {
            batches.into_iter().for_each(|b| producer.window.push(b));
        }
        if let Some(last) = last {
            producer.window.push(last);
        }
        producers.load(id, producer);
    }
    bytes.0.is_empty().then_some(DecodedSnapshot { producers, whole })
}

fn take_entry(bytes: &mut ByteReader<'_>, now: Instant) -> Option<(ProducerId, Producer, Option<BatchMeta>)> {
    let (id, epoch) = (ProducerId(bytes.i64()?), ProducerEpoch(bytes.i16()?));
    let (last_sequence, last_offset) = (Sequence(bytes.i32()?), Offset(bytes.i64()?));
    let (offset_delta, timestamp) = (bytes.i32()?, UnixMillis(bytes.i64()?));
    let (coordinator_epoch, start) = (bytes.i32()?, Offset(bytes.i64()?));
    let last = (last_offset.0 >= 0).then_some(BatchMeta {
        last_sequence,
        last_offset,
        offset_delta,
        timestamp,
    });
    let producer = Producer {
        epoch,
        coordinator_epoch,
        last_timestamp: timestamp,
        transaction_start: (start.0 >= 0).then_some(start),
        window: Window::default(),
        last_seen: now,
    };
    Some((id, producer, last))
}

fn decode_window(bytes: &[u8], snapshot_crc: u32) -> Option<Vec<(ProducerId, Vec<BatchMeta>)>> {
    let body = verify_crc(bytes)?.strip_prefix(WINDOW_MAGIC)?;
    let mut bytes = ByteReader(body);
    if bytes.u16()? != WINDOW_VERSION || bytes.u32()? != snapshot_crc {
        return None;
    }
    let mut all = Vec::new();
    for _ in 0..bytes.u32()? {
        let (id, count) = (ProducerId(bytes.i64()?), bytes.u8()?);
        let mut batches = Vec::new();
        for _ in 0..count {
            batches.push(BatchMeta {
                last_sequence: Sequence(bytes.i32()?),
                last_offset: Offset(bytes.i64()?),
                offset_delta: bytes.i32()?,
                timestamp: UnixMillis(bytes.i64()?),
            });
        }
        all.push((id, batches));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_wire::records::BatchBuilder;
    use proptest::prelude::*;

    fn producers(counts: &[(i64, usize)]) -> Producers {
        let mut producers = Producers::default();
        for &(id, count) in counts {
            for i in 0..count as i64 {
                let mut builder = BatchBuilder::new();
                builder.push(UnixMillis(0), None, None, &[]);
                let mut header = builder.build().header;
                (header.producer_id, header.producer_epoch) = (ProducerId(id), ProducerEpoch(2));
                (header.base_sequence, header.last_offset_delta) = (Sequence(i as i32 * 3), 2);
                (header.base_offset, header.max_timestamp) = (Offset(id * 100 + i * 3), UnixMillis(1000 + i));
                producers.apply(&header, None, Instant::from_nanos(7));
            }
        }
        producers
    }

    #[test]
    fn a_snapshot_is_kafkas() {
        let files = encode(Offset(3), &producers(&[(5, 1)]));
        let crc = crc32c::crc32c(&files.snapshot[6..]).to_be_bytes();
        let mut expected = vec![0, 1, crc[0], crc[1], crc[2], crc[3], 0, 0, 0, 1];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 5, 0, 2, 0, 0, 0, 2]);
        expected.extend([0, 0, 0, 0, 0, 0, 1, 0xf6, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 3, 0xe8]);
        expected.extend([0xff; 12]);
        assert_eq!(files.snapshot[..], expected);
    }

    #[test]
    fn without_its_window_a_snapshot_knows_one_batch_each() {
        let all = producers(&[(1, 7), (2, 1), (3, 3)]);
        let files = encode(Offset(0), &all);
        let now = Instant::from_nanos(7);
        let loaded = decode(&files.snapshot, Some(&files.window), now).expect("sound");
        assert!(loaded.whole && loaded.producers == all);
        let other = encode(Offset(0), &producers(&[(1, 6)])).window;
        for window in [None, Some(&files.window[1..]), Some(&other[..])] {
            let loaded = decode(&files.snapshot, window, now).expect("sound");
            assert!(!loaded.whole);
            assert!(
                loaded
                    .producers
                    .iter()
                    .all(|(_, p)| p.window.batches().len() == 1)
            );
        }
    }

    proptest! {
        #[test]
        fn damage_is_detected(at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let files = encode(Offset(0), &producers(&[(1, 7), (2, 1), (3, 3)]));
            let mut snapshot = files.snapshot.to_vec();
            snapshot[at.index(files.snapshot.len())] ^= 1 << bit;
            prop_assert!(decode(&snapshot, Some(&files.window), Instant::default()).is_none());
            let mut window = files.window.to_vec();
            window[at.index(files.window.len())] ^= 1 << bit;
            let loaded = decode(&files.snapshot, Some(&window), Instant::default());
            prop_assert!(loaded.is_some_and(|l| !l.whole));
        }
    }
}
