//! Clients that hold a connection and hardly use it: some say nothing at all, some drip a header byte by byte and never
//! end it. They live in a process of their own, so that holding them costs the measuring one nothing. Whoever is thrown
//! out comes back, as somebody with bad intentions would.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::process::{self, Process};

/// The first argument of the process.
pub const COMMAND: &str = "hold-slow";
/// Connections of each of the two kinds.
pub const EACH: usize = 1000;
/// Between two bytes, and before coming back.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the process and waits until its connections stand.
pub async fn hold(address: SocketAddr, dir: &Path) -> anyhow::Result<Process> {
    let mut command = process::command(std::env::current_exe()?);
    command.arg(COMMAND).arg(address.to_string());
    let log = dir.join("slow.log");
    let held = Process::start(command, &log)?;
    for _ in 0..300 {
        // Those that were thrown out a moment ago are on their way back.
        if established(address.port())? >= 2 * EACH * 19 / 20 {
            return Ok(held);
        }
        sleep(Duration::from_millis(100)).await;
    }
    let log = std::fs::read_to_string(log).unwrap_or_default();
    anyhow::bail!("{} of {} slow connections stand: {log}", established(address.port())?, 2 * EACH)
}

/// Connections at the server's end, as the kernel lists them.
pub fn established(port: u16) -> anyhow::Result<usize> {
    let local = format!(":{port:04X}");
    let list = std::fs::read_to_string("/proc/net/tcp")?;
    let mut count = 0;
    for line in list.lines().skip(1) {
        let mut fields = line.split_whitespace().skip(1);
        let (own, _, state) = (fields.next(), fields.next(), fields.next());
        count += usize::from(own.is_some_and(|own| own.ends_with(&local)) && state == Some("01"));
    }
    Ok(count)
}

/// What the process does.
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = args.first().context("an address")?.parse()?;
    ensure!(address.ip().is_loopback(), "only for the machine's own servers");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for nth in 0..EACH {
            // Spread over the second: a burst of connections is another attack, and so is one of bytes.
            let offset = PAUSE.mul_f64(nth as f64 / EACH as f64);
            tasks.spawn(again_and_again(address, offset, idle));
            tasks.spawn(again_and_again(address, offset, drip));
        }
        tasks.join_all().await;
        Ok(())
    })
}

async fn again_and_again<F>(address: SocketAddr, offset: Duration, use_it: impl Fn(TcpStream) -> F)
where
    F: Future<Output = std::io::Result<()>>,
{
    sleep(offset).await;
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            // However it ends, it begins again.
            let _ = use_it(stream).await;
        }
        sleep(PAUSE).await;
    }
}

/// Says nothing, and reads so as to notice when it is thrown out.
async fn idle(mut stream: TcpStream) -> std::io::Result<()> {
    let mut ignored = [0; 256];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// One byte after the other of a request that never ends.
async fn drip(mut stream: TcpStream) -> std::io::Result<()> {
    for byte in b"GET /jwks HTTP/1.1\r\nhost: localhost\r\nx-patience: ".iter().chain(std::iter::repeat(&b'a')) {
        stream.write_all(std::slice::from_ref(byte)).await?;
        sleep(PAUSE).await;
    }
    Ok(())
}
