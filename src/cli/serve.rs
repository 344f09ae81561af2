//! `keyward serve`: the provider in production.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{logging, systemd};
use crate::account::declared;
use crate::ambient::{Clock as _, SystemClock};
use crate::app::App;
use crate::config::{Config, Listen};
use crate::http::serve::{Bound, Front};
use crate::http::{Routes, Web, admin, router};
use crate::jobs;

/// How long connections may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(20);

pub async fn run(config: Config) -> anyhow::Result<()> {
    let signals = Signals::install()?;
    // It has the certificate read again, where there is one (`http/serve/tls.rs`), and otherwise does nothing. A
    // terminal that is closed does not end a provider.
    let _hangup = signal(SignalKind::hangup())?;
    let logging = logging::start(&config)?;
    let outcome = serve(config, signals).await;
    logging.finish().await;
    outcome
}

async fn serve(config: Config, mut signals: Signals) -> anyhow::Result<()> {
    let admin = bind_admin(&config).await?;
    let Some(app) = signals.unless_told(super::open_config(config)).await else { return Ok(()) };
    let app = Arc::new(app?);
    let listeners = bind(&app.config).await?;
    let web = Web::new(Arc::clone(&app), false)?;
    let routes = router(&web);
    let services = listeners.into_iter().map(|bound| (bound, routes.clone())).collect();
    run_services(&app, services, admin, signals).await
}

/// Binds the listeners for people and apps, behind the limits and the certificate that they share.
pub async fn bind(config: &Config) -> anyhow::Result<Vec<Bound>> {
    let front = Front::of(config)?;
    Ok(bind_all(&config.listen).await?.into_iter().map(|bound| bound.behind(&front)).collect())
}

async fn bind_all(addresses: &[Listen]) -> anyhow::Result<Vec<Bound>> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(Bound::bind(address).await?);
    }
    Ok(listeners)
}

/// Binds the admin listener where there is one, and starts to count for it.
pub async fn bind_admin(config: &Config) -> anyhow::Result<Vec<Bound>> {
    let admin = bind_all(&config.admin_listen).await.context("admin_listen")?;
    if !admin.is_empty() {
        admin::install_metrics(config, SystemClock.now())?;
    }
    Ok(admin)
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

    /// What comes of preparing to serve, which may wait for others; `None` where we are told to end before.
    pub async fn unless_told<T>(&mut self, preparing: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            prepared = preparing => Some(prepared),
            () = self.received() => {
                tracing::info!("told to end while starting");
                None
            }
        }
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM or SIGINT, then lets requests in flight finish, unless a second signal comes. The admin
/// listener goes on until they have, and says meanwhile that no more should be sent.
pub async fn run_services(
    app: &Arc<App>,
    services: Vec<(Bound, Routes)>,
    admin: Vec<Bound>,
    mut signals: Signals,
) -> anyhow::Result<()> {
    app.mail.check().await?;
    declared::sync(app).await?;
    tracing::info!(issuer = %app.metadata.issuer, version = env!("CARGO_PKG_VERSION"), "starting");
    let (stop, stopped) = watch::channel(false);
    let mail = jobs::start(app, &stopped);
    let (_end, ended) = watch::channel(false);
    if !admin.is_empty() {
        jobs::start_upkeep(app, &ended);
    }
    for bound in admin {
        if let Some(address) = bound.address() {
            tracing::info!(%address, "listening for monitoring");
        }
        tokio::spawn(bound.serve(admin::router(app, stopped.clone()), ended.clone()));
    }
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
        drained = tokio::time::timeout(DRAIN, drain(&mut tasks, mail)) => match drained {
            Ok(ended) => ended?,
            Err(_) => tracing::warn!("some connections, or mail on its way, did not end in time"),
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

async fn drain(tasks: &mut JoinSet<std::io::Result<()>>, mail: JoinHandle<()>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a listener")??;
    }
    mail.await.context("sending mail")
}
