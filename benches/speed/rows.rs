//! The rows of the table: what is asked, what it is held against, and what it must reach.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward::protocol::metadata::path;

use crate::bare;
use crate::client::{Answer, Connection, Script, Scripts};
use crate::seed::{Alg, CALLBACK, Chain, Kind, PARTNER, SECRET, Site, api_key};

/// Connections of every run.
pub const CONNECTIONS: usize = 64;
/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// What a row's rate is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The bare handler of the same method.
    Bare,
    /// RSA-2048 signatures of `openssl speed` on all cores.
    Rsa,
    /// Client credentials with the same algorithm, on the same database.
    ClientCredentials(Alg),
}

impl Against {
    pub fn name(self) -> String {
        match self {
            Self::Bare => "bare".to_owned(),
            Self::Rsa => "RSA".to_owned(),
            Self::ClientCredentials(alg) => format!("c. c. {}", alg.name()),
        }
    }
}

#[derive(Clone, Copy)]
pub enum Traffic {
    Get(&'static str),
    ClientCredentials(Alg),
    Introspection(Kind),
    UserInfo(Kind),
    Refresh(Kind),
    CodeFlow(Alg),
    /// `GET /v1/me` with a key.
    KeyMe(Keys),
    KeyIntrospection(Keys),
    /// The custom grant, without a refresh token.
    KeyGrant(Alg),
    /// `GET /forward-auth/required`.
    ForwardAuth(Credential),
    /// `POST /v1/partner/users`, somebody new each time.
    Registration,
}

/// What a gateway is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// As many as [`Keys::Hot`].
    Key,
    Token(Kind),
    /// One for each connection.
    Cookie,
}

/// Which keys of the table are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// So many, again and again.
    Hot,
    /// All, by chance.
    Cold,
}

/// It lets nobody in whom it does not know.
const FORWARD_AUTH: &str = "GET /forward-auth/required";

/// Keys in use at a time.
const HOT_KEYS: i64 = 10_000;

impl Traffic {
    /// Its row stands for the large table, not for the small one.
    pub fn is_of_keys(self) -> bool {
        matches!(
            self,
            Self::KeyMe(_) | Self::KeyIntrospection(_) | Self::KeyGrant(_) | Self::ForwardAuth(Credential::Key)
        )
    }

    pub fn is_cold(self) -> bool {
        matches!(self, Self::KeyMe(Keys::Cold) | Self::KeyIntrospection(Keys::Cold))
    }
}

pub struct Row {
    /// For `--only`, and in paths.
    pub key: &'static str,
    pub name: &'static str,
    pub traffic: Traffic,
    pub against: Against,
    pub floor: f64,
    pub aim: Option<f64>,
}

const fn row(key: &'static str, name: &'static str, traffic: Traffic, against: Against, floor: f64) -> Row {
    Row { key, name, traffic, against, floor, aim: None }
}

impl Row {
    const fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }
}

const fn kind(alg: Alg, id_token: bool) -> Kind {
    Kind { alg, id_token }
}

use Against::{Bare, ClientCredentials as Ratio, Rsa};
use Alg::{Es256, Rs256};

/// The last two add rows.
pub const ROWS: [Row; 21] = [
    row("discovery", "discovery", Traffic::Get(path::OPENID_CONFIGURATION), Bare, 0.8).aim(0.95),
    row("jwks", "JWKS", Traffic::Get(path::JWKS), Bare, 0.8).aim(0.95),
    row("cc-rs256", "client credentials RS256", Traffic::ClientCredentials(Rs256), Rsa, 0.70).aim(0.85),
    row("cc-es256", "client credentials ES256", Traffic::ClientCredentials(Es256), Bare, 0.25).aim(0.40),
    row("introspection", "introspection, live token", Traffic::Introspection(kind(Rs256, true)), Bare, 0.2).aim(0.5),
    row("userinfo", "userinfo, live token", Traffic::UserInfo(kind(Rs256, true)), Bare, 0.2).aim(0.5),
    row("key-me-hot", "API key at /v1/me, hot", Traffic::KeyMe(Keys::Hot), Bare, 0.5),
    row("key-me-cold", "API key at /v1/me, cold", Traffic::KeyMe(Keys::Cold), Bare, 0.2),
    row("key-introspection-hot", "API key, introspection, hot", Traffic::KeyIntrospection(Keys::Hot), Bare, 0.5),
    row("key-introspection-cold", "API key, introspection, cold", Traffic::KeyIntrospection(Keys::Cold), Bare, 0.2),
    row("key-grant-rs256", "API-key grant RS256", Traffic::KeyGrant(Rs256), Ratio(Rs256), 0.0),
    row("key-grant-es256", "API-key grant ES256", Traffic::KeyGrant(Es256), Ratio(Es256), 0.0),
    row("forward-auth-key", "gateway, API key, hot", Traffic::ForwardAuth(Credential::Key), Bare, 0.5),
    row(
        "forward-auth-token",
        "gateway, live token",
        Traffic::ForwardAuth(Credential::Token(kind(Rs256, true))),
        Bare,
        0.5,
    ),
    row("forward-auth-cookie", "gateway, live session", Traffic::ForwardAuth(Credential::Cookie), Bare, 0.5),
    row("refresh-rs256", "rotating refresh RS256", Traffic::Refresh(kind(Rs256, false)), Ratio(Rs256), 0.7),
    row("refresh-es256", "rotating refresh ES256", Traffic::Refresh(kind(Es256, false)), Ratio(Es256), 0.35),
    row("refresh-id-rs256", "… with an ID token RS256", Traffic::Refresh(kind(Rs256, true)), Ratio(Rs256), 0.4),
    row("refresh-id-es256", "… with an ID token ES256", Traffic::Refresh(kind(Es256, true)), Ratio(Es256), 0.3),
    row("code-rs256", "code flow, live session RS256", Traffic::CodeFlow(Rs256), Ratio(Rs256), 0.35),
    row("registration", "registration by a partner", Traffic::Registration, Bare, 0.0),
];

/// A request with its length, where it has a body.
fn request(site: &Site, line: &str, headers: &[(&str, &str)], form: Option<&str>) -> Vec<u8> {
    let mut text = String::new();
    write_request(&mut text, site.address, line, headers, form);
    text.into_bytes()
}

fn write_request(text: &mut String, address: SocketAddr, line: &str, headers: &[(&str, &str)], form: Option<&str>) {
    let _ = write!(text, "{line} HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if let Some(form) = form {
        let _ = write!(text, "content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n", form.len());
    }
    let _ = write!(text, "\r\n{}", form.unwrap_or_default());
}

fn basic(alg: Alg) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{SECRET}", alg.client_id())))
}

/// The same requests again and again.
struct Repeat {
    requests: Vec<Vec<u8>>,
    next: usize,
    /// Requests of one operation.
    steps: usize,
    /// Of an answer that says yes: an answer that says no is as quick, and much shorter.
    at_least: usize,
}

impl Script for Repeat {
    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.requests[self.next % self.requests.len()]);
        self.next += 1;
    }

    fn answer(&mut self, answer: &Answer<'_>) -> anyhow::Result<bool> {
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body());
        ensure!(answer.body.len() >= self.at_least, "an answer is too short: {}", answer.body());
        Ok(self.next.is_multiple_of(self.steps))
    }
}

/// Requests with API keys, one key after the other.
struct WithKeys {
    address: SocketAddr,
    traffic: Traffic,
    authorization: String,
    /// Keys in the table.
    keys: i64,
    turn: i64,
    text: String,
}

impl WithKeys {
    fn new(traffic: Traffic, site: &Site, nth: usize) -> Self {
        let alg = if let Traffic::KeyGrant(alg) = traffic { alg } else { Rs256 };
        let turn = i64::try_from(nth).unwrap_or_default();
        Self { address: site.address, traffic, authorization: basic(alg), keys: site.keys, turn, text: String::new() }
    }

    fn number(&self) -> i64 {
        match self.traffic {
            Traffic::KeyMe(Keys::Cold) | Traffic::KeyIntrospection(Keys::Cold) => {
                // The finaliser of splitmix64: as good as chance.
                let mut x = self.turn.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
                x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                i64::try_from((x ^ (x >> 31)) % self.keys.cast_unsigned()).unwrap_or_default()
            }
            _ => {
                // Spread over the table.
                let used = self.keys.min(HOT_KEYS);
                (self.turn % used) * (self.keys / used)
            }
        }
    }
}

impl Script for WithKeys {
    fn request(&mut self, out: &mut Vec<u8>) {
        self.turn += CONNECTIONS as i64;
        let key = api_key(self.number());
        let (address, text) = (self.address, &mut self.text);
        text.clear();
        match self.traffic {
            Traffic::KeyMe(_) => {
                let bearer = format!("Bearer {}", key.expose());
                write_request(text, address, "GET /v1/me", &[("authorization", &bearer)], None);
            }
            Traffic::ForwardAuth(_) => {
                let bearer = format!("Bearer {}", key.expose());
                write_request(text, address, FORWARD_AUTH, &[("authorization", &bearer)], None);
            }
            Traffic::KeyIntrospection(_) => {
                let form = format!("token={}", key.expose());
                let headers = [("authorization", self.authorization.as_str())];
                write_request(text, address, "POST /introspect", &headers, Some(&form));
            }
            _ => {
                let grant = keyward::protocol::client::GrantType::ApiKey;
                let form = format!("grant_type={grant}&scope=profile&api_key={}", key.expose());
                let headers = [("authorization", self.authorization.as_str())];
                write_request(text, address, "POST /token", &headers, Some(&form));
            }
        }
        out.extend_from_slice(text.as_bytes());
    }

    fn answer(&mut self, answer: &Answer<'_>) -> anyhow::Result<bool> {
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body());
        let says_yes = match self.traffic {
            Traffic::ForwardAuth(_) => answer.header("x-auth-status") == Some("user"),
            _ => answer.body.len() >= 100,
        };
        ensure!(says_yes, "an answer is too short: {}", answer.body());
        Ok(true)
    }
}

/// Numbers of people, each given once in all runs.
static NEXT_PERSON: AtomicU64 = AtomicU64::new(0);

/// Somebody new each time, with a key.
struct Register {
    address: SocketAddr,
    authorization: String,
}

impl Script for Register {
    fn request(&mut self, out: &mut Vec<u8>) {
        let n = NEXT_PERSON.fetch_add(1, Ordering::Relaxed);
        let body = person(n);
        let (address, authorization) = (self.address, &self.authorization);
        let head = format!(
            "POST /v1/partner/users HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n\
             authorization: {authorization}\r\nidempotency-key: bench-{n}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    }

    fn answer(&mut self, answer: &Answer<'_>) -> anyhow::Result<bool> {
        ensure!(answer.status == 201, "{}: {}", answer.status, answer.body());
        Ok(true)
    }
}

/// The `n`-th person to register, who gets no mail.
fn person(n: u64) -> String {
    format!(
        r#"{{"external_id":"bench-{n}","email":"bench-{n}@example.com","name":"Ada Lovelace","welcome_email":"suppress"}}"#
    )
}

/// So many people to import, one a line.
pub fn people(count: u64) -> String {
    let first = NEXT_PERSON.fetch_add(count, Ordering::Relaxed);
    (first..first + count).map(|n| person(n) + "\n").collect()
}

/// A token for the partner's administration.
pub async fn partner_token(site: &Site) -> anyhow::Result<String> {
    let mut connection = Connection::open(site.address).await?;
    let authorization = format!("Basic {}", STANDARD.encode(format!("{PARTNER}:{SECRET}")));
    let headers = [("authorization", authorization.as_str())];
    connection.out = request(site, "POST /token", &headers, Some("grant_type=client_credentials"));
    let answer = connection.exchange().await?;
    Ok(member(&answer, "access_token")?.to_owned())
}

/// Chains of refresh tokens, one link at a time.
struct Refresh {
    address: SocketAddr,
    authorization: String,
    chains: Vec<Chain>,
    next: usize,
    form: String,
    text: String,
}

impl Script for Refresh {
    fn request(&mut self, out: &mut Vec<u8>) {
        self.next = (self.next + 1) % self.chains.len();
        self.form.clear();
        self.form.push_str("grant_type=refresh_token&refresh_token=");
        self.form.push_str(&lock(&self.chains[self.next]));
        self.text.clear();
        let headers = [("authorization", self.authorization.as_str())];
        write_request(&mut self.text, self.address, "POST /token", &headers, Some(&self.form));
        out.extend_from_slice(self.text.as_bytes());
    }

    fn answer(&mut self, answer: &Answer<'_>) -> anyhow::Result<bool> {
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body());
        let token = member(answer, "refresh_token")?;
        let mut current = lock(&self.chains[self.next]);
        ensure!(*current != token, "a refresh token was not rotated");
        current.clear();
        current.push_str(token);
        Ok(true)
    }
}

fn lock(chain: &Chain) -> std::sync::MutexGuard<'_, String> {
    chain.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A text member of a JSON object, where the text has no escapes: tokens never do.
fn member<'a>(answer: &'a Answer<'_>, name: &str) -> anyhow::Result<&'a str> {
    let body = std::str::from_utf8(answer.body)?;
    let (_, rest) = body.split_once(&format!("\"{name}\":\"")).with_context(|| format!("no {name} in {body}"))?;
    Ok(rest.split('"').next().unwrap_or_default())
}

/// A code for a browser that is signed in, and its tokens: two requests.
struct CodeFlow {
    address: SocketAddr,
    authorize: Vec<u8>,
    authorization: String,
    code: Option<String>,
}

impl Script for CodeFlow {
    fn request(&mut self, out: &mut Vec<u8>) {
        match &self.code {
            None => out.extend_from_slice(&self.authorize),
            Some(code) => {
                let form = format!(
                    "grant_type=authorization_code&code={code}&code_verifier={VERIFIER}&redirect_uri={}",
                    encoded(CALLBACK)
                );
                let mut text = String::new();
                let headers = [("authorization", self.authorization.as_str())];
                write_request(&mut text, self.address, "POST /token", &headers, Some(&form));
                out.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn answer(&mut self, answer: &Answer<'_>) -> anyhow::Result<bool> {
        if self.code.take().is_none() {
            let location = answer.header("location").unwrap_or_default();
            let code = location.split_once("code=").and_then(|(_, rest)| rest.split('&').next());
            self.code = Some(code.with_context(|| format!("{}: {location}", answer.status))?.to_owned());
            return Ok(false);
        }
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body());
        member(answer, "id_token")?;
        Ok(true)
    }
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Scripts for all connections. `site` must be served: tokens are fetched where they are needed.
pub async fn scripts(traffic: Traffic, site: &Site) -> anyhow::Result<Scripts> {
    let tokens = match traffic {
        Traffic::Introspection(kind) | Traffic::UserInfo(kind) | Traffic::ForwardAuth(Credential::Token(kind)) => {
            access_tokens(site, kind).await?
        }
        Traffic::Registration => vec![partner_token(site).await?],
        _ => Vec::new(),
    };
    Ok((0..CONNECTIONS).map(|nth| script(traffic, site, nth, &tokens)).collect())
}

/// The script of the `nth` connection.
fn script(traffic: Traffic, site: &Site, nth: usize, tokens: &[String]) -> Box<dyn Script> {
    let own = tokens.iter().skip(nth).step_by(CONNECTIONS);
    let repeat = |requests: Vec<Vec<u8>>, at_least: usize| Repeat { requests, next: 0, steps: 1, at_least };
    match traffic {
        Traffic::Get(path) => Box::new(repeat(vec![request(site, &format!("GET {path}"), &[], None)], 200)),
        Traffic::ClientCredentials(alg) => {
            let headers = [("authorization", basic(alg))];
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            Box::new(repeat(vec![request(site, "POST /token", &headers, Some("grant_type=client_credentials"))], 200))
        }
        Traffic::Introspection(kind) => {
            let authorization = basic(kind.alg);
            let requests = own.map(|token| {
                let headers = [("authorization", authorization.as_str())];
                request(site, "POST /introspect", &headers, Some(&format!("token={token}")))
            });
            Box::new(repeat(requests.collect(), 200))
        }
        Traffic::UserInfo(_) => {
            let requests =
                own.map(|token| request(site, "GET /userinfo", &[("authorization", &format!("Bearer {token}"))], None));
            Box::new(repeat(requests.collect(), 100))
        }
        Traffic::ForwardAuth(Credential::Token(_)) => {
            let bearers = own.map(|token| format!("Bearer {token}"));
            let requests = bearers.map(|bearer| request(site, FORWARD_AUTH, &[("authorization", &bearer)], None));
            Box::new(repeat(requests.collect(), 0))
        }
        Traffic::ForwardAuth(Credential::Cookie) => {
            let cookie = format!("keyward_session={}", site.cookies[nth]);
            Box::new(repeat(vec![request(site, FORWARD_AUTH, &[("cookie", &cookie)], None)], 0))
        }
        Traffic::Registration => {
            let token = tokens.first().cloned().unwrap_or_default();
            Box::new(Register { address: site.address, authorization: format!("Bearer {token}") })
        }
        Traffic::Refresh(kind) => Box::new(Refresh {
            address: site.address,
            authorization: basic(kind.alg),
            chains: site.chains(kind).iter().skip(nth).step_by(CONNECTIONS).cloned().collect(),
            next: 0,
            form: String::new(),
            text: String::new(),
        }),
        Traffic::KeyMe(_)
        | Traffic::KeyIntrospection(_)
        | Traffic::KeyGrant(_)
        | Traffic::ForwardAuth(Credential::Key) => Box::new(WithKeys::new(traffic, site, nth)),
        Traffic::CodeFlow(alg) => {
            let line = format!(
                "GET /authorize?client_id={}&response_type=code&redirect_uri={}&scope=openid+profile&state=a-state\
                 &nonce=a-nonce&code_challenge={CHALLENGE}&code_challenge_method=S256",
                alg.client_id(),
                encoded(CALLBACK)
            );
            let cookie = format!("keyward_session={}", site.cookies[nth]);
            Box::new(CodeFlow {
                address: site.address,
                authorize: request(site, &line, &[("cookie", &cookie)], None),
                authorization: basic(alg),
                code: None,
            })
        }
    }
}

/// An access token of each grant of a kind, by a refresh.
async fn access_tokens(site: &Site, kind: Kind) -> anyhow::Result<Vec<String>> {
    let mut connection = Connection::open(site.address).await?;
    let mut tokens = Vec::new();
    for chain in site.chains(kind) {
        let mut refresh = Refresh {
            address: site.address,
            authorization: basic(kind.alg),
            chains: vec![chain.clone()],
            next: 0,
            form: String::new(),
            text: String::new(),
        };
        connection.out.clear();
        refresh.request(&mut connection.out);
        let answer = connection.exchange().await?;
        refresh.answer(&answer)?;
        tokens.push(member(&answer, "access_token")?.to_owned());
    }
    Ok(tokens)
}

/// One operation of a row as it went over the wire: the request and the bytes of the answer, step by step.
pub async fn observed(row: &Row, site: &Site) -> anyhow::Result<Vec<(Vec<u8>, usize)>> {
    let mut scripts = scripts(row.traffic, site).await?;
    let mut connection = Connection::open(site.address).await?;
    let script = scripts.first_mut().context("a script")?;
    let mut steps = Vec::new();
    loop {
        connection.out.clear();
        script.request(&mut connection.out);
        let sent = connection.out.clone();
        let answer = connection.exchange().await?;
        steps.push((sent, answer.body.len()));
        if script.answer(&answer)? {
            return Ok(steps);
        }
    }
}

/// The routes of the bare server that stand beside a row.
pub fn bare_routes(row: &Row, steps: &[(Vec<u8>, usize)]) -> Vec<bare::Route> {
    let route = |(nth, (sent, size)): (usize, &(Vec<u8>, usize))| bare::Route {
        is_post: sent.starts_with(b"POST"),
        path: bare::path(row.key, nth),
        size: (*size).max(2),
    };
    steps.iter().enumerate().map(route).collect()
}

/// Scripts that send what `steps` sent to the bare server.
pub fn bare_scripts(row: &Row, steps: &[(Vec<u8>, usize)], address: SocketAddr) -> anyhow::Result<Scripts> {
    let redirected =
        |(nth, (sent, _)): (usize, &(Vec<u8>, usize))| bare::redirected(sent, &bare::path(row.key, nth), address);
    let requests: Vec<Vec<u8>> = steps.iter().enumerate().map(redirected).collect::<anyhow::Result<_>>()?;
    let script = |_| -> Box<dyn Script> {
        Box::new(Repeat { requests: requests.clone(), next: 0, steps: requests.len(), at_least: 2 })
    };
    Ok((0..CONNECTIONS).map(script).collect())
}
