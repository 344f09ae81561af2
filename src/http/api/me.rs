//! Who somebody is, to whatever credential they show.

use axum::extract::State;
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::openapi::Problems;
use crate::http::extract::bearer::{self, Bearer};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::problem::Problem;
use crate::http::{Shared, respond};
use crate::protocol::claims::{self, ClaimsRequest};
use crate::protocol::scope::{STANDARD, ScopeSet};
use crate::protocol::user::User;

/// A person, as far as the credential's scopes tell of them: `profile` brings the name, `email` the address, `roles`
/// and `groups` themselves. A browser's own session tells everything.
#[derive(Serialize, ToSchema)]
pub struct Me {
    /// The `sub` of tokens.
    #[schema(example = "QFtX0rqsTvmkQ4n1Yf4OJw")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "alice")]
    username: Option<String>,
    /// `email`, `email_verified`, `name`, `roles`, `groups` and the other claims of OpenID Connect Core §5.1.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    claims: Map<String, Value>,
}

impl Me {
    fn of(user: &User, scope: &ScopeSet) -> Self {
        let mut claims = claims::userinfo(user, scope, &ClaimsRequest::default());
        claims.remove("sub");
        let username = user.username.clone().filter(|_| scope.contains("profile"));
        Self { id: user.id.as_str().to_owned(), username, claims }
    }
}

/// Who this is: to a key, a token or a browser's session.
#[utoipa::path(get, path = "/v1/me", tag = "me", security(("bearer" = []), ("session" = [])),
    responses((status = 200, body = Me), Problems))]
pub async fn me(State(web): State<Shared>, headers: HeaderMap, address: ClientAddress) -> Result<Response, Problem> {
    if headers.contains_key(AUTHORIZATION) {
        let text = bearer::of_header(&headers)?;
        let bearer = Bearer::find(&web.app, &text, address).await?;
        let Some(user) = bearer.user() else {
            return Err(Problem::forbidden("insufficient_scope", "this token is a client's own and about nobody"));
        };
        return Ok(respond::json(StatusCode::OK, &Me::of(user, bearer.scope())));
    }
    let Some(signed_in) = session::current(&web, &headers).await? else {
        return Err(Problem::unauthorized("unauthorized", "this call needs a key, a token or a session"));
    };
    let all: ScopeSet = STANDARD.iter().map(|scope| (*scope).to_owned()).collect();
    let scope = signed_in.session.key.as_ref().map_or(&all, |key| &key.scope);
    Ok(respond::json(StatusCode::OK, &Me::of(&signed_in.user, scope)))
}
