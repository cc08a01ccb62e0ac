//! A known bug as a patch, with a head that describes it.
//!
//! ```text
//! A failed sync is taken for one that covered nothing; the next one is believed.     what it is, in one line
//! source: fsyncgate (PostgreSQL 2018)                                                where it was met
//! breaks: L1 L5                                                                      the invariants that catch it
//! without faults: fails, as every poll is of a batch                                 only where it doesn't pass so
//! seeds: 600, as one wrong bit hardly ever misleads anybody                          only where it takes more than others
//!
//! diff --git …
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Violation ids that are not in the design's table.
const OTHERS: [&str; 5] = ["liveness", "livelock", "panic", "protocol", NONDETERMINISM];
/// Breaking this is found by running a seed twice.
const NONDETERMINISM: &str = "nondeterminism";

/// Where the patches are.
const PATCHES: &str = "sim/mutants/";

/// A known bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mutant {
    /// The name of its file.
    pub name: String,
    pub path: PathBuf,
    pub what: String,
    pub source: String,
    /// It counts as found only if one of these catches it.
    pub breaks: Vec<String>,
    /// Why it fails with `--faults none`, if it does.
    pub fails_without_faults: Option<String>,
    /// How many seeds it needs from one starting point, if the default is too few.
    pub seeds: Option<u64>,
    /// The paths of the files that it changes, and of the patch itself, from the top of the tree.
    pub files: BTreeSet<String>,
}

/// All mutants of a folder, by name.
///
/// # Errors
/// The file that can't be read, and why.
pub fn all(folder: &Path) -> Result<Vec<Mutant>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut mutants = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        if path.extension().is_some_and(|e| e == "patch") {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            mutants.push(Mutant::parse(&path, &text).map_err(|e| format!("{}: {e}", path.display()))?);
        }
    }
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutants)
}

impl Mutant {
    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let name = path
            .file_stem()
            .and_then(|s| s.to_str())
            .ok_or("a name is text")?;
        let (head, diff) = text
            .split_once("\n\n")
            .ok_or("no empty line between head and diff")?;
        let mut lines = head.lines();
        let mut mutant = Self {
            name: name.to_owned(),
            path: path.to_owned(),
            what: lines.next().unwrap_or_default().to_owned(),
            source: String::new(),
            breaks: Vec::new(),
            fails_without_faults: None,
            seeds: None,
            files: BTreeSet::from([format!("sim/mutants/{name}.patch")]),
        };
        for line in lines {
            match line.split_once(": ") {
                Some(("source", source)) => mutant.source = source.to_owned(),
                Some(("breaks", ids)) => mutant.breaks = ids.split(' ').map(str::to_owned).collect(),
                Some(("without faults", how)) => {
                    let why = how
                        .strip_prefix("fails, as ")
                        .ok_or("`without faults` says: fails, as …")?;
                    mutant.fails_without_faults = Some(why.to_owned());
                }
                Some(("seeds", how)) => {
                    let seeds = how.split_once(", as ").and_then(|(n, _)| n.parse().ok());
                    mutant.seeds = Some(seeds.ok_or("`seeds` says: a number, as …")?);
                }
                _ => return Err(format!("its head has the line {line:?}")),
            }
        }
        let changed = diff.lines().filter_map(|l| l.strip_prefix("+++ b/"));
        mutant.files.extend(changed.map(str::to_owned));
        match () {
            () if mutant.source.is_empty() => Err("its head names no source".to_owned()),
            () if mutant.breaks.is_empty() => Err("its head does not name what it breaks".to_owned()),
            () if mutant.files.len() < 2 => Err("it changes nothing".to_owned()),
            () => match mutant.breaks.iter().find(|id| !is_id(id)) {
                Some(id) => Err(format!("it breaks {id:?}, which is not an invariant")),
                None => Ok(mutant),
            },
        }
    }

    /// The paths of the files of the tree that it changes.
    pub fn changed(&self) -> Vec<&str> {
        let files = self.files.iter().map(String::as_str);
        files.filter(|f| !f.starts_with(PATCHES)).collect()
    }

    /// Whether a run is repeated in other surroundings, since only a difference shows it.
    pub fn runs_twice(&self) -> bool {
        self.breaks.iter().any(|id| id == NONDETERMINISM)
    }

    /// Whether one of these paths is in a crate that it changes, or is the patch.
    pub fn is_touched_by(&self, changed: &[String]) -> bool {
        let crates: BTreeSet<&str> = self.files.iter().map(|f| crate_of(f)).collect();
        let touches = |path: &String| self.files.contains(path) || crates.contains(crate_of(path));
        changed.iter().any(touches)
    }
}

fn is_id(id: &str) -> bool {
    let numbered = |(family, number): (&str, &str)| {
        "DLITGMCVS".contains(family) && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    };
    OTHERS.contains(&id) || id.is_char_boundary(1) && numbered(id.split_at(1))
}

/// The crate that a file is in: `broker/log` for `broker/log/src/open.rs`. A patch of the bank is a crate of its own.
fn crate_of(path: &str) -> &str {
    if path.starts_with(PATCHES) {
        return path;
    }
    match path.match_indices("/src/").next() {
        Some((at, _)) => &path[..at],
        None => path,
    }
}

/// The mutants that a change concerns, and `more` of the others, different ones at each `turn`.
pub fn chosen(all: &[Mutant], changed: &[String], more: usize, turn: usize) -> Vec<Mutant> {
    let (mut mine, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|m| m.is_touched_by(changed));
    let from = if others.is_empty() {
        0
    } else {
        turn * more % others.len()
    };
    mine.extend(
        others
            .iter()
            .cycle()
            .skip(from)
            .take(more.min(others.len()))
            .cloned(),
    );
    mine.sort_by(|a, b| a.name.cmp(&b.name));
    mine
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "What it is.\nsource: KAFKA-1\nbreaks: L1 liveness\n";
    const DIFF: &str =
        "\ndiff --git a/broker/log/src/a.rs b/broker/log/src/a.rs\n+++ b/broker/log/src/a.rs\n";

    fn parse(head: &str) -> Result<Mutant, String> {
        Mutant::parse(Path::new("x/sim/mutants/m.patch"), &format!("{head}{DIFF}"))
    }

    #[test]
    fn a_head_must_be_complete() {
        let mutant = parse(HEAD).expect("it is sound");
        assert_eq!((mutant.name.as_str(), mutant.breaks.len()), ("m", 2));
        let excused = parse(&format!("{HEAD}without faults: fails, as it must\n"));
        assert_eq!(
            excused.expect("sound").fails_without_faults.as_deref(),
            Some("it must")
        );
        assert_eq!(
            parse(&format!("{HEAD}seeds: 600, as it is rare\n"))
                .expect("sound")
                .seeds,
            Some(600)
        );
        for bad in [
            "What it is.\nbreaks: L1\n",
            "What it is.\nsource: x\n",
            "What it is.\nsource: x\nbreaks: Q1\n",
            "What it is.\nsource: x\nbreaks: L\n",
            "What it is.\nsource: x\nbreaks: L1\nwithout faults: passes\n",
            "What it is.\nsource: x\nbreaks: L1\nseeds: 600\n",
            "What it is.\nsource: x\nbreaks: L1\nseeds: many, as it is rare\n",
            "What it is.\nsource: x\nbreaks: L1\nand more\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bank_is_sound() {
        let all = all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants")).expect("each head is valid");
        assert!(all.len() >= 18, "{} mutants", all.len());
    }

    #[test]
    fn a_change_of_a_crate_concerns_its_mutants() {
        let mutant = parse(HEAD).expect("it is sound");
        let by = |path: &str| mutant.is_touched_by(&[path.to_owned()]);
        assert!(by("broker/log/src/other.rs") && by("sim/mutants/m.patch"));
        assert!(
            !by("broker/server/src/other.rs") && !by("sim/mutants/n.patch") && !by("broker/logs/src/a.rs")
        );
    }

    #[test]
    fn the_others_take_turns() {
        let named = |name: &str| Mutant {
            name: name.to_owned(),
            ..parse(HEAD).expect("it is sound")
        };
        let all: Vec<_> = ["a", "b", "c", "d", "e"].map(named).into();
        let turn = |turn| {
            let names = chosen(&all, &[], 3, turn).into_iter().map(|m| m.name);
            names.collect::<String>()
        };
        assert_eq!([turn(0), turn(1), turn(2)], ["abc", "ade", "bcd"]);
        assert_eq!(chosen(&all, &["broker/log/src/a.rs".into()], 3, 7).len(), 5);
    }
}
