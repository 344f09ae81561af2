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
use super::output::{self, Format};
use super::serve::{Signals, bind, bind_admin, run_services};
use crate::account::{api_keys, audit, declared};
use crate::ambient::{Rng, SystemRng, random_token};
use crate::app::App;
use crate::config::{Config, Listen, Sources};
use crate::crypto::secret::Secret;
use crate::http::demo::{self, DemoConfig};
use crate::http::serve::Bound;
use crate::http::{Web, router};
use crate::live;
use crate::protocol::api_key::Wish;
use crate::protocol::client::GrantType;
use crate::protocol::ids::ClientId;
use crate::protocol::user::LoginName;
use crate::store::users::REALM_DIRECT;

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
    /// Of the demo user; made once there is somebody to have it.
    #[serde(default)]
    api_key: Option<String>,
    /// Of the demo partner, for its administration.
    #[serde(default)]
    partner_api_key: Option<String>,
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
    /// Absent in what an earlier release wrote.
    #[serde(default = "DemoClient::unnamed")]
    platform: DemoClient,
    #[serde(default = "DemoClient::unnamed")]
    partner: DemoClient,
}

#[derive(Serialize, Deserialize)]
struct DemoClient {
    client_id: String,
    client_secret: String,
}

impl DemoClient {
    fn new(id: &str, rng: &dyn Rng) -> Self {
        Self { client_id: id.to_owned(), client_secret: random_token::<32>(rng) }
    }

    const fn unnamed() -> Self {
        Self { client_id: String::new(), client_secret: String::new() }
    }
}

pub async fn run(args: DevArgs, global: &Global) -> anyhow::Result<()> {
    let signals = Signals::install()?;
    let dir = std::path::absolute(&args.dir)?;
    let data = dir.join("data");
    fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
    let issuer = format!("http://localhost:{}", args.port);
    let demo_url = format!("http://localhost:{}", args.demo_port);
    let credentials_file = data.join("dev-credentials.json");
    let credentials = credentials(&credentials_file, &issuer, &SystemRng)?;
    let config_file = data.join("dev.toml");
    write_private(&config_file, &configuration(&args, &dir, &demo_url, &credentials)?)?;

    let mut files = vec![config_file.clone()];
    files.extend(global.config.iter().cloned());
    let sources = Sources { files, env: super::environment(), flags: global.set.clone() };
    // Its own inline secrets are no news to anybody.
    let config = crate::config::load(sources)?.config;
    let logging = logging::start(&config)?;
    let (demo_port, format) = (args.demo_port, global.output);
    let start = Start { config, credentials, credentials_file, config_file, demo_url, demo_port, format };
    let outcome = serve(start, signals).await;
    logging.finish().await;
    outcome
}

/// Everything that is known before the first socket is opened.
struct Start {
    config: Config,
    credentials: Credentials,
    credentials_file: PathBuf,
    config_file: PathBuf,
    demo_url: String,
    demo_port: u16,
    format: Format,
}

async fn serve(start: Start, mut signals: Signals) -> anyhow::Result<()> {
    let Start { config, mut credentials, credentials_file, config_file, demo_url, demo_port, format } = start;
    let bound = bind(&config).await?;
    let admin = bind_admin(&config).await?;
    let demo_listener = Bound::bind(&Listen::Tcp(format!("127.0.0.1:{demo_port}"))).await?;
    let Some(app) = signals.unless_told(super::open_config(config)).await else { return Ok(()) };
    let app = Arc::new(app?);
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
    declared::sync(&app).await?;
    demo_key(&app, &mut credentials, &credentials_file).await?;
    partner_key(&app, &mut credentials, &credentials_file).await?;
    match format {
        Format::Table => print(&app.metadata.issuer, &demo_url, &credentials, &config_file),
        Format::Json => {
            let mut shown = serde_json::to_value(&credentials)?;
            shown["demo_app"] = demo_url.as_str().into();
            shown["configuration"] = config_file.display().to_string().into();
            output::object(format, &shown);
        }
    }
    run_services(&app, services, admin, signals).await
}

/// The credentials of an earlier start, or new ones.
fn credentials(path: &Path, issuer: &str, rng: &dyn Rng) -> anyhow::Result<Credentials> {
    let mut credentials = match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} cannot be read; delete it to get new credentials", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let client = |id: &str| DemoClient::new(id, rng);
            Credentials {
                issuer: String::new(),
                user: DemoUser { username: "alice".to_owned(), password: random_token::<9>(rng) },
                clients: DemoClients {
                    demo: client("demo"),
                    service: client("service"),
                    platform: client("platform"),
                    partner: client("partner"),
                },
                api_key: None,
                partner_api_key: None,
            }
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let clients = &mut credentials.clients;
    for (name, client) in [("platform", &mut clients.platform), ("partner", &mut clients.partner)] {
        if client.client_id.is_empty() {
            *client = DemoClient::new(name, rng);
        }
    }
    credentials.issuer = issuer.to_owned();
    write_credentials(path, &credentials)?;
    Ok(credentials)
}

fn write_credentials(path: &Path, credentials: &Credentials) -> anyhow::Result<()> {
    write_private(path, &format!("{}\n", serde_json::to_string_pretty(credentials)?))
}

/// The demo user's key: the one of an earlier start while it counts, or a new one.
async fn demo_key(app: &App, credentials: &mut Credentials, path: &Path) -> anyhow::Result<()> {
    if let Some(key) = &credentials.api_key
        && live::api_key(app, key, None, app.now()).await?.is_some()
    {
        return Ok(());
    }
    let name = LoginName::parse(&credentials.user.username)?;
    // Whoever renamed the demo user does without.
    let Some((user, _)) = app.store.user_by_login(REALM_DIRECT, &name).await? else { return Ok(()) };
    let scopes = "openid profile email roles groups offline_access demo.read".parse()?;
    let wish = Wish { name: "demo".to_owned(), scopes: Some(scopes), ..Wish::default() };
    let minted = api_keys::mint_for_user(app, &user, wish, None, &audit::operator(app)).await?;
    credentials.api_key = Some(minted.key.expose().clone());
    write_credentials(path, credentials)
}

/// The same of the demo partner.
async fn partner_key(app: &App, credentials: &mut Credentials, path: &Path) -> anyhow::Result<()> {
    if let Some(key) = &credentials.partner_api_key
        && live::partner_key(app, key, None, app.now()).await?.is_some()
    {
        return Ok(());
    }
    let partner = ClientId::new(credentials.clients.partner.client_id.as_str());
    let wish = Wish { name: "demo".to_owned(), ..Wish::default() };
    let minted = api_keys::mint_for_partner(app, &partner, wish, &audit::operator(app)).await?;
    credentials.partner_api_key = Some(minted.key.expose().clone());
    write_credentials(path, credentials)
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
    let Credentials { issuer, user, clients, .. } = credentials;
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
scope = "openid profile email roles groups offline_access demo.read"

[[clients]]
client_id = "platform"
client_secret = {platform_secret}
client_name = "Demo platform"
grant_types = [
    "urn:keyward:oauth:grant-type:api-key",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "refresh_token",
]
scope = "openid profile email roles groups offline_access demo.read"
access_token_ttl = "7d"
refresh_token_ttl = "30d"
refresh_token_rotation = "never"

[sign_in_apis.api_key]
client_id = "platform"

[[clients]]
client_id = "study"
client_name = "Demo study app"
token_endpoint_auth_method = "none"
scope = "openid profile"
access_token_ttl = "7d"
allowed_origins = ["http://localhost:3000", "http://localhost:5173"]

[sign_in_apis.username]
client_id = "study"

[[clients]]
client_id = "game"
client_name = "Demo game"
token_endpoint_auth_method = "none"
scope = "openid profile email"
access_token_ttl = "30d"
refresh_token_ttl = "180d"

[sign_in_apis.device]
client_id = "game"

[[clients]]
client_id = "partner"
client_secret = {partner_secret}
client_name = "Demo partner"
grant_types = ["client_credentials", "urn:keyward:oauth:grant-type:api-key", "refresh_token"]
scope = "openid profile email roles groups offline_access demo.read partner.users"
partner = true

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
roles = ["student"]
groups = ["year-7"]
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
        partner_secret = text(&clients.partner.client_secret),
        platform_secret = text(&clients.platform.client_secret),
        service_secret = text(&clients.service.client_secret),
        username = text(&user.username),
        password = text(&user.password),
    ))
}

/// Bodies that the printed lines send.
const SIGN_UP: &str = r#"{"username":"ada","password":"lovelace","confirmPassword":"lovelace"}"#;
const REGISTER: &str = r#"{"email":"player@example.com","password":"s3cur3pass","deviceId":"device-abc-123"}"#;

fn json_body(body: &str) -> String {
    format!("-H 'Content-Type: application/json' -d '{body}'")
}

fn print(issuer: &str, demo_url: &str, credentials: &Credentials, config_file: &Path) {
    let Credentials { user, clients, api_key, partner_api_key, .. } = credentials;
    let service = format!("{}:{}", clients.service.client_id, clients.service.client_secret);
    let token = format!("curl -s -u '{service}' -d grant_type=client_credentials -d scope=demo.read {issuer}/token");
    let access_token = format!("$({token} | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')");
    println!("Keyward is running, for development only.\n");
    println!("  issuer      {issuer}");
    println!("  discovery   {issuer}/.well-known/openid-configuration");
    println!("  demo app    {demo_url}\n");
    println!("  user        {}   password  {}", user.username, user.password);
    for client in [&clients.demo, &clients.service, &clients.platform, &clients.partner] {
        println!("  client      {}   secret  {}", client.client_id, client.client_secret);
    }
    if let Some(key) = api_key {
        println!("  API key     {key}   of {}", user.username);
    }
    if let Some(key) = partner_api_key {
        println!("  API key     {key}   of the partner");
    }
    println!("\nSign in: open {demo_url} in a browser. Or paste:\n");
    println!("  curl -s {issuer}/.well-known/openid-configuration");
    println!("  {token}");
    println!("  curl -s -u '{service}' -d \"token={access_token}\" {issuer}/introspect");
    if let Some(key) = api_key {
        let platform = format!("{}:{}", clients.platform.client_id, clients.platform.client_secret);
        let grant = GrantType::ApiKey;
        println!("  curl -s -H 'Authorization: Bearer {key}' {issuer}/v1/me");
        println!("  curl -s -u '{platform}' -d grant_type={grant} -d api_key={key} {issuer}/token");
        let body = format!("-H 'Content-Type: application/json' -d '{{\"api_key\":\"{key}\"}}'");
        println!("  curl -s {body} {issuer}/v1/auth/api-key/login");
    }
    if let Some(key) = partner_api_key {
        let json =
            "-H 'Content-Type: application/json' -d '{\"external_id\":\"user-1\",\"email\":\"ada@example.com\"}'";
        println!("  curl -s -H 'Authorization: Bearer {key}' {json} {issuer}/v1/partner/users");
        println!("  curl -s -H 'Authorization: Bearer {key}' {issuer}/v1/partner/onboarding");
    }
    println!("  curl -s {} {issuer}/api/auth/signup", json_body(SIGN_UP));
    println!("  curl -s {} {issuer}/api/auth/login", json_body(r#"{"username":"ada","password":"lovelace"}"#));
    println!("  curl -s {} {issuer}/auth/register", json_body(REGISTER));
    println!(
        "  curl -s {} {issuer}/auth/login",
        json_body(r#"{"email":"player@example.com","password":"s3cur3pass"}"#)
    );
    println!("\nManage it: keyward --config {} user list\n", config_file.display());
}
