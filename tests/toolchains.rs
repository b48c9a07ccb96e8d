//! What the tests of templates, examples and pages have in common: each language's tools, installed once below `target`, and
//! commands that end.
//!
//! libtest cannot skip a test for what a machine lacks. Here what cannot be built without a tool is ignored, by name and with the
//! tool, and `.ci/run` fails if anything is.

use std::{
    io::{Read, Seek},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process_group};

/// What has to be on the machine for a language. Everything else is installed by `examples/toolchain/install.sh`.
const BASE_TOOLS: [(&str, &[&str]); 6] = [
    ("rust", &["cargo"]),
    ("js", &["node", "npm"]),
    ("ts", &["node", "npm"]),
    ("python", &["python3"]),
    ("go", &["python3"]),
    ("c", &["python3"]),
];

/// How long one command may take. Some download a toolchain first, and the machine may be busy; one that hangs must not hold
/// the tests for ever.
const COMMAND_MAX: Duration = Duration::from_secs(20 * 60);

/// Builds take turns: they install what they share.
static BUILDING: Mutex<()> = Mutex::new(());

/// A test of a language, unless the machine lacks a tool for it.
pub fn trial(name: String, language: &str, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    let known = BASE_TOOLS.iter().find(|(known, _)| *known == language);
    let (_, tools) = known.unwrap_or_else(|| panic!("{name} is in no language that is known here: `{language}`"));
    match tools.iter().find(|tool| !is_there(tool)) {
        None => Trial::test(name, test),
        Some(missing) => {
            let name = format!("{name} (skipped: `{missing}` is not on this machine)");
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
    }
}

fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Waits until nothing else is built.
pub fn turn<T>(build: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    build()
}

/// Runs a command to its end and returns all that it wrote.
pub fn finish(command: &mut Command) -> Result<String, Failed> {
    finish_within(command, COMMAND_MAX)
}

/// Like [`finish`]. Of a shell that was told `-x`, the last line shows where it hung.
pub fn finish_within(command: &mut Command, most: Duration) -> Result<String, Failed> {
    let mut output = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    // A group of its own: what a script started ends with it.
    let mut child = command.process_group(0).spawn()?;
    let group = Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    let status = ended.recv_timeout(most);
    if status.is_err() {
        kill_process_group(group, Signal::KILL)?;
    }
    let mut said = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    match status {
        Ok(Ok(status)) if status.success() => Ok(said),
        Ok(status) => Err(format!("{command:?} ended with {}:\n{said}", status?).into()),
        Err(_) => {
            Err(format!("{command:?} was stopped after {most:?}; the last line is where it hung:\n{said}").into())
        }
    }
}

/// What was compiled is shared with the other tests, and the user's own cache is left alone.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}
