//! The measure of the HTTP stack: axum handlers that do nothing, behind the provider's own layers, log and serving, in a
//! process of their own. Each answers with as many bytes of JSON as the endpoint that it stands beside.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use keyward::ambient::{Clock as _, SystemClock, SystemRng};
use keyward::app::App;
use keyward::cli::logging;
use keyward::config::{Sources, load};
use keyward::http::serve::{Bound, Front};
use keyward::http::{Web, admin, layers};
use tokio::sync::watch;

use crate::process::{self, Server};

/// The first argument of the process.
pub const COMMAND: &str = "serve-bare";
/// A route that is always there.
const READY: &str = "/bare";

/// A route of the bare server.
#[derive(Clone)]
pub struct Route {
    pub is_post: bool,
    pub path: String,
    /// Bytes of its answer.
    pub size: usize,
}

impl Route {
    fn to_argument(&self) -> String {
        format!("{}:{}:{}", if self.is_post { "POST" } else { "GET" }, self.path, self.size)
    }

    fn from_argument(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().context("METHOD:PATH:SIZE");
        Ok(Self { is_post: part()? == "POST", path: part()?.to_owned(), size: part()?.parse()? })
    }
}

/// Starts the process in `dir`.
pub fn start(dir: &Path, routes: &[Route]) -> anyhow::Result<Server> {
    let address = process::free_address()?;
    let config = format!("issuer = \"http://{address}\"\nlisten = \"{address}\"\n[log]\nformat = \"json\"\n");
    std::fs::write(dir.join("keyward.toml"), config)?;
    let mut command: Command = process::command(std::env::current_exe()?);
    command.arg(COMMAND).arg(dir.join("keyward.toml")).args(routes.iter().map(Route::to_argument));
    Ok(Server::start(command, address, &dir.join("log"), READY)?.0)
}

/// What the process does.
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let (config, routes) = args.split_first().context("a configuration")?;
    let routes: Vec<Route> = routes.iter().map(|route| Route::from_argument(route)).collect::<anyhow::Result<_>>()?;
    let config = load(Sources { files: vec![config.into()], ..Sources::default() })?.config;
    tokio::runtime::Runtime::new()?.block_on(async {
        let _logging = logging::start(&config)?;
        admin::install_metrics(&config, SystemClock.now())?;
        let front = Front::of(&config)?;
        let listen = config.listen.first().context("an address")?.clone();
        let app = Arc::new(App::open(config, Arc::new(SystemClock), Arc::new(SystemRng)).await?);
        let web = Web::new(app, false)?;
        let bound = Bound::bind(&listen).await?.behind(&front);
        // Whoever started us ends us.
        let (_stop, stopped) = watch::channel(false);
        bound.serve(layers::wrap(router(routes), &web), stopped).await?;
        Ok(())
    })
}

fn router(routes: Vec<Route>) -> Router {
    let mut router = Router::new().route(READY, get(|| async { "ready" }));
    for route in routes {
        let answer = ([(CONTENT_TYPE, "application/json")], json(route.size));
        let handler = if route.is_post {
            post(move |_form: Bytes| async move { answer.clone() })
        } else {
            get(move || async move { answer.clone() })
        };
        router = router.route(&route.path, handler);
    }
    router
}

fn json(size: usize) -> Bytes {
    format!("{{\"x\":\"{}\"}}", "x".repeat(size.saturating_sub(8))).into()
}

/// Where the routes of a row stand: one for each request of its operation.
pub fn path(key: &str, nth: usize) -> String {
    format!("{READY}/{key}/{nth}")
}

/// `request` sent to a route of the bare server instead.
pub fn redirected(request: &[u8], path: &str, address: SocketAddr) -> anyhow::Result<Vec<u8>> {
    let text = std::str::from_utf8(request)?;
    let (method, rest) = text.split_once(' ').context("a request line")?;
    let (_, rest) = rest.split_once(" HTTP/1.1\r\nhost: ").context("a request line, and the host")?;
    let (_, rest) = rest.split_once("\r\n").context("headers")?;
    Ok(format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{rest}").into_bytes())
}
