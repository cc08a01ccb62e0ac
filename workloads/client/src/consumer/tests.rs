//! Tests of reading fetched bytes and of fetch sessions.

use brokkr_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, UnixMillis, Uuid};
use brokkr_wire::messages::fetch_response::{AbortedTransaction, PartitionData};
use brokkr_wire::records::{BatchBuilder, CompressionType, ControlType};
use brokkr_wire::{ErrorCode, Records};
use bytes::{Bytes, BytesMut};

use super::records::{Read, read};
use super::session::{RequestedPartition, Session};
use super::{ConsumerConfig, Fault, IsolationLevel};
use crate::{Error, TopicPartition};

/// A batch at `base` whose values are their offsets.
fn batch(base: i64, count: i64, producer: i64, transactional: bool) -> Bytes {
    let mut b = BatchBuilder::new()
        .at(Offset(base), LeaderEpoch(3))
        .compression(CompressionType::Lz4, 9)
        .producer(ProducerId(producer), ProducerEpoch(0), Sequence(0));
    if transactional {
        b = b.transactional();
    }
    for offset in base..base + count {
        b.push(UnixMillis(5), None, Some(offset.to_string().as_bytes()), &[]);
    }
    placed(b.build(), base)
}

fn placed(batch: brokkr_wire::records::Batch, base: i64) -> Bytes {
    let [front, rest] = batch.placed(Offset(base), LeaderEpoch(3));
    Bytes::from([front, rest].concat())
}

fn marker(base: i64, producer: i64, control: ControlType) -> Bytes {
    let mut b = BatchBuilder::new()
        .producer(ProducerId(producer), ProducerEpoch(0), Sequence::NONE)
        .transactional()
        .control();
    b.push_control(UnixMillis(5), control, &[0; 6]);
    placed(b.build(), base)
}

fn fetched(position: i64, batches: &[Bytes], aborted: &[(i64, i64)]) -> Read {
    let aborted = aborted
        .iter()
        .map(|(producer_id, first_offset)| AbortedTransaction {
            producer_id: *producer_id,
            first_offset: *first_offset,
            ..Default::default()
        });
    let data = PartitionData {
        records: Some(Records::Bytes(Bytes::from(batches.concat()))),
        aborted_transactions: Some(aborted.collect()),
        ..Default::default()
    };
    let config = ConsumerConfig {
        isolation: IsolationLevel::ReadCommitted,
        ..ConsumerConfig::default()
    };
    let requested = RequestedPartition {
        tp: TopicPartition::new("t", 0),
        topic_id: Uuid::ZERO,
        leader_epoch: 1,
        generation: 0,
        position: Offset(position),
    };
    read(data, &requested, &config)
}

fn offsets(read: &Read) -> Vec<i64> {
    for r in &read.records {
        let value = r.value.as_deref().expect("it has a value");
        assert_eq!(value, r.offset.to_string().as_bytes());
        assert_eq!((r.timestamp, r.leader_epoch), (UnixMillis(5), LeaderEpoch(3)));
    }
    read.records.iter().map(|r| r.offset.0).collect()
}

#[test]
fn records_below_the_position_are_skipped() {
    let read = fetched(7, &[batch(5, 4, -1, false), batch(9, 1, -1, false)], &[]);
    assert_eq!(
        (offsets(&read), read.position, read.faults),
        (vec![7, 8, 9], Offset(10), vec![])
    );
}

#[test]
fn a_truncated_last_batch_is_fetched_again() {
    let (whole, cut) = (batch(0, 2, -1, false), batch(2, 2, -1, false).slice(..70));
    let read = fetched(0, &[whole, cut.clone()], &[]);
    assert_eq!(
        (offsets(&read), read.position, read.stuck),
        (vec![0, 1], Offset(2), false)
    );
    assert!(read.faults.is_empty());
    // A single truncated batch would be fetched in vain forever: the broker must return one batch whole even above limits
    // (W6).
    let read = fetched(2, &[cut], &[]);
    assert!(read.stuck && matches!(read.faults[..], [Fault::Damaged(_)]));
}

#[test]
fn damage_is_reported_and_ends_the_read() {
    let mut bad = BytesMut::from(&batch(2, 2, -1, false)[..]);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let read = fetched(
        0,
        &[batch(0, 2, -1, false), bad.freeze(), batch(4, 1, -1, false)],
        &[],
    );
    assert_eq!(
        (offsets(&read), read.position, read.stuck),
        (vec![0, 1], Offset(2), true)
    );
    assert!(matches!(read.faults[..], [Fault::Damaged(_)]));
}

#[test]
fn gaps_and_steps_back_are_reported() {
    let batches = [
        batch(2, 2, -1, false),
        batch(0, 2, -1, false),
        batch(4, 1, -1, false),
    ];
    let read = fetched(0, &batches, &[]);
    assert_eq!((offsets(&read), read.position), (vec![2, 3, 4], Offset(5)));
    let gap = Fault::Gap {
        expected: Offset(0),
        got: Offset(2),
    };
    let backwards = Fault::Backwards {
        expected: Offset(4),
        last: Offset(1),
    };
    assert_eq!(read.faults, [gap, backwards]);
}

#[test]
fn exactly_the_aborted_transactions_are_hidden() {
    let log = [
        batch(0, 2, 1, true),
        batch(2, 2, 2, true),
        batch(4, 1, -1, false),
        marker(5, 1, ControlType::Abort),
        batch(6, 1, 1, true),
        marker(7, 2, ControlType::Commit),
        marker(8, 1, ControlType::Commit),
        batch(9, 1, 2, true),
        marker(10, 2, ControlType::Abort),
    ];
    let read = fetched(0, &log, &[(2, 9), (1, 0)]);
    assert_eq!((offsets(&read), read.position), (vec![2, 3, 4, 6], Offset(11)));
    assert!(read.faults.is_empty());
}

fn requested(partition: i32, id: u8, position: i64) -> RequestedPartition {
    RequestedPartition {
        tp: TopicPartition::new("t", partition),
        topic_id: Uuid::from_bytes([id; 16]),
        leader_epoch: 1,
        generation: 0,
        position: Offset(position),
    }
}

/// Session id, epoch, partitions, forgotten partitions.
type SessionRequest = (i32, i32, Vec<(i32, i64)>, Vec<(Uuid, i32)>);

fn session_request(session: &mut Session, requested: &[RequestedPartition]) -> SessionRequest {
    let r = session.request(requested, true, &ConsumerConfig::default());
    let topics = r.topics.iter().flat_map(|t| &t.partitions);
    let forgotten = r.forgotten_topics_data.iter();
    let forgotten = forgotten.flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, *p)));
    (
        r.session_id,
        r.session_epoch,
        topics.map(|p| (p.partition, p.fetch_offset)).collect(),
        forgotten.collect(),
    )
}

#[test]
fn a_session_sends_only_changes() {
    let mut s = Session::new();
    let one = Uuid::from_bytes([1; 16]);
    let first = [requested(0, 1, 5), requested(1, 1, 6)];
    assert_eq!(
        session_request(&mut s, &first),
        (0, 0, vec![(0, 5), (1, 6)], vec![])
    );
    s.answered(99);
    assert_eq!(
        session_request(&mut s, &[requested(0, 1, 8), requested(1, 1, 6)]),
        (99, 1, vec![(0, 8)], vec![])
    );
    s.answered(99);
    assert_eq!(
        session_request(&mut s, &[requested(0, 1, 8)]),
        (99, 2, vec![], vec![(one, 1)])
    );
    s.answered(99);
    // A different topic of the same name.
    assert_eq!(
        session_request(&mut s, &[requested(0, 2, 8)]),
        (99, 3, vec![(0, 8)], vec![(one, 0)])
    );
    // Without a response the broker's state is unknown: the session begins anew, and the old one is closed.
    s.failed(&Error::TimedOut);
    assert_eq!(
        session_request(&mut s, &[requested(0, 2, 8)]),
        (99, 0, vec![(0, 8)], vec![])
    );
    s.failed(&Error::Broker(ErrorCode::FETCH_SESSION_ID_NOT_FOUND, None));
    assert_eq!(
        session_request(&mut s, &[requested(0, 2, 8)]),
        (0, 0, vec![(0, 8)], vec![])
    );
    s.answered(0);
    assert_eq!(
        session_request(&mut s, &[requested(0, 2, 9)]),
        (0, 0, vec![(0, 9)], vec![])
    );
}
