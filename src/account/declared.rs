//! People and clients: made by hand, or as the configuration file declares them.

use serde_json::{Map, Value};

use super::{audit, signing_keys};
use crate::ambient::{random_bytes, random_token};
use crate::app::App;
use crate::config::Config;
use crate::crypto::digest::{base64url, sha256};
use crate::crypto::password::MAX_PASSWORD_BYTES;
use crate::crypto::secret::Secret;
use crate::keys::KeyError;
use crate::protocol::claims::is_settable;
use crate::protocol::client::ClientMetadata;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::metadata::Metadata;
use crate::protocol::registration;
use crate::protocol::user::{InvalidName, LoginName, canonical_email, checked_labels, checked_username};
use crate::store::StoreError;
use crate::store::clients::DeclaredClient;
use crate::store::events::{Author, EventKind};
use crate::store::users::{Created, NewUser, REALM_DIRECT};

/// Why a person or client cannot be made; each names what to change.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("a user needs a username or an email")]
    Nameless,
    #[error("the id `{0}` is taken; ids are never given twice")]
    IdTaken(UserId),
    #[error("the username `{0}` is taken")]
    UsernameTaken(String),
    #[error("the email `{0}` is taken")]
    EmailTaken(String),
    #[error("`{0}` is not a standard claim that can be set")]
    UnknownClaim(String),
    #[error("`{0}` cannot be a role or group: they are words of at most 64 characters")]
    Label(String),
    #[error("a person has at most 100 roles and 100 groups")]
    TooManyLabels,
    #[error("the password must have at least {0} characters")]
    PasswordTooShort(u32),
    #[error("the password has more than {MAX_PASSWORD_BYTES} bytes")]
    PasswordTooLong,
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    #[error("client `{client_id}`: {}", problems.join("; "))]
    Client { client_id: String, problems: Vec<String> },
    #[error("user `{name}`: {error}")]
    Declared { name: String, error: Box<Self> },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// A person to make.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub username: Option<String>,
    pub email: Option<String>,
    pub email_verified: bool,
    pub claims: Map<String, Value>,
    pub roles: Vec<String>,
    pub groups: Vec<String>,
}

/// A 256-bit secret for a client, of characters that no encoding changes.
pub fn new_client_secret(app: &App) -> Secret<String> {
    Secret::new(random_token::<32>(app.rng.as_ref()))
}

/// Creates a person of the direct realm.
pub async fn create_user(
    app: &App,
    profile: Profile,
    password: Option<Secret<String>>,
    author: &Author,
) -> Result<UserId, AccountError> {
    let username = profile.username.as_deref().map(checked_username).transpose()?.map(str::to_owned);
    let email = profile.email.as_deref().map(canonical_email).transpose()?;
    if username.is_none() && email.is_none() {
        return Err(AccountError::Nameless);
    }
    if let Some(name) = profile.claims.keys().find(|name| !is_settable(name)) {
        return Err(AccountError::UnknownClaim(name.clone()));
    }
    let password_hash = match password {
        None => None,
        Some(password) => Some(hash_new_password(app, password).await?),
    };
    let id = UserId::from_random(app.rng.id());
    let user = NewUser {
        of_partner: None,
        id: id.clone(),
        username: username.clone(),
        email: email.clone(),
        email_verified: profile.email_verified,
        claims: profile.claims,
        roles: labels(profile.roles)?,
        groups: labels(profile.groups)?,
        password_hash,
        disabled_at: None,
    };
    let now = app.now();
    match app.store.create_user(user, author.event(EventKind::UserCreated, now), now).await? {
        Created::Yes => Ok(id),
        Created::IdTaken => Err(AccountError::IdTaken(id)),
        Created::UsernameTaken => Err(AccountError::UsernameTaken(username.unwrap_or_default())),
        Created::EmailTaken => Err(AccountError::EmailTaken(email.unwrap_or_default())),
    }
}

/// Names of roles or groups as they are kept.
pub fn labels(names: Vec<String>) -> Result<Vec<String>, AccountError> {
    checked_labels(names).map_err(|bad| bad.map_or(AccountError::TooManyLabels, AccountError::Label))
}

/// Checks a password against the policy and hashes it.
pub async fn hash_new_password(app: &App, password: Secret<String>) -> Result<Secret<String>, AccountError> {
    check_password(&app.config, &password)?;
    let hashed = app.passwords.hash(password, random_bytes(app.rng.as_ref())).await;
    let hashed = hashed.map_err(|_| AccountError::Hash("the machine is overloaded; try again".to_owned()))?;
    hashed.map_err(|error| AccountError::Hash(error.to_string()))
}

/// Whether the policy allows this password.
pub fn check_password(config: &Config, password: &Secret<String>) -> Result<(), AccountError> {
    let min = config.passwords.min_length;
    if password.expose().chars().count() < min as usize {
        return Err(AccountError::PasswordTooShort(min));
    }
    if password.expose().len() > MAX_PASSWORD_BYTES {
        return Err(AccountError::PasswordTooLong);
    }
    Ok(())
}

/// Whether the declared users' passwords meet the policy.
pub fn check_passwords(config: &Config) -> Result<(), AccountError> {
    for user in &config.users {
        let name = user.username.as_deref().or(user.email.as_deref()).unwrap_or_default().to_owned();
        let checked = user.password.as_ref().map_or(Ok(()), |password| check_password(config, password));
        checked.map_err(|error| AccountError::Declared { name, error: Box::new(error) })?;
    }
    Ok(())
}

/// Whether metadata may be registered under this id.
pub fn check_client(
    ours: &Metadata,
    client_id: &str,
    metadata: &ClientMetadata,
    has_secret: bool,
) -> Result<(), AccountError> {
    let mut problems = registration::problems(metadata, ours);
    match (metadata.is_public(), has_secret) {
        (true, true) => {
            problems.push("client_secret: a client with token_endpoint_auth_method none has no secret".to_owned())
        }
        (false, false) => problems.push("client_secret: needed unless token_endpoint_auth_method is none".to_owned()),
        _ => {}
    }
    if problems.is_empty() { Ok(()) } else { Err(AccountError::Client { client_id: client_id.to_owned(), problems }) }
}

/// Brings the declared clients and users into the store, and makes the signing keys that they want.
pub async fn sync(app: &App) -> Result<(), AccountError> {
    let mut declared = Vec::new();
    for client in &app.config.clients {
        check_client(&app.metadata, &client.client_id, &client.metadata, client.client_secret.is_some())?;
        let secret_sha256 = client.client_secret.as_ref().map(|secret| base64url(&sha256(secret.expose().as_bytes())));
        let id = ClientId::new(client.client_id.as_str());
        declared.push(DeclaredClient { id, metadata: client.metadata.clone(), secret_sha256 });
    }
    for gone in app.store.sync_declared_clients(declared, audit::declared(app), app.now()).await? {
        tracing::warn!(client_id = %gone, "this client is no longer declared and was disabled");
    }
    for user in &app.config.users {
        let names = [user.username.as_deref(), user.email.as_deref()];
        let mut known = false;
        for name in names.into_iter().flatten() {
            known |= app.store.user_by_login(REALM_DIRECT, &LoginName::parse(name)?).await?.is_some();
        }
        // Created when absent: what a person changed since is theirs.
        if !known {
            let profile = Profile {
                username: user.username.clone(),
                email: user.email.clone(),
                email_verified: user.email_verified,
                claims: user.claims.clone(),
                roles: user.roles.clone(),
                groups: user.groups.clone(),
            };
            match create_user(app, profile, user.password.clone(), &audit::declared(app)).await {
                // Another process that starts at the same time was faster.
                Ok(_) | Err(AccountError::UsernameTaken(_) | AccountError::EmailTaken(_)) => {}
                Err(error) => {
                    let name = user.username.clone().or_else(|| user.email.clone()).unwrap_or_default();
                    return Err(AccountError::Declared { name, error: Box::new(error) });
                }
            }
        }
    }
    signing_keys::maintain(app).await?;
    Ok(())
}
