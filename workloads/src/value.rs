//! A record's value: a number that identifies the record, as decimal digits with padding.

use brokkr_history::Process;
use bytes::Bytes;

/// Bits of a value that hold its process's record counter.
const COUNTER_BITS: u32 = 32;

/// The value of the `counter`th record of `process`.
pub fn value_of(process: Process, counter: u64) -> i64 {
    assert!(
        counter < 1 << COUNTER_BITS,
        "a process sends fewer than 2^32 records"
    );
    assert!(process < 1 << 31, "a process has a number below 2^31");
    (process << COUNTER_BITS | counter) as i64
}

/// The process that sent a value, and the record's counter.
pub fn value_parts(value: i64) -> (Process, u64) {
    (
        (value as u64) >> COUNTER_BITS,
        value as u64 & ((1 << COUNTER_BITS) - 1),
    )
}

/// The bytes of a value: its decimal digits, followed by dots as padding.
pub(crate) fn value_bytes(value: i64, padding: u64) -> Bytes {
    let mut text = value.to_string().into_bytes();
    text.resize(text.len() + padding as usize, b'.');
    Bytes::from(text)
}

/// Parses the bytes of a value.
pub(crate) fn parse_value(bytes: &[u8]) -> Option<i64> {
    let end = bytes.iter().position(|b| *b == b'.').unwrap_or(bytes.len());
    let (digits, padding) = bytes.split_at(end);
    // Without an early exit the compiler vectorizes the comparison.
    let dots = |part: &[u8]| part.iter().fold(true, |all, b| all & (*b == b'.'));
    let padded = padding.chunks(64).all(dots);
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    padded.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_identifies_its_record() {
        let value = value_of(17, 40_000);
        assert_eq!(value_parts(value), (17, 40_000));
        for padding in [0, 5] {
            assert_eq!(parse_value(&value_bytes(value, padding)), Some(value));
        }
        for other in [&b"0x12"[..], b"", b"..", b"12.3", b"12. "] {
            assert_eq!(parse_value(other), None);
        }
    }
}
