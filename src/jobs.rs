//! Work that no request waits for. Every process does it; what changes the store is conditional there, so that it is
//! done once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::account::partner::imports;
use crate::account::signing_keys;
use crate::app::App;
use crate::telemetry::metrics;

/// How often other processes' changes are looked for: a cached answer is never older than twice this.
const POLL: Duration = Duration::from_millis(500);
const PURGE: Duration = Duration::from_secs(30);
/// How often imports are looked for that another process left behind.
const IMPORTS: Duration = Duration::from_secs(2);
const USES: Duration = Duration::from_secs(2);
const KEYS: Duration = Duration::from_secs(60);
/// Bounds what histograms hold between two scrapes.
const UPKEEP: Duration = Duration::from_secs(1);
/// Whoever scrapes must not wait for the database, least of all when it is away.
const OUTBOX: Duration = Duration::from_secs(5);

/// Starts all periodic work, and the sending of mail; it ends when `stop` turns true. What is returned ends once mail
/// that was on its way has arrived.
pub fn start(app: &Arc<App>, stop: &watch::Receiver<bool>) -> JoinHandle<()> {
    let poll = Arc::clone(app);
    tokio::spawn(every(POLL, stop.clone(), Changes::default(), async move |changes| changes.poll(&poll).await));
    let purge = Arc::clone(app);
    tokio::spawn(every(PURGE, stop.clone(), (), async move |()| remove_expired(&purge).await));
    let uses = Arc::clone(app);
    tokio::spawn(note_key_uses(uses, stop.clone()));
    let imports = Arc::clone(app);
    tokio::spawn(work_at_imports(imports, stop.clone()));
    let keys = Arc::clone(app);
    tokio::spawn(every(KEYS, stop.clone(), (), async move |()| maintain_keys(&keys).await));
    tokio::spawn(Arc::clone(&app.mail).run(stop.clone()))
}

async fn remove_expired(app: &App) {
    match app.store.purge_expired(app.config.events.retention, app.now()).await {
        Ok(0) => {}
        Ok(removed) => tracing::debug!(removed, "expired rows removed"),
        Err(error) => tracing::warn!(%error, "expired rows could not be removed; trying again later"),
    }
}

/// Other processes' changes, as far as they were taken over.
#[derive(Default)]
struct Changes {
    /// The signing keys must be read anew.
    stale_keys: bool,
    /// It was said already that they cannot be.
    reported: bool,
}

impl Changes {
    async fn poll(&mut self, app: &App) {
        match app.store.poll_changes().await {
            Ok(moved) => self.stale_keys |= moved,
            Err(error) => {
                tracing::warn!(%error, "changes of other processes could not be read; caches are not used meanwhile");
                return;
            }
        }
        if !self.stale_keys {
            return;
        }
        match app.keys.reload(&app.store).await {
            Ok(()) => {
                (self.stale_keys, self.reported) = (false, false);
                // A client may want an algorithm that nobody wanted before.
                maintain_keys(app).await;
            }
            Err(error) => {
                if !self.reported {
                    tracing::error!(%error, "the signing keys could not be read anew; those that are known go on");
                }
                self.reported = true;
            }
        }
    }
}

/// Writes when API keys were used: every few seconds, and sooner where many were.
async fn note_key_uses(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(USES) => {}
            () = app.store.many_key_uses() => {}
            _ = stop.changed() => return,
        }
        if let Err(error) = app.store.flush_key_uses().await {
            tracing::warn!(%error, "when API keys were used could not be written; trying again later");
            tokio::time::sleep(USES).await;
        }
    }
}

/// Works at partners' imports: those of this process at once, those that another left behind when their lease is over.
async fn work_at_imports(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let stopping = stop.clone();
    loop {
        let worked = imports::work(&app, || *stopping.borrow()).await;
        if let Err(error) = &worked {
            tracing::warn!(%error, "an import could not go on; trying again later");
        }
        if matches!(worked, Ok(true)) && !*stopping.borrow() {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(IMPORTS) => {}
            () = app.imports.notified() => {}
            _ = stop.changed() => return,
        }
    }
}

async fn maintain_keys(app: &App) {
    if let Err(error) = signing_keys::maintain(app).await {
        tracing::warn!(%error, "the signing keys could not be looked after; trying again later");
    }
}

/// Keeps metrics small, and those of the outbox true; for a process that has any.
pub fn start_upkeep(app: &Arc<App>, stop: &watch::Receiver<bool>) {
    tokio::spawn(every(UPKEEP, stop.clone(), (), async |()| metrics::upkeep()));
    let app = Arc::clone(app);
    tokio::spawn(every(OUTBOX, stop.clone(), (), async move |()| {
        // A database that is away is told by all the others.
        if let Ok(levels) = app.store.outbox_levels().await {
            let age = levels.oldest.map_or(0, |oldest| (app.now() - oldest).millis());
            metrics::outbox(levels.pending, age.max(0), levels.dead);
        }
    }));
}

async fn every<S>(period: Duration, mut stop: watch::Receiver<bool>, mut state: S, mut work: impl AsyncFnMut(&mut S)) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // It changes once, to true; a sender that is gone means the same.
            _ = stop.changed() => return,
        }
        work(&mut state).await;
    }
}
