//! Whether this process should be sent requests: its database answers, its tables are there, it has keys to sign
//! with, and it is not about to end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ambient::Stopwatch;
use crate::app::App;
use crate::protocol::client::SigningAlg;

/// How long who asks waits for the database.
const PATIENCE: Duration = Duration::from_secs(2);
/// Whoever asks within this time of another hears the same.
const SHARED_MICROS: u64 = 1_000_000;
/// A probe that hangs for so long is given up for a new one: its connection may be dead and the database not.
const HUNG_MICROS: u64 = 10_000_000;

const OK: &str = "ok";
const UNKNOWN: &str = "unknown";

/// What a probe found. The words are fixed, so that no address and no password of the database is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    database: &'static str,
    migrations: &'static str,
    signing_keys: String,
}

impl Report {
    pub fn is_ready(&self) -> bool {
        self.database == OK && self.migrations == OK && self.signing_keys == OK
    }

    /// Each check by name.
    pub fn checks(&self) -> Value {
        let Self { database, migrations, signing_keys } = self;
        json!({ "database": database, "migrations": migrations, "signing_keys": signing_keys })
    }
}

/// One look; `found` is filled when it ends.
struct Probe {
    begun: Stopwatch,
    found: watch::Receiver<Option<Report>>,
}

pub struct Readiness {
    app: Arc<App>,
    stopping: watch::Receiver<bool>,
    last: Mutex<Option<Probe>>,
    /// What was found before, so that a change is told once.
    told: Mutex<Option<Report>>,
}

impl Readiness {
    pub fn new(app: &Arc<App>, stopping: watch::Receiver<bool>) -> Self {
        Self { app: Arc::clone(app), stopping, last: Mutex::default(), told: Mutex::default() }
    }

    pub async fn report(&self) -> Report {
        let mut probe = self.probe();
        let found = tokio::time::timeout(PATIENCE, probe.wait_for(Option::is_some)).await;
        let found = found.map(|found| found.ok().and_then(|report| report.clone()));
        let unanswered = |database| Report { database, migrations: UNKNOWN, signing_keys: signing_keys(&self.app) };
        let report = match found {
            Ok(Some(report)) => report,
            Ok(None) => unanswered("could not be asked"),
            Err(_) => unanswered("does not answer in time"),
        };
        self.tell(&report);
        report
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// A probe that runs or ended a moment ago, or a new one. It goes on when who asked has gone, so that impatient
    /// callers do not pile up on a database that does not answer.
    fn probe(&self) -> watch::Receiver<Option<Report>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = |probe: &Probe| {
            let longest = if probe.found.borrow().is_some() { SHARED_MICROS } else { HUNG_MICROS };
            probe.begun.elapsed_micros() < longest
        };
        if let Some(probe) = last.as_ref().filter(|probe| usable(probe)) {
            return probe.found.clone();
        }
        let (sender, found) = watch::channel(None);
        let app = Arc::clone(&self.app);
        tokio::spawn(async move { sender.send(Some(check(&app).await)) });
        *last = Some(Probe { begun: Stopwatch::start(), found: found.clone() });
        found
    }

    /// One line when it changes.
    fn tell(&self, report: &Report) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.replace(report.clone());
        if before.as_ref() == Some(report) {
            return;
        }
        let Report { database, migrations, signing_keys } = report;
        if !report.is_ready() {
            tracing::warn!(database, migrations, signing_keys, "not ready");
        } else if before.is_some() {
            tracing::info!("ready again");
        }
    }
}

async fn check(app: &App) -> Report {
    let (database, migrations) = match app.store.is_migrated().await {
        Ok(true) => (OK, OK),
        Ok(false) => (OK, "are missing; run `keyward migrate` of this release"),
        Err(error) => {
            tracing::debug!(%error, "the database could not be read");
            ("cannot be read; the log says why", UNKNOWN)
        }
    };
    Report { database, migrations, signing_keys: signing_keys(app) }
}

fn signing_keys(app: &App) -> String {
    let keys = app.keys.current();
    let active: Vec<_> = keys.signing(app.now()).iter().map(|key| key.alg).collect();
    let missing: Vec<_> = algorithms(app).into_iter().filter(|alg| !active.contains(alg)).collect();
    match missing.as_slice() {
        [] => OK.to_owned(),
        missing => {
            let names: Vec<_> = missing.iter().map(|alg| alg.as_str()).collect();
            format!("none is active for {}", names.join(", "))
        }
    }
}

/// The algorithms that the configuration makes us sign with.
fn algorithms(app: &App) -> BTreeSet<SigningAlg> {
    let resources = app.config.resources.iter().map(|resource| resource.access_token_signing_alg);
    let clients = app.config.clients.iter().map(|client| &client.metadata);
    let clients =
        clients.flat_map(|client| [client.id_token_signed_response_alg, client.access_token_signed_response_alg]);
    resources.chain(clients).flatten().chain([SigningAlg::Rs256]).collect()
}
