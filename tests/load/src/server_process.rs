//! A server as a process of its own, with the workers that it starts: started, found, measured, and ended.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::{
    process::{Pid, Signal, kill_process_group},
    time::{ClockId, clock_gettime},
};

/// How long a server may take until it listens. It compiles no plugin before that.
const START_MAX: Duration = Duration::from_secs(30);

/// How often the log is looked at until then: a file has no event to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What comes before the address in the first words of the host, and of what is written here.
const LISTENS: &str = "listens on http://";

/// A server that runs, as the leader of a process group of its own. Dropped, the group is killed.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a server holds of the machine's memory. Of several processes the sum: what they share counts in each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// `VmRSS`: now.
    pub resident_mib: f64,
    /// `VmHWM`: at most so far.
    pub peak_mib: f64,
}

impl ServerProcess {
    /// Starts a server and waits until it has said where it listens. Its output goes to a file, as behind a service
    /// manager; a pipe would wake the generator at every line.
    pub fn start(command: Command, log: &Path) -> anyhow::Result<Self> {
        Self::start_announced(command, log, LISTENS)
    }

    /// Starts a server that says `announcement` before its address.
    pub fn start_announced(mut command: Command, log: &Path, announcement: &str) -> anyhow::Result<Self> {
        let named = format!("`{}`", command.get_program().display());
        let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A group of its own: what the server starts is measured and ended with it.
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("{named} does not start"))?;
        // From here on every way out ends the child.
        let mut server = Self { child, log: log.into(), address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let give_up = Instant::now() + START_MAX;
        loop {
            let text = fs::read_to_string(log)?;
            if let Some(address) = address(&text, announcement) {
                server.address = address;
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{named} ended with {status}:\n{text}");
            }
            if Instant::now() > give_up {
                bail!("{named} does not listen after {START_MAX:?}:\n{text}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// CPU time so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.group()?.into_iter().map(cpu).sum()
    }

    /// Memory at this moment.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mut sum = Memory { resident_mib: 0.0, peak_mib: 0.0 };
        for process in self.group()? {
            // It may end while we look.
            let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) else { continue };
            let of = memory(&status).context("/proc/PID/status has no VmRSS and VmHWM")?;
            sum = Memory { resident_mib: sum.resident_mib + of.resident_mib, peak_mib: sum.peak_mib + of.peak_mib };
        }
        Ok(sum)
    }

    /// The server's processes: its own, and those that it started.
    fn group(&self) -> anyhow::Result<Vec<u32>> {
        let leader = self.child.id();
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // As above.
            let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
            if group_of(&stat) == Some(leader) {
                processes.push(process);
            }
        }
        ensure!(!processes.is_empty(), "the server has ended");
        Ok(processes)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// CPU time of this process so far, with that of threads that ended.
pub fn own_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).expect("it is not negative")
}

/// User and system time of a process's threads, to the nanosecond: `/proc/PID/stat` counts in hundredths of a second,
/// which is several microseconds per message in a short run. Threads and processes that ended are missing; the servers
/// measured here keep theirs.
fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    // It may end while we look, and so may a thread.
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Ok(total) };
    for task in tasks {
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let spent = schedstat.split(' ').next().and_then(|spent| spent.parse().ok());
        total += Duration::from_nanos(spent.context("/proc/PID/task/TID/schedstat does not begin with a number")?);
    }
    Ok(total)
}

/// Finds the address in a server's first words.
fn address(log: &str, announcement: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(announcement)?;
    // Up to what follows it, so that half a line is not half a port.
    rest.split_once(['/', ' '])?.0.parse().ok()
}

/// The process group in a process's `/proc/PID/stat`: its name in parentheses, which may have any character, then its state,
/// its parent, its group.
fn group_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

fn memory(status: &str) -> Option<Memory> {
    let mib = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
    };
    Some(Memory { resident_mib: mib("VmRSS")?, peak_mib: mib("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_once_its_line_is_whole() {
        let log = "2026-01-01T00:00:00Z  INFO Account `main` listens on http://127.0.0.1:41234/ account=main\n";
        assert_eq!(address(log, LISTENS), Some("127.0.0.1:41234".parse().unwrap()));
        let half = &log[..log.find("1234/").unwrap() + 2];
        assert_eq!(address(half, LISTENS), None);
        assert_eq!(address("", LISTENS), None);
        let other = "socket 0 bound to TCP address 127.0.0.1:34303 (port auto-assigned) fd 3\n";
        assert_eq!(address(other, "TCP address "), Some("127.0.0.1:34303".parse().unwrap()));
    }

    #[test]
    fn a_process_is_of_its_group_whatever_its_name() {
        assert_eq!(group_of("18880 (uwsgi) S 18863 18860 18860 0 -1"), Some(18_860));
        assert_eq!(group_of("18880 (a) b (c) S 18863 18860 18860 0 -1"), Some(18_860));
        assert_eq!(group_of(""), None);
    }

    /// A server that only listens in words, with a worker that computes until it is ended; should it not be, for a minute.
    fn with_a_worker(dir: &Path) -> ServerProcess {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "ulimit -t 60; while :; do :; done & echo \"worker $! listens on http://127.0.0.1:1/\"; wait",
        ]);
        ServerProcess::start(command, &dir.join("log")).unwrap()
    }

    #[test]
    fn what_a_worker_computes_is_the_servers() {
        let dir = tempfile::tempdir().unwrap();
        let server = with_a_worker(dir.path());
        let give_up = Instant::now() + START_MAX;
        // The shell itself only waits.
        while server.cpu().unwrap() < cpu(server.child.id()).unwrap() + Duration::from_millis(20) {
            assert!(Instant::now() < give_up, "the worker's time is not counted");
            thread::sleep(LOOK_EVERY);
        }
        assert!(server.memory().unwrap().resident_mib > memory_of(server.child.id()).resident_mib);
    }

    fn memory_of(process: u32) -> Memory {
        memory(&fs::read_to_string(format!("/proc/{process}/status")).unwrap()).unwrap()
    }

    #[test]
    fn a_server_takes_its_workers_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let server = with_a_worker(dir.path());
        let log = server.log();
        let worker = log.split(' ').nth(1).unwrap();
        let group = server.child.id();
        // Whoever inherits it may take a while to notice that it has ended: a zombie runs no more.
        let runs = || {
            fs::read_to_string(format!("/proc/{worker}/stat"))
                .is_ok_and(|stat| group_of(&stat) == Some(group) && !stat.contains(") Z "))
        };
        assert!(runs());
        drop(server);
        let give_up = Instant::now() + START_MAX;
        while runs() {
            assert!(Instant::now() < give_up, "the worker still runs");
            thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn memory_is_read_in_mib() {
        let status = "Name:\taviary\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(memory(status), Some(Memory { resident_mib: 10.0, peak_mib: 20.0 }));
        assert_eq!(memory("Name:\taviary\n"), None);
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_that_tells_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no room >&2; exit 3"]);
        let error = ServerProcess::start(command, &dir.path().join("log")).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no room"), "{error}");
    }
}
