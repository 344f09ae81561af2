//! Work that no request waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::app::App;
use crate::telemetry::metrics;

/// How often other processes' changes are looked for: a cached answer is never older than twice this.
const POLL: Duration = Duration::from_millis(500);
const PURGE: Duration = Duration::from_secs(30);
/// Bounds what histograms hold between two scrapes.
const UPKEEP: Duration = Duration::from_secs(1);

/// Starts all periodic work; it ends when `stop` turns true.
pub fn start(app: &Arc<App>, stop: &watch::Receiver<bool>) {
    let poll = Arc::clone(app);
    tokio::spawn(every(POLL, stop.clone(), move || {
        let app = Arc::clone(&poll);
        async move {
            if let Err(error) = app.store.poll_changes().await {
                tracing::warn!(%error, "changes of other processes could not be read; caches are not used meanwhile");
            }
        }
    }));
    let purge = Arc::clone(app);
    tokio::spawn(every(PURGE, stop.clone(), move || {
        let app = Arc::clone(&purge);
        async move {
            match app.store.purge_expired(app.now()).await {
                Ok(0) => {}
                Ok(removed) => tracing::debug!(removed, "expired rows removed"),
                Err(error) => tracing::warn!(%error, "expired rows could not be removed; trying again later"),
            }
        }
    }));
}

/// Keeps metrics small; for a process that has any.
pub fn start_upkeep(stop: &watch::Receiver<bool>) {
    tokio::spawn(every(UPKEEP, stop.clone(), || async { metrics::upkeep() }));
}

async fn every<F: Future<Output = ()>>(period: Duration, mut stop: watch::Receiver<bool>, work: impl Fn() -> F) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // It changes once, to true; a sender that is gone means the same.
            _ = stop.changed() => return,
        }
        work().await;
    }
}
