//! What admins asked and were answered, as rows of the store.

use brokkr_history::Type;
use serde_json::Value;

use super::index::{NONE, index_of};
use crate::pairs::Pair;

/// The deletion of a key's records below an offset, which may have happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delete {
    pub(super) key: u32,
    /// The index of its invocation; 0 if that was not recorded.
    pub(super) began: u32,
    /// The index of its completion; `NONE` if it may happen at any later time.
    pub(super) ended: u32,
    /// The offset below which it deletes; `None` means all records that are there.
    pub(super) before: Option<i64>,
    /// The log's first offset afterwards, if the broker returned it.
    pub(super) low_watermark: Option<i64>,
}

impl Delete {
    /// `{"key", "before"}`, where −1 means all records, and in the response `low_watermark`.
    pub(super) fn of(key: u32, value: &Value, pair: &Pair, open: bool) -> Option<Self> {
        let before = value["before"].as_i64()?;
        let is_over = pair.ended.type_ == Type::Ok && !open;
        Some(Self {
            key,
            began: pair.invoked.as_ref().map_or(0, index_of),
            ended: if is_over { index_of(&pair.ended) } else { NONE },
            before: Some(before).filter(|b| *b >= 0),
            low_watermark: value["low_watermark"].as_i64().filter(|_| is_over),
        })
    }
}

/// The offsets that a broker listed for a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listing {
    pub(super) key: u32,
    /// The index of its invocation; `NONE` if that was not recorded.
    pub(super) began: u32,
    pub(super) ended: u32,
    pub(super) earliest: Option<i64>,
    pub(super) latest: Option<i64>,
}

impl Listing {
    /// `{"key", "earliest", "latest"}`.
    pub(super) fn of(key: u32, value: &Value, pair: &Pair) -> Self {
        Self {
            key,
            began: pair.invoked.as_ref().map_or(NONE, index_of),
            ended: index_of(&pair.ended),
            earliest: value["earliest"].as_i64(),
            latest: value["latest"].as_i64(),
        }
    }
}
