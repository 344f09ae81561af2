//! The grants of `/token`, each in the same shape: `parse` the parameters, let the shell load `Facts`, `decide`.
//! A decision is data: [`Issuance`] says what to sign and what to commit, [`Refusal`] what to answer and which
//! consequence it has. `issue.rs` turns the former into tokens.

pub mod api_key;
pub mod authorization_code;
pub mod client_credentials;
pub mod refresh_token;

use super::api_key::ApiKeyRecord;
use super::claims::{Authentication, ClaimsRequest};
use super::client::{Client, GrantType};
use super::error::{Error, ErrorCode};
use super::ids::{ApiKeyId, ClientId, GrantId, SessionId, UserId};
use super::metadata::Metadata;
use super::params::Params;
use super::pkce::CodeChallenge;
use super::scope::ScopeSet;
use super::time::{Span, Timestamp};
use super::user::User;

use api_key::ApiKeyGrant;
use authorization_code::AuthorizationCode;
use client_credentials::ClientCredentials;
use refresh_token::RefreshToken;

/// What every grant does.
pub trait Grant: Sized {
    /// What the shell loads between `parse` and `decide`.
    type Facts;

    /// # Errors
    /// `invalid_request` for parameters that are missing or malformed.
    fn parse(params: &Params) -> Result<Self, Error>;

    /// # Errors
    /// The error to answer, with what must happen to the grant besides.
    fn decide(
        self,
        client: &Client,
        metadata: &Metadata,
        facts: Self::Facts,
        now: Timestamp,
    ) -> Result<Issuance, Refusal>;
}

/// A token request whose parameters are in order. Both spellings of the API-key grant are one.
pub enum TokenRequest {
    AuthorizationCode(AuthorizationCode),
    RefreshToken(RefreshToken),
    ClientCredentials(ClientCredentials),
    ApiKey(ApiKeyGrant),
}

impl TokenRequest {
    /// Reads `grant_type`, whether the client may use it, and its parameters.
    pub fn parse(params: &Params, client: &Client) -> Result<Self, Error> {
        let name = params.get("grant_type").ok_or_else(|| Error::invalid_request("grant_type is missing"))?;
        let unsupported = || Error::new(ErrorCode::UnsupportedGrantType, "this grant_type is not supported");
        let grant_type: GrantType = name.parse().map_err(|()| unsupported())?;
        if !client.metadata.allows(grant_type) {
            return Err(Error::unauthorized_client(format!("this client is not registered for {grant_type}")));
        }
        Ok(match grant_type {
            GrantType::AuthorizationCode => Self::AuthorizationCode(AuthorizationCode::parse(params)?),
            GrantType::RefreshToken => Self::RefreshToken(RefreshToken::parse(params)?),
            GrantType::ClientCredentials => Self::ClientCredentials(ClientCredentials::parse(params)?),
            GrantType::ApiKey => Self::ApiKey(ApiKeyGrant::parse(params)?),
            GrantType::TokenExchange => Self::ApiKey(ApiKeyGrant::parse_exchange(params)?),
        })
    }
}

/// One authorization, as the store keeps it from its code to its last refresh.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantRecord {
    pub id: GrantId,
    pub client_id: ClientId,
    pub user_id: UserId,
    pub session_id: Option<SessionId>,
    /// The API key that it was made from, and ends with.
    pub api_key_id: Option<ApiKeyId>,
    /// Made by a sign-in call where no client authenticates; its refresh tokens are used there and nowhere else.
    pub facade: bool,
    pub scope: ScopeSet,
    pub resources: Vec<String>,
    pub claims: ClaimsRequest,
    pub authentication: Authentication,
    /// Outlives the session it was made in.
    pub offline: bool,
    pub nonce: Option<String>,
    /// As the authorization request had it.
    pub redirect_uri: Option<String>,
    pub code_challenge: Option<CodeChallenge>,
    pub code_expires_at: Timestamp,
    pub redeemed_at: Option<Timestamp>,
    /// Present once a refresh token was issued.
    pub refresh: Option<RefreshState>,
    pub revoked_at: Option<Timestamp>,
}

/// Where a grant's refresh tokens stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshState {
    /// The generation that counts now; its token is derived from this number.
    pub generation: u32,
    /// When it came to count.
    pub rotated_at: Timestamp,
    pub used_at: Timestamp,
    /// Absolute; rotation never extends it.
    pub expires_at: Timestamp,
}

/// Whom a token is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    User(Box<User>),
    /// The client itself (RFC 9068 §2.2: `sub` is then its `client_id`).
    Client,
}

/// What `issue.rs` shall sign and commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Issuance {
    pub subject: Subject,
    /// Of the access token.
    pub scope: ScopeSet,
    /// The resources that the access token is for.
    pub resources: Vec<String>,
    /// The grant behind it; none for client credentials, nor for tokens from a key that cannot be refreshed.
    pub grant: Option<GrantRecord>,
    /// The API key behind it.
    pub key: Option<KeyUse>,
    /// Only in the ID token that answers a code.
    pub nonce: Option<String>,
    /// The generation of the refresh token to hand out.
    pub refresh: Option<u32>,
    pub commit: Commit,
}

/// A key that something is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    pub kid: ApiKeyId,
    /// Nothing made from it lives longer.
    pub expires_at: Timestamp,
    /// Who acts for its person.
    pub actor: Option<ClientId>,
}

impl KeyUse {
    fn of(key: &ApiKeyRecord, client: &Client, user: &User) -> Self {
        let actor = super::api_key::actor(Some(client), user).cloned();
        Self { kid: key.kid.clone(), expires_at: key.expires_at, actor }
    }
}

/// What must be true in the store before the answer leaves. Each is conditional: if the condition no longer holds,
/// somebody else was first and the request is decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Nothing,
    RedeemCode {
        refresh_expires_at: Option<Timestamp>,
    },
    Rotate {
        from: u32,
    },
    /// The same refresh token goes on; its rest begins anew.
    Touch,
    /// The issuance's grant is new, and its key counts until it is written.
    Create,
}

/// A request that gets no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: Error,
    pub effect: Effect,
}

/// What a refusal does to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// Somebody holds a credential that was used up: whoever it is, the grant ends.
    Revoke {
        grant_id: GrantId,
        reason: RevocationReason,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationReason {
    CodeReplayed,
    RefreshTokenReused,
}

impl RevocationReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CodeReplayed => "code_replayed",
            Self::RefreshTokenReused => "refresh_token_reused",
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, effect: Effect::Nothing }
    }
}

/// The `resource` parameters of a token request narrow those of the grant and never widen them (RFC 8707 §2.2).
fn narrow_resources(granted: &[String], asked: &[String], metadata: &Metadata) -> Result<Vec<String>, Error> {
    if asked.iter().any(|uri| !granted.contains(uri)) {
        return Err(Error::invalid_target("resource was not part of the authorization"));
    }
    let narrowed = if asked.is_empty() { granted } else { asked };
    // Those of the grant may have left the configuration since.
    metadata.check_resources(narrowed)?;
    Ok(narrowed.to_vec())
}

/// The scope of a token for these resources. Scopes that were asked for by name and have no meaning there are
/// refused; those that came along are left out.
fn scope_for(
    metadata: &Metadata,
    scope: &ScopeSet,
    resources: &[String],
    asked: Option<&ScopeSet>,
) -> Result<ScopeSet, Error> {
    let left = metadata.scope_for(scope, resources);
    if asked.is_some_and(|asked| !asked.is_subset(&left)) {
        return Err(Error::invalid_scope("scope has no meaning for this resource"));
    }
    Ok(left)
}

/// When a refresh token issued now ends: never after the key behind it.
fn refresh_expiry(client: &Client, metadata: &Metadata, key: Option<&KeyUse>, now: Timestamp) -> Timestamp {
    let by_itself = now + refresh_token_ttl(client, metadata);
    key.map_or(by_itself, |key| by_itself.min(key.expires_at))
}

/// The key that a grant came from counts no longer.
struct KeyEnded;

/// The key that a grant came from, where it came from one.
fn live_key(
    grant: &GrantRecord,
    key: Option<ApiKeyRecord>,
    client: &Client,
    user: &User,
    now: Timestamp,
) -> Result<Option<KeyUse>, KeyEnded> {
    if grant.api_key_id.is_none() {
        return Ok(None);
    }
    let within =
        |key: &ApiKeyRecord| key.audiences.is_empty() || grant.resources.iter().all(|uri| key.audiences.contains(uri));
    let counts = |key: &ApiKeyRecord| key.is_live(now) && within(key) && super::api_key::may_present(client, user);
    let key = key.filter(counts).ok_or(KeyEnded)?;
    Ok(Some(KeyUse::of(&key, client, user)))
}

/// Lifetime of a client's refresh tokens, from the first one on.
pub fn refresh_token_ttl(client: &Client, metadata: &Metadata) -> Span {
    client.metadata.refresh_token_ttl.unwrap_or(metadata.tokens.refresh_token_ttl)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::client::{AuthMethod, ClientMetadata};

    pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

    pub(crate) fn client(public: bool) -> Client {
        let metadata = ClientMetadata {
            grant_types: GrantType::ALL.to_vec(),
            scope: "openid profile offline_access quiz.read pay teach".parse().unwrap(),
            token_endpoint_auth_method: public.then_some(AuthMethod::None),
            ..ClientMetadata::default()
        };
        Client { id: ClientId::new("app"), metadata, disabled_at: None }
    }

    pub(crate) fn user() -> User {
        User {
            id: UserId::new("alice"),
            username: Some("alice".to_owned()),
            email: None,
            email_verified: false,
            claims: serde_json::Map::new(),
            roles: vec!["student".to_owned()],
            groups: Vec::new(),
            partner: None,
            external_id: None,
            disabled_at: None,
            updated_at: Timestamp(0),
        }
    }

    pub(crate) fn api_key() -> ApiKeyRecord {
        ApiKeyRecord {
            kid: ApiKeyId::new("0123456789abcdef"),
            owner: super::super::api_key::Owner::User(UserId::new("alice")),
            name: "laptop".to_owned(),
            scopes: "openid profile offline_access quiz.read teach".parse().unwrap(),
            audiences: Vec::new(),
            allowed_cidrs: Vec::new(),
            exchange_only: false,
            predecessor: None,
            created_at: Timestamp(0),
            lifetime: Span::days(10),
            expires_at: NOW + Span::days(10),
            revoked_at: None,
        }
    }

    pub(crate) fn grant() -> GrantRecord {
        GrantRecord {
            id: GrantId::new("AAAAAAAAAAAAAAAAAAAAAA"),
            client_id: ClientId::new("app"),
            user_id: UserId::new("alice"),
            session_id: Some(SessionId::new("s")),
            api_key_id: None,
            facade: false,
            scope: "openid profile quiz.read".parse().unwrap(),
            resources: vec!["https://quiz.test".to_owned(), "https://any.test".to_owned()],
            claims: ClaimsRequest::default(),
            authentication: Authentication { auth_time: Some(Timestamp(1)), acr: "a".into(), amr: vec![] },
            offline: false,
            nonce: Some("n".to_owned()),
            redirect_uri: Some("https://app.test/cb".to_owned()),
            code_challenge: None,
            code_expires_at: NOW + Span::from_secs(30),
            redeemed_at: None,
            refresh: None,
            revoked_at: None,
        }
    }

    #[test]
    fn grant_types_are_known_allowed_or_refused() {
        use ErrorCode::*;
        let all = client(false);
        let mut codes_only = client(false);
        codes_only.metadata.grant_types = vec![GrantType::AuthorizationCode];
        for (body, client, expected) in [
            ("", &all, Some(InvalidRequest)),
            ("grant_type=password", &all, Some(UnsupportedGrantType)),
            ("grant_type=implicit", &all, Some(UnsupportedGrantType)),
            ("grant_type=client_credentials", &codes_only, Some(UnauthorizedClient)),
            ("grant_type=authorization_code", &all, Some(InvalidRequest)),
            ("grant_type=refresh_token", &all, Some(InvalidRequest)),
            ("grant_type=client_credentials", &all, None),
            ("grant_type=urn:keyward:oauth:grant-type:api-key", &codes_only, Some(UnauthorizedClient)),
            ("grant_type=urn:keyward:oauth:grant-type:api-key", &all, Some(InvalidRequest)),
            ("grant_type=urn:ietf:params:oauth:grant-type:token-exchange", &all, Some(InvalidRequest)),
        ] {
            let parsed = TokenRequest::parse(&Params::parse(body.as_bytes()).unwrap(), client);
            assert_eq!(parsed.err().map(|e| e.code), expected, "{body}");
        }
    }
}
