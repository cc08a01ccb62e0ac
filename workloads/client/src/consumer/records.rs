//! Reads the records of a fetched partition.

use std::collections::BTreeSet;

use brokkr_types::{Offset, ProducerId, Uuid};
use brokkr_wire::messages::fetch_response::{AbortedTransaction, PartitionData};
use brokkr_wire::records::{Batch, BatchError, ControlType, Record, batches};
use bytes::Bytes;

use super::config::{ConsumerConfig, IsolationLevel};
use super::polled::{ConsumerRecord, Fault};
use super::session::RequestedPartition;

/// Result of reading a partition's data.
pub(super) struct Read {
    pub records: Vec<ConsumerRecord>,
    pub faults: Vec<Fault>,
    /// The next offset to fetch.
    pub position: Offset,
    /// The data contained nothing usable.
    pub stuck: bool,
    /// Bytes of the data.
    pub bytes: usize,
    /// Whole batches in it.
    pub batches: usize,
}

/// Reads the fetched data up to the first batch that can't be read.
pub(super) fn read(data: PartitionData, requested: &RequestedPartition, config: &ConsumerConfig) -> Read {
    let position = requested.position;
    let mut read = Read {
        records: Vec::new(),
        faults: Vec::new(),
        position,
        stuck: false,
        bytes: 0,
        batches: 0,
    };
    let bytes = data.records.and_then(|r| r.as_bytes().cloned());
    let bytes = bytes.unwrap_or_default();
    read.bytes = bytes.len();
    let mut aborted = match config.isolation {
        IsolationLevel::ReadCommitted => Aborted::new(data.aborted_transactions.unwrap_or_default()),
        IsolationLevel::ReadUncommitted => Aborted::new(Vec::new()),
    };
    for batch in batches(bytes) {
        let taken = batch.and_then(|batch| read.take(&batch, &mut aborted, requested.topic_id, config));
        match taken {
            Ok(()) => read.batches += 1,
            // The last batch may be truncated, but not the first one (KIP-74).
            Err(e) if e.is_partial() && read.position > position => break,
            Err(e) => {
                read.faults.push(Fault::Damaged(e));
                read.stuck = true;
                break;
            }
        }
    }
    read
}

impl Read {
    fn take(
        &mut self,
        batch: &Batch,
        aborted: &mut Aborted,
        topic_id: Uuid,
        config: &ConsumerConfig,
    ) -> Result<(), BatchError> {
        batch.check_crc()?;
        let header = &batch.header;
        if header.last_offset() < self.position {
            self.faults.push(Fault::Backwards {
                expected: self.position,
                last: header.last_offset(),
            });
            // The whole batch is below the position.
            return Ok(());
        }
        if header.base_offset > self.position {
            self.faults.push(Fault::Gap {
                expected: self.position,
                got: header.base_offset,
            });
        }
        let records = batch.records(config.decompressed_max)?;
        let hidden = aborted.hides(batch);
        let mut arrived = Vec::new();
        for record in &records {
            let record = record?;
            if header.attributes.is_control() {
                aborted.marker(header.producer_id, &record)?;
            } else if !hidden && header.record_offset(record.offset_delta) >= self.position {
                arrived.push(owned(batch, topic_id, &record));
            }
        }
        // AFTER the whole batch was read: a batch that can't be read is fetched again as a whole.
        self.records.extend(arrived);
        self.position = header.next_offset();
        Ok(())
    }
}

fn owned(batch: &Batch, topic_id: Uuid, record: &Record<'_>) -> ConsumerRecord {
    let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    let headers = record.headers.iter();
    ConsumerRecord {
        topic_id,
        offset: batch.header.record_offset(record.offset_delta),
        timestamp: batch.header.record_timestamp(record.timestamp_delta),
        key: copy(record.key),
        value: copy(record.value),
        headers: headers
            .map(|h| (Bytes::copy_from_slice(h.key), copy(h.value)))
            .collect(),
        leader_epoch: batch.header.partition_leader_epoch,
        producer_id: batch.header.producer_id,
        producer_epoch: batch.header.producer_epoch,
    }
}

/// The producers whose transactions are aborted at the current offset.
struct Aborted {
    /// Sorted by first offset, descending.
    ahead: Vec<AbortedTransaction>,
    open: BTreeSet<ProducerId>,
}

impl Aborted {
    fn new(mut ahead: Vec<AbortedTransaction>) -> Self {
        ahead.sort_by_key(|a| std::cmp::Reverse(a.first_offset));
        Self {
            ahead,
            open: BTreeSet::new(),
        }
    }

    fn hides(&mut self, batch: &Batch) -> bool {
        let last = batch.header.last_offset().0;
        while let Some(next) = self.ahead.pop_if(|a| a.first_offset <= last) {
            self.open.insert(ProducerId(next.producer_id));
        }
        batch.header.attributes.is_transactional() && self.open.contains(&batch.header.producer_id)
    }

    fn marker(&mut self, producer: ProducerId, record: &Record<'_>) -> Result<(), BatchError> {
        if ControlType::from_key(record.key)? == ControlType::Abort {
            self.open.remove(&producer);
        }
        Ok(())
    }
}
