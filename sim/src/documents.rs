//! Reads plans and failures.

use std::path::Path;

use brokkr_sim::failure::Document;
use brokkr_sim::plan::Plan;

pub fn read_document(path: &Path) -> Result<Document, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Document::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

pub fn read_plan(path: &Path) -> Result<Plan, String> {
    read_document(path).map(Document::into_plan)
}
