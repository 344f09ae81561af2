//! Who somebody is, to whatever credential they show.

use axum::response::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::openapi::Problems;
use crate::http::error::{BearerError, Fault};
use crate::http::extract::authenticated::{Authenticated, Required};
use crate::http::extract::bearer::{self, Bearer};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::problem::Problem;
use crate::http::{Shared, respond};
use crate::protocol::claims::{self, ClaimsRequest};
use crate::protocol::scope::{STANDARD, ScopeSet};
use crate::protocol::user::User;
use crate::store::sessions::SignedIn;

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

    fn of_session(signed_in: &SignedIn) -> Self {
        let all: ScopeSet = STANDARD.iter().map(|scope| (*scope).to_owned()).collect();
        Self::of(&signed_in.user, signed_in.session.key.as_ref().map_or(&all, |key| &key.scope))
    }
}

/// Who this is: to a key, a token or a browser's session.
#[utoipa::path(get, path = "/v1/me", tag = "me", security(("bearer" = []), ("session" = [])),
    responses((status = 200, body = Me), Problems))]
pub async fn me(Required(me): Required<Me>) -> Response {
    respond::json(StatusCode::OK, &me)
}

/// Whoever has a key, a token or a browser's session.
impl Authenticated for Me {
    type Rejection = Problem;

    async fn authenticate(web: &Shared, parts: &Parts) -> Result<Result<Self, Problem>, Fault> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(match session::current(web, &parts.headers).await? {
                Some(signed_in) => Ok(Self::of_session(&signed_in)),
                None => Err(Problem::unauthorized("unauthorized", "this call needs a key, a token or a session")),
            });
        }
        let address = parts.extensions.get::<ClientAddress>().copied().unwrap_or(ClientAddress(None));
        let found = match bearer::of_header(&parts.headers) {
            Ok(text) => Bearer::find(&web.app, &text, address).await,
            Err(error) => Err(error),
        };
        Ok(match found {
            Err(BearerError::Fault(fault)) => return Err(fault),
            Err(error) => Err(error.into()),
            Ok(bearer) => match bearer.user() {
                Some(user) => Ok(Self::of(user, bearer.scope())),
                None => Err(Problem::forbidden("insufficient_scope", "this token is a client's own and about nobody")),
            },
        })
    }
}
