//! A temporary directory of this process, removed when it is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates an empty one.
    ///
    /// # Errors
    /// It can't be created.
    pub fn new() -> io::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("brokkr-sim-{process}-{made}"));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Leftovers stay in the system's temporary directory.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
