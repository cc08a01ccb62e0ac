//! The world's time and the lives of its nodes.

/// Nanoseconds of the world's clock.
pub type Nanos = u64;

/// One life of a node: a killed node starts a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Life {
    /// Which node.
    pub node: u32,
    /// Which of its lives, from 0.
    pub incarnation: u32,
}
