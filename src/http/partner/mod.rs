//! `/v1/partner`: what partners' backends call. Whose people they reach is said by their credential and never by the
//! request; whoever is somebody else's is answered as if they were not there.

pub mod handoff;
pub mod imports;
pub mod keys;
pub mod onboarding;
pub mod register;
pub mod users;

use axum::extract::{DefaultBodyLimit, FromRequestParts};
use http::HeaderMap;
use http::request::Parts;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::bearer;
use super::extract::peer::ClientAddress;
use super::problem::Problem;
use super::{Shared, Web};
use crate::account::api_keys::{self, Rejected};
use crate::account::partner::Partner;
use crate::crypto::api_key::ApiKey;
use crate::http::error::BearerError;
use crate::live;
use crate::protocol::claims;
use crate::protocol::partner::may_administer;
use crate::protocol::scope::ScopeSet;
use crate::store::clients::ClientRecord;

/// The partner that calls.
pub struct Caller(pub Partner);

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &Shared) -> Result<Self, Problem> {
        let Ok(address) = ClientAddress::from_request_parts(parts, web).await;
        let (client, scope) = credential(web, &parts.headers, address).await?;
        if !may_administer(&client.client, &scope) {
            let detail = "this needs the credential of a partner itself, with the scope partner.users";
            return Err(Problem::forbidden("insufficient_scope", detail));
        }
        let name = client.client.display_name().to_owned();
        Ok(Self(Partner { id: client.client.id.clone(), name, address: address.0 }))
    }
}

/// Whose credential came, and what it is good for: a partner's own key, or a token that a client got for itself.
async fn credential(
    web: &Web,
    headers: &HeaderMap,
    address: ClientAddress,
) -> Result<(std::sync::Arc<ClientRecord>, ScopeSet), Problem> {
    let app = &web.app;
    let refused = || BearerError::from(bearer::refused());
    let text = bearer::of_header(headers)?;
    if ApiKey::claims(&text) {
        return match api_keys::check_partners(app, &text, address.0).await? {
            Ok((key, client)) => Ok((client, key.record.scopes.clone())),
            Err(Rejected::Bad) => Err(refused().into()),
            Err(Rejected::Throttled(throttled)) => Err(Problem::throttled(throttled)),
        };
    }
    let live = live::access_token(app, &text, app.now()).await?.ok_or_else(refused)?;
    if !claims::audience(&live.token.claims).contains(&app.metadata.issuer.as_str()) {
        return Err(refused().into());
    }
    let client = app.store.client(&live.token.client_id).await?.ok_or_else(refused)?;
    // A person's token is about that person only, whoever got it.
    let scope = if live.user().is_none() { live.scope } else { ScopeSet::default() };
    Ok((client, scope))
}

/// All of them, described.
pub fn routes() -> OpenApiRouter<Shared> {
    let large = OpenApiRouter::new().routes(routes!(imports::create)).layer(DefaultBodyLimit::max(imports::BODY_LIMIT));
    OpenApiRouter::new()
        .routes(routes!(users::list, register::register))
        .routes(routes!(users::show, users::change, users::delete))
        .routes(routes!(users::disable))
        .routes(routes!(users::enable))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::revoke))
        .routes(routes!(handoff::create))
        .merge(large)
        .routes(routes!(imports::show))
        .routes(routes!(onboarding::list))
        .routes(routes!(onboarding::retry))
}

/// There is nobody by this id, or not for this partner.
fn no_such_user() -> Problem {
    Problem::not_found("there is no such user")
}
