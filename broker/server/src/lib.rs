//! The shell: connections, dispatch, handlers, partitions, and the drivers of the pure cores.
//!
//! Generic over [`brokkr_env::Env`]; the real world instantiates it once, in [`production`], the seeded one in `sim`.

pub mod ctx;
