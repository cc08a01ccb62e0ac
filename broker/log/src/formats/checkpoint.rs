//! `brokkr-checkpoint`: what a log directory records about its logs, checksummed.
//!
//! ```text
//! "BKCP" │ version u16 = 3 │ stopped u8 (0 or 1) │ broker_epoch i64 │ count u32 │ count × ( folder length u16 │ folder
//!        │ topic_id 16 bytes │ recovery_point i64 │ log_start i64 │ truncations u64 │ active_base i64 │ first_crc u32 ) │ crc32 u32
//! ```
//! Big-endian. `active_base` and `first_crc` (absent in version 2): the base offset of the active segment at that time and the CRC of its
//! first batch, 0 if no batch of it was durable. After a crash they distinguish it from a segment of another log.

use std::collections::BTreeMap;

use brokkr_types::{Offset, Uuid};
use bytes::Bytes;

use crate::formats::bytes::{ByteReader, append_crc, verify_crc};
use crate::state::log_checkpoint::LogCheckpoint;

const MAGIC: &[u8; 4] = b"BKCP";

const VERSION: u16 = 3;

/// The oldest version that is decoded.
const VERSION_MIN: u16 = 2;

/// The content of `brokkr-checkpoint`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Checkpoint {
    /// After a clean stop, the broker epoch that stopped.
    pub(crate) stopped: Option<i64>,
    pub(crate) logs: BTreeMap<String, LogCheckpoint>,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Bytes {
        let logs = &self.logs;
        let mut out = Vec::with_capacity(16 + logs.len() * 64);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.push(u8::from(self.stopped.is_some()));
        out.extend_from_slice(&self.stopped.unwrap_or(-1).to_be_bytes());
        let known = || {
            logs.iter()
                .filter_map(|(folder, r)| Some((folder, r.recovery_point?, r)))
        };
        out.extend_from_slice(&(known().count() as u32).to_be_bytes());
        for (folder, point, recorded) in known() {
            let len = u16::try_from(folder.len()).expect("a folder's name is at most 255 bytes");
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(folder.as_bytes());
            out.extend_from_slice(recorded.topic_id.as_bytes());
            out.extend_from_slice(&point.0.to_be_bytes());
            out.extend_from_slice(&recorded.log_start.0.to_be_bytes());
            out.extend_from_slice(&recorded.truncations.to_be_bytes());
            let (base, crc) = recorded.active.unwrap_or_default();
            out.extend_from_slice(&base.0.to_be_bytes());
            out.extend_from_slice(&crc.to_be_bytes());
        }
        append_crc(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = ByteReader(verify_crc(bytes)?.strip_prefix(MAGIC)?);
        let version = bytes.u16()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return None;
        }
        let (stopped, broker_epoch) = (bytes.u8()? != 0, bytes.i64()?);
        let mut logs = BTreeMap::new();
        for _ in 0..bytes.u32()? {
            let len = usize::from(bytes.u16()?);
            let (folder, rest) = bytes.0.split_at_checked(len)?;
            let (id, rest) = rest.split_first_chunk()?;
            bytes.0 = rest;
            let recorded = LogCheckpoint {
                topic_id: Uuid::from_bytes(*id),
                recovery_point: Some(Offset(bytes.i64()?)),
                log_start: Offset(bytes.i64()?),
                truncations: bytes.u64()?,
                active: match version {
                    2 => None,
                    _ => Some((Offset(bytes.i64()?), bytes.u32()?)).filter(|(_, crc)| *crc != 0),
                },
                ..LogCheckpoint::default()
            };
            logs.insert(String::from_utf8(folder.to_vec()).ok()?, recorded);
        }
        bytes.0.is_empty().then_some(Self {
            stopped: stopped.then_some(broker_epoch),
            logs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_decoded_as_encoded_and_damage_is_detected() {
        let recorded = |point: Option<i64>| LogCheckpoint {
            topic_id: Uuid::METADATA_TOPIC,
            recovery_point: point.map(Offset),
            log_start: Offset(3),
            truncations: 2,
            active: point.map(|at| (Offset(at - 1), 0xc1c2_c3c4)),
            ..LogCheckpoint::default()
        };
        let mut logs = BTreeMap::from([
            ("a-0".to_owned(), recorded(Some(7))),
            ("b-1".to_owned(), recorded(Some(9))),
        ]);
        let of = |logs: &BTreeMap<String, LogCheckpoint>| Checkpoint {
            stopped: Some(17),
            logs: logs.clone(),
        };
        let bytes = of(&logs).encode();
        assert_eq!(Checkpoint::decode(&bytes), Some(of(&logs)));
        logs.insert("unknown-0".to_owned(), recorded(None));
        assert_eq!(of(&logs).encode(), bytes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert_eq!(Checkpoint::decode(&damaged), None, "byte {at}");
        }
    }
}
