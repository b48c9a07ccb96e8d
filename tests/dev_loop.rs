//! `aviary dev` beside an author who edits, in a project as it was written: a change is answered, a slip of the pen is told and
//! changes nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Write, pipe},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a line may take to come: a build, and the compiling of what was built, on a busy machine.
const LINE_MAX: Duration = Duration::from_secs(10 * 60);

/// Edits a bot's source while `aviary` runs beside it. The news that it answers to 文章 has `一篇文章` in it.
pub fn answers_each_change(aviary: Command, bot: &Path) -> Result<(), Failed> {
    let mut dev = Dev::start(aviary)?;
    dev.line("Talk to it")?;
    dev.type_line("文章")?;
    dev.line("https://example.com/ | 一篇文章")?;

    let first = fs::read_to_string(bot)?;
    fs::write(bot, first.replace("一篇文章", "另一篇文章"))?;
    dev.line("https://example.com/ | 另一篇文章")?;

    fs::write(bot, format!("{first}\n)(\n"))?;
    dev.line("The build failed")?;
    dev.type_line("文章")?;
    dev.line("https://example.com/ | 另一篇文章")?;

    fs::write(bot, first)?;
    dev.line("https://example.com/ | 一篇文章")
}

/// The command, which ends with this value.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(mut aviary: Command) -> Result<Self, Failed> {
        let (reader, writer) = pipe()?;
        aviary.arg("dev").stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        // A group of its own: the builds that it started end with it.
        let child = aviary.process_group(0).spawn()?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // A compiler may speak in another encoding.
            let lines = BufReader::new(reader).split(b'\n').map_while(Result::ok);
            lines.map_while(|line| sender.send(String::from_utf8_lossy(&line).into_owned()).ok()).count()
        });
        Ok(Self { child, lines })
    }

    fn type_line(&mut self, line: &str) -> Result<(), Failed> {
        let stdin = self.child.stdin.as_mut().ok_or("it was started with a pipe")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// Waits for a line with this in it.
    fn line(&self, part: &str) -> Result<(), Failed> {
        let (end, mut seen) = (Instant::now() + LINE_MAX, String::new());
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(part) {
                return Ok(());
            }
            seen += &format!("{line}\n");
        }
        Err(format!("no line came with `{part}`, but:\n{seen}").into())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
