//! Every metric by name, and a function for each thing that happens. They do nothing until [`install`]. A label
//! never takes a value from outside: whoever sends us random paths or methods makes no new series.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use ::metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::process;
use crate::ambient::Stopwatch;

const HTTP_REQUESTS: &str = "http_server_request_duration_seconds";
const TOKEN_REQUESTS: &str = "keyward_token_requests_total";
const SIGN_INS: &str = "keyward_sign_ins_total";
const ONBOARDING: &str = "keyward_onboarding_total";
const MAILS: &str = "keyward_mails_total";
const OUTBOX_PENDING: &str = "keyward_outbox_pending";
const OUTBOX_OLDEST: &str = "keyward_outbox_oldest_seconds";
const OUTBOX_DEAD: &str = "keyward_outbox_dead";
const AUDIT_EVENTS: &str = "keyward_audit_events_total";
const RATE_LIMITED: &str = "keyward_rate_limited_total";
const PASSWORD_HASH: &str = "keyward_password_hash_seconds";
const PASSWORD_HASHES: &str = "keyward_password_hashes";
const DB_READ: &str = "keyward_db_read_seconds";
const DB_WRITE: &str = "keyward_db_write_seconds";
const DB_BATCH: &str = "keyward_db_commit_batch_size";
const DB_POOL: &str = "keyward_db_pool_connections";
const DB_POOL_MAX: &str = "keyward_db_pool_max_connections";
const KEY_AGE: &str = "keyward_signing_key_age_seconds";
const LOG_DROPPED: &str = "keyward_log_lines_dropped_total";
const BUILD: &str = "keyward_build_info";
const START_TIME: &str = "process_start_time_seconds";
const MEMORY: &str = "process_resident_memory_bytes";
const OPEN_FILES: &str = "process_open_fds";

const HTTP_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const HASH_BUCKETS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0];
const DB_BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];
const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// `grant_type` of a token request that names no grant of ours.
pub const UNSUPPORTED: &str = "unsupported";
pub const SUCCESS: &str = "success";

/// What is known at start.
pub struct About<'a> {
    pub version: &'static str,
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Every `grant_type` and every rate-limited action: their series begin at 0, so that the first one is an increase
    /// as well.
    pub grant_types: &'a [&'static str],
    pub actions: &'a [&'static str],
    /// Every kind of event.
    pub events: &'a [&'static str],
}

/// The series that have no labels.
struct Installed {
    prometheus: PrometheusHandle,
    db_read: Histogram,
    db_write: Histogram,
    db_batch: Histogram,
    password_hash: Histogram,
    log_dropped: Counter,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Starts to count.
pub fn install(about: &About<'_>) -> anyhow::Result<()> {
    let exact = |name: &str| Matcher::Full(name.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(exact(HTTP_REQUESTS), &HTTP_BUCKETS)?
        .set_buckets_for_metric(exact(PASSWORD_HASH), &HASH_BUCKETS)?
        .set_buckets_for_metric(exact(DB_READ), &DB_BUCKETS)?
        .set_buckets_for_metric(exact(DB_WRITE), &DB_BUCKETS)?
        .set_buckets_for_metric(exact(DB_BATCH), &BATCH_BUCKETS)?
        .build_recorder();
    let prometheus = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|_| anyhow::anyhow!("metrics are installed already"))?;
    describe();
    let installed = Installed {
        prometheus,
        db_read: histogram!(DB_READ),
        db_write: histogram!(DB_WRITE),
        db_batch: histogram!(DB_BATCH),
        password_hash: histogram!(PASSWORD_HASH),
        log_dropped: counter!(LOG_DROPPED),
    };
    installed.log_dropped.absolute(0);
    INSTALLED.set(installed).map_err(|_| anyhow::anyhow!("metrics are installed already"))?;
    gauge!(BUILD, "version" => about.version, "database" => about.database).set(1.0);
    #[allow(clippy::cast_precision_loss)] // Exact until the year 287396.
    gauge!(START_TIME).set(about.started_at as f64 / 1000.0);
    for grant_type in about.grant_types {
        add(TOKEN_REQUESTS, [("grant_type", grant_type), ("result", SUCCESS)], 0);
    }
    for method in [PASSWORD, API_KEY, HANDOFF] {
        for result in SignIn::ALL {
            add(SIGN_INS, [("method", method), ("result", result.as_str())], 0);
        }
    }
    for outcome in MailOutcome::ALL {
        counter!(MAILS, "outcome" => outcome.as_str()).absolute(0);
    }
    for event in about.events {
        counter!(AUDIT_EVENTS, "event" => *event).absolute(0);
    }
    for action in about.actions {
        counter!(RATE_LIMITED, "action" => *action).absolute(0);
    }
    Ok(())
}

pub fn is_installed() -> bool {
    INSTALLED.get().is_some()
}

fn describe() {
    describe_histogram!(HTTP_REQUESTS, "Time from a request's head to its answer's head.");
    describe_counter!(TOKEN_REQUESTS, "Requests to the token endpoint by grant_type and by error code, or success.");
    describe_counter!(SIGN_INS, "Sign-in attempts by method and result.");
    describe_counter!(ONBOARDING, "Steps of partners' people on their way in, by partner and outcome.");
    describe_counter!(MAILS, "Tries to send a mail by what they came to.");
    describe_gauge!(OUTBOX_PENDING, "Mails that wait to be sent.");
    describe_gauge!(OUTBOX_OLDEST, "How long the oldest of them has waited.");
    describe_gauge!(OUTBOX_DEAD, "Mails that are never sent, until they are forgotten or tried again.");
    describe_counter!(AUDIT_EVENTS, "Events that were written to the audit trail, by kind.");
    describe_counter!(RATE_LIMITED, "What was refused because a rate limit was used up.");
    describe_histogram!(PASSWORD_HASH, "Time of one Argon2id computation, without the wait for its turn.");
    describe_gauge!(PASSWORD_HASHES, "Password hashes that run and that wait for their turn.");
    describe_histogram!(DB_READ, "Time of a read, with the wait for a connection.");
    describe_histogram!(DB_WRITE, "Time of a write, from the request for it to its commit.");
    describe_histogram!(DB_BATCH, "Writes that one commit of SQLite carried.");
    describe_gauge!(DB_POOL, "Connections of the pool.");
    describe_gauge!(DB_POOL_MAX, "Connections that the pool may have.");
    describe_gauge!(KEY_AGE, "Time since the signing key of an algorithm began to sign.");
    describe_counter!(LOG_DROPPED, "Log lines that nobody took off our hands in time.");
    describe_gauge!(BUILD, "Always 1; the labels say what runs.");
    describe_gauge!(START_TIME, "When the process started, in seconds since 1970.");
    describe_gauge!(MEMORY, "Memory that the process occupies.");
    describe_gauge!(OPEN_FILES, "Files and sockets that the process has open.");
}

/// What is only measured when somebody asks.
pub struct Levels {
    pub hashes_running: usize,
    pub hashes_waiting: usize,
    pub pool_in_use: usize,
    pub pool_idle: usize,
    pub pool_max: usize,
    /// Algorithm and age in milliseconds.
    pub signing_keys: Vec<(&'static str, i64)>,
}

/// Everything in the text format of Prometheus; `None` before [`install`].
#[allow(clippy::cast_precision_loss)] // Counts of things in this process.
pub fn render(levels: &Levels) -> Option<String> {
    let installed = INSTALLED.get()?;
    gauge!(PASSWORD_HASHES, "state" => "running").set(levels.hashes_running as f64);
    gauge!(PASSWORD_HASHES, "state" => "waiting").set(levels.hashes_waiting as f64);
    gauge!(DB_POOL, "state" => "in_use").set(levels.pool_in_use as f64);
    gauge!(DB_POOL, "state" => "idle").set(levels.pool_idle as f64);
    gauge!(DB_POOL_MAX).set(levels.pool_max as f64);
    for (alg, age) in &levels.signing_keys {
        gauge!(KEY_AGE, "alg" => *alg).set(*age as f64 / 1000.0);
    }
    if let Some(bytes) = process::resident_bytes() {
        gauge!(MEMORY).set(bytes as f64);
    }
    if let Some(files) = process::open_files() {
        gauge!(OPEN_FILES).set(files as f64);
    }
    Some(installed.prometheus.render())
}

/// Sums up what was recorded since the last time; without it, histograms grow. Called every second.
pub fn upkeep() {
    if let Some(installed) = INSTALLED.get() {
        installed.prometheus.run_upkeep();
    }
}

/// A request that was answered. `route` is the template that matched, if any did.
pub fn http_request(method: &'static str, route: Option<&str>, status: u16, micros: u64) {
    /// By route, then by method and status: found without an allocation.
    type Series = HashMap<String, Vec<((&'static str, u16), Histogram)>>;
    thread_local!(static KNOWN: RefCell<Series> = RefCell::default());
    if !is_installed() {
        return;
    }
    let route = route.unwrap_or("unmatched");
    KNOWN.with_borrow_mut(|known| {
        if !known.contains_key(route) {
            known.insert(route.to_owned(), Vec::new());
        }
        let Some(series) = known.get_mut(route) else { return };
        let at = series.iter().position(|(key, _)| *key == (method, status)).unwrap_or_else(|| {
            let labels = [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
            series.push(((method, status), histogram!(HTTP_REQUESTS, &labels)));
            series.len() - 1
        });
        series[at].1.record(seconds(micros));
    });
}

/// The methods that have a name in metrics and traces; all others are `_OTHER`.
pub fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

/// `result` is [`SUCCESS`] or the error code.
pub fn token_request(grant_type: &'static str, result: &'static str) {
    count(TOKEN_REQUESTS, [("grant_type", grant_type), ("result", result)]);
}

/// The ways to sign in.
pub const PASSWORD: &str = "password";
pub const API_KEY: &str = "api_key";
/// A partner hands a browser over.
pub const HANDOFF: &str = "handoff";

/// What an attempt to sign in came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignIn {
    Success,
    Refused,
    Throttled,
    Overloaded,
}

impl SignIn {
    const ALL: [Self; 4] = [Self::Success, Self::Refused, Self::Throttled, Self::Overloaded];

    pub const fn of(succeeded: bool) -> Self {
        if succeeded { Self::Success } else { Self::Refused }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => SUCCESS,
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
        }
    }
}

pub fn sign_in(method: &'static str, result: SignIn) {
    count(SIGN_INS, [("method", method), ("result", result.as_str())]);
}

/// What a step of an onboarding came to. The partner is one that an operator has registered.
pub fn onboarding(partner: &str, outcome: &'static str) {
    if is_installed() {
        counter!(ONBOARDING, "partner" => partner.to_owned(), "outcome" => outcome).increment(1);
    }
}

/// What a try to send a mail came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailOutcome {
    Sent,
    /// Tried again later.
    Deferred,
    /// Beyond a partner's cap; counted once for all that were moved.
    PutOff,
    Rejected,
    Undeliverable,
    Capped,
}

impl MailOutcome {
    const ALL: [Self; 6] =
        [Self::Sent, Self::Deferred, Self::PutOff, Self::Rejected, Self::Undeliverable, Self::Capped];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Deferred => "deferred",
            Self::PutOff => "put_off",
            Self::Rejected => "rejected",
            Self::Undeliverable => "undeliverable",
            Self::Capped => "capped",
        }
    }
}

pub fn mail(outcome: MailOutcome) {
    if is_installed() {
        counter!(MAILS, "outcome" => outcome.as_str()).increment(1);
    }
}

/// What waits in the outbox and what is dead there; the age of the oldest in milliseconds.
#[allow(clippy::cast_precision_loss)] // Counts of rows, and exact for 285 years.
pub fn outbox(pending: i64, oldest: i64, dead: i64) {
    if is_installed() {
        gauge!(OUTBOX_PENDING).set(pending as f64);
        gauge!(OUTBOX_OLDEST).set(oldest as f64 / 1000.0);
        gauge!(OUTBOX_DEAD).set(dead as f64);
    }
}

/// An event of the audit trail that is committed.
pub fn audit_event(event: &'static str) {
    if is_installed() {
        counter!(AUDIT_EVENTS, "event" => event).increment(1);
    }
}

pub fn rate_limited(action: &'static str) {
    if is_installed() {
        counter!(RATE_LIMITED, "action" => action).increment(1);
    }
}

pub fn password_hash(watch: &Stopwatch) {
    if let Some(installed) = INSTALLED.get() {
        installed.password_hash.record(seconds(watch.elapsed_micros()));
    }
}

pub fn commit_batch(writes: usize) {
    if let Some(installed) = INSTALLED.get() {
        installed.db_batch.record(u32::try_from(writes).unwrap_or(u32::MAX));
    }
}

pub fn log_lines_dropped(lines: u64) {
    if let Some(installed) = INSTALLED.get() {
        installed.log_dropped.increment(lines);
    }
}

/// Measures from its making to its end, also where a request is abandoned in between.
pub struct Timer(Option<(Stopwatch, &'static Histogram)>);

impl Timer {
    pub fn db_read() -> Self {
        Self::start(|installed| &installed.db_read)
    }

    pub fn db_write() -> Self {
        Self::start(|installed| &installed.db_write)
    }

    fn start(series: fn(&'static Installed) -> &'static Histogram) -> Self {
        Self(INSTALLED.get().map(|installed| (Stopwatch::start(), series(installed))))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((watch, series)) = &self.0 {
            series.record(seconds(watch.elapsed_micros()));
        }
    }
}

fn count(name: &'static str, labels: [(&'static str, &'static str); 2]) {
    if is_installed() {
        add(name, labels, 1);
    }
}

fn add(name: &'static str, labels: [(&'static str, &'static str); 2], by: u64) {
    thread_local!(static KNOWN: RefCell<HashMap<[&'static str; 3], Counter>> = RefCell::default());
    KNOWN.with_borrow_mut(|known| {
        let series = known.entry([name, labels[0].1, labels[1].1]).or_insert_with(|| counter!(name, &labels));
        series.increment(by);
    });
}

#[allow(clippy::cast_precision_loss)] // Exact for 285 years.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
