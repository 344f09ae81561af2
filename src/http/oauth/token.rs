//! The token endpoint (RFC 6749 §3.2): who calls, which grant, load, decide, mint.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::account::api_keys::{self, Rejected};
use crate::account::audit;
use crate::ambient::random_bytes;
use crate::app::App;
use crate::crypto::digest::constant_time_eq;
use crate::http::error::{Fault, TokenError};
use crate::http::extract::client::Unproven;
use crate::http::extract::peer::ClientAddress;
use crate::http::{Shared, Web, respond};
use crate::issue::{self, Minted, Tokens};
use crate::live::{self, Look};
use crate::protocol::api_key::{ApiKeyRecord, may_present};
use crate::protocol::client::{Client, GrantType};
use crate::protocol::error::Error;
use crate::protocol::grant::api_key::TOKEN_TYPE_ACCESS_TOKEN;
use crate::protocol::grant::{
    Commit, Effect, Grant as _, GrantRecord, Issuance, Refusal, TokenRequest, api_key, authorization_code,
    refresh_token,
};
use crate::protocol::ids::GrantId;
use crate::protocol::params::Params;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;
use crate::store::Result as StoreResult;
use crate::store::events::EventKind;
use crate::store::grants::StoredGrant;
use crate::telemetry::metrics;

/// How often a request that was overtaken by another on the same grant is decided again. Each time the grant has
/// moved on, so the second decision by the database is final but for a third request in between.
const TRIES: usize = 8;

pub async fn token(
    State(web): State<Shared>,
    address: ClientAddress,
    request: Result<Unproven, TokenError>,
) -> Result<Response, TokenError> {
    let grant_type = request.as_ref().map_or(metrics::UNSUPPORTED, |request| grant_type(&request.params));
    let answer = match request {
        Ok(request) => answer(&web, address, request).await,
        Err(error) => Err(error),
    };
    metrics::token_request(
        grant_type,
        answer.as_ref().map_or_else(|error| error.code().as_str(), |_| metrics::SUCCESS),
    );
    answer
}

/// The grant as metrics name it: one of ours or none.
fn grant_type(params: &Params) -> &'static str {
    let known = params.get("grant_type").and_then(|name| name.parse::<GrantType>().ok());
    known.map_or(metrics::UNSUPPORTED, GrantType::as_str)
}

async fn answer(web: &Web, address: ClientAddress, request: Unproven) -> Result<Response, TokenError> {
    let caller = request.prove(web).await?;
    let client = caller.client();
    let tokens = tokens(&web.app, client, address, || TokenRequest::parse(&caller.params, client)).await?;
    let mut body = body(tokens);
    // RFC 8693 §2.2.1
    if caller.params.get("grant_type") == Some(GrantType::TokenExchange.as_str()) {
        body.insert("issued_token_type".to_owned(), TOKEN_TYPE_ACCESS_TOKEN.into());
    }
    Ok(respond::json(StatusCode::OK, &body))
}

/// The tokens for a request, which is read anew for each round that another request on the same grant was faster.
pub async fn tokens(
    app: &App,
    client: &Client,
    address: ClientAddress,
    request: impl Fn() -> Result<TokenRequest, Error>,
) -> Result<Tokens, TokenError> {
    let mut memory = Memory::Trusted;
    for _ in 0..TRIES {
        if let Some(tokens) = attempt(app, client, address, request()?, memory).await? {
            return Ok(*tokens);
        }
        memory = Memory::Doubted;
    }
    Err(Fault::transient("a grant was overtaken again and again").into())
}

/// Whether a round may go by what is remembered of a grant: the first one, since it is nearly always so still.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Trusted,
    Doubted,
}

/// One round of load, decide, mint; `None` where the grant is not as it was taken to be, and another round must tell.
async fn attempt(
    app: &App,
    client: &Client,
    address: ClientAddress,
    request: TokenRequest,
    memory: Memory,
) -> Result<Option<Box<Tokens>>, TokenError> {
    // One time for the whole, so that what was decided to last so long does.
    let now = app.now();
    let Decided { outcome, seed, from_memory } = decide(app, client, address, request, memory, now).await?;
    if from_memory && !outcome.as_ref().is_ok_and(|issuance| matches!(issuance.commit, Commit::Rotate { .. })) {
        return Ok(None);
    }
    let issuance = match outcome {
        Ok(issuance) => issuance,
        Err(refusal) => return Err(refuse(app, client, address, refusal).await),
    };
    match issue::mint(app, client, issuance, &seed, address.0, now).await? {
        Minted::Tokens(tokens) => Ok(Some(tokens)),
        Minted::Overtaken => Ok(None),
    }
}

struct Decided {
    outcome: Result<Issuance, Refusal>,
    /// That of the grant's refresh tokens.
    seed: Vec<u8>,
    /// By what is remembered of the grant. Whether that is still so is found by a rotation, which is conditional, and by
    /// nothing else.
    from_memory: bool,
}

/// Loads the facts of the grant and asks its rules.
async fn decide(
    app: &App,
    client: &Client,
    address: ClientAddress,
    request: TokenRequest,
    memory: Memory,
    now: Timestamp,
) -> Result<Decided, TokenError> {
    let metadata = &app.metadata;
    let mut from_memory = false;
    let (outcome, seed) = match request {
        TokenRequest::AuthorizationCode(request) => {
            let stored = match &request.code {
                None => None,
                Some(code) => {
                    let stored = app.store.grant(&code.grant_id).await?;
                    stored.filter(|stored| constant_time_eq(&stored.code_hash, &code.hash()))
                }
            };
            let Parts { grant, user, key, seed } = parts(app, stored).await?;
            (request.decide(client, metadata, authorization_code::Facts { grant, user, key }, now), seed)
        }
        TokenRequest::RefreshToken(request) => {
            let token = &request.unverified_token;
            let remembered = match memory {
                Memory::Trusted => live::refresh_token(app, token, Look::Memory).await?,
                Memory::Doubted => None,
            };
            from_memory = remembered.is_some();
            let rotates = client.rotates_refresh_tokens(metadata.tokens.refresh_token_rotation);
            let look = if rotates { Look::DatabaseToRotate } else { Look::Database };
            let (stored, generation) = match remembered {
                None => live::refresh_token(app, token, look).await?,
                remembered => remembered,
            }
            .unzip();
            let Parts { grant, user, key, seed } = parts(app, stored).await?;
            let facts = refresh_token::Facts { grant, generation: generation.unwrap_or(0), user, key };
            (request.decide(client, metadata, facts, now), seed)
        }
        TokenRequest::ApiKey(request) => {
            let opens = |_: &ApiKeyRecord, user: &User| may_present(client, user);
            let key = match api_keys::check(app, &request.unverified_key, address.0, opens).await? {
                Ok(key) => Some(key),
                Err(Rejected::Bad) => None,
                Err(Rejected::Throttled(throttled)) => return Err(TokenError::throttled(throttled)),
            };
            let facts = api_key::Facts {
                from: address.0,
                key: key.and_then(|key| Some((key.record.clone(), key.user.clone()?))),
                grant_id: GrantId::from_random(app.rng.id()),
            };
            let seed: [u8; 32] = random_bytes(app.rng.as_ref());
            (request.decide(client, metadata, facts, now), seed.to_vec())
        }
        TokenRequest::ClientCredentials(request) => (request.decide(client, metadata, (), now), Vec::new()),
    };
    Ok(Decided { outcome, seed, from_memory })
}

/// A grant with all that it leans on.
#[derive(Default)]
struct Parts {
    grant: Option<GrantRecord>,
    user: Option<User>,
    key: Option<ApiKeyRecord>,
    seed: Vec<u8>,
}

async fn parts(app: &App, stored: Option<StoredGrant>) -> StoreResult<Parts> {
    let Some(stored) = stored else { return Ok(Parts::default()) };
    if !live::partner_stands(app, &stored.user).await? {
        return Ok(Parts::default());
    }
    let key = live::key_of_grant(app, &stored.grant, app.now()).await?;
    Ok(Parts { grant: Some(stored.grant), user: Some(stored.user), key, seed: stored.refresh_seed })
}

/// Carries out what a refusal does besides its answer.
async fn refuse(app: &App, client: &Client, address: ClientAddress, refusal: Refusal) -> TokenError {
    if let Effect::Revoke { grant_id, reason } = &refusal.effect {
        let now = app.now();
        let event = audit::client(app, &client.id, address.0).event(EventKind::GrantRevoked, now);
        // An answer that promises the grant's end must not leave before it has ended.
        if let Err(error) = app.store.revoke_grant(grant_id.clone(), reason.as_str(), event, now).await {
            return error.into();
        }
    }
    refusal.error.into()
}

/// RFC 6749 §5.1, OpenID Connect Core §3.1.3.3.
fn body(tokens: Tokens) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("access_token".to_owned(), tokens.access_token.into());
    body.insert("token_type".to_owned(), "Bearer".into());
    body.insert("expires_in".to_owned(), tokens.expires_in.secs().into());
    body.insert("scope".to_owned(), tokens.scope.to_string().into());
    for (name, token) in [("refresh_token", tokens.refresh_token), ("id_token", tokens.id_token)] {
        if let Some(token) = token {
            body.insert(name.to_owned(), token.into());
        }
    }
    body
}
