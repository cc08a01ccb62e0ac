//! `log.dirs` and `metadata.log.dir`: the log directories.

use std::collections::BTreeMap;

use brokkr_metadata::config::ConfigError;
use brokkr_metadata::config::resolve::Layers;

use super::error::StartupError;
use super::value::{list, text};

/// The directories of partitions, and that of the metadata log. Compares only paths; if two paths lead to one directory,
/// the start fails when it can't lock the second.
pub(super) fn log_dirs(
    set: &BTreeMap<String, String>,
    layers: &Layers<'_>,
) -> Result<(Vec<String>, String), StartupError> {
    let key = match set.contains_key("log.dirs") {
        true => "log.dirs",
        false => "log.dir",
    };
    // As written: a value that is parsed as a list has each element once.
    let mut written: Vec<String> = match set.get(key) {
        Some(text) => text.split(',').map(|dir| dir.trim().to_owned()).collect(),
        None => list(layers, key),
    };
    if let Some(metadata) = text(layers, "metadata.log.dir") {
        let same = |dir: &&String| parts(dir) == parts(&metadata);
        let one_of_them = written.iter().find(same).cloned();
        let is_apart = one_of_them.is_none();
        let metadata = one_of_them.unwrap_or(metadata);
        written.extend(is_apart.then(|| metadata.clone()));
        check(key, &written)?;
        if is_apart {
            written.pop();
        }
        return Ok((written, metadata));
    }
    check(key, &written)?;
    let first = written.first().cloned();
    let metadata = first.unwrap_or_else(|| panic!("{key} is not empty"));
    Ok((written, metadata))
}

fn check(key: &str, dirs: &[String]) -> Result<(), StartupError> {
    let refuse = |why: String| Err(StartupError::Value(ConfigError(why)));
    for (i, dir) in dirs.iter().enumerate() {
        for before in &dirs[..i] {
            let (a, b) = (parts(before), parts(dir));
            if a == b {
                return refuse(format!("{key} has {dir} twice"));
            }
            let nested = [(before, &a, dir, &b), (dir, &b, before, &a)];
            if let Some((outer, _, inner, _)) = nested.into_iter().find(|(_, a, _, b)| b.starts_with(a)) {
                return refuse(format!(
                    "log directory {inner} is inside of log directory {outer}: each must be by itself"
                ));
            }
        }
    }
    Ok(())
}

/// The components of a path, normalized.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    if path.starts_with('/') {
        parts.push("/");
    }
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match (part, parts.last()) {
            ("..", Some(&"/")) => {}
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;

    fn read(pairs: &[(&str, &str)]) -> Result<(Vec<String>, String), String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let (config, warnings) = BrokerConfig::new(pairs.collect()).map_err(|e| e.to_string())?;
        assert!(warnings.is_empty(), "{warnings:?}");
        Ok((config.log_dirs().to_vec(), config.metadata_log_dir().to_owned()))
    }

    fn dirs(all: &[&str], metadata: &str) -> Result<(Vec<String>, String), String> {
        Ok((all.iter().map(|d| (*d).to_owned()).collect(), metadata.to_owned()))
    }

    #[test]
    fn log_dirs_and_metadata_log_dir() {
        assert_eq!(read(&[]), dirs(&["./data"], "./data"));
        assert_eq!(read(&[("log.dirs", "/a, /b")]), dirs(&["/a", "/b"], "/a"));
        assert_eq!(read(&[("log.dir", "a,b")]), dirs(&["a", "b"], "a"));
        let both = [("log.dirs", "/a,/b"), ("log.dir", "/c")];
        assert_eq!(read(&both), dirs(&["/a", "/b"], "/a"));
        let second = [("log.dirs", "/a,/b"), ("metadata.log.dir", "/b/")];
        assert_eq!(read(&second), dirs(&["/a", "/b"], "/b"));
        let apart = [("log.dirs", "/a,/b"), ("metadata.log.dir", "/c")];
        assert_eq!(read(&apart), dirs(&["/a", "/b"], "/c"));
        assert_eq!(read(&[("log.dirs", "/a,/ab")]), dirs(&["/a", "/ab"], "/a"));
    }

    #[test]
    fn empty_equal_and_nested_directories_are_rejected() {
        let why = |value: &str| read(&[("log.dirs", value)]).expect_err(value);
        assert_eq!(why("/a,/b,/a"), "log.dirs has /a twice");
        assert_eq!(why("/a,/b/../a/"), "log.dirs has /b/../a/ twice");
        assert_eq!(why("./x,x"), "log.dirs has x twice");
        let inside = |inner: &str, outer: &str| {
            format!("log directory {inner} is inside of log directory {outer}: each must be by itself")
        };
        assert_eq!(why("/a,/a/b"), inside("/a/b", "/a"));
        assert_eq!(why("/a/b,/a"), inside("/a/b", "/a"));
        assert_eq!(why("/,/a"), inside("/a", "/"));
        let apart = [("log.dirs", "/a,/b"), ("metadata.log.dir", "/b/meta")];
        assert_eq!(read(&apart), Err(inside("/b/meta", "/b")));
        for empty in ["/a,", "/a,,/b", ","] {
            assert_eq!(why(empty), "Configuration 'log.dirs' values must not be empty.");
        }
    }
}
