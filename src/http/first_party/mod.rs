//! Sign-up and sign-in by plain calls of apps of our own, each API in the words of the system that it comes from. A
//! route is there only where its API has a client.

pub mod device;
pub mod username;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use super::error::{BearerError, CHALLENGE, Fault, with_retry_after};
use super::extract::bearer;
use super::rate_limit::{with_quota, with_throttle};
use super::serve::BodyProblem;
use super::{Shared, Web, cors};
use crate::limit::{Quota, Throttled};
use crate::live::{self, LiveToken};
use crate::protocol::claims;
use crate::protocol::client::Client;
use crate::protocol::first_party::Api;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::Span;
use crate::protocol::user::User;
use crate::store::Result as StoreResult;

/// Where each API begins.
pub const fn prefix(api: Api) -> &'static str {
    match api {
        Api::Username => "/api/auth",
        Api::Device => "/auth",
    }
}

fn client_id(web: &Web, api: Api) -> Option<&ClientId> {
    web.app.config.sign_in_apis.client_of(api)
}

/// The API that a path below the issuer belongs to.
pub fn api_of(web: &Web, path: &str) -> Option<Api> {
    let below = |api: &Api| {
        let rest = path.strip_prefix(prefix(*api));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    Api::ALL.into_iter().find(|api| client_id(web, *api).is_some() && below(api))
}

pub fn router(web: &Shared) -> Router<Shared> {
    let mut router = Router::new();
    for (api, routes) in [(Api::Username, username::routes()), (Api::Device, device::routes())] {
        if let Some(client) = client_id(web, api) {
            let origins = (Arc::clone(web), client.clone());
            router = router.merge(routes.layer(from_fn_with_state(origins, cors::origins_of_client)));
        }
    }
    router
}

/// The client of an API, as its calls see it; `None` while somebody has disabled it, or nobody has made it yet.
async fn client(web: &Web, api: Api) -> StoreResult<Option<Client>> {
    let Some(id) = client_id(web, api) else { return Ok(None) };
    let record = web.app.store.client(id).await?;
    Ok(record.filter(|record| record.client.is_enabled()).map(|record| api.client(&record.client)))
}

/// What a call's credential is to an API.
enum Presented {
    Nothing,
    Bad,
    Expired,
    /// A token whose person is disabled or gone.
    NobodyThere,
    /// A token about no person.
    NotAPerson,
    Live(Box<(LiveToken, User)>),
}

/// Only access tokens of the API's own client count, and none that was made from an API key.
async fn presented(web: &Web, headers: &HeaderMap, api: Api) -> StoreResult<Presented> {
    let (app, now) = (&web.app, web.app.now());
    let text = match bearer::of_header(headers) {
        Ok(text) => text,
        Err(BearerError::Missing) => return Ok(Presented::Nothing),
        Err(_) => return Ok(Presented::Bad),
    };
    let Some(token) = live::authentic_access_token(app, &text) else { return Ok(Presented::Bad) };
    let for_us = claims::audience(&token.claims).contains(&app.metadata.issuer.as_str());
    if Some(&token.client_id) != client_id(web, api) || token.key_id.is_some() || !for_us {
        return Ok(Presented::Bad);
    }
    if now >= token.expires_at {
        return Ok(Presented::Expired);
    }
    match live::access_token(app, &text, now).await? {
        Some(live) => Ok(match live.user().cloned() {
            Some(user) => Presented::Live(Box::new((live, user))),
            None => Presented::NotAPerson,
        }),
        None => {
            let sub = token.claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or_default();
            let there = app.store.user(&UserId::new(sub)).await?.is_some_and(|user| user.is_active());
            Ok(if there { Presented::Bad } else { Presented::NobodyThere })
        }
    }
}

/// What goes with an error beside its body.
#[derive(Debug, Default)]
struct Hints {
    quota: Option<Quota>,
    throttled: Option<Throttled>,
    retry_after: Option<Span>,
    fault: Option<Fault>,
}

impl Hints {
    fn dress(self, mut response: Response) -> Response {
        let Self { quota, throttled, retry_after, fault } = self;
        if let Some(quota) = quota {
            response = with_quota(response, &quota);
        }
        if let Some(throttled) = throttled {
            response = with_throttle(response, &throttled);
        }
        if let Some(retry_after) = retry_after {
            response = with_retry_after(response, retry_after);
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(fault) = fault {
            response.extensions_mut().insert(fault);
        }
        response
    }
}

/// An answer that no handler gave, in the form of the API.
pub fn failed(api: Api, fault: Fault) -> Response {
    match api {
        Api::Username => username::Refused::from(fault).into_response(),
        Api::Device => device::Refused::from(fault).into_response(),
    }
}

/// A body that was not read to its end, in the form of the API.
pub fn body_refused(api: Api, problem: BodyProblem) -> Response {
    match api {
        Api::Username => username::Refused::from(problem).into_response(),
        Api::Device => device::Refused::from(problem).into_response(),
    }
}
