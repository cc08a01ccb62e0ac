//! The records inside a batch.
//!
//! ```text
//! length varint │ attributes i8 │ timestamp_delta varlong │ offset_delta varint
//! │ key_length varint │ key │ value_length varint │ value │ headers_count varint
//! │ headers_count × ( key_length varint │ key │ value_length varint │ value )
//! ```
//! `length` counts the bytes after it. A negative length of a key or value means null; a header's key is never null.

use super::pace::Pace;
use super::varint::{get_varint, get_varlong};
use super::{BatchError, BatchHeader, RecordFault};
use bytes::Bytes;

/// Headers checked at a time, and the units for each.
const HEADERS_AT_ONCE: i32 = 4096;
const UNITS_PER_HEADER: usize = 4;
/// Units for a record without its headers.
const RECORD_UNITS: usize = 16;

/// One record, borrowed from its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// No bits are defined yet.
    pub attributes: i8,
    /// Milliseconds past the batch's base timestamp; see [`BatchHeader::record_timestamp`].
    pub timestamp_delta: i64,
    /// Offsets past the batch's base offset.
    pub offset_delta: i32,
    /// The key. Compaction treats records with equal keys as versions of one entity.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Takes a record off the start of `bytes` and validates its headers.
    #[inline(always)]
    pub(super) fn take(bytes: &mut &'a [u8]) -> Result<Self, RecordFault> {
        Self::take_with(bytes, Headers::take_some)
    }

    /// As [`Record::take`]. Returns `None` if there are so many headers that [`Record::take_at`] is needed; then the
    /// position of `bytes` is unspecified.
    #[inline(always)]
    pub(super) fn take_short(bytes: &mut &'a [u8]) -> Result<Option<Self>, RecordFault> {
        let taken = Self::take_with(bytes, |body, count| match count {
            ..=HEADERS_AT_ONCE => Headers::take_some(body, count).map_err(Some),
            _ => Err(None),
        });
        match taken {
            Ok(record) => Ok(Some(record)),
            Err(None) => Ok(None),
            Err(Some(fault)) => Err(fault),
        }
    }

    /// As [`Record::take`], with a [`Pace`].
    pub(super) async fn take_at(pace: &mut Pace, bytes: &mut &'a [u8]) -> Result<Self, RecordFault> {
        let record = Self::take_seen(bytes)?;
        let (mut left, mut rest) = (record.headers.count, record.headers.bytes);
        pace.work(RECORD_UNITS).await;
        while left > 0 {
            let count = left.min(HEADERS_AT_ONCE);
            for _ in 0..count {
                Header::take(&mut rest)?;
            }
            left -= count;
            pace.work(UNITS_PER_HEADER * count as usize).await;
        }
        match rest.is_empty() {
            true => Ok(record),
            false => Err(RecordFault::Length),
        }
    }

    /// As [`Record::take`], for a record that was validated before: does not check its headers.
    #[inline]
    pub(super) fn take_seen(bytes: &mut &'a [u8]) -> Result<Self, RecordFault> {
        Self::take_with(bytes, |body, count| {
            Headers::check_count(body, count)?;
            Ok(Headers {
                count,
                bytes: std::mem::take(body),
            })
        })
    }

    // Returning a record through memory would cost more than decoding it.
    #[inline(always)]
    fn take_with<F: From<RecordFault>>(
        bytes: &mut &'a [u8],
        some_headers: impl FnOnce(&mut &'a [u8], i32) -> Result<Headers<'a>, F>,
    ) -> Result<Self, F> {
        let length = get_varint(bytes).ok_or(RecordFault::Varint)?;
        let length = usize::try_from(length).map_err(|_| RecordFault::CutOff)?;
        let Some((mut body, rest)) = bytes.split_at_checked(length) else {
            return Err(RecordFault::CutOff.into());
        };
        *bytes = rest;
        let (&attributes, fields) = body.split_first().ok_or(RecordFault::Field)?;
        body = fields;
        let record = Self {
            attributes: attributes as i8,
            timestamp_delta: get_varlong(&mut body).ok_or(RecordFault::Varint)?,
            offset_delta: get_varint(&mut body).ok_or(RecordFault::Varint)?,
            key: take_nullable(&mut body)?,
            value: take_nullable(&mut body)?,
            headers: match get_varint(&mut body).ok_or(RecordFault::Varint)? {
                0 => Headers::default(),
                count => some_headers(&mut body, count)?,
            },
        };
        if body.is_empty() {
            Ok(record)
        } else {
            Err(RecordFault::Length.into())
        }
    }
}

#[inline]
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordFault> {
    let length = get_varint(bytes).ok_or(RecordFault::Varint)?;
    let Ok(length) = usize::try_from(length) else {
        return Ok(None);
    };
    let (field, rest) = bytes.split_at_checked(length).ok_or(RecordFault::Field)?;
    *bytes = rest;
    Ok(Some(field))
}

/// The validated headers of a record, decoded one by one on iteration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers<'a> {
    pub(super) count: i32,
    pub(super) bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Each header takes at least two bytes, so a count above the remaining bytes is invalid.
    fn check_count(bytes: &[u8], count: i32) -> Result<(), RecordFault> {
        match usize::try_from(count) {
            Ok(count) if count <= bytes.len() => Ok(()),
            _ => Err(RecordFault::Headers),
        }
    }

    #[inline(never)]
    fn take_some(bytes: &mut &'a [u8], count: i32) -> Result<Self, RecordFault> {
        Self::check_count(bytes, count)?;
        let all = *bytes;
        for _ in 0..count {
            Header::take(bytes)?;
        }
        Ok(Self {
            count,
            bytes: &all[..all.len() - bytes.len()],
        })
    }

    /// The number of headers.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers in order.
    pub fn iter(&self) -> HeadersIter<'a> {
        HeadersIter {
            left: self.count,
            bytes: self.bytes,
        }
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

/// One header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// The key. Like Kafka, this does not check that it is UTF-8.
    pub key: &'a [u8],
    /// The value: any bytes, or null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    fn take(bytes: &mut &'a [u8]) -> Result<Self, RecordFault> {
        let key = take_nullable(bytes)?.ok_or(RecordFault::Headers)?;
        Ok(Self {
            key,
            value: take_nullable(bytes)?,
        })
    }
}

/// An iterator over headers, see [`Headers::iter`].
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    left: i32,
    bytes: &'a [u8],
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(Header::take(&mut self.bytes).expect("validated when the record was taken"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// The decompressed records of a batch.
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    body: Bytes,
}

impl Records {
    pub(super) fn new(header: BatchHeader, body: Bytes) -> Result<Self, BatchError> {
        if header.records_count < 0 {
            return Err(BatchError::RecordsCount(header.records_count));
        }
        Ok(Self { header, body })
    }

    /// The header of their batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records in order. After an error the iterator ends.
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter {
            rest: &self.body,
            index: 0,
            count: self.header.records_count,
        }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.iter()
    }
}

/// An iterator over the records of a batch, see [`Records::iter`].
#[derive(Clone, Debug)]
pub struct RecordsIter<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
}

impl<'a> RecordsIter<'a> {
    /// The next record, with a [`Pace`]. If the future is dropped, the iterator can't be used any more.
    pub async fn next_at(&mut self, pace: &mut Pace) -> Option<Result<Record<'a>, BatchError>> {
        if self.index >= self.count {
            return self.end();
        }
        let taken = Record::take_at(pace, &mut self.rest).await;
        Some(self.took(taken))
    }

    #[inline]
    fn took(&mut self, taken: Result<Record<'a>, RecordFault>) -> Result<Record<'a>, BatchError> {
        match taken {
            Ok(record) => {
                self.index += 1;
                Ok(record)
            }
            Err(fault) => {
                let index = self.index;
                *self = Self {
                    rest: &[],
                    index: 0,
                    count: 0,
                };
                Err(BatchError::Record { index, fault })
            }
        }
    }

    fn end(&mut self) -> Option<Result<Record<'a>, BatchError>> {
        let left = std::mem::take(&mut self.rest).len();
        (left > 0).then_some(Err(BatchError::TrailingBytes(left)))
    }
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return self.end();
        }
        let taken = Record::take(&mut self.rest);
        Some(self.took(taken))
    }
}

impl std::iter::FusedIterator for RecordsIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of 12 bytes after its length: no key, the value "v", a header "h" without value.
    const SOUND: [u8; 12] = [22, 0, 0, 0, 1, 2, b'v', 2, 2, b'h', 1, 0xee];

    fn taken(bytes: &[u8]) -> Result<Record<'_>, RecordFault> {
        let mut rest = bytes;
        Record::take(&mut rest)
    }

    /// The valid record with `bytes` from `at` on and a matching length.
    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut record = SOUND[..11].to_vec();
        record.truncate(at);
        record.extend(bytes);
        record[0] = 2 * (record.len() as u8 - 1);
        record
    }

    #[test]
    fn a_sound_record_is_taken_and_no_more() {
        let bytes = with(11, &[]);
        let longer = [&bytes[..], &[7]].concat();
        let mut rest = &longer[..];
        let record = Record::take(&mut rest).unwrap();
        assert_eq!(rest, [7]);
        assert_eq!((record.key, record.value), (None, Some(&b"v"[..])));
        assert_eq!(
            record.headers.iter().collect::<Vec<_>>(),
            [Header {
                key: b"h",
                value: None
            }]
        );
    }

    #[test]
    fn each_fault_is_told() {
        let cut_off = RecordFault::CutOff;
        assert_eq!(taken(&[]), Err(RecordFault::Varint));
        assert_eq!(taken(&[0xff, 0xff]), Err(RecordFault::Varint));
        assert_eq!(taken(&[1]), Err(cut_off), "negative length");
        assert_eq!(taken(&SOUND[..10]), Err(cut_off));
        assert_eq!(taken(&[0]), Err(RecordFault::Field), "no attributes");
        assert_eq!(taken(&with(2, &[])), Err(RecordFault::Varint), "no timestamp");
        assert_eq!(
            taken(&with(2, &[0xff; 11])),
            Err(RecordFault::Varint),
            "endless timestamp"
        );
        assert_eq!(
            taken(&with(4, &[2])),
            Err(RecordFault::Field),
            "a key of 1 byte that isn't there"
        );
        assert_eq!(taken(&with(5, &[100, b'v'])), Err(RecordFault::Field));
        assert_eq!(
            taken(&with(7, &[])),
            Err(RecordFault::Varint),
            "no count of headers"
        );
        assert_eq!(taken(&with(7, &[1])), Err(RecordFault::Headers), "-1 headers");
        assert_eq!(
            taken(&with(7, &[10, 2, b'h'])),
            Err(RecordFault::Headers),
            "5 headers in 2 bytes"
        );
        assert_eq!(
            taken(&with(7, &[2, 1, 1])),
            Err(RecordFault::Headers),
            "a header without a key"
        );
        assert_eq!(taken(&with(7, &[2, 8, b'h'])), Err(RecordFault::Field));
        assert_eq!(
            taken(&with(11, &[0])),
            Err(RecordFault::Length),
            "a byte too many"
        );
        assert!(taken(&with(7, &[0])).is_ok());
    }
}
