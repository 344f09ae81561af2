//! The load generator: connections that are kept alive, on one thread, over a reader of HTTP/1.1 that knows no more than
//! a status, a length and a body. It must cost less than what it measures; every run says how busy it was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

/// How late a timer may be before its request counts as one that was held up.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What one connection asks, over and over. It may lean on the answer before.
pub trait Script: Send {
    /// Appends the next request.
    fn request(&mut self, out: &mut Vec<u8>);

    /// Looks at its answer; whether an operation is complete with it.
    fn answer(&mut self, answer: &Answer<'_>) -> anyhow::Result<bool>;
}

pub type Scripts = Vec<Box<dyn Script>>;

pub struct Answer<'a> {
    pub status: u16,
    head: &'a [u8],
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split(|byte| *byte == b'\n');
        let line = lines.find(|line| {
            line.len() > name.len()
                && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
                && line[name.len()] == b':'
        })?;
        Some(std::str::from_utf8(&line[name.len() + 1..]).ok()?.trim())
    }

    pub fn body(&self) -> &str {
        std::str::from_utf8(self.body).unwrap_or("(no text)")
    }
}

/// One connection with its buffers.
pub struct Connection {
    stream: TcpStream,
    pub out: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::with_capacity(4096), input: Vec::with_capacity(16 * 1024) })
    }

    /// Sends what stands in `out` and reads one answer.
    pub async fn exchange(&mut self) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(&self.out).await?;
        self.input.clear();
        let mut seen = 0;
        let head = loop {
            self.read_more().await?;
            if let Some(at) = self.input[seen..].windows(4).position(|window| window == b"\r\n\r\n") {
                break seen + at + 2;
            }
            seen = self.input.len().saturating_sub(3);
        };
        let status = self.input.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let status: u16 = status.context("an answer without a status")?;
        let length = Answer { status, head: &self.input[..head], body: &[] }.header("content-length").map(str::parse);
        let length: usize = length.context("an answer without a length")??;
        let whole = head + 2 + length;
        while self.input.len() < whole {
            self.read_more().await?;
        }
        Ok(Answer { status, head: &self.input[..head], body: &self.input[head + 2..whole] })
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// How long a run is.
#[derive(Clone, Copy)]
pub struct Length {
    /// Before anything counts.
    pub warm_up: Duration,
    pub counted: Duration,
}

/// What a run showed.
pub struct Run {
    /// Operations that ended within the counted time.
    pub operations: usize,
    /// All of them, from the first to the last.
    pub operations_in_all: usize,
    pub per_second: f64,
    latencies: Vec<u32>,
}

impl Run {
    fn new(samples: Vec<Samples>, counted: Duration) -> Self {
        let operations_in_all = samples.iter().map(|samples| samples.in_all).sum();
        let mut latencies: Vec<u32> = samples.into_iter().flat_map(|samples| samples.latencies).collect();
        latencies.sort_unstable();
        let operations = latencies.len();
        let per_second = operations as f64 / counted.as_secs_f64();
        Self { operations, operations_in_all, per_second, latencies }
    }

    /// The time that `share` of the operations took at most, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = ((self.latencies.len() as f64 * share) as usize).min(last);
        self.latencies.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

#[derive(Default)]
struct Samples {
    in_all: usize,
    latencies: Vec<u32>,
}

impl Samples {
    fn take(&mut self, began: Instant, ended: Instant) {
        self.latencies.push(u32::try_from((ended - began).as_micros()).unwrap_or(u32::MAX));
    }
}

/// Runs one connection for each script, each asking again as soon as it was answered. The scripts come back, since
/// what they hold goes on.
pub async fn closed_loop(address: SocketAddr, scripts: Scripts, length: Length) -> anyhow::Result<(Scripts, Run)> {
    let ready = Arc::new(Barrier::new(scripts.len()));
    let mut tasks = JoinSet::new();
    for mut script in scripts {
        let mut connection = Connection::open(address).await?;
        let ready = Arc::clone(&ready);
        tasks.spawn(async move {
            ready.wait().await;
            let from = Instant::now() + length.warm_up;
            let until = from + length.counted;
            let mut samples = Samples::default();
            let mut now = Instant::now();
            while now < until {
                let began = now;
                loop {
                    connection.out.clear();
                    script.request(&mut connection.out);
                    if script.answer(&connection.exchange().await?)? {
                        break;
                    }
                }
                now = Instant::now();
                samples.in_all += 1;
                if now >= from && now < until {
                    samples.take(began, now);
                }
            }
            anyhow::Ok((script, samples))
        });
    }
    let mut scripts = Vec::new();
    let mut samples = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (script, taken) = ended??;
        scripts.push(script);
        samples.push(taken);
    }
    Ok((scripts, Run::new(samples, length.counted)))
}

/// Runs the connections at a fixed rate in all. An answer that is late makes the next request late, and that one's wait
/// counts from when it should have been sent: a server that stands still is not asked less often for it.
pub async fn paced(address: SocketAddr, scripts: Scripts, per_second: f64, length: Length) -> anyhow::Result<Run> {
    let period = Duration::from_secs_f64(scripts.len() as f64 / per_second);
    let connections = u32::try_from(scripts.len())?;
    let start = tokio::time::Instant::now() + Duration::from_millis(50);
    let mut tasks = JoinSet::new();
    for (nth, mut script) in (0..).zip(scripts) {
        let mut connection = Connection::open(address).await?;
        let mut ticks = interval_at(start + period * nth / connections, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        tasks.spawn(async move {
            let from = start.into_std() + length.warm_up;
            let until = from + length.counted;
            let mut samples = Samples::default();
            loop {
                let due = ticks.tick().await.into_std();
                let now = Instant::now();
                if now >= until {
                    return anyhow::Ok(samples);
                }
                let began = if now - due <= TIMER_GRAIN { now } else { due };
                connection.out.clear();
                script.request(&mut connection.out);
                script.answer(&connection.exchange().await?)?;
                samples.in_all += 1;
                if now >= from {
                    samples.take(began, Instant::now());
                }
            }
        });
    }
    let mut samples = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        samples.push(ended??);
    }
    Ok(Run::new(samples, length.counted))
}
