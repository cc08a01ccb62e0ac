//! Walking over the headers of a segment while a reader looks for a place, and telling which of them can't be right.
//!
//! The CRC of a batch leaves its first 17 bytes out: base offset, length, leader epoch, magic. So a batch can be undamaged by
//! its CRC and say that its records stand at other offsets. Here each header is held against what is known around it:
//!
//! - its base offset is the offset past the batch before, or, in a log where offsets may be missing, a gap lies between and the
//!   batch behind it begins past it; by an
//!   index entry it is exact, since that names its last offset and the delta is in the CRC;
//! - its length leads to another batch, or to the segment's end, or else its CRC is right over that length;
//! - its leader epoch is the one that `leader-epoch-checkpoint` has for its offset;
//! - its magic is 2.
//!
//! A batch that is wrong stands for the offsets between its neighbours, and a read of those is told of the damage. Others are
//! served. What stays unnoticed: a base offset that moves within a gap around its batch.
//!
//! A range that is served is walked over once ([`CheckedRanges`]): it ends before a batch that is wrong, and who reads on there is told.
//! What rots in it later is unnoticed until it is the first batch of a range, or the broker has been restarted.

use brokkr_env::Env;
use brokkr_types::Offset;
use brokkr_wire::records::{BatchHeader, LOG_OVERHEAD};

use crate::error::{Damage, ReadError};
use crate::files::headers::HeaderReader;
use crate::reader::open_segment::{FoundBatch, OpenSegment};
use crate::state::checked_ranges::CheckedRange;
use crate::state::epochs::LeaderEpochs;
use crate::state::segment::SegmentSummary;

/// Where to begin to look.
#[derive(Clone, Copy)]
pub(crate) enum WalkStart {
    /// The begin of a batch that memory knows, and the offset that it has at least.
    Known(u64, Offset),
    /// An entry of the index: a batch, and its last offset.
    Entry(u64, Offset),
}

/// Where a range ends that begins with the batch `first` and is at most up to `to`: before the first batch whose header can't be
/// right.
pub(crate) async fn valid_end<E: Env>(
    open: &OpenSegment<'_, E>,
    epochs: &LeaderEpochs,
    first: &FoundBatch,
    to: u64,
) -> Result<u64, ReadError> {
    let checked_headers = &open.segment.checked_headers;
    let (from, next) = checked_headers.from(first.position, first.header.base_offset);
    if from >= to {
        return Ok(to);
    }
    let mut walk = HeaderWalk::new(open, epochs, WalkStart::Known(from, next)).over(to - from);
    let mut sound = CheckedRange { from, to: from, next };
    let end = loop {
        if walk.at >= to {
            break to;
        }
        match walk.next().await {
            Ok(None) => break to,
            Ok(Some(WalkedBatch { fault: None, .. })) => (sound.to, sound.next) = (walk.at, walk.expected),
            // Who reads on there is told.
            _ if sound.to > first.position => break sound.to,
            Ok(Some(step)) => return Err(open.damaged(&step)),
            Err(why) => return Err(why),
        }
    };
    checked_headers.add(sound);
    Ok(end)
}

/// A batch that was walked over.
pub(crate) struct WalkedBatch {
    pub(crate) position: u64,
    /// Its header, if that can be read.
    pub(crate) header: Option<BatchHeader>,
    /// The offsets that it stands for, by its neighbours: from here ..
    pub(crate) from: Offset,
    /// .. to before here.
    pub(crate) next: Offset,
    /// Why its header can't be right.
    pub(crate) fault: Option<String>,
}

pub(crate) struct HeaderWalk<'a, E: Env> {
    headers: HeaderReader<'a, E>,
    summary: SegmentSummary,
    gaps: bool,
    epochs: &'a LeaderEpochs,
    /// Where the next batch begins.
    pub(crate) at: u64,
    /// The offset that it has at least.
    expected: Offset,
    /// By an index entry: the last offset of the first batch.
    last_offset: Option<Offset>,
    /// The header behind the last one, where it was looked at already.
    ahead: Option<(u64, BatchHeader)>,
}

impl<'a, E: Env> HeaderWalk<'a, E> {
    /// Looks for a place, a few headers from `floor`.
    pub(crate) fn new(open: &'a OpenSegment<'_, E>, epochs: &'a LeaderEpochs, floor: WalkStart) -> Self {
        let summary = open.segment.summary;
        let (at, expected, last_offset) = match floor {
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

    /// Goes over all of the next `stretch` bytes.
    pub(crate) fn over(self, stretch: u64) -> Self {
        let headers = self.headers.chunk(stretch);
        Self { headers, ..self }
    }

    /// Whether the batch that an index entry names stands where it says.
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

    /// Whether a batch that was walked over is what its CRC says.
    pub(crate) async fn is_whole(&mut self, step: &WalkedBatch) -> Result<bool, ReadError> {
        match &step.header {
            Some(header) => self.headers.is_whole(step.position, header).await,
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
            Err(ReadError::Damaged(damage)) => return self.step_over(position, damage).await.map(Some),
            Err(e) => return Err(e),
        };
        // Of the first one an index entry tells where it ends, and so where it begins.
        let from = match self.last_offset.take() {
            Some(_) => header.base_offset.max(self.summary.base),
            None => expected,
        };
        self.at = position + header.size_bytes() as u64;
        let fault = match self.fault(&header, from) {
            Some(fault) => Some(fault),
            None => self.fault_by_what_follows(position, &header, from).await?,
        };
        let next = match fault {
            // Where none are missing, it stands for as many offsets as it says, if it is whole otherwise.
            Some(_) if !self.gaps && self.headers.is_whole(position, &header).await? => from
                .plus(i64::from(header.last_offset_delta) + 1)
                .min(self.summary.next),
            Some(_) => self.end_of_faulty(from).await?,
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

    /// Goes on behind a batch that can't be read, if its length leads to another one.
    async fn step_over(&mut self, position: u64, damage: Damage) -> Result<WalkedBatch, ReadError> {
        let from = self.expected;
        let front = self.headers.bytes(position, LOG_OVERHEAD as u32).await?;
        let length = front.last_chunk().map_or(0, |b| i32::from_be_bytes(*b));
        let end = position + u64::try_from(length).unwrap_or(0) + LOG_OVERHEAD as u64;
        if length < 0 || end > self.summary.size {
            return Err(ReadError::Damaged(damage));
        }
        self.at = end;
        self.headers.seek(end);
        let next = self.end_of_faulty(from).await?;
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

    /// Why a batch can't be right that is right by itself: by the batch behind it, or the segment's end.
    async fn fault_by_what_follows(
        &mut self,
        position: u64,
        header: &BatchHeader,
        from: Offset,
    ) -> Result<Option<String>, ReadError> {
        let next = header.next_offset();
        // Right behind the batch before, or where the index has it, a batch is right and what follows it is not.
        let in_gap = header.base_offset > from;
        match self.behind().await? {
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
            // No batch is there: the length may be wrong, or what follows is. The CRC knows.
            None => {
                let whole = self.headers.is_whole(position, header).await?;
                Ok((!whole).then(|| format!("its length of {} leads to no batch", header.size_bytes())))
            }
        }
    }

    /// Where the offsets end that a batch with a wrong header stands for.
    async fn end_of_faulty(&mut self, from: Offset) -> Result<Offset, ReadError> {
        let end = self.summary.next;
        let behind = self.behind().await?;
        Ok(behind.filter(|b| *b > from && *b <= end).unwrap_or(end))
    }

    /// The offset that what is behind the batch begins with: at the segment's end, where that ends. `None`: no batch is there.
    async fn behind(&mut self) -> Result<Option<Offset>, ReadError> {
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
    /// A batch whose header can't be right.
    pub(crate) fn damaged(&self, step: &WalkedBatch) -> ReadError {
        ReadError::Damaged(Damage {
            file: self.file.path().to_owned(),
            position: step.position,
            offset: step.from,
            what: step.fault.clone().unwrap_or_default(),
        })
    }
}
