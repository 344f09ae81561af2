//! `keyward healthcheck`: asks the provider that runs with the same configuration whether it answers, for containers
//! and supervisors. The exit code tells; what went wrong stands on standard error.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use reqwest::header::HOST;
use serde_json::json;
use url::Url;

use super::Global;
use super::output::{self, Format};
use crate::config::{Config, Listen};
use crate::http::admin::READY;
use crate::protocol::metadata::path;

/// Whoever needs longer is not well.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct HealthcheckArgs {
    /// Ask this address instead of the one in the configuration, which is then not read.
    #[arg(long)]
    url: Option<Url>,
}

/// What is asked, and through which socket.
struct Target {
    url: Url,
    socket: Option<PathBuf>,
    /// Whom the request is addressed to, where the URL does not say: then it is our own listener that is asked.
    host: Option<String>,
}

pub async fn run(args: HealthcheckArgs, global: &Global, format: Format) -> anyhow::Result<()> {
    let target = match args.url {
        Some(url) => Target { url, socket: None, host: None },
        // A warning about the configuration is for those who start the provider, not for every check.
        None => target(&crate::config::load(super::sources(global))?.config)?,
    };
    let place = target.socket.as_ref().map_or_else(String::new, |path| format!(" at unix:{}", path.display()));
    let asked = format!("{}{place}", target.url);
    let status = ask(&target).await.with_context(|| format!("{asked} does not answer"))?;
    ensure!(status.is_success(), "{asked} answers {status}");
    output::object(format, &json!({ "healthy": true, "asked": asked, "status": status.as_u16() }));
    Ok(())
}

async fn ask(target: &Target) -> anyhow::Result<reqwest::StatusCode> {
    ensure!(matches!(target.url.scheme(), "http" | "https"), "only http and https can be asked");
    let mut client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // Our own listener is asked by its address, for which no certificate is made out, and is told nothing.
        .tls_danger_accept_invalid_certs(target.host.is_some());
    if let Some(socket) = &target.socket {
        client = client.unix_socket(socket.clone());
    }
    let mut request = client.build()?.get(target.url.clone());
    if let Some(host) = &target.host {
        request = request.header(HOST, host);
    }
    match request.send().await {
        Ok(answer) => Ok(answer.status()),
        Err(error) if error.is_timeout() => bail!("no answer within {} s", TIMEOUT.as_secs()),
        Err(error) => {
            // The outermost words only repeat the URL.
            let mut source: &dyn std::error::Error = &error;
            while let Some(inner) = source.source() {
                source = inner;
            }
            bail!("{source}")
        }
    }
}

/// What to ask of a provider with this configuration: its admin listener, which knows best, or else its first listener
/// for the document that every relying party reads.
fn target(config: &Config) -> anyhow::Result<Target> {
    if let Some(admin) = config.admin_listen.first() {
        return at(admin, "http", READY, "localhost".to_owned());
    }
    let listen = config.listen.first().context("`listen` is empty")?;
    let document = format!("{}{}", config.issuer.path(), path::OPENID_CONFIGURATION);
    let issuer = Url::parse(config.issuer.as_str())?;
    let host = issuer.host_str().unwrap_or("localhost");
    let host = issuer.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    // Whoever reaches a unix socket is on this machine: there is no TLS.
    let encrypted = config.tls.is_some() && matches!(listen, Listen::Tcp(_));
    at(listen, if encrypted { "https" } else { "http" }, &document, host)
}

/// A path at one of our own listeners.
fn at(listen: &Listen, scheme: &str, path: &str, host: String) -> anyhow::Result<Target> {
    let (authority, socket) = match listen {
        Listen::Unix(socket) => ("localhost".to_owned(), Some(socket.clone())),
        Listen::Tcp(address) => (reachable(address)?, None),
    };
    Ok(Target { url: Url::parse(&format!("{scheme}://{authority}{path}"))?, socket, host: Some(host) })
}

/// The address at which a listener is reached from this machine: one that listens everywhere also does so on the
/// loopback.
fn reachable(address: &str) -> anyhow::Result<String> {
    let Ok(mut parsed) = address.parse::<SocketAddr>() else { return Ok(address.to_owned()) };
    ensure!(parsed.port() != 0, "`listen` takes any free port, so nobody knows which; give the address with --url");
    if parsed.ip().is_unspecified() {
        parsed.set_ip(match parsed.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    Ok(parsed.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_asked_where_it_can_be_reached() {
        for (listen, expected) in [
            (Listen::Tcp("127.0.0.1:8080".to_owned()), "http://127.0.0.1:8080/x"),
            (Listen::Tcp("0.0.0.0:80".to_owned()), "http://127.0.0.1/x"),
            (Listen::Tcp("[::]:8080".to_owned()), "http://[::1]:8080/x"),
            (Listen::Tcp("10.1.2.3:8080".to_owned()), "http://10.1.2.3:8080/x"),
            (Listen::Tcp("localhost:8080".to_owned()), "http://localhost:8080/x"),
            (Listen::Unix("/run/k.sock".into()), "http://localhost/x"),
        ] {
            let target = at(&listen, "http", "/x", "id".to_owned()).expect("a target");
            assert_eq!(target.url.as_str(), expected);
            assert_eq!(target.socket.is_some(), matches!(listen, Listen::Unix(_)));
        }
        assert!(at(&Listen::Tcp("127.0.0.1:0".to_owned()), "http", "/x", "id".to_owned()).is_err());
    }
}
