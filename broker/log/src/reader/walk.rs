//! Walking over the batch headers of a segment, with checks that detect headers that can't be right.
//!
//! A batch's CRC does not cover its first 17 bytes: base offset, length, leader epoch, magic. So a batch can match
//! its CRC and have the wrong offsets. Each header is compared with its surroundings:
//!
//! - its base offset must be the end of the batch before; in a log with gaps it may be higher, if the batch behind
//!   begins past its end. After an index entry it is known exactly, as the entry has the last offset, and the CRC
//!   covers the offset delta;
//! - its length must lead to another batch, or to the segment's end; otherwise the CRC must be right at that length;
//! - its leader epoch must be that of `leader-epoch-checkpoint` for its offset;
//! - its magic must be 2.
//!
//! A wrong batch occupies the offsets between its neighbours: a read of these returns the damage, other reads
//! succeed. Undetected: a base offset that changes within a gap around its batch.
//!
//! Each range is checked once ([`CheckedRanges`]) and cut before a wrong batch, so that the next read returns the
//! damage. Bytes that rot after that are detected only in the first batch of a range, until the broker is restarted.

use brokkr_env::Env;
use brokkr_types::Offset;
use brokkr_wire::records::{BatchHeader, LOG_OVERHEAD};

use crate::error::{Damage, ReadError};
use crate::files::headers::HeaderReader;
use crate::reader::open_segment::{FoundBatch, OpenSegment};
use crate::state::checked_ranges::CheckedRange;
use crate::state::epochs::LeaderEpochs;
use crate::state::segment::SegmentSummary;

/// Where a walk begins.
#[derive(Clone, Copy)]
pub(crate) enum WalkStart {
    /// The position of a batch, and the lowest base offset it can have.
    Known(u64, Offset),
    /// An index entry: the position of a batch, and its last offset.
    Entry(u64, Offset),
}

/// The end of the valid part of a range that begins with the batch `first` and ends at `to` or before: where the
/// first batch with a wrong header begins.
///
/// # Errors
/// [`ReadError::Damaged`] if that is `first` itself.
pub(crate) async fn valid_end<E: Env>(
    open: &OpenSegment<'_, E>,
    epochs: &LeaderEpochs,
    first: &FoundBatch,
    to: u64,
) -> Result<u64, ReadError> {
    let checked_headers = &open.segment.checked_headers;
    let (from, next) = checked_headers.checked_to(first.position, first.header.base_offset);
    if from >= to {
        return Ok(to);
    }
    let mut walk = HeaderWalk::new(open, epochs, WalkStart::Known(from, next)).reading_all(to - from);
    let mut sound = CheckedRange { from, to: from, next };
    let end = loop {
        if walk.at >= to {
            break to;
        }
        match walk.next().await {
            Ok(None) => break to,
            Ok(Some(WalkedBatch { fault: None, .. })) => (sound.to, sound.next) = (walk.at, walk.expected),
            // The next read begins there and returns the damage.
            _ if sound.to > first.position => break sound.to,
            Ok(Some(batch)) => return Err(open.damaged(&batch)),
            Err(why) => return Err(why),
        }
    };
    checked_headers.add(sound);
    Ok(end)
}

/// A batch of a walk.
pub(crate) struct WalkedBatch {
    pub(crate) position: u64,
    /// Its header; `None` if it can't be decoded.
    pub(crate) header: Option<BatchHeader>,
    /// The first offset that the batch occupies, by its neighbours.
    pub(crate) from: Offset,
    /// The offset after the last one that it occupies.
    pub(crate) next: Offset,
    /// Why its header can't be right.
    pub(crate) fault: Option<String>,
}

pub(crate) struct HeaderWalk<'a, E: Env> {
    headers: HeaderReader<'a, E>,
    summary: SegmentSummary,
    gaps: bool,
    epochs: &'a LeaderEpochs,
    /// The position of the next batch.
    pub(crate) at: u64,
    /// The lowest base offset of the next batch.
    expected: Offset,
    /// From an index entry: the last offset of the first batch.
    last_offset: Option<Offset>,
    /// The header at `at`, if it was read already.
    ahead: Option<(u64, BatchHeader)>,
}

impl<'a, E: Env> HeaderWalk<'a, E> {
    /// Begins at `start`; expects to read a few headers.
    pub(crate) fn new(open: &'a OpenSegment<'_, E>, epochs: &'a LeaderEpochs, start: WalkStart) -> Self {
        let summary = open.segment.summary;
        let (at, expected, last_offset) = match start {
            WalkStart::Known(at, offset) => (at, offset, None),
            WalkStart::Entry(at, last) => (at, summary.base, Some(last)),
        };
        Self {
            headers: HeaderReader::peek(&open.file, at, summary.size),
            summary,
            gaps: open.gaps,
            epochs,
            at,
            expected,
            last_offset,
            ahead: None,
        }
    }

    /// Expects to read all headers of the next `bytes` bytes.
    pub(crate) fn reading_all(self, bytes: u64) -> Self {
        let headers = self.headers.reading_all(bytes);
        Self { headers, ..self }
    }

    /// Checks that an index entry leads to a batch with the entry's last offset.
    pub(crate) async fn check_entry(&mut self) -> Result<(), ReadError> {
        let (at, last) = (self.at, self.last_offset.unwrap_or(self.expected));
        self.ahead = self.headers.next(last).await?;
        match self.ahead {
            Some((_, header)) if header.last_offset() == last => Ok(()),
            _ => {
                let what = format!("not the batch of last offset {last} that the index has there");
                Err(self.headers.damage(at, last, what))
            }
        }
    }

    /// Whether a batch matches its CRC.
    pub(crate) async fn is_whole(&mut self, batch: &WalkedBatch) -> Result<bool, ReadError> {
        match &batch.header {
            Some(header) => self.headers.is_whole(batch.position, header).await,
            None => Ok(false),
        }
    }

    /// The next batch; `None` at the segment's end.
    pub(crate) async fn next(&mut self) -> Result<Option<WalkedBatch>, ReadError> {
        let (position, expected) = (self.at, self.expected);
        let taken = match self.ahead.take() {
            Some(ahead) => Ok(Some(ahead)),
            None => self.headers.next(expected).await,
        };
        let header = match taken {
            Ok(None) => return Ok(None),
            Ok(Some((_, header))) => header,
            Err(ReadError::Damaged(damage)) => return self.skip_unreadable(position, damage).await.map(Some),
            Err(e) => return Err(e),
        };
        // The index entry has the last offset of the first batch, so its own base offset counts.
        let from = match self.last_offset.take() {
            Some(_) => header.base_offset.max(self.summary.base),
            None => expected,
        };
        self.at = position + header.size_bytes() as u64;
        let fault = match self.fault(&header, from) {
            Some(fault) => Some(fault),
            None => self.fault_by_next(position, &header, from).await?,
        };
        let next = match fault {
            // Without gaps it occupies as many offsets as its delta says, if its CRC is right.
            Some(_) if !self.gaps && self.headers.is_whole(position, &header).await? => from
                .plus(i64::from(header.last_offset_delta) + 1)
                .min(self.summary.next),
            Some(_) => self.end_of_wrong_batch(from).await?,
            None => header.next_offset(),
        };
        self.expected = next;
        Ok(Some(WalkedBatch {
            position,
            header: Some(header),
            from,
            next,
            fault,
        }))
    }

    /// Skips a batch whose header can't be decoded, if its length leads to another batch.
    async fn skip_unreadable(&mut self, position: u64, damage: Damage) -> Result<WalkedBatch, ReadError> {
        let from = self.expected;
        let front = self.headers.bytes(position, LOG_OVERHEAD as u32).await?;
        let length = front.last_chunk().map_or(0, |b| i32::from_be_bytes(*b));
        let end = position + u64::try_from(length).unwrap_or(0) + LOG_OVERHEAD as u64;
        if length < 0 || end > self.summary.size {
            return Err(ReadError::Damaged(damage));
        }
        self.at = end;
        self.headers.seek(end);
        let next = self.end_of_wrong_batch(from).await?;
        if next == self.summary.next && end != self.summary.size {
            return Err(ReadError::Damaged(damage));
        }
        self.expected = next;
        Ok(WalkedBatch {
            position,
            header: None,
            from,
            next,
            fault: Some(damage.what),
        })
    }

    fn fault(&self, header: &BatchHeader, from: Offset) -> Option<String> {
        let (base, next) = (header.base_offset, header.next_offset());
        if base < from || header.last_offset_delta < 0 || next > self.summary.next {
            let end = self.summary.next;
            return Some(format!(
                "it says offsets {base}..{next}, and {from}..{end} are left for it"
            ));
        }
        if base != from && !self.gaps {
            return Some(format!("it says offset {base}, and {from} must follow"));
        }
        let (epoch, known) = (header.partition_leader_epoch, self.epochs.epoch_for(base));
        let wrong = known.filter(|known| *known != epoch)?;
        Some(format!(
            "it says leader epoch {epoch}, and offset {base} is of {wrong}"
        ))
    }

    /// Compares a batch, which is right by itself, with the batch behind it or the segment's end.
    async fn fault_by_next(
        &mut self,
        position: u64,
        header: &BatchHeader,
        from: Offset,
    ) -> Result<Option<String>, ReadError> {
        let next = header.next_offset();
        // Without a gap before it the batch is right; then what follows is wrong.
        let in_gap = header.base_offset > from;
        match self.next_base_offset().await? {
            Some(behind) if in_gap && behind < next || self.at == self.summary.size && behind != next => {
                Ok(Some(format!(
                    "its offsets end at {next}, and what is behind begins at {behind}"
                )))
            }
            Some(_) => Ok(None),
            None if in_gap => {
                let base = header.base_offset;
                Ok(Some(format!(
                    "it says offset {base}, {from} may follow, and no batch is behind it that would tell"
                )))
            }
            // There is no batch behind: either this length is wrong, or what follows is damaged. The CRC decides.
            None => {
                let whole = self.headers.is_whole(position, header).await?;
                Ok((!whole).then(|| format!("its length of {} leads to no batch", header.size_bytes())))
            }
        }
    }

    /// The end of the offsets that a batch with a wrong header occupies.
    async fn end_of_wrong_batch(&mut self, from: Offset) -> Result<Offset, ReadError> {
        let end = self.summary.next;
        let behind = self.next_base_offset().await?;
        Ok(behind.filter(|b| *b > from && *b <= end).unwrap_or(end))
    }

    /// The base offset of the batch behind; at the end of the segment, the segment's end offset. `None`: no batch is
    /// there.
    async fn next_base_offset(&mut self) -> Result<Option<Offset>, ReadError> {
        if self.at == self.summary.size {
            return Ok(Some(self.summary.next));
        }
        if self.ahead.is_none() {
            self.ahead = match self.headers.next(self.expected).await {
                Err(ReadError::Damaged(_)) => None,
                other => other?,
            };
        }
        Ok(self.ahead.map(|(_, header)| header.base_offset))
    }
}

impl<E: Env> OpenSegment<'_, E> {
    /// The error for a batch with a wrong header.
    pub(crate) fn damaged(&self, batch: &WalkedBatch) -> ReadError {
        ReadError::Damaged(Damage {
            file: self.file.path().to_owned(),
            position: batch.position,
            offset: batch.from,
            what: batch.fault.clone().unwrap_or_default(),
        })
    }
}
