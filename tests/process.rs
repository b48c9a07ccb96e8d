//! The binary as a process: run to its end, or started and listened to.

use std::{path::Path, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use crate::bot::{PATIENCE, binary};

/// What a process left behind.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with these arguments, in a directory. It ends with the value that holds it.
pub fn aviary(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args);
    in_directory(&mut command, dir);
    command
}

/// A line as a shell takes it, in a directory.
pub fn shell(dir: &Path, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    in_directory(&mut command, dir);
    command
}

fn in_directory(command: &mut Command, dir: &Path) {
    command.current_dir(dir).kill_on_drop(true).stdin(Stdio::null());
    // Compiled plugins are shared between tests, and the user's own cache is left alone.
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
}

/// Runs a command to its end.
pub async fn finish(command: Command) -> Finished {
    finish_with(command, "").await
}

/// Runs a command to its end, with this on its standard input.
pub async fn finish_with(mut command: Command, input: &str) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let feed = async move {
        // Who ends early reads no further.
        _ = stdin.write_all(input.as_bytes()).await;
    };
    let ((), output) = timeout(PATIENCE, async { tokio::join!(feed, child.wait_with_output()) })
        .await
        .unwrap_or_else(|_| panic!("it did not end: {command:?}"));
    let output = output.expect("it ran");
    let text = |bytes| String::from_utf8(bytes).expect("it writes text");
    Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A process that goes on until it is stopped, and ends with this value in any case.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// What it wrote so far, for whoever has to find out why a line did not come.
    seen: Vec<String>,
}

impl Running {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
        let (sender, lines) = mpsc::unbounded_channel();
        forward(child.stdout.take().expect("it is a pipe"), sender.clone());
        forward(child.stderr.take().expect("it is a pipe"), sender);
        Self { child, lines, seen: Vec::new() }
    }

    /// Types a line, if it was started with a pipe to type into.
    pub async fn type_line(&mut self, line: &str) {
        self.type_bytes(format!("{line}\n").as_bytes()).await;
    }

    /// Types what need not be text.
    pub async fn type_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("it was started with a pipe");
        timeout(PATIENCE, stdin.write_all(bytes)).await.expect("it reads").expect("it runs");
    }

    /// Waits for a line with this in it, on standard output or error.
    pub async fn line(&mut self, part: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(part)) {
            return line.clone();
        }
        loop {
            match timeout(PATIENCE, self.lines.recv()).await {
                Ok(Some(line)) => self.seen.push(line.clone()),
                _ => panic!("no line came with `{part}`, but:\n{}", self.seen.join("\n")),
            }
            if let Some(line) = self.seen.last().filter(|line| line.contains(part)) {
                return line.clone();
            }
        }
    }

    /// Waits until so many lines with this in them came.
    pub async fn lines(&mut self, part: &str, count: usize) {
        while self.count(part) < count {
            match timeout(PATIENCE, self.lines.recv()).await {
                Ok(Some(line)) => self.seen.push(line),
                _ => panic!("there are no {count} lines with `{part}`, but:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// How many of the lines so far, up to the last one waited for, have this in them.
    pub fn count(&self, part: &str) -> usize {
        self.seen.iter().filter(|line| line.contains(part)).count()
    }

    /// Ends it as a crash would: it gets no say.
    pub async fn kill(mut self) {
        timeout(PATIENCE, self.child.kill()).await.expect("it ends in time").expect("it is ours");
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    /// Asks it to end, as systemd does, and returns its exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        let id = self.id();
        let pid = Pid::from_raw(id.cast_signed()).expect("a process has a number");
        kill_process(pid, Signal::TERM).expect("it is ours and was not waited for");
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time");
        status.expect("it is ours").code()
    }
}

/// Sends on each line as it comes.
fn forward(from: impl AsyncRead + Unpin + Send + 'static, to: mpsc::UnboundedSender<String>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}
