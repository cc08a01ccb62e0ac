//! Walking over the batches of a segment: [`Scan`] for everything that state is built from (CRC first), [`Headers`] for
//! reads that only look for a place.

use brokkr_env::{Env, Error, File};
use brokkr_types::{LeaderEpoch, Offset};
use brokkr_wire::records::header::{ATTRIBUTES_AT, CRC_AT, LAST_OFFSET_DELTA_AT, RECORDS_COUNT_AT};
use brokkr_wire::records::{Batch, BatchError, BatchHeader, HEADER_LEN, LOG_OVERHEAD};
use bytes::Bytes;

use crate::error::{Damage, LogError, ReadError};
use crate::index::{OffsetEntry, TimeEntry, encode, relative};
use crate::manifest::SegmentInfo;
use crate::names;
use crate::segment::{Segment, Tip};
use crate::view::Shared;

/// How much is read at a time where only the next few headers are wanted.
pub(crate) const PEEK_BYTES: u32 = 4096;
/// How much is read at a time where all headers of a range are.
const WALK_BYTES: u32 = 64 << 10;
/// What a disk writes as a whole, at least.
const SECTOR_BYTES: u64 = 512;
/// How far a batch is looked for whose length is wrong, and how much is read of it at a time.
const FRONT_BYTES_MAX: u64 = 16 << 20;
const PIECE_BYTES: u64 = 256 << 10;
/// How much is read at a time where everything is.
pub(crate) const SCAN_BYTES: u32 = 1 << 20;

/// Bytes of a file, from memory if they are there.
pub(crate) async fn read<E: Env>(file: &File<E>, at: u64, len: u32) -> brokkr_env::Result<Bytes> {
    match file.read_resident(at, len) {
        Some(bytes) => Ok(bytes),
        None => file.read_at(at, len).await,
    }
}

/// The headers of the batches between two positions of a file, the first of which is a batch's begin.
pub(crate) struct Headers<'a, E: Env> {
    file: &'a File<E>,
    at: u64,
    end: u64,
    /// How much is read at a time.
    chunk: u32,
    /// How much came from memory since somebody else had a turn.
    in_turn: u32,
    buf: Bytes,
    buf_at: u64,
}

impl<'a, E: Env> Headers<'a, E> {
    /// For the next few headers.
    pub(crate) fn peek(file: &'a File<E>, from: u64, end: u64) -> Self {
        Self {
            file,
            at: from,
            end,
            chunk: PEEK_BYTES,
            in_turn: 0,
            buf: Bytes::new(),
            buf_at: from,
        }
    }

    pub(crate) fn damage(&self, position: u64, offset: Offset, what: String) -> ReadError {
        Self::damage_of(self.file, position, offset, what)
    }

    fn damage_of(file: &File<E>, position: u64, offset: Offset, what: String) -> ReadError {
        ReadError::Damaged(Damage {
            file: file.path().to_owned(),
            position,
            offset,
            what,
        })
    }

    /// Bytes of the file, as they stand. Now and then the file is asked although they are in memory: others get a turn.
    pub(crate) async fn bytes(&mut self, at: u64, len: u32) -> Result<Bytes, ReadError> {
        let len = (self.end.saturating_sub(at)).min(len.into()) as u32;
        self.in_turn += len;
        if self.in_turn <= SCAN_BYTES {
            return Ok(read(self.file, at, len).await?);
        }
        self.in_turn = 0;
        Ok(self.file.read_at(at, len).await?)
    }

    /// Whether a batch that stands there is what its CRC says. It is read in pieces, however large it is.
    pub(crate) async fn is_whole(&mut self, position: u64, header: &BatchHeader) -> Result<bool, ReadError> {
        let end = position + header.size_bytes() as u64;
        let (mut at, mut crc) = (position + HEADER_LEN as u64, header.compute_crc(&[]));
        while at < end {
            let bytes = self.bytes(at, (end - at).min(WALK_BYTES.into()) as u32).await?;
            if bytes.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, &bytes);
            at += bytes.len() as u64;
        }
        Ok(crc == header.crc)
    }

    /// For all headers of so many bytes.
    pub(crate) fn chunk(self, stretch: u64) -> Self {
        let chunk = stretch.clamp(PEEK_BYTES.into(), WALK_BYTES.into()) as u32;
        Self { chunk, ..self }
    }

    /// Goes on at another place.
    pub(crate) fn go_to(&mut self, at: u64) {
        (self.at, self.buf, self.buf_at) = (at, Bytes::new(), at);
    }

    /// The next header and where it stands; `None` at the end. What is not a batch is damage: `expected` is the offset
    /// the report names.
    pub(crate) async fn next(&mut self, expected: Offset) -> Result<Option<(u64, BatchHeader)>, ReadError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let damage = |what: String| Self::damage_of(self.file, at, expected, what);
        let left = self.end - at;
        if left < HEADER_LEN as u64 {
            return Err(damage(format!("{left} bytes where a batch should be")));
        }
        if self.buf.len() as u64 + self.buf_at < at + HEADER_LEN as u64 {
            (self.buf, self.buf_at) = (self.bytes(at, self.chunk).await?, at);
        }
        let in_buf = (at - self.buf_at) as usize;
        let header = BatchHeader::decode(&self.buf[in_buf..]).map_err(|e| damage(e.to_string()))?;
        let size = header.size_bytes() as u64;
        if size > left {
            return Err(damage(format!("a batch of {size} bytes where {left} are left")));
        }
        self.at = at + size;
        Ok(Some((at, header)))
    }
}

/// Whether offsets may be missing between one batch and the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gaps {
    /// Compaction may have taken batches away.
    Legal,
    /// Within a segment only: this broker begins one where the one before ends, and what is missing there was lost.
    InSegments,
    /// Nowhere: the log never had any.
    None,
    /// A gap can't be told from a lost segment: there is no manifest that names them.
    Refused,
}

/// Where the next batch of a log may stand: offsets rise and leader epochs never fall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// The base of the segment.
    segment: Offset,
    /// The offset past the last batch.
    pub(crate) next: Offset,
    epoch: LeaderEpoch,
    gaps: Gaps,
}

impl Chain {
    /// Whether the log is this broker's own.
    pub(crate) fn is_ours(&self) -> bool {
        self.gaps != Gaps::Legal
    }

    /// The chain of a segment by itself.
    pub(crate) fn of_segment(base: Offset) -> Self {
        Self::new(base, Gaps::Legal)
    }

    /// The chain of a log from the segment at `base` on.
    pub(crate) fn new(base: Offset, gaps: Gaps) -> Self {
        Self {
            segment: base,
            next: base,
            epoch: LeaderEpoch::NONE,
            gaps,
        }
    }

    /// Goes on in the segment at `base`, if it can be the next one.
    pub(crate) fn enter(&mut self, base: Offset) -> bool {
        if base < self.next || base != self.next && self.gaps != Gaps::Legal {
            return false;
        }
        (self.segment, self.next) = (base, base);
        true
    }

    /// Why a batch can't stand here.
    pub(crate) fn misplaced(&self, header: &BatchHeader) -> Option<String> {
        let base = header.base_offset;
        if base < self.next {
            return Some(format!(
                "a batch of offset {base}, {} or later must follow",
                self.next
            ));
        }
        if base != self.next && self.gaps == Gaps::None {
            return Some(format!("a batch of offset {base}, {} must follow", self.next));
        }
        if base != self.next && self.gaps == Gaps::Refused {
            return Some(format!(
                "a batch of offset {base}, {} must follow: without brokkr-manifest a gap can't be told from a lost segment",
                self.next
            ));
        }
        if header.last_offset_delta < 0 || relative(self.segment, header.last_offset()).is_none() {
            let count = i64::from(header.last_offset_delta) + 1;
            return Some(format!("a batch of {count} offsets at offset {base}"));
        }
        let (epoch, last) = (header.partition_leader_epoch, self.epoch);
        (epoch < last).then(|| format!("a batch of leader epoch {epoch} behind one of {last}"))
    }

    /// Takes up a batch that stands here.
    pub(crate) fn accept(&mut self, header: &BatchHeader) {
        (self.next, self.epoch) = (header.next_offset(), header.partition_leader_epoch);
    }
}

/// Looks for the length over which a batch's CRC is right, whatever its header says of it.
struct FrontSearch {
    stored: u32,
    crc: u32,
}

impl FrontSearch {
    /// With what follows the header. `None`: no header of a batch that this broker wrote stands there.
    fn begin(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
        let int = |at: usize| Some(i32::from_be_bytes(*header.get(at..)?.first_chunk()?));
        let (delta, count) = (int(LAST_OFFSET_DELTA_AT)?, int(RECORDS_COUNT_AT)?);
        if delta < 0 || count != delta.wrapping_add(1) {
            return None;
        }
        let search = Self {
            stored: int(CRC_AT)? as u32,
            crc: crc32c::crc32c(&header[ATTRIBUTES_AT..]),
        };
        Some((search, rest))
    }

    fn goes_on(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| {
            self.crc = crc32c::crc32c_append(self.crc, std::slice::from_ref(byte));
            self.crc == self.stored
        })
    }
}

/// Why a scan ended before the file did.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The file can't be read.
    Io(Error),
    /// No batch that belongs here stands at this place.
    Fault(Damage),
    /// A batch stands here that is right by its CRC, and can't be here.
    Misplaced(Damage),
    /// A message of format 0 or 1, undamaged.
    OldFormat(Damage),
}

impl From<ScanError> for LogError {
    fn from(e: ScanError) -> Self {
        match e {
            ScanError::Io(e) => Self::Io(e),
            ScanError::Fault(damage) | ScanError::Misplaced(damage) | ScanError::OldFormat(damage) => {
                Self::Damaged(damage)
            }
        }
    }
}

/// Reads the batches of a segment one by one: whole, with the right CRC, each behind the one before. All state that is
/// built from a log is built from what this yields.
pub(crate) struct Scan<'a, E: Env> {
    file: &'a File<E>,
    at: u64,
    end: u64,
    /// The bytes from `at` on that were read.
    chunk: Bytes,
}

impl<'a, E: Env> Scan<'a, E> {
    /// The batches between two positions, the first of which is a batch's begin.
    pub(crate) fn new(file: &'a File<E>, from: u64, end: u64) -> Self {
        Self {
            file,
            at: from,
            end,
            chunk: Bytes::new(),
        }
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The next batch, which `chain` then has accepted; `None` at the end.
    pub(crate) async fn next(&mut self, chain: &mut Chain) -> Result<Option<Batch>, ScanError> {
        let mut wanted = u64::from(SCAN_BYTES);
        let batch = loop {
            let left = self.end - self.at;
            if left == 0 {
                return Ok(None);
            }
            match Batch::first(&self.chunk) {
                Ok(batch) => break batch,
                Err(BatchError::Partial { needed, .. }) if needed as u64 > left => {
                    return Err(self.fault(chain, format!("a torn batch: {left} of {needed} bytes")));
                }
                Err(BatchError::Partial { needed, .. }) => {
                    wanted = wanted.max(needed as u64).min(left);
                    self.chunk = self.read(wanted as u32).await?;
                }
                Err(BatchError::OldFormat(magic)) => return Err(self.old_format(chain, magic).await?),
                Err(e) => return Err(self.fault(chain, e.to_string())),
            }
        };
        if let Err(e) = batch.check_crc() {
            return Err(self.fault(chain, e.to_string()));
        }
        if let Some(what) = chain.misplaced(&batch.header) {
            return Err(ScanError::Misplaced(self.damage(chain, what)));
        }
        chain.accept(&batch.header);
        self.at += batch.bytes.len() as u64;
        self.chunk = self.chunk.slice(batch.bytes.len()..);
        Ok(Some(batch))
    }

    /// Whether a torn write can have lost a part of the first 17 bytes and kept the rest: a sector begins between them.
    pub(crate) fn front_may_be_torn(&self) -> bool {
        self.at % SECTOR_BYTES + CRC_AT as u64 > SECTOR_BYTES
    }

    /// Whether the batch that should stand here is right by its CRC over some other length: then its first 17 bytes are wrong,
    /// which the CRC leaves out. A torn write leaves that only where [`Scan::front_may_be_torn`].
    pub(crate) async fn only_front_is_wrong(&self) -> Result<bool, ScanError> {
        let end = self.end.min(self.at + FRONT_BYTES_MAX);
        let mut search: Option<FrontSearch> = None;
        let mut at = self.at;
        while at < end {
            let len = (end - at).min(PIECE_BYTES) as u32;
            let bytes = self.file.read_at(at, len).await.map_err(ScanError::Io)?;
            let found = match &mut search {
                Some(search) => search.goes_on(&bytes),
                None => {
                    let Some((begun, rest)) = FrontSearch::begin(&bytes) else {
                        return Ok(false);
                    };
                    search.insert(begun).goes_on(rest)
                }
            };
            if found {
                return Ok(true);
            }
            at += u64::from(len);
        }
        Ok(false)
    }

    async fn read(&self, len: u32) -> Result<Bytes, ScanError> {
        self.file.read_at(self.at, len).await.map_err(ScanError::Io)
    }

    fn damage(&self, chain: &Chain, what: String) -> Damage {
        Damage {
            file: self.file.path().to_owned(),
            position: self.at,
            offset: chain.next,
            what,
        }
    }

    fn fault(&self, chain: &Chain, what: String) -> ScanError {
        ScanError::Fault(self.damage(chain, what))
    }

    /// A message of format 0 or 1 is one only if its own checksum (CRC-32 from the magic on) says so: rot of one bit makes a
    /// 0 of the magic.
    async fn old_format(&self, chain: &Chain, magic: i8) -> Result<ScanError, ScanError> {
        let damage = self.damage(chain, BatchError::OldFormat(magic).to_string());
        let size = self
            .chunk
            .get(8..12)
            .and_then(|b| b.first_chunk())
            .map(|b| i32::from_be_bytes(*b));
        let len = u64::try_from(size.unwrap_or(0)).unwrap_or(0) + LOG_OVERHEAD as u64;
        if len <= self.end - self.at {
            let message = self.read(len as u32).await?;
            let crc = message
                .get(12..16)
                .and_then(|b| b.first_chunk())
                .map(|b| u32::from_be_bytes(*b));
            let body = message.get(16..).unwrap_or_default();
            if crc == Some(crc32fast::hash(body)) {
                return Ok(ScanError::OldFormat(damage));
            }
        }
        Ok(ScanError::Fault(damage))
    }
}

/// What a segment's batches come to while they are scanned: its summary and its indexes.
pub(crate) struct SegmentScan {
    pub(crate) tip: Tip,
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
}

impl SegmentScan {
    pub(crate) fn new(tip: Tip) -> Self {
        Self {
            tip,
            offsets: Vec::new(),
            times: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, header: &BatchHeader, index_interval_bytes: u32) {
        let new = self.tip.add(header, index_interval_bytes);
        self.offsets.extend(new.offset);
        self.times.extend(new.time);
    }

    /// Adds the entry that a sealed segment's time index ends with.
    pub(crate) fn seal(&mut self) {
        self.times.extend(self.tip.time_entry());
    }

    /// Puts the index files in place, whole and durable, and gives the segment that has them.
    pub(crate) async fn write_indexes<E: Env>(&self, shared: &Shared<E>) -> brokkr_env::Result<Segment> {
        let base = self.tip.head.base;
        for (suffix, bytes) in [
            (names::INDEX, encode(&self.offsets)),
            (names::TIME_INDEX, encode(&self.times)),
        ] {
            let path = names::path(&shared.folder, base, suffix);
            shared.dir.dir.replace(&path, bytes).await?;
            shared.dir.files.forget(&path);
        }
        Ok(Segment::sealed(SegmentInfo {
            head: self.tip.head,
            offset_entries: self.offsets.len() as u32,
            time_entries: self.times.len() as u32,
        }))
    }
}
