//! Record batches: Kafka's message format 2, on the wire and on disk alike.
//!
//! ```text
//!  0 base_offset i64              ┐
//!  8 batch_length i32             │ patched by the leader: outside of the CRC
//! 12 partition_leader_epoch i32   ┘
//! 16 magic i8 = 2
//! 17 crc u32                        CRC-32C of everything below
//! 21 attributes i16                 0–2 compression, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon
//! 23 last_offset_delta i32
//! 27 base_timestamp i64
//! 35 max_timestamp i64
//! 43 producer_id i64
//! 51 producer_epoch i16
//! 53 base_sequence i32
//! 57 records_count i32
//! 61 records                        one stream, compressed as a whole
//! ```
//! A batch is an opaque slice from socket to disk to socket ([`Batch`]): [`batches`] finds it, [`validate`] validates it,
//! [`Batch::placed`] assigns its offset. Only [`Batch::records`] decodes its records. [`BatchBuilder`] builds batches.
//!
//! Invariants: damage is always detected ([`Batch::check_crc`], D2); no input causes a panic; nothing is allocated for sizes
//! that the input only claims; the records of a validated batch have the offsets 0, 1, 2 … past its base offset (L6).
//!
//! Formats 0 and 1 are not supported, as in Kafka 4 (KIP-724). The format is KIP-98's; see also KIP-110 (zstd), KIP-467
//! (record errors), KIP-534 (delete horizon).

mod batch;
mod builder;
pub mod compression;
mod control;
mod error;
pub mod header;
mod pace;
mod rebuild;
mod record;
mod record_error;
mod validate;
mod varint;

pub use batch::{Batch, Batches, batches};
pub use builder::BatchBuilder;
pub use compression::{CompressionType, DecompressError};
pub use control::ControlType;
pub use error::{BatchError, RecordFault};
pub use header::{Attributes, BatchHeader, HEADER_LEN, LOG_OVERHEAD, TimestampType};
pub use pace::Pace;
pub use record::{Header, Headers, HeadersIter, Record, Records, RecordsIter};
pub use record_error::{
    CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, RECORD_ERRORS_MAX, RecordError,
    UNSUPPORTED_COMPRESSION_TYPE,
};
pub use validate::{
    CompressionConfig, DECOMPRESSED_MAX, NO_KEY, Origin, Rules, Validated, check, check_at, validate,
};
