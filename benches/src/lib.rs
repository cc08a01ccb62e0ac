//! What is measured: see `src/main.rs` for the load, `benches/` for the parts.
