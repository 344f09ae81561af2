//! `cargo bench`: how fast the built program is, beside what this machine could do at best. One run measures Keyward, a
//! bare handler behind the same layers and the machine's RSA signatures by turns, prints a table for
//! `docs/performance.md`, which explains it, and ends with 1 where a floor is missed.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod bare;
mod client;
mod process;
mod report;
mod rows;
mod seed;
mod sign_in;
mod slow;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use keyward::protocol::metadata::path;
use tokio::time::sleep;

use client::{Length, Scripts, closed_loop, paced};
use process::{Server, machine_time, processor_time};
use report::{Figure, Measured, Report, RowResult, Spent, median};
use rows::{Against, CONNECTIONS, ROWS, Row, Traffic};
use seed::{Backend, Site};

/// As the program has it, for the bare handler's sake.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `Spent` counts time from.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Runs of everything, of which the middle one counts.
const ROUNDS: usize = 3;
/// People and grants in the small database.
const SMALL: i64 = 1_000;
/// The slow clients' companions: so many connections with so many requests a second in all.
const QUIET_CONNECTIONS: usize = 16;
const QUIET_RATE: f64 = 2_000.0;
/// Time for the log to be written.
const LOG_SETTLES: Duration = Duration::from_millis(300);

const USAGE: &str = "cargo bench -- [OPTIONS]
  --quick              short runs over smaller tables: shows that it works, and little else
  --only ROW           only this row (repeatable): discovery, jwks, cc-rs256, …, process, import, slow,
                       sign-in
  --database NAME      only sqlite or postgres (default: SQLite, and PostgreSQL where KEYWARD_TEST_POSTGRES is set)
  --large ROWS         people and grants in the large database; 0 leaves it out (default 1000000)
  --binary PATH        measure this program instead of the one just built
  --no-fail            end with 0 even where a floor is missed";

struct Options {
    quick: bool,
    fail: bool,
    only: Vec<String>,
    backends: Vec<Backend>,
    large: i64,
    binary: PathBuf,
    /// URL of a PostgreSQL where databases may be made.
    server: String,
}

impl Options {
    fn parse(args: Vec<String>) -> anyhow::Result<Self> {
        let server = std::env::var("KEYWARD_TEST_POSTGRES").unwrap_or_default();
        let mut backends = vec![Backend::Sqlite];
        if !server.is_empty() {
            backends.push(Backend::Postgres);
        }
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_keyward"));
        let mut large = None;
        let mut options = Self { quick: false, fail: true, only: Vec::new(), backends, large: 0, binary, server };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                // Cargo says so of itself.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--no-fail" => options.fail = false,
                "--only" => options.only.push(value()?),
                "--large" => large = Some(value()?.parse()?),
                "--binary" => options.binary = value()?.into(),
                "--database" => {
                    options.backends = match value()?.as_str() {
                        "sqlite" => vec![Backend::Sqlite],
                        "postgres" => vec![Backend::Postgres],
                        other => bail!("{other}: sqlite or postgres\n{USAGE}"),
                    };
                }
                "--help" => bail!("{USAGE}"),
                other => bail!("{other}?\n{USAGE}"),
            }
        }
        options.large = large.unwrap_or(if options.quick { 10 * SMALL } else { 1000 * SMALL });
        ensure!(options.large == 0 || options.large >= SMALL, "--large: at least {SMALL}");
        let known = |name: &String| {
            matches!(name.as_str(), "process" | "import" | "slow" | "sign-in") || ROWS.iter().any(|r| r.key == *name)
        };
        if let Some(unknown) = options.only.iter().find(|name| !known(name)) {
            let keys: Vec<&str> = ROWS.iter().map(|row| row.key).collect();
            bail!("--only {unknown}: {}, process, import, slow or sign-in", keys.join(", "));
        }
        if options.backends.contains(&Backend::Postgres) && options.server.is_empty() {
            bail!("PostgreSQL needs KEYWARD_TEST_POSTGRES; run: tests/postgres --durable cargo bench");
        }
        Ok(options)
    }

    fn wants(&self, key: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == key)
    }

    fn length(&self, first: bool) -> Length {
        let (warm_up, counted) = match (self.quick, first) {
            (true, _) => (200, 1000),
            (false, true) => (1000, 3000),
            (false, false) => (300, 3000),
        };
        Length { warm_up: Duration::from_millis(warm_up), counted: Duration::from_millis(counted) }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.split_first() {
        Some((command, rest)) if command == bare::COMMAND => bare::main(rest).map(|()| true),
        Some((command, rest)) if command == slow::COMMAND => slow::main(rest).map(|()| true),
        _ => Options::parse(args).and_then(|options| {
            // One thread: the load generator is one client of the machine's cores, not as many as there are.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(benchmark(&options))
        }),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("speed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything that is wanted; whether every floor was reached, or none was asked for.
async fn benchmark(options: &Options) -> anyhow::Result<bool> {
    let mut report = Report::default();
    report.paragraph(&machine()?);
    if cfg!(debug_assertions) {
        report.paragraph("**This is a debug build: its numbers mean nothing.**");
    }
    for (nth, backend) in options.backends.iter().enumerate() {
        measure_backend(options, *backend, nth == 0, &mut report).await?;
    }
    println!("{}", report.text());
    for missed in &report.missed {
        eprintln!("speed: floor missed: {missed}");
    }
    Ok(report.missed.is_empty() || !options.fail || cfg!(debug_assertions))
}

/// Tells the person who waits.
fn progress(text: &str) {
    eprintln!("speed: {text}");
}

async fn measure_backend(options: &Options, backend: Backend, first: bool, report: &mut Report) -> anyhow::Result<()> {
    let name = backend.name();
    report.database_apart = backend == Backend::Postgres;
    progress(&format!("{name}: {SMALL} people and grants"));
    let small = Site::new(backend, &options.server, SMALL, CONNECTIONS).await?;
    let large = if options.large > 0 && ROWS.iter().any(|row| options.wants(row.key)) {
        progress(&format!("{name}: {} people and grants", options.large));
        Some(Site::new(backend, &options.server, options.large, CONNECTIONS).await?)
    } else {
        None
    };
    let mut figures = Vec::new();
    if options.wants("process") {
        figures.extend(starts(options, &small, first).await?);
    }
    if options.wants("import") {
        figures.push(import(options, &small).await?);
    }
    let results = measure_rows(options, backend, &small, large.as_ref(), &mut figures).await?;
    if first && options.wants("slow") {
        figures.push(slow_clients(options, &small).await?);
    }
    if first && options.wants("sign-in") {
        let mut command = small.serve(&options.binary);
        command.args(["--set", sign_in::TRUSTED]);
        let (server, _) = Server::start(command, small.address, &small.path("log"), path::JWKS)?;
        figures.extend(sign_in::figures(&server, &small, options.quick).await?);
        server.terminate()?;
    }
    if !results.is_empty() {
        report.rows(name, &results, (SMALL, options.large));
    }
    if !figures.is_empty() {
        report.figures(&format!("{name}: the process"), &figures);
    }
    small.remove().await?;
    if let Some(large) = large {
        large.remove().await?;
    }
    Ok(())
}

fn serve(options: &Options, site: &Site) -> anyhow::Result<(Server, Duration)> {
    Server::start(site.serve(&options.binary), site.address, &site.path("log"), path::JWKS)
}

/// What the process is before anybody uses it.
async fn starts(options: &Options, site: &Site, first: bool) -> anyhow::Result<Vec<Figure>> {
    progress("starts");
    let mut times = Vec::new();
    for _ in 0..5 {
        let (server, took) = serve(options, site)?;
        times.push(took.as_secs_f64() * 1000.0);
        server.terminate()?;
    }
    let start = median(times, |time| *time).context("a start")?;
    let (server, _) = serve(options, site)?;
    for traffic in [Traffic::Get(path::OPENID_CONFIGURATION), Traffic::Get(path::JWKS)] {
        let mut scripts = rows::scripts(traffic, site).await?;
        scripts.truncate(1);
        let once = Length { warm_up: Duration::ZERO, counted: Duration::from_millis(1) };
        closed_loop(server.address, scripts, once).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let mut figures = vec![
        Figure { name: "start to first answer", value: start, unit: "ms", floor: 150.0, aim: None },
        Figure { name: "resident, idle", value: server.resident()?, unit: "MB", floor: 30.0, aim: Some(20.0) },
    ];
    server.terminate()?;
    if first {
        let size = std::fs::metadata(&options.binary)?.len() as f64 / 1e6;
        figures.push(Figure { name: "the program's file", value: size, unit: "MB", floor: 25.0, aim: None });
    }
    Ok(figures)
}

/// How long an import takes, from its first byte to the last person's row.
async fn import(options: &Options, site: &Site) -> anyhow::Result<Figure> {
    progress("import");
    let (server, _) = serve(options, site)?;
    let token = rows::partner_token(site).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/v1/partner/imports", site.address);
    let lines = if options.quick { 1_000 } else { 10_000 };
    let people = rows::people(lines);
    let started = Instant::now();
    let request = client.post(&url).bearer_auth(&token).header("content-type", "application/x-ndjson");
    let taken: serde_json::Value = request.body(people).send().await?.error_for_status()?.json().await?;
    let url = format!("{url}/{}", taken["id"].as_str().context("an id")?);
    loop {
        sleep(Duration::from_millis(100)).await;
        let state: serde_json::Value = client.get(&url).bearer_auth(&token).send().await?.json().await?;
        match state["state"].as_str() {
            Some("queued" | "running") => {}
            Some("completed") => break,
            _ => bail!("the import came to {state}"),
        }
    }
    let took = started.elapsed().as_secs_f64();
    server.terminate()?;
    Ok(Figure { name: "an import of 10 000 lines", value: took, unit: "s", floor: 60.0, aim: None })
}

async fn measure_rows(
    options: &Options,
    backend: Backend,
    small: &Site,
    large: Option<&Site>,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<Vec<RowResult>> {
    let wanted: Vec<&'static Row> = ROWS.iter().filter(|row| options.wants(row.key)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let round_trips = round_trips(options, backend, small, &wanted).await?;
    let (server, _) = serve(options, small)?;
    let large = match large {
        Some(site) => Some((site, serve(options, site)?.0)),
        None => None,
    };
    let mut observed = Vec::new();
    for row in &wanted {
        observed.push(rows::observed(row, small).await.with_context(|| row.name)?);
    }
    let routes: Vec<bare::Route> =
        wanted.iter().zip(&observed).flat_map(|(row, steps)| rows::bare_routes(row, steps)).collect();
    let bare_dir = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bare = bare::start(bare_dir.path(), &routes)?;

    let mut results = Vec::new();
    for (nth, row) in wanted.iter().copied().enumerate() {
        progress(row.name);
        let mut bare_target = Target::new(&bare, rows::bare_scripts(row, &observed[nth], bare.address)?);
        let mut small_target = Target::new(&server, rows::scripts(row.traffic, small).await?);
        let mut large_target = match &large {
            Some((site, server)) => Some(Target::new(server, rows::scripts(row.traffic, site).await?)),
            None => None,
        };
        let mut against = match row.against {
            Against::ClientCredentials(alg) => {
                let scripts = rows::scripts(Traffic::ClientCredentials(alg), small).await?;
                Some(Target::new(&server, scripts))
            }
            Against::Bare | Against::Rsa => None,
        };
        let mut rsa = Vec::new();
        for round in 0..ROUNDS {
            let length = options.length(round == 0);
            bare_target.run(length).await?;
            if let Some(against) = &mut against {
                against.run(length).await?;
            }
            if row.against == Against::Rsa {
                rsa.push(rsa_signatures(if options.quick { 1 } else { 3 })?);
            }
            small_target.run(length).await.with_context(|| row.name)?;
            if let Some(large) = &mut large_target {
                large.run(length).await.with_context(|| row.name)?;
            }
        }
        let bare = bare_target.median()?;
        let against = match (row.against, against) {
            (Against::Rsa, _) => median(rsa, |rate| *rate).context("a run")?,
            (_, Some(target)) => target.median()?.per_second,
            (_, None) => bare.per_second,
        };
        let large = large_target.map(|target| target.median()).transpose()?;
        let small = small_target.median()?;
        // How many keys there are is what such a row is about.
        let shown = large.filter(|_| row.traffic.is_of_keys()).unwrap_or(small);
        // Of chance over all keys, a small table says nothing: there it is another name for hot.
        let large = large.filter(|_| !row.traffic.is_cold());
        results.push(RowResult { row, round_trips: round_trips[nth], shown, small, large, bare, against });
    }
    if options.wants("process") {
        let peak = server.peak_resident()?;
        figures.push(Figure { name: "resident, at most", value: peak, unit: "MB", floor: 80.0, aim: Some(60.0) });
    }
    server.terminate()?;
    if let Some((_, server)) = large {
        server.terminate()?;
    }
    Ok(results)
}

/// A server under one kind of load.
struct Target<'a> {
    server: &'a Server,
    scripts: Scripts,
    runs: Vec<Measured>,
}

impl<'a> Target<'a> {
    fn new(server: &'a Server, scripts: Scripts) -> Self {
        Self { server, scripts, runs: Vec::new() }
    }

    async fn run(&mut self, length: Length) -> anyhow::Result<()> {
        self.server.empty_log()?;
        let before = Spent::so_far(self.server)?;
        let (scripts, run) = closed_loop(self.server.address, std::mem::take(&mut self.scripts), length).await?;
        ensure!(run.operations > 0, "not one operation was finished; see {}", self.server.log.display());
        self.scripts = scripts;
        self.runs.push(Measured::new(&run, &Spent::so_far(self.server)?.since(&before)));
        Ok(())
    }

    fn median(self) -> anyhow::Result<Measured> {
        median(self.runs, |run| run.per_second).context("a run")
    }
}

impl Spent {
    fn so_far(server: &Server) -> anyhow::Result<Self> {
        let elapsed = STARTED.elapsed();
        Ok(Self {
            server: server.processor_time()?,
            generator: processor_time("self")?,
            machine: machine_time()?,
            elapsed,
        })
    }
}

/// Statements that the database gets for one operation of each row under load, as the driver logs them. What it does
/// not log is PostgreSQL's BEGIN, of which there is one for each COMMIT.
async fn round_trips(
    options: &Options,
    backend: Backend,
    site: &Site,
    wanted: &[&'static Row],
) -> anyhow::Result<Vec<Option<f64>>> {
    progress("statements of each operation");
    let mut command = site.serve(&options.binary);
    command.env("KEYWARD_LOG", "info,sqlx::query=debug");
    let (server, _) = Server::start(command, site.address, &site.path("log"), path::JWKS)?;
    let mut counts = Vec::new();
    for row in wanted {
        let scripts = rows::scripts(row.traffic, site).await.with_context(|| row.name)?;
        let length = Length { warm_up: Duration::ZERO, counted: Duration::from_millis(300) };
        let (scripts, _) = closed_loop(server.address, scripts, length).await.with_context(|| row.name)?;
        sleep(LOG_SETTLES).await;
        server.empty_log()?;
        let (_, run) = closed_loop(server.address, scripts, length).await.with_context(|| row.name)?;
        sleep(LOG_SETTLES).await;
        let log = std::fs::read_to_string(&server.log)?;
        // What no request asked for: the look for changes of other processes, and the removal of expired rows.
        let statements = log.lines().filter(|line| line.contains("sqlx::query"));
        let statements = statements.filter(|line| !line.contains("FROM changes") && !line.contains("DELETE FROM"));
        let count: usize =
            statements.map(|line| if backend == Backend::Postgres && line.contains("COMMIT") { 2 } else { 1 }).sum();
        let writes = matches!(row.traffic, Traffic::Refresh(_) | Traffic::CodeFlow(_) | Traffic::Registration);
        ensure!(!writes || count > 0, "{}: the log shows no statements; see {}", row.name, server.log.display());
        // A log that could not keep up counts nothing.
        let complete = !log.contains("log lines were dropped");
        counts.push(complete.then(|| count as f64 / run.operations_in_all as f64));
    }
    server.terminate()?;
    Ok(counts)
}

/// RSA-2048 signatures a second on all cores, as OpenSSL itself measures them.
fn rsa_signatures(seconds: u32) -> anyhow::Result<f64> {
    let cores = std::thread::available_parallelism()?.to_string();
    let output = Command::new("openssl")
        .args(["speed", "-seconds", &seconds.to_string(), "-multi", &cores, "rsa2048"])
        .output()
        .context("openssl speed (Debian: apt-get install openssl)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("rsa") && line.contains("2048 bits"));
    let (_, numbers) = line.and_then(|line| line.split_once("bits")).with_context(|| text.to_string())?;
    // First the seconds that each operation takes, then how many a second: signatures come first.
    let mut rates = numbers.split_whitespace().filter(|number| !number.ends_with('s'));
    Ok(rates.next().context("a rate")?.parse()?)
}

/// How much longer `/jwks` takes for others while 2 000 connections are held by clients that hardly use them.
async fn slow_clients(options: &Options, site: &Site) -> anyhow::Result<Figure> {
    let (server, _) = serve(options, site)?;
    let length = options.length(true);
    let (mut quiet, mut held) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        progress(&format!("slow clients {} of {ROUNDS}", round + 1));
        quiet.push(jwks_p99(&server, site, length).await?);
        let clients = slow::hold(server.address, site.dir()).await?;
        held.push(jwks_p99(&server, site, length).await?);
        drop(clients);
        while slow::established(server.address.port())? > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    }
    server.terminate()?;
    let quiet = median(quiet, |p99| *p99).context("a run")?;
    let held = median(held, |p99| *p99).context("a run")?;
    progress(&format!("JWKS p99: quiet {quiet:.2} ms, with {} slow connections {held:.2} ms", 2 * slow::EACH));
    let name = "JWKS p99 with 2 000 slow clients, to quiet";
    Ok(Figure { name, value: held / quiet, unit: "×", floor: 5.0, aim: None })
}

async fn jwks_p99(server: &Server, site: &Site, length: Length) -> anyhow::Result<f64> {
    let mut scripts = rows::scripts(Traffic::Get(path::JWKS), site).await?;
    scripts.truncate(QUIET_CONNECTIONS);
    let run = paced(server.address, scripts, QUIET_RATE, length).await?;
    let reached = run.per_second / QUIET_RATE;
    ensure!(reached > 0.9 || cfg!(debug_assertions), "only {reached:.2} of the requests could be sent in time");
    Ok(run.percentile(0.99))
}

fn machine() -> anyhow::Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let openssl = Command::new("openssl").arg("version").output()?;
    let openssl = String::from_utf8_lossy(&openssl.stdout).split('(').next().unwrap_or_default().trim().to_owned();
    Ok(format!(
        "Keyward {}, {} cores of{}, {openssl}; {CONNECTIONS} connections, the median of {ROUNDS} runs.",
        env!("CARGO_PKG_VERSION"),
        std::thread::available_parallelism()?,
        model.trim_start_matches([' ', '\t', ':']).split("  ").next().map(|m| format!(" {m}")).unwrap_or_default(),
    ))
}
