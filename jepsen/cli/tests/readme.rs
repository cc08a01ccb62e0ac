//! The example of the README is what the binary prints.

mod common;

use common::{Directory, run};

/// The block of this language in the README.
fn block(language: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let begin = format!("```{language}\n");
    let (_, after) = readme.split_once(&begin).expect("a block");
    after.split_once("```").expect("its end").0
}

#[test]
fn the_example_is_what_it_prints() {
    let dir = Directory::new("readme");
    let file = dir.write("history.jsonl", block("json"));
    let output = run(&["check", &file], "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), block("text"));
}
