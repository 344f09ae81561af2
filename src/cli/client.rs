//! `keyward client`: apps that are made by hand. Those of the configuration file are changed there.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Sure;
use super::output::{self, Format};
use super::progress::{READING, during};
use crate::account::declared::{check_client, new_client_secret};
use crate::account::{clients, signing_keys};
use crate::app::App;
use crate::protocol::client::{Client, ClientMetadata};
use crate::protocol::client_auth::StoredSecret;
use crate::protocol::ids::ClientId;
use crate::protocol::time::{Span, Timestamp};
use crate::store::StoreError;
use crate::store::clients::ClientRecord;
use crate::store::partners::Filter;

#[derive(Subcommand)]
pub enum ClientCommand {
    /// Register an app; prints its secret once.
    Create {
        /// Chosen at random where it is not given.
        #[arg(long)]
        client_id: Option<String>,
        #[command(flatten)]
        metadata: MetadataArgs,
    },
    /// List all apps.
    List,
    /// Show one app.
    Show { client_id: String },
    /// Change what is given; everything else stays.
    Update {
        client_id: String,
        #[command(flatten)]
        metadata: MetadataArgs,
        /// Switch the app off, or on again.
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        disabled: Option<bool>,
        #[command(flatten)]
        sure: Sure,
    },
    /// Make a new secret; the old ones live for the overlap.
    RotateSecret {
        client_id: String,
        /// How long the old secrets stay valid.
        #[arg(long, default_value = "1d")]
        overlap: Span,
        #[command(flatten)]
        sure: Sure,
    },
    /// Forget an app with all its grants and consents.
    Delete {
        client_id: String,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Metadata in the names of RFC 7591.
#[derive(Args)]
pub struct MetadataArgs {
    /// JSON with any of the metadata (`-`: standard input); flags win over it.
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    #[arg(long)]
    client_name: Option<String>,
    /// May be repeated.
    #[arg(long = "redirect-uri", alias = "redirect-uris", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// May be repeated.
    #[arg(long = "post-logout-redirect-uri", alias = "post-logout-redirect-uris", value_name = "URI")]
    post_logout_redirect_uris: Vec<String>,
    /// May be repeated: authorization_code, refresh_token, client_credentials,
    /// urn:keyward:oauth:grant-type:api-key, urn:ietf:params:oauth:grant-type:token-exchange.
    #[arg(long = "grant-type", alias = "grant-types", value_name = "GRANT")]
    grant_types: Vec<String>,
    /// client_secret_basic, client_secret_post or none (a public client).
    #[arg(long)]
    token_endpoint_auth_method: Option<String>,
    /// Space-separated.
    #[arg(long)]
    scope: Option<String>,
    #[arg(long)]
    client_uri: Option<String>,
    #[arg(long)]
    logo_uri: Option<String>,
    #[arg(long)]
    policy_uri: Option<String>,
    #[arg(long)]
    tos_uri: Option<String>,
    /// May be repeated.
    #[arg(long = "contact", alias = "contacts")]
    contacts: Vec<String>,
    /// Skip the consent page.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    first_party: Option<bool>,
    /// userinfo, or scopes to put the scopes' claims into the ID token as well.
    #[arg(long)]
    id_token_claims: Option<String>,
    #[arg(long)]
    id_token_signed_response_alg: Option<String>,
    #[arg(long)]
    access_token_signed_response_alg: Option<String>,
    #[arg(long)]
    default_max_age: Option<u32>,
    #[arg(long)]
    access_token_ttl: Option<String>,
    #[arg(long)]
    id_token_ttl: Option<String>,
    #[arg(long)]
    refresh_token_ttl: Option<String>,
    #[arg(long)]
    refresh_idle_ttl: Option<String>,
    /// auto, always or never.
    #[arg(long)]
    refresh_token_rotation: Option<String>,
    /// own, or any for a trusted resource server.
    #[arg(long)]
    introspection: Option<String>,
    /// It is a partner, with people of its own.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    partner: Option<bool>,
    /// The partner that it belongs to.
    #[arg(long, value_name = "CLIENT-ID")]
    partner_client_id: Option<String>,
    /// May be repeated.
    #[arg(long = "allowed-origin", alias = "allowed-origins", value_name = "ORIGIN")]
    allowed_origins: Vec<String>,
}

impl MetadataArgs {
    /// The members that were given, by name.
    fn members(self) -> anyhow::Result<Map<String, Value>> {
        let mut members = match &self.metadata_file {
            None => Map::new(),
            Some(path) => read_json(path)?,
        };
        for (name, list) in [
            ("redirect_uris", self.redirect_uris),
            ("post_logout_redirect_uris", self.post_logout_redirect_uris),
            ("grant_types", self.grant_types),
            ("contacts", self.contacts),
            ("allowed_origins", self.allowed_origins),
        ] {
            if !list.is_empty() {
                members.insert(name.to_owned(), json!(list));
            }
        }
        for (name, value) in [
            ("client_name", self.client_name),
            ("token_endpoint_auth_method", self.token_endpoint_auth_method),
            ("scope", self.scope),
            ("client_uri", self.client_uri),
            ("logo_uri", self.logo_uri),
            ("policy_uri", self.policy_uri),
            ("tos_uri", self.tos_uri),
            ("id_token_claims", self.id_token_claims),
            ("id_token_signed_response_alg", self.id_token_signed_response_alg),
            ("access_token_signed_response_alg", self.access_token_signed_response_alg),
            ("access_token_ttl", self.access_token_ttl),
            ("id_token_ttl", self.id_token_ttl),
            ("refresh_token_ttl", self.refresh_token_ttl),
            ("refresh_idle_ttl", self.refresh_idle_ttl),
            ("refresh_token_rotation", self.refresh_token_rotation),
            ("introspection", self.introspection),
            ("partner_client_id", self.partner_client_id),
        ] {
            if let Some(value) = value {
                members.insert(name.to_owned(), value.into());
            }
        }
        for (name, value) in [("first_party", self.first_party), ("partner", self.partner)] {
            if let Some(value) = value {
                members.insert(name.to_owned(), value.into());
            }
        }
        if let Some(max_age) = self.default_max_age {
            members.insert("default_max_age".to_owned(), max_age.into());
        }
        Ok(members)
    }

    /// `before` with the given members replaced.
    /// `of_calls`: plain calls act as the client, so that it may need no grant.
    fn create(self, of_calls: bool) -> anyhow::Result<ClientMetadata> {
        let members = self.members()?;
        let silent = !members.contains_key("grant_types");
        let mut metadata = merged(members, &ClientMetadata::default())?;
        if of_calls && silent && metadata.redirect_uris.is_empty() {
            metadata.grant_types = ClientMetadata::grants_of_calls(&metadata.scope);
        }
        Ok(metadata)
    }

    fn apply(self, before: &ClientMetadata) -> anyhow::Result<ClientMetadata> {
        merged(self.members()?, before)
    }
}

fn merged(given: Map<String, Value>, before: &ClientMetadata) -> anyhow::Result<ClientMetadata> {
    let mut members = match serde_json::to_value(before)? {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    members.extend(given);
    serde_json::from_value(Value::Object(members)).context("client metadata")
}

fn read_json(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    }
    serde_json::from_str(&text).with_context(|| format!("{} is not a JSON object", path.display()))
}

pub async fn run(command: ClientCommand, app: &App, format: Format) -> anyhow::Result<()> {
    match command {
        ClientCommand::Create { client_id, metadata } => create(app, format, client_id, metadata).await,
        ClientCommand::List => {
            let items: Vec<Value> = during(READING, app.store.clients()).await?.iter().map(describe).collect();
            output::list(format, &["client_id", "client_name", "grant_types", "scope", "status"], &items);
            Ok(())
        }
        ClientCommand::Show { client_id } => {
            output::object(format, &describe(&find(app, &client_id).await?));
            Ok(())
        }
        ClientCommand::Update { client_id, metadata, disabled, sure } => {
            if disabled == Some(true) {
                sure.ask(&format!(
                    "Switch {client_id} off? Its people's tokens and keys are refused until it is on again."
                ))?;
            }
            update(app, format, &client_id, metadata, disabled).await
        }
        ClientCommand::RotateSecret { client_id, overlap, sure } => {
            refuse_declared(app, &client_id)?;
            if overlap <= Span::ZERO {
                sure.ask(&format!("End the secrets that {client_id} has now?"))?;
            }
            rotate_secret(app, format, &client_id, overlap).await
        }
        ClientCommand::Delete { client_id, sure } => {
            refuse_declared(app, &client_id)?;
            let record = find(app, &client_id).await?;
            let people = app.store.partner_users(&record.client.id, Filter::default(), None, 1).await?;
            ensure!(
                people.is_empty(),
                "`{client_id}` has people of its own, who would be nobody's: `keyward client update {client_id} --disabled true` \
                 switches all of them off; to forget them, delete them first (`keyward user delete`)"
            );
            sure.ask(&format!("Delete client {client_id} with all its grants and consents?"))?;
            during("deleting", clients::delete(app, &record.client.id)).await?;
            output::object(format, &json!({ "deleted": client_id, "note": "the id stays taken" }));
            Ok(())
        }
    }
}

async fn create(app: &App, format: Format, client_id: Option<String>, metadata: MetadataArgs) -> anyhow::Result<()> {
    let of_calls = client_id.as_deref().is_some_and(|id| app.config.sign_in_apis.name(id));
    let metadata = metadata.create(of_calls)?;
    let made = || ClientId::from_random(app.rng.id()).to_string();
    let client_id = client_id.unwrap_or_else(made);
    let visible = client_id.bytes().all(|b| b.is_ascii_graphic());
    ensure!(visible && !client_id.is_empty(), "a client_id is made of visible ASCII characters");
    let secret = (!metadata.is_public()).then(|| new_client_secret(app));
    check_client(&app.metadata, &client_id, &metadata, secret.is_some())?;
    let now = app.now();
    let record = ClientRecord {
        client: Client { id: ClientId::new(client_id.as_str()), metadata, disabled_at: None },
        secrets: secret.iter().map(|secret| StoredSecret::of(secret.expose(), now)).collect(),
        declared: false,
        created_at: now,
    };
    let mut shown = describe(&record);
    match during("creating", clients::create(app, record)).await {
        Err(StoreError::Conflict(_)) => bail!("the id `{client_id}` is taken; ids are never given twice"),
        other => other?,
    }
    if let (Value::Object(members), Some(secret)) = (&mut shown, &secret) {
        members.insert("client_secret".to_owned(), secret.expose().as_str().into());
    }
    output::object(format, &shown);
    make_wanted_keys(app).await
}

async fn update(
    app: &App,
    format: Format,
    client_id: &str,
    metadata: MetadataArgs,
    disabled: Option<bool>,
) -> anyhow::Result<()> {
    refuse_declared(app, client_id)?;
    let (ours, now) = (app.metadata.clone(), app.now());
    let change = move |mut record: ClientRecord| {
        record.client.metadata = metadata.apply(&record.client.metadata)?;
        if let Some(disabled) = disabled {
            record.client.disabled_at = disabled.then(|| record.client.disabled_at.unwrap_or(now));
        }
        if record.client.metadata.is_public() {
            record.secrets.clear();
        }
        check_client(&ours, record.client.id.as_str(), &record.client.metadata, !record.secrets.is_empty())?;
        Ok(record)
    };
    let record = changed(app, client_id, change).await?;
    output::object(format, &describe(&record));
    make_wanted_keys(app).await
}

/// Changes the client as it stands at that moment, whoever else changes it.
async fn changed(
    app: &App,
    client_id: &str,
    change: impl FnOnce(ClientRecord) -> anyhow::Result<ClientRecord> + Send + 'static,
) -> anyhow::Result<ClientRecord> {
    let by_hand = |record| change(ClientRecord { declared: false, ..record });
    let outcome = during("changing", clients::change(app, &ClientId::new(client_id), by_hand)).await?;
    outcome.with_context(|| unknown(client_id))?
}

/// The client may be the first that wants its algorithm.
async fn make_wanted_keys(app: &App) -> anyhow::Result<()> {
    let made = during("making keys", signing_keys::maintain(app)).await;
    made.context("the client is stored, but the signing keys could not be looked after; a running server tries again")
}

async fn rotate_secret(app: &App, format: Format, client_id: &str, overlap: Span) -> anyhow::Result<()> {
    let secret = new_client_secret(app);
    let now = app.now();
    let (end, new) = (now + overlap, StoredSecret::of(secret.expose(), now));
    let change = move |mut record: ClientRecord| {
        ensure!(!record.client.metadata.is_public(), "`{}` is a public client and has no secret", record.client.id);
        for old in &mut record.secrets {
            old.expires_at = Some(old.expires_at.map_or(end, |before| before.min(end)));
        }
        record.secrets.retain(|old| old.expires_at.is_some_and(|at| at > now));
        record.secrets.push(new);
        Ok(record)
    };
    changed(app, client_id, change).await?;
    let old_until = (overlap > Span::ZERO).then(|| output::time(end));
    let shown =
        json!({ "client_id": client_id, "client_secret": secret.expose(), "old_secrets_valid_until": old_until });
    output::object(format, &shown);
    Ok(())
}

async fn find(app: &App, client_id: &str) -> anyhow::Result<ClientRecord> {
    let record = app.store.client(&ClientId::new(client_id)).await?;
    Ok(record.with_context(|| unknown(client_id))?.as_ref().clone())
}

fn unknown(client_id: &str) -> String {
    format!("there is no client `{client_id}`; `keyward client list` shows all")
}

/// Refuses a client that stands in the file now; one that left it can be dealt with by hand.
fn refuse_declared(app: &App, client_id: &str) -> anyhow::Result<()> {
    let declared = app.config.clients.iter().any(|client| client.client_id == client_id);
    ensure!(!declared, "`{client_id}` is declared in the configuration file; change it there");
    Ok(())
}

/// Everything that may be shown: no secret, nor its hash.
fn describe(record: &ClientRecord) -> Value {
    let mut members = Map::new();
    members.insert("client_id".to_owned(), record.client.id.as_str().into());
    if let Ok(Value::Object(metadata)) = serde_json::to_value(&record.client.metadata) {
        members.extend(metadata);
    }
    let status = if record.client.is_enabled() { "enabled" } else { "disabled" };
    members.insert("status".to_owned(), status.into());
    members.insert("declared".to_owned(), record.declared.into());
    members.insert("secrets".to_owned(), json!(record.secrets.iter().map(secret_state).collect::<Vec<_>>()));
    members.insert("created_at".to_owned(), output::time(record.created_at).into());
    Value::Object(members)
}

fn secret_state(secret: &StoredSecret) -> String {
    let until = |at: Timestamp| format!("valid until {}", output::time(at));
    secret.expires_at.map_or_else(|| format!("made {}", output::time(secret.created_at)), until)
}
