//! A run as one HTML page that needs no other file and no server.
//!
//! ```text
//!   plan, report ─▶ explain ─▶ the events that it picks ────┐
//!   trace ────────▶ data: events in columns, bands, charts ─┼─▶ page.html + page.css + *.js = one file
//!   plan(s) ──────▶ story: the plan in words ───────────────┘
//! ```
//! The events are JSON in a script element; the page's script draws those that are in view. Nothing that comes from a run can end an
//! element: text is escaped for HTML, and `<` in JSON is written as `\u003c`.

mod charts;
mod data;
mod html;
mod pack;
mod story;

use std::io::{self, Write};

use crate::explain::{Explanation, Trace};
use crate::failure::Failure;
use crate::plan::Plan;
pub(crate) use charts::{Chart, charts};
use data::Data;
pub use story::story_text;

/// A run, as a page shows it.
pub struct Page<'a> {
    /// The plan with its verdict, and the command that repeats it.
    pub failure: &'a Failure,
    /// The report of the run.
    pub report: &'a crate::report::Report,
    /// Its trace.
    pub trace: &'a Trace,
    /// What is highlighted.
    pub explanation: &'a Explanation,
    /// The plan before it was shrunk.
    pub original: Option<&'a Plan>,
}

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// In this order: each uses only what is before it.
const SCRIPTS: [&str; 6] = [
    include_str!("model.js"),
    include_str!("filter.js"),
    include_str!("view.js"),
    include_str!("lanes.js"),
    include_str!("charts.js"),
    include_str!("page.js"),
];

impl Page<'_> {
    /// Writes the page.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let plan = &self.failure.plan;
        let explanation = self.explanation;
        let data = Data::new(plan, self.trace, explanation);
        let parts = [
            ("title", html::title(self.failure)),
            ("style", STYLE.to_owned()),
            ("head", html::head(self.failure, self.report, explanation)),
            ("explanation", html::explanation(explanation)),
            ("left-out", html::left_out(&data)),
            ("story", html::stories(plan, self.original)),
            ("counts", html::counts(self.report)),
            ("failure", html::json(&self.failure.to_json())),
            ("data", html::json(&data.to_json())),
            ("script", SCRIPTS.concat()),
        ];
        let mut pieces = TEMPLATE.split("{{");
        out.write_all(pieces.next().unwrap_or_default().as_bytes())?;
        for piece in pieces {
            let (name, rest) = piece.split_once("}}").expect("the template is sound");
            let part = parts.iter().find(|(of, _)| *of == name);
            let (_, text) = part.expect("the template names parts that are there");
            out.write_all(text.as_bytes())?;
            out.write_all(rest.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
