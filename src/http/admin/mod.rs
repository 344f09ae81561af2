//! The admin listener, for monitoring: whether the process lives, whether it can serve, and its metrics. None of it
//! is reachable where people and apps are, and nothing of theirs here.

mod readiness;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;

use super::{Routes, respond};
use crate::app::App;
use crate::config::Config;
use crate::limit::Action;
use crate::protocol::client::GrantType;
use crate::protocol::time::Timestamp;
use crate::store::events::EventKind;
use crate::telemetry::metrics;
use readiness::Readiness;

/// Whether requests should come here.
pub const READY: &str = "/health/ready";

/// The text format that Prometheus reads.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Admin {
    app: Arc<App>,
    readiness: Readiness,
}

/// Starts to count; once, before anything that counts.
pub fn install_metrics(config: &Config, started_at: Timestamp) -> anyhow::Result<()> {
    let grant_types: Vec<_> = GrantType::ALL.iter().map(|grant_type| grant_type.as_str()).collect();
    let events: Vec<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    metrics::install(&metrics::About {
        version: env!("CARGO_PKG_VERSION"),
        database: if config.database.url.starts_with("sqlite") { "sqlite" } else { "postgres" },
        started_at: started_at.millis(),
        grant_types: &grant_types,
        actions: &Action::NAMES,
        events: &events,
    })
}

/// All routes of the admin listener; `stopping` turns true when the process begins to end.
pub fn router(app: &Arc<App>, stopping: watch::Receiver<bool>) -> Routes {
    let admin = Admin { app: Arc::clone(app), readiness: Readiness::new(app, stopping) };
    Router::new()
        .route("/health/live", get(live))
        .route(READY, get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(Arc::new(admin))
}

/// Asks nobody: a database that is away is no reason to start the process anew.
async fn live() -> Response {
    respond::json(StatusCode::OK, &serde_json::json!({ "status": "live" }))
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let report = admin.readiness.report().await;
    let mut checks = report.checks();
    // Requests in flight are finished, and the database stays open as long; but no more should come.
    let stopping = admin.readiness.is_stopping();
    if stopping {
        checks["process"] = "is stopping".into();
    }
    let (status, word) = match report.is_ready() && !stopping {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
    };
    respond::json(status, &serde_json::json!({ "status": word, "checks": checks }))
}

async fn show_metrics(State(admin): State<Arc<Admin>>) -> Response {
    let app = &admin.app;
    let (hashes_running, hashes_waiting) = app.passwords.load();
    let (pool, now) = (app.store.pool(), app.now());
    let keys = app.keys.current();
    let levels = metrics::Levels {
        hashes_running,
        hashes_waiting,
        pool_in_use: pool.in_use,
        pool_idle: pool.idle,
        pool_max: pool.most,
        signing_keys: keys.signing(now).iter().map(|key| (key.alg.as_str(), (now - key.since).millis())).collect(),
    };
    let Some(text) = metrics::render(&levels) else { return StatusCode::NOT_FOUND.into_response() };
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROMETHEUS));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
