//! Generates Rust from the tables under `schema/`: message structures with their codecs, API keys, error codes, and, only
//! for the integration tests, generators of arbitrary messages. `build/parse.rs` explains the tables' notation.

#![expect(clippy::disallowed_methods, reason = "a build script reads and writes files")]

#[path = "build/emit_api.rs"]
mod emit_api;
#[path = "build/emit_arbitrary.rs"]
mod emit_arbitrary;
#[path = "build/emit_messages.rs"]
mod emit_messages;
#[path = "build/parse.rs"]
mod parse;

use std::path::{Path, PathBuf};

/// The message tables; their order is the order of the generated modules.
const TABLES: &[&str] = &[
    "connection",
    "produce_fetch",
    "topics",
    "admin",
    "groups",
    "share_groups",
    "streams_groups",
    "transactions",
    "quorum",
    "metadata_records",
    "group_records",
    "share_state_records",
    "log_files",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=schema");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    let messages: Vec<parse::Message> = TABLES
        .iter()
        .flat_map(|table| parse::messages(table, &read(table)))
        .collect();
    let keys = parse::api_keys("api_keys", &read("api_keys"));
    let errors = parse::errors("errors", &read("errors"));

    write(&out, "messages.rs", &emit_messages::emit(&messages, &keys));
    write(&out, "api_key.rs", &emit_api::keys(&messages, &keys));
    write(&out, "error_code.rs", &emit_api::errors(&errors));
    write(&out, "arbitrary.rs", &emit_arbitrary::emit(&messages));
}

fn read(table: &str) -> String {
    let path = format!("schema/{table}.txt");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn write(out: &Path, name: &str, text: &str) {
    let path = out.join(name);
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
