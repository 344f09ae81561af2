//! Processes that are measured: started, looked at through `/proc`, ended.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// `/proc` counts processor time in hundredths of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// An address that nobody listens on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A command that may open as many files as the machine lets it: each connection is one.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n "$(ulimit -Hn)"; exec "$0" "$@""#]).arg(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYWARD_") {
            command.env_remove(name);
        }
    }
    command
}

/// A process that ends with us at the latest.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` with its log in a file.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Self { child: command.spawn()? })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) -> anyhow::Result<()> {
        Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.id())).status()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "a server ended with {status}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of HTTP, and where it listens.
pub struct Server {
    process: Process,
    pub address: SocketAddr,
    pub log: PathBuf,
}

impl Server {
    /// Starts `command` and waits for its first 200 at `path`; how long that took.
    pub fn start(command: Command, address: SocketAddr, log: &Path, path: &str) -> anyhow::Result<(Self, Duration)> {
        let began = Instant::now();
        let mut server = Self { process: Process::start(command, log)?, address, log: log.to_owned() };
        loop {
            if is_answered(address, path) {
                return Ok((server, began.elapsed()));
            }
            if let Some(status) = server.process.child.try_wait()? {
                bail!("a server ended with {status}: {}", std::fs::read_to_string(log).unwrap_or_default());
            }
            ensure!(began.elapsed() < PATIENCE, "a server does not answer; see {}", log.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(&self.process.id().to_string())
    }

    /// Memory that is resident now, in MB.
    pub fn resident(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// The most that ever was resident, in MB.
    pub fn peak_resident(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024.0 / 1e6)
    }

    /// Forgets what was logged so far. The log is open for appending, so the process goes on at its new end.
    pub fn empty_log(&self) -> anyhow::Result<()> {
        Ok(File::options().write(true).open(&self.log)?.set_len(0)?)
    }

    pub fn terminate(self) -> anyhow::Result<()> {
        self.process.terminate()
    }
}

/// Processor time of everybody on all cores since the machine started.
pub fn machine_time() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat")?;
    // proc(5): user nice system idle iowait irq softirq steal; of these two are rest.
    let ticks: Result<Vec<u64>, _> = line.split_whitespace().take(8).map(str::parse).collect();
    let busy = ticks?.into_iter().enumerate().filter(|(nth, _)| !matches!(nth, 3 | 4)).map(|(_, ticks)| ticks);
    Ok(TICK.mul_f64(busy.sum::<u64>() as f64))
}

/// Processor time of the process `id`, or of our own by the name `self`.
pub fn processor_time(id: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // proc(5): the name in parentheses may hold anything; `utime` and `stime` are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/…/stat")?;
    let ticks: Result<Vec<u32>, _> = fields.split(' ').skip(11).take(2).map(str::parse).collect();
    Ok(TICK * ticks?.into_iter().sum::<u32>())
}

/// Whether a GET is answered with 200.
fn is_answered(address: SocketAddr, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let asked = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
    asked.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}
