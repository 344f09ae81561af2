//! What people do with their own keys. Only somebody who has just signed in by hand may: a key, and whatever came from
//! one, must never make another.

use axum::extract::State;
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::openapi::Problems;
use super::paging::{Asked, List, Page};
use crate::account::api_keys::{self, MintError, Minted};
use crate::account::audit;
use crate::http::extract::csrf::is_own_call;
use crate::http::extract::json::{Json, OptionalJson};
use crate::http::extract::params::ApiQuery;
use crate::http::extract::path::PathId;
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::problem::Problem;
use crate::http::{Shared, Web, respond};
use crate::live;
use crate::protocol::api_key::{ApiKeyRecord, DEFAULT_OVERLAP, MAX_OVERLAP, Owner, Unacceptable, Wish};
use crate::protocol::ids::ApiKeyId;
use crate::protocol::params::Params;
use crate::protocol::scope::ScopeSet;
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;
use crate::store::api_keys::ListedApiKey;

/// How old a sign-in may be.
const FRESH: Span = Span::minutes(5);

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What it is for. Only a registration may leave it out.
    #[serde(default)]
    #[schema(example = "laptop", min_length = 1, max_length = 100)]
    name: Option<String>,
    /// What it may do; without it, `openid profile email roles groups offline_access`.
    #[serde(default)]
    scopes: Option<Vec<String>>,
    /// Resources that its tokens are for; none: unbound.
    #[serde(default)]
    audiences: Vec<String>,
    /// Networks that it may be used from; none: from anywhere.
    #[serde(default)]
    allowed_cidrs: Vec<String>,
    /// Seconds; without it, what `api_keys.default_ttl` says, which is a year unless it was changed.
    #[serde(default)]
    #[schema(minimum = 1)]
    expires_in: Option<i64>,
    /// It opens nothing itself and is good for tokens only.
    #[serde(default)]
    exchange_only: bool,
}

impl NewKey {
    /// What is asked for; `name` is what a key without one is called, where it may have none.
    pub fn wish(self, name: Option<&str>) -> Result<Wish, Problem> {
        let name = self.name.or_else(|| name.map(str::to_owned));
        let name = name.ok_or_else(|| Problem::invalid_request("missing field `name`"))?;
        let scopes = self.scopes.map(|scopes| scopes.join(" ").parse::<ScopeSet>()).transpose();
        let scopes = scopes
            .map_err(|malformed| Problem::new(StatusCode::BAD_REQUEST, "invalid_scope", malformed.to_string()))?;
        Ok(Wish {
            name,
            scopes,
            audiences: self.audiences,
            allowed_cidrs: self.allowed_cidrs,
            // Longer than any policy allows is as good as the longest number.
            expires_in: self.expires_in.map(|seconds| Span::from_secs(seconds.clamp(-1, i64::from(u32::MAX)))),
            exchange_only: self.exchange_only,
        })
    }
}

/// How a key is replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// How long the old key goes on, in seconds.
    #[schema(minimum = 0, maximum = 604_800)]
    overlap_seconds: Option<i64>,
}

impl Rotation {
    pub fn overlap(body: Option<Self>) -> Result<Span, Problem> {
        let seconds = body.and_then(|body| body.overlap_seconds).unwrap_or(DEFAULT_OVERLAP.secs());
        if !(0..=MAX_OVERLAP.secs()).contains(&seconds) {
            return Err(Problem::invalid_request(format!("overlap_seconds is 0 to {}", MAX_OVERLAP.secs())));
        }
        Ok(Span::from_secs(seconds))
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LostKey {
    #[schema(example = "kw_uk_…")]
    api_key: String,
}

/// A key that was just made, this once with the key itself.
#[derive(Serialize, ToSchema)]
pub struct MintedKey {
    id: String,
    #[schema(example = "kw_uk_…")]
    key: String,
    scopes: Vec<String>,
    #[schema(format = DateTime)]
    expires_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct MintedAnswer {
    api_key: MintedKey,
}

impl MintedAnswer {
    pub fn of(minted: &Minted) -> Self {
        Self { api_key: MintedKey::of(minted) }
    }
}

impl MintedKey {
    pub fn of(minted: &Minted) -> Self {
        let key = &minted.record;
        Self {
            id: key.kid.as_str().to_owned(),
            key: minted.key.expose().clone(),
            scopes: key.scopes.iter().map(str::to_owned).collect(),
            expires_at: key.expires_at.rfc3339(),
        }
    }
}

/// A key without what proves it.
#[derive(Serialize, ToSchema)]
pub struct KeyAnswer {
    id: String,
    name: String,
    scopes: Vec<String>,
    audiences: Vec<String>,
    allowed_cidrs: Vec<String>,
    exchange_only: bool,
    /// The key that this one replaced.
    predecessor: Option<String>,
    /// `active`, `expired` or `revoked`.
    status: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
    /// To the minute.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    last_used_ip: Option<String>,
}

impl KeyAnswer {
    pub fn of(key: &ListedApiKey, now: Timestamp) -> Self {
        let record = &key.record;
        Self {
            id: record.kid.as_str().to_owned(),
            name: record.name.clone(),
            scopes: record.scopes.iter().map(str::to_owned).collect(),
            audiences: record.audiences.clone(),
            allowed_cidrs: record.allowed_cidrs.iter().map(ToString::to_string).collect(),
            exchange_only: record.exchange_only,
            predecessor: record.predecessor.as_ref().map(|kid| kid.as_str().to_owned()),
            status: record.status(now).as_str(),
            created_at: record.created_at.rfc3339(),
            expires_at: record.expires_at.rfc3339(),
            revoked_at: record.revoked_at.map(Timestamp::rfc3339),
            last_used_at: key.last_used_at.map(Timestamp::rfc3339),
            last_used_ip: key.last_used_ip.clone(),
        }
    }
}

/// A page of an owner's keys, the newest first.
pub async fn keys_of(web: &Web, owner: &Owner, query: &Params) -> Result<List<KeyAnswer>, Problem> {
    let page = Asked::of(query)?;
    let after = page.cursor.map(ApiKeyId::new);
    let keys = web.app.store.api_keys(Some(owner), after.as_ref(), page.to_read()).await?;
    let now = web.app.now();
    Ok(page.list(keys, |last| last.record.kid.as_str().to_owned(), |key| KeyAnswer::of(key, now)))
}

/// The person who signed in by hand in this browser a moment ago.
async fn recently_signed_in(web: &Web, headers: &HeaderMap) -> Result<User, Problem> {
    let refused = || {
        let detail = "this needs a sign-in at most 5 minutes old, in this browser; a key or a token does not do";
        Problem::unauthorized("reauthentication_required", detail)
    };
    if headers.contains_key(AUTHORIZATION) {
        return Err(refused());
    }
    let signed_in = session::current(web, headers).await?.ok_or_else(refused)?;
    let now = web.app.now();
    let at = signed_in.session.authentication.auth_time.filter(|_| signed_in.session.key.is_none());
    if at.is_none_or(|at| now - at > FRESH || at > now + Span::minutes(1)) {
        return Err(refused());
    }
    if !is_own_call(web, headers) {
        return Err(Problem::foreign());
    }
    Ok(signed_in.user)
}

/// A key of this person; somebody else's is as good as none.
async fn own(web: &Web, user: &User, kid: &str) -> Result<ApiKeyRecord, Problem> {
    let key = web.app.store.listed_api_key(&ApiKeyId::new(kid)).await?;
    let key = key.map(|key| key.record).filter(|key| key.owner == Owner::User(user.id.clone()));
    key.ok_or_else(|| Problem::not_found("there is no such key"))
}

/// Your keys, the newest first.
#[utoipa::path(get, path = "/v1/me/api-keys", tag = "me", params(Page), security(("session" = [])),
    responses((status = 200, body = List<KeyAnswer>), Problems))]
pub async fn list(
    State(web): State<Shared>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery,
) -> Result<Response, Problem> {
    let user = recently_signed_in(&web, &headers).await?;
    Ok(respond::json(StatusCode::OK, &keys_of(&web, &Owner::User(user.id), &query).await?))
}

/// Make a key. It is shown this once.
#[utoipa::path(post, path = "/v1/me/api-keys", tag = "me", request_body = NewKey, security(("session" = [])),
    responses((status = 201, body = MintedAnswer), Problems))]
pub async fn create(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    Json(body): Json<NewKey>,
) -> Result<Response, Problem> {
    let user = recently_signed_in(&web, &headers).await?;
    let author = audit::person(&web.app, address.0);
    let minted = api_keys::mint_for_user(&web.app, &user, body.wish(None)?, None, &author).await?;
    Ok(respond::json(StatusCode::CREATED, &MintedAnswer::of(&minted)))
}

/// Put a new key in the place of one of yours, which goes on for a while.
#[utoipa::path(post, path = "/v1/me/api-keys/{kid}/rotate", tag = "me", request_body = Option<Rotation>,
    params(("kid" = String, Path, description = "The key's id.")), security(("session" = [])),
    responses((status = 201, body = MintedAnswer), Problems))]
pub async fn rotate(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    PathId(kid): PathId,
    OptionalJson(body): OptionalJson<Rotation>,
) -> Result<Response, Problem> {
    let user = recently_signed_in(&web, &headers).await?;
    let overlap = Rotation::overlap(body)?;
    let old = own(&web, &user, &kid).await?;
    let minted = api_keys::rotate(&web.app, &old, overlap, &audit::person(&web.app, address.0)).await?;
    Ok(respond::json(StatusCode::CREATED, &MintedAnswer::of(&minted)))
}

/// End one of your keys, with all tokens and sessions that were made from it.
#[utoipa::path(delete, path = "/v1/me/api-keys/{kid}", tag = "me",
    params(("kid" = String, Path, description = "The key's id.")), security(("session" = [])),
    responses((status = 204, description = "It has ended."), Problems))]
pub async fn revoke(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    PathId(kid): PathId,
) -> Result<Response, Problem> {
    let user = recently_signed_in(&web, &headers).await?;
    let key = own(&web, &user, &kid).await?;
    api_keys::revoke(&web.app, &key, &audit::person(&web.app, address.0)).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// End a key that was lost or found. Holding it is enough, and the answer says nothing of it.
#[utoipa::path(post, path = "/v1/api-keys/self-revoke", tag = "me", request_body = LostKey,
    responses((status = 204, description = "If it was a key, it has ended."), Problems))]
pub async fn self_revoke(
    State(web): State<Shared>,
    address: ClientAddress,
    Json(body): Json<LostKey>,
) -> Result<Response, Problem> {
    if let Some(key) = live::known_api_key(&web.app, &body.api_key).await? {
        api_keys::revoke(&web.app, &key.record, &audit::holder(&web.app, address.0)).await?;
    }
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

impl From<MintError> for Problem {
    fn from(error: MintError) -> Self {
        let detail = error.to_string();
        match error {
            MintError::Store(error) => error.into(),
            MintError::Unacceptable(Unacceptable::Scope(_) | Unacceptable::NoScope) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_scope", detail)
            }
            MintError::Unacceptable(Unacceptable::Audience(_) | Unacceptable::Audiences) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_target", detail)
            }
            MintError::Unacceptable(_) => Self::invalid_request(detail),
            MintError::NoOwner => Self::not_found(detail),
            MintError::TooMany => Self::conflict("too_many_api_keys", detail),
            MintError::NotLive => Self::conflict("api_key_not_active", detail),
            MintError::Replaced => Self::conflict("api_key_already_rotated", detail),
        }
    }
}
