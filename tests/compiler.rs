//! The compiler as a test wants it: it waits until it is let, and its runs are counted.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::bot::{PATIENCE, binary};

/// A gate in front of the host's own compiler.
pub struct Gate {
    dir: TempDir,
}

impl Gate {
    /// A gate that is closed.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (open, runs) = (dir.path().join("open"), dir.path().join("runs"));
        let script = format!(
            "#!/bin/sh\necho run >> {}\nwhile [ ! -e {} ]; do sleep 0.02; done\nexec {} \"$@\"\n",
            runs.display(),
            open.display(),
            binary().display()
        );
        Self::of(dir, &script)
    }

    /// A compiler that does this instead, by a shell, and cannot be let.
    pub fn doing(what: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("#!/bin/sh\necho run >> {}\n{what}\n", dir.path().join("runs").display());
        Self::of(dir, &script)
    }

    fn of(dir: TempDir, script: &str) -> Self {
        let gate = Self { dir };
        let source = gate.dir.path().join("source");
        fs::write(&source, script).unwrap();
        // By another process: a program that some process may have open for writing cannot be started.
        let installed = Command::new("install").args(["-m", "755"]).args([source, gate.compiler()]).status();
        assert!(installed.unwrap().success());
        gate
    }

    /// The program to compile with.
    pub fn compiler(&self) -> PathBuf {
        self.dir.path().join("compiler")
    }

    /// Lets the compiler do its work, now and later.
    pub fn open(&self) {
        fs::write(self.dir.path().join("open"), "").unwrap();
    }

    /// Holds it back from now on.
    pub fn close(&self) {
        fs::remove_file(self.dir.path().join("open")).unwrap();
    }

    /// How many files were to be compiled so far.
    pub fn compiled(&self) -> usize {
        fs::read_to_string(self.dir.path().join("runs")).map_or(0, |runs| runs.lines().count())
    }

    /// Waits until so many files were to be compiled.
    pub async fn until_waited_for(&self, count: usize) {
        let waited = timeout(PATIENCE, async {
            while self.compiled() < count {
                sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the compiler is started");
    }
}
