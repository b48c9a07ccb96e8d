//! A server as a process of its own: started, found, measured, and ended.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};

/// How long a server may take until it listens. It compiles no plugin before that.
const START_MAX: Duration = Duration::from_secs(30);

/// How often the log is looked at until then: a file has no event to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A server that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a process holds of the machine's memory.
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
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let named = format!("`{}`", command.get_program().display());
        let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.with_context(|| format!("{named} does not start"))?;
        // From here on every way out ends the child.
        let mut server = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let give_up = Instant::now() + START_MAX;
        loop {
            let text = fs::read_to_string(log)?;
            if let Some(address) = address(&text) {
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

    /// CPU time so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(self.child.id())
    }

    /// Memory at this moment.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        memory(&status).context("/proc/PID/status has no VmRSS and VmHWM")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of this process so far, with that of threads that ended.
pub fn own_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(spent).expect("it is not negative")
}

/// User and system time of a process's threads, to the nanosecond: `/proc/PID/stat` counts in hundredths of a second,
/// which is several microseconds per message in a short run. Threads that ended are missing; the servers measured here
/// keep theirs.
fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end while we look.
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let spent = schedstat.split(' ').next().and_then(|spent| spent.parse().ok());
        total += Duration::from_nanos(spent.context("/proc/PID/task/TID/schedstat does not begin with a number")?);
    }
    Ok(total)
}

/// Finds the address in a server's first words.
fn address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listens on http://")?;
    // Up to the slash, so that half a line is not half a port.
    rest.split_once('/')?.0.parse().ok()
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
        assert_eq!(address(log), Some("127.0.0.1:41234".parse().unwrap()));
        let half = &log[..log.find("1234/").unwrap() + 2];
        assert_eq!(address(half), None);
        assert_eq!(address(""), None);
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
