//! `keyward dev`: the whole thing on an empty directory. The provider and a demo app, on SQLite, with credentials
//! that are made once, kept, and printed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::Global;
use super::logging;
use super::serve::{Signals, bind, bind_admin, run_services};
use crate::ambient::{Rng, SystemRng, random_token};
use crate::config::{Config, Listen, Sources};
use crate::crypto::secret::Secret;
use crate::http::demo::{self, DemoConfig};
use crate::http::serve::Bound;
use crate::http::{Web, router};

#[derive(Args)]
pub struct DevArgs {
    /// Where data/ and keys/ are kept.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The provider's port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The demo app's port.
    #[arg(long, default_value_t = 8081)]
    demo_port: u16,
}

/// `data/dev-credentials.json`.
#[derive(Serialize, Deserialize)]
struct Credentials {
    issuer: String,
    user: DemoUser,
    clients: DemoClients,
}

#[derive(Serialize, Deserialize)]
struct DemoUser {
    username: String,
    password: String,
}

#[derive(Serialize, Deserialize)]
struct DemoClients {
    demo: DemoClient,
    service: DemoClient,
}

#[derive(Serialize, Deserialize)]
struct DemoClient {
    client_id: String,
    client_secret: String,
}

pub async fn run(args: DevArgs, global: &Global) -> anyhow::Result<()> {
    let signals = Signals::install()?;
    let dir = std::path::absolute(&args.dir)?;
    let data = dir.join("data");
    fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
    let issuer = format!("http://localhost:{}", args.port);
    let demo_url = format!("http://localhost:{}", args.demo_port);
    let credentials = credentials(&data.join("dev-credentials.json"), &issuer, &SystemRng)?;
    let config_file = data.join("dev.toml");
    write_private(&config_file, &configuration(&args, &dir, &demo_url, &credentials)?)?;

    let mut files = vec![config_file.clone()];
    files.extend(global.config.iter().cloned());
    let sources = Sources { files, env: super::environment(), flags: global.set.clone() };
    // Its own inline secrets are no news to anybody.
    let config = crate::config::load(sources)?.config;
    let logging = logging::start(&config)?;
    let start = Start { config, credentials, config_file, demo_url, demo_port: args.demo_port };
    let outcome = serve(start, signals).await;
    logging.finish().await;
    outcome
}

/// Everything that is known before the first socket is opened.
struct Start {
    config: Config,
    credentials: Credentials,
    config_file: PathBuf,
    demo_url: String,
    demo_port: u16,
}

async fn serve(start: Start, signals: Signals) -> anyhow::Result<()> {
    let Start { config, credentials, config_file, demo_url, demo_port } = start;
    let bound = bind(&config).await?;
    let admin = bind_admin(&config).await?;
    let demo_listener = Bound::bind(&Listen::Tcp(format!("127.0.0.1:{demo_port}"))).await?;
    let app = Arc::new(super::open_config(config).await?);
    let web = Web::new(Arc::clone(&app), true)?;
    let routes = router(&web);
    let demo = demo::router(DemoConfig {
        issuer: app.metadata.issuer.clone(),
        base_url: demo_url.clone(),
        client_id: credentials.clients.demo.client_id.clone(),
        client_secret: Secret::new(credentials.clients.demo.client_secret.clone()),
        scopes: ["openid", "profile", "email", "offline_access"].map(str::to_owned).to_vec(),
    });
    let mut services: Vec<_> = bound.into_iter().map(|bound| (bound, routes.clone())).collect();
    services.push((demo_listener, demo));
    print(&app.metadata.issuer, &demo_url, &credentials, &config_file);
    run_services(&app, services, admin, signals).await
}

/// The credentials of an earlier start, or new ones.
fn credentials(path: &Path, issuer: &str, rng: &dyn Rng) -> anyhow::Result<Credentials> {
    let mut credentials = match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} cannot be read; delete it to get new credentials", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let client = |id: &str| DemoClient { client_id: id.to_owned(), client_secret: random_token::<32>(rng) };
            Credentials {
                issuer: String::new(),
                user: DemoUser { username: "alice".to_owned(), password: random_token::<9>(rng) },
                clients: DemoClients { demo: client("demo"), service: client("service") },
            }
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    credentials.issuer = issuer.to_owned();
    write_private(path, &format!("{}\n", serde_json::to_string_pretty(&credentials)?))?;
    Ok(credentials)
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let dir = path.parent().context("a path without a directory")?;
    let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}

/// The configuration of `dev`, as a file that `keyward --config data/dev.toml user list` can use as well.
fn configuration(args: &DevArgs, dir: &Path, demo_url: &str, credentials: &Credentials) -> anyhow::Result<String> {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let path = |name: &str| text(&dir.join(name).display().to_string());
    let Credentials { issuer, user, clients } = credentials;
    Ok(format!(
        r#"# Written by `keyward dev` at each start; changes here are lost.
issuer = {issuer}
listen = "127.0.0.1:{port}"
data_dir = {data}
key_dir = {keys}

[log]
level = "warn,keyward=info"

[[scopes]]
name = "demo.read"
description = "Read your demo data"

[[clients]]
client_id = "demo"
client_secret = {demo_secret}
client_name = "Demo app"
client_uri = {demo_url}
redirect_uris = [{callback}]
post_logout_redirect_uris = [{signed_out}]
grant_types = ["authorization_code", "refresh_token"]
scope = "openid profile email offline_access demo.read"

[[clients]]
client_id = "service"
client_secret = {service_secret}
client_name = "Demo service"
grant_types = ["client_credentials"]
scope = "demo.read"
introspection = "any"

[[users]]
username = {username}
password = {password}
email = "alice@example.com"
email_verified = true
name = "Alice Archer"
given_name = "Alice"
family_name = "Archer"
locale = "en"
zoneinfo = "Europe/Oslo"
"#,
        issuer = text(issuer),
        port = args.port,
        data = path("data"),
        keys = path("keys"),
        demo_secret = text(&clients.demo.client_secret),
        demo_url = text(demo_url),
        callback = text(&format!("{demo_url}/callback")),
        signed_out = text(&format!("{demo_url}/signed-out")),
        service_secret = text(&clients.service.client_secret),
        username = text(&user.username),
        password = text(&user.password),
    ))
}

fn print(issuer: &str, demo_url: &str, credentials: &Credentials, config_file: &Path) {
    let Credentials { user, clients, .. } = credentials;
    let service = format!("{}:{}", clients.service.client_id, clients.service.client_secret);
    let token = format!("curl -s -u '{service}' -d grant_type=client_credentials -d scope=demo.read {issuer}/token");
    let access_token = format!("$({token} | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')");
    println!("Keyward is running, for development only.\n");
    println!("  issuer      {issuer}");
    println!("  discovery   {issuer}/.well-known/openid-configuration");
    println!("  demo app    {demo_url}\n");
    println!("  user        {}   password  {}", user.username, user.password);
    for client in [&clients.demo, &clients.service] {
        println!("  client      {}   secret  {}", client.client_id, client.client_secret);
    }
    println!("\nSign in: open {demo_url} in a browser. Or paste:\n");
    println!("  curl -s {issuer}/.well-known/openid-configuration");
    println!("  {token}");
    println!("  curl -s -u '{service}' -d \"token={access_token}\" {issuer}/introspect");
    println!("\nManage it: keyward --config {} user list\n", config_file.display());
}
