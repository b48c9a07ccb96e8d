//! Python, for bots that share no code with the host: a virtual environment below `target`, made at its first use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{process::Command, sync::OnceCell, time::timeout};

use crate::plugins::workspace;

/// How long an installation may take: it fetches from PyPI.
const INSTALLS: Duration = Duration::from_secs(540);

/// The interpreter with what `tests/webhooks/requirements.txt` names.
pub async fn python() -> &'static Path {
    static PYTHON: OnceCell<PathBuf> = OnceCell::const_new();
    PYTHON.get_or_init(installed).await
}

async fn installed() -> PathBuf {
    let requirements = workspace().join("tests/webhooks/requirements.txt");
    let pinned = fs::read(&requirements).expect("it is in the workspace");
    let hash: String = Sha256::digest(&pinned).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{hash}"));
    let (python, complete) = (dir.join("bin/python"), dir.join("complete"));
    if !complete.exists() {
        // What an interrupted run left is not trusted.
        _ = fs::remove_dir_all(&dir);
        run("python3", &["-m", "venv", text(&dir)]).await;
        run(text(&python), &["-m", "pip", "install", "--quiet", "--no-deps", "-r", text(&requirements)]).await;
        fs::write(complete, "").expect("the directory is there");
    }
    python
}

async fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    let command = command.args(args).kill_on_drop(true).stdin(Stdio::null());
    let output = timeout(INSTALLS, command.output()).await;
    let needs =
        "bots in Python are tested here: install python3 with its `venv` module, and see that PyPI can be reached";
    match output {
        Ok(Ok(output)) if output.status.success() => {}
        Ok(Ok(output)) => panic!("{needs}: {program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Ok(Err(error)) => panic!("{needs}: {program}: {error}"),
        Err(_) => panic!("{needs}: {program} {args:?} did not end"),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the workspace's path is text")
}
