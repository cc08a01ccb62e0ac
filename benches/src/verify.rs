//! Nothing lost, nothing twice: what was acknowledged against what is there.

use crate::client::Client;
use crate::error::BenchError;
use crate::fetch::read_back;
use std::net::SocketAddr;

/// The acknowledged batches of each partition stand side by side from offset 0, nothing else is in the log, and all of it
/// can be read, with good CRCs. Gives where the partitions end.
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

/// The end of batches of `records` records each that begin at these offsets, if they lie side by side from 0 on.
fn tiled(mut offsets: Vec<i64>, records: i32) -> Result<i64, String> {
    offsets.sort_unstable();
    let mut next = 0;
    for offset in offsets {
        if offset != next {
            let what = if offset < next {
                "given twice"
            } else {
                "given to nobody"
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
    fn offsets_are_given_once_each_in_any_order() {
        assert_eq!(tiled(vec![4, 0, 2], 2), Ok(6));
        assert_eq!(tiled(vec![], 2), Ok(0));
        assert!(tiled(vec![0, 2, 2], 2).is_err_and(|e| e.contains("2 was given twice")));
        assert!(tiled(vec![0, 4], 2).is_err_and(|e| e.contains("2 was given to nobody")));
        assert!(tiled(vec![2], 2).is_err_and(|e| e.contains("0 was given to nobody")));
        assert!(tiled(vec![-1], 2).is_err());
    }
}
