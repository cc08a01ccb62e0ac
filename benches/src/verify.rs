//! Checks that acknowledged records are in the log exactly once.

use crate::client::Client;
use crate::error::BenchError;
use crate::fetch::read_back;
use std::net::SocketAddr;

/// Checks that the acknowledged batches of each partition are contiguous from offset 0, that the log contains nothing else,
/// and that all of it can be read with valid CRCs. Returns the partitions' end offsets.
pub fn produced(
    addr: SocketAddr,
    topic: &str,
    offsets: Vec<Vec<i64>>,
    records: i32,
) -> Result<Vec<i64>, BenchError> {
    let mut ends = Vec::new();
    for (partition, offsets) in offsets.into_iter().enumerate() {
        let end = tiled(offsets, records)
            .map_err(|problem| BenchError::Check(format!("{topic}-{partition}: {problem}")))?;
        ends.push(end);
    }
    let partitions = i32::try_from(ends.len()).unwrap_or(i32::MAX);
    let found = Client::connect(addr)?.end_offsets(topic, partitions)?;
    if let Some(wrong) = (0..ends.len()).find(|i| ends[*i] != found[*i]) {
        return Err(BenchError::Check(format!(
            "{topic}-{wrong}: {} records are acknowledged, the log ends at {}",
            ends[wrong], found[wrong]
        )));
    }
    read_back(addr, topic, &ends)?;
    Ok(ends)
}

/// The end offset of batches of `records` records each with these base offsets, if they are contiguous from 0.
fn tiled(mut offsets: Vec<i64>, records: i32) -> Result<i64, String> {
    offsets.sort_unstable();
    let mut next = 0;
    for offset in offsets {
        if offset != next {
            let what = if offset < next {
                "assigned twice"
            } else {
                "assigned to no batch"
            };
            return Err(format!("offset {} was {what}", offset.min(next)));
        }
        next += i64::from(records);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::tiled;

    #[test]
    fn each_offset_is_assigned_once_in_any_order() {
        assert_eq!(tiled(vec![4, 0, 2], 2), Ok(6));
        assert_eq!(tiled(vec![], 2), Ok(0));
        assert!(tiled(vec![0, 2, 2], 2).is_err_and(|e| e.contains("2 was assigned twice")));
        assert!(tiled(vec![0, 4], 2).is_err_and(|e| e.contains("2 was assigned to no batch")));
        assert!(tiled(vec![2], 2).is_err_and(|e| e.contains("0 was assigned to no batch")));
        assert!(tiled(vec![-1], 2).is_err());
    }
}
