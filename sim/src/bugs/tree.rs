//! The tree that a bug is applied to: a copy below `target/`, so that only changed crates are rebuilt.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mutant::Mutant;

/// The project's tree, and a copy of it.
pub struct Trees {
    top: PathBuf,
    copy: PathBuf,
    /// The lock of the copy.
    _lock: fs::File,
}

/// The top of the tree that contains the current directory.
///
/// # Errors
/// The current directory is in none.
pub fn top() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|e| e.to_string())?;
    let mut above = here.ancestors();
    let found = above.find(|dir| dir.join("sim/mutants").is_dir());
    found
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not in the project's tree", here.display()))
}

/// The output of a git command in the tree.
///
/// # Errors
/// Git failed, or is not installed.
pub fn git(top: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new("git").arg("-C").arg(top).args(args).output();
    let output = output.map_err(|e| format!("git: {e}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("git {}: {}", args.join(" "), why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Trees {
    /// Locks the copy; waits for another process that has it.
    ///
    /// # Errors
    /// The copy can't be made.
    pub fn new(top: PathBuf) -> Result<Self, String> {
        let home = top.join("target/mutants");
        let at = |e: std::io::Error| format!("{}: {e}", home.display());
        let copy = home.join("tree");
        fs::create_dir_all(&copy).map_err(at)?;
        let lock = fs::File::create(home.join("lock")).map_err(at)?;
        lock.lock().map_err(at)?;
        Ok(Self {
            top,
            copy,
            _lock: lock,
        })
    }

    /// A path for small files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.top.join("target/mutants").join(name)
    }

    /// Builds the simulator with this bug.
    ///
    /// # Errors
    /// The patch doesn't apply, or the result doesn't build.
    pub fn build(&self, mutant: &Mutant) -> Result<PathBuf, String> {
        self.copy_all()
            .map_err(|e| format!("the copy of the tree: {e}"))?;
        let patch = std::path::absolute(&mutant.path).map_err(|e| e.to_string())?;
        let patch = patch.to_str().ok_or("the patch's path is text")?;
        git(&self.top, &["apply", "--directory=target/mutants/tree", patch])?;
        let target = self.scratch("target");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--profile", "mutant", "-p", "brokkr-sim"])
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", &target)
            .output()
            .map_err(|e| format!("cargo: {e}"))?;
        if !built.status.success() {
            let why = String::from_utf8_lossy(&built.stderr);
            return Err(format!("{} is not built:\n{why}", mutant.name));
        }
        Ok(target.join("mutant/brokkr-sim"))
    }

    /// Copies only changed files, because cargo compares modification times.
    fn copy_all(&self) -> Result<(), String> {
        let listed = git(&self.top, &["ls-files", "-co", "--exclude-standard", "-z"])?;
        let names: BTreeSet<&str> = listed.split('\0').filter(|n| !n.is_empty()).collect();
        for name in &names {
            let (from, to) = (self.top.join(name), self.copy.join(name));
            if !from.is_file() {
                continue;
            }
            let at = |e: std::io::Error| format!("{name}: {e}");
            let bytes = fs::read(&from).map_err(at)?;
            if fs::read(&to).is_ok_and(|there| there == bytes) {
                continue;
            }
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(at)?;
            }
            fs::write(&to, bytes).map_err(at)?;
        }
        self.remove_others(&self.copy, &names)
    }

    /// Removes files that the tree no longer has, or that another patch had added.
    fn remove_others(&self, folder: &Path, names: &BTreeSet<&str>) -> Result<(), String> {
        let at = |e: std::io::Error| format!("{}: {e}", folder.display());
        for entry in fs::read_dir(folder).map_err(at)? {
            let path = entry.map_err(at)?.path();
            if path.is_dir() {
                self.remove_others(&path, names)?;
                continue;
            }
            let name = path.strip_prefix(&self.copy).ok().and_then(Path::to_str);
            let gone = name.is_none_or(|n| !names.contains(n) || !self.top.join(n).is_file());
            if gone {
                fs::remove_file(&path).map_err(at)?;
            }
        }
        Ok(())
    }
}
