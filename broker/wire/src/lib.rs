//!

pub mod records;
