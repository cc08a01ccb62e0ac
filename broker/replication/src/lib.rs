//! Pure decisions of a partition's leader: the ISR, and the high watermark.
//!
//! Knows neither files nor connections nor time. Keeps L4 (the high watermark never goes back within an epoch and never
//! passes what each member of the maximal ISR has ackable).

mod leader;

pub use leader::Leader;
