//! The formats of tables.

use clap::ValueEnum;

/// How the table is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    Text,
    Json,
    Markdown,
}
