//! Signing in with a password: how close it comes to what the hash alone costs, whether a name that exists can be told
//! from one that does not, and what a flood of sign-ins does to everybody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use keyward::crypto::password::{self, Cost};
use keyward::protocol::metadata::path;
use tokio::time::sleep;

use crate::client::{Answer, Connection, Length, Script, Scripts, closed_loop, paced};
use crate::process::Server;
use crate::report::{Figure, median};
use crate::rows::{self, Traffic};
use crate::seed::{Alg, Site};

/// Whoever is behind a proxy that we trust has an address of their own, and so limits of their own.
pub const TRUSTED: &str = r#"proxy.trusted=["127.0.0.0/8"]"#;
const PASSWORD: &str = "correct horse battery staple";
/// What `passwords` has where nobody says otherwise.
const COST: Cost = Cost { memory_kib: 19_456, iterations: 2 };
/// Attempts of each kind whose times are compared.
const ATTEMPTS: usize = 200;
/// Sign-ins that a flood has under way for each hash that may run.
const FLOOD: usize = 8;
const ROUNDS: usize = 3;
/// Requests a second of the others, and their connections.
const JWKS_RATE: f64 = 1_000.0;
const TOKEN_RATE: f64 = 300.0;
const OTHERS: usize = 8;
/// Resident memory that everything but the hashes may take under load, in MB.
const BASE: f64 = 80.0;

/// Hashes that run at once.
fn permits() -> anyhow::Result<usize> {
    Ok(std::thread::available_parallelism()?.get().saturating_sub(1).max(1))
}

pub async fn figures(server: &Server, site: &Site, quick: bool) -> anyhow::Result<Vec<Figure>> {
    let players = register(site, if quick { 8 } else { 64 }).await?;
    let counted = Duration::from_millis(if quick { 1_000 } else { 4_000 });
    let length = Length { warm_up: Duration::from_millis(500), counted };
    let mut figures = vec![rate(site, players, length).await?, told_apart(site, players, quick).await?];
    figures.extend(flood(server, site, players, length).await?);
    Ok(figures)
}

/// Somebody's address; each in a network of their own.
fn network(n: usize) -> String {
    format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)
}

fn post(address: SocketAddr, path: &str, from: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nx-forwarded-for: {from}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn login(address: SocketAddr, from: &str, name: &str, password: &str) -> String {
    post(address, "/auth/login", from, &format!(r#"{{"email":"{name}@example.com","password":"{password}"}}"#))
}

async fn register(site: &Site, players: usize) -> anyhow::Result<usize> {
    let mut connection = Connection::open(site.address).await?;
    for n in 0..players {
        let body = format!(r#"{{"email":"player-{n}@example.com","password":"{PASSWORD}","deviceId":"device-{n}"}}"#);
        connection.out = post(site.address, "/auth/register", &network(n), &body).into_bytes();
        let answer = connection.exchange().await?;
        ensure!(answer.status == 201, "{}: {}", answer.status, answer.body());
    }
    Ok(players)
}

/// The right passwords, one player after the other.
struct SignIns {
    address: SocketAddr,
    players: usize,
    next: usize,
    /// Whether being turned away is an answer.
    flood: bool,
}

impl SignIns {
    fn scripts(site: &Site, players: usize, connections: usize, flood: bool) -> Scripts {
        let script = |next| Box::new(Self { address: site.address, players, next, flood }) as Box<dyn Script>;
        (0..connections).map(|nth| script(nth * 7)).collect()
    }
}

impl Script for SignIns {
    fn request(&mut self, out: &mut Vec<u8>) {
        self.next += 1;
        let player = self.next % self.players;
        let name = format!("player-{player}");
        out.extend_from_slice(login(self.address, &network(player), &name, PASSWORD).as_bytes());
    }

    fn answer(&mut self, answer: &Answer<'_>) -> anyhow::Result<bool> {
        let expected = answer.status == 200 || self.flood && matches!(answer.status, 401 | 429 | 503);
        ensure!(expected, "{}: {}", answer.status, answer.body());
        Ok(true)
    }
}

/// What a second of one core has room for.
async fn hashes_per_second(counted: Duration) -> anyhow::Result<f64> {
    let hash = password::hash(PASSWORD, &[7; 16], COST)?;
    tokio::task::spawn_blocking(move || {
        let (began, mut done) = (Instant::now(), 0_u32);
        while began.elapsed() < counted {
            assert!(password::verify(PASSWORD, &hash), "the password is right");
            done += 1;
        }
        f64::from(done) / began.elapsed().as_secs_f64()
    })
    .await
    .context("a hash")
}

async fn rate(site: &Site, players: usize, length: Length) -> anyhow::Result<Figure> {
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        crate::progress(&format!("sign-ins {} of {ROUNDS}", round + 1));
        let allowed = hashes_per_second(length.counted).await? * permits()? as f64;
        let scripts = SignIns::scripts(site, players, FLOOD * permits()?, false);
        let (_, run) = closed_loop(site.address, scripts, length).await?;
        crate::progress(&format!("{:.1} sign-ins a second, where {allowed:.1} hashes fit", run.per_second));
        ratios.push(allowed / run.per_second);
    }
    let value = median(ratios, |ratio| *ratio).context("a run")?;
    let name = "hashes that fit into the time of 100 sign-ins";
    Ok(Figure { name, value: value * 100.0, unit: "", floor: 100.0 / 0.9, aim: None })
}

/// A wrong password for somebody who exists and for somebody who does not, by turns, each from a network of its own.
async fn told_apart(site: &Site, players: usize, quick: bool) -> anyhow::Result<Figure> {
    let attempts = if quick { ATTEMPTS / 10 } else { ATTEMPTS };
    crate::progress("known and unknown names");
    let mut connection = Connection::open(site.address).await?;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..attempts {
        let mut turn = [(format!("player-{}", n % players), &mut known), (format!("nobody-{n}"), &mut unknown)];
        // Whoever comes second meets what the first has left behind.
        turn.rotate_left(n % 2);
        for (name, times) in turn {
            let from = network(100_000 + 2 * n + times.len() % 2);
            connection.out = login(site.address, &from, &name, "a wrong password").into_bytes();
            let began = Instant::now();
            let answer = connection.exchange().await?;
            ensure!(answer.status == 401, "{}: {}", answer.status, answer.body());
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let known = median(known, |time| *time).context("an attempt")?;
    let unknown = median(unknown, |time| *time).context("an attempt")?;
    crate::progress(&format!("medians: known {known:.2} ms, unknown {unknown:.2} ms"));
    let value = (known - unknown).abs() / unknown * 100.0;
    Ok(Figure { name: "known and unknown names apart", value, unit: "%", floor: 3.0, aim: None })
}

/// What `/jwks` and `/token` take for others while many more sign in at once than there are hashes, for ever.
async fn flood(server: &Server, site: &Site, players: usize, length: Length) -> anyhow::Result<Vec<Figure>> {
    let (mut jwks, mut token) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        crate::progress(&format!("a flood of sign-ins {} of {ROUNDS}", round + 1));
        let quiet = others(site, length).await?;
        let scripts = SignIns::scripts(site, players, FLOOD * permits()?, true);
        let flooded = Length { warm_up: Duration::ZERO, counted: (length.warm_up + length.counted) * 2 };
        let (flood, busy) = tokio::join!(closed_loop(site.address, scripts, flooded), async {
            // Until the queue is full.
            sleep(Duration::from_millis(500)).await;
            others(site, length).await
        });
        let ((_, flood), busy) = (flood?, busy?);
        crate::progress(&format!(
            "p99 quiet: JWKS {:.2} ms, token {:.2} ms; with {:.0} sign-ins a second: {:.2} ms, {:.2} ms",
            quiet.0, quiet.1, flood.per_second, busy.0, busy.1
        ));
        jwks.push(busy.0 / quiet.0);
        token.push(busy.1 / quiet.1);
    }
    let ratio = |name, ratios| {
        let value = median(ratios, |ratio: &f64| *ratio).context("a run")?;
        anyhow::Ok(Figure { name, value, unit: "×", floor: 5.0, aim: None })
    };
    let hashes = permits()? as f64 * f64::from(COST.memory_kib) * 1024.0 / 1e6;
    Ok(vec![
        ratio("JWKS p99 in a flood of sign-ins, to quiet", jwks)?,
        ratio("token ES256 p99 in a flood of sign-ins, to quiet", token)?,
        Figure {
            name: "resident in a flood of sign-ins, at most",
            value: server.peak_resident()?,
            unit: "MB",
            floor: BASE + hashes,
            aim: None,
        },
    ])
}

/// The 99th percentile of `/jwks` and of `/token` with ES256, in milliseconds.
async fn others(site: &Site, length: Length) -> anyhow::Result<(f64, f64)> {
    let mut jwks = rows::scripts(Traffic::Get(path::JWKS), site).await?;
    let mut token = rows::scripts(Traffic::ClientCredentials(Alg::Es256), site).await?;
    jwks.truncate(OTHERS);
    token.truncate(OTHERS);
    let (jwks, token) =
        tokio::join!(paced(site.address, jwks, JWKS_RATE, length), paced(site.address, token, TOKEN_RATE, length));
    let (jwks, token) = (jwks?, token?);
    for (reached, wanted) in [(jwks.per_second, JWKS_RATE), (token.per_second, TOKEN_RATE)] {
        let reached = reached / wanted;
        ensure!(reached > 0.9 || cfg!(debug_assertions), "only {reached:.2} of the requests could be sent in time");
    }
    Ok((jwks.percentile(0.99), token.percentile(0.99)))
}
