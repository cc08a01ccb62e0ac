//! Which code a plan is for.

/// The format of plans that this code reads and writes.
pub const FORMAT: u32 = 1;
/// The commit that this simulator was built from, if known.
pub const COMMIT: &str = match option_env!("BROKKR_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
