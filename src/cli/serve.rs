//! `keyward serve`: the provider in production.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use super::systemd;
use crate::account::declared;
use crate::app::App;
use crate::config::{Config, LogFormat};
use crate::http::serve::{Bound, Front};
use crate::http::{Routes, Web, router};
use crate::jobs;

/// How long connections may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(20);

pub async fn run(config: Config) -> anyhow::Result<()> {
    let signals = Signals::install()?;
    // It has the certificate read again, where there is one (`http/serve/tls.rs`), and otherwise does nothing. A
    // terminal that is closed does not end a provider.
    let _hangup = signal(SignalKind::hangup())?;
    start_logging(&config)?;
    let front = Front::of(&config)?;
    let app = Arc::new(super::open_config(config).await?);
    let mut listeners = Vec::new();
    for listen in &app.config.listen {
        listeners.push(Bound::bind(listen).await?.behind(&front));
    }
    let web = Web::new(Arc::clone(&app), false)?;
    let routes = router(&web);
    let services = listeners.into_iter().map(|bound| (bound, routes.clone())).collect();
    run_services(&app, services, signals).await
}

/// The signals that end us. Installed before anything else, so that one which comes during the start ends us cleanly
/// as well.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn install() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM or SIGINT, then lets requests in flight finish, unless a second signal comes.
pub async fn run_services(app: &Arc<App>, services: Vec<(Bound, Routes)>, mut signals: Signals) -> anyhow::Result<()> {
    declared::sync(app).await?;
    tracing::info!(issuer = %app.metadata.issuer, version = env!("CARGO_PKG_VERSION"), "starting");
    let (stop, stopped) = watch::channel(false);
    jobs::start(app, &stopped);
    let mut tasks = JoinSet::new();
    for (bound, routes) in services {
        tracing::info!(address = %bound, "listening");
        tasks.spawn(bound.serve(routes, stopped.clone()));
    }
    systemd::ready();
    let mut failed = None;
    tokio::select! {
        () = signals.received() => {}
        Some(ended) = tasks.join_next() => failed = Some(ended),
    }
    tracing::info!("stopping");
    systemd::stopping();
    let _ = stop.send(true);
    tokio::select! {
        drained = tokio::time::timeout(DRAIN, drain(&mut tasks)) => match drained {
            Ok(ended) => ended?,
            Err(_) => tracing::warn!("some connections did not end in time"),
        },
        () = signals.received() => tracing::warn!("told to end once more: requests in flight are cut"),
    }
    tasks.shutdown().await;
    app.store.close().await;
    match failed {
        None => Ok(()),
        Some(ended) => Ok(ended.context("a listener")??),
    }
}

async fn drain(tasks: &mut JoinSet<std::io::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a listener")??;
    }
    Ok(())
}

/// What is logged, by the directives of `tracing-subscriber`.
pub fn log_filter(config: &Config) -> anyhow::Result<EnvFilter> {
    let directives = std::env::var("KEYWARD_LOG").unwrap_or_else(|_| config.log.level.clone());
    EnvFilter::try_new(&directives).with_context(|| format!("log level `{directives}`"))
}

/// Starts the log on standard error. `KEYWARD_LOG` overrides `log.level`.
pub fn start_logging(config: &Config) -> anyhow::Result<()> {
    let filter = log_filter(config)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Pretty => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
