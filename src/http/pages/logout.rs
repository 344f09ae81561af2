//! The end-session endpoint (OpenID Connect RP-Initiated Logout §2) and its page. A click is needed unless the app
//! shows an ID token of this very session; the browser goes back only to a registered address, and only with a hint.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::error::PageError;
use super::view::{Link, LogoutPage, SignedOutPage};
use super::{Forms, account_view, client_view, html, with_browser_cookie};
use crate::account::sessions;
use crate::crypto::jws::TYP_ID_TOKEN;
use crate::http::error::Fault;
use crate::http::extract::csrf::{Browser, refuse_foreign};
use crate::http::extract::params::{FormParams, QueryParams};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::oauth::ticket::open_sealed;
use crate::http::{Shared, Web, respond};
use crate::protocol::client::Client;
use crate::protocol::interaction::SIGN_IN_LIFETIME;
use crate::protocol::logout::{LogoutRequest, unverified_client_id};
use crate::protocol::metadata::path;
use crate::protocol::params::Params;
use crate::protocol::redirect_uri::with_query;
use crate::protocol::time::Timestamp;
use crate::store::clients::ClientRecord;
use crate::store::sessions::SignedIn;

pub async fn get(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    QueryParams(query): QueryParams,
) -> Result<Response, PageError> {
    let query = query?;
    let request = match query.get("ticket") {
        Some(sealed) => open(&web, sealed),
        None => resolve(&web, &query).await?,
    };
    let signed_in = session::current(&web, &headers).await.map_err(Fault::from)?;
    match signed_in {
        Some(signed_in) if request.needs_confirmation(Some(&signed_in.session)) => {
            confirm(&web, &headers, &request, &signed_in, StatusCode::OK).await
        }
        signed_in => sign_out(&web, address, &request, signed_in).await,
    }
}

/// Our own confirmation page, or a form of an app's. The latter brings no cookies when it comes from another site,
/// so it is sent on to a GET that does.
pub async fn post(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    FormParams(form): FormParams,
) -> Result<Response, PageError> {
    let form = form?;
    let Some(action) = form.get("action") else {
        let request = resolve(&web, &form).await?;
        let sealed = seal(&web, &request)?;
        return Ok(respond::see_other(&with_query(&web.url(path::LOGOUT), &[("ticket", sealed)])));
    };
    refuse_foreign(&web, &headers)?;
    let request = match form.get("ticket") {
        Some(sealed) => open(&web, sealed),
        None => LogoutRequest::default(),
    };
    let signed_in = session::current(&web, &headers).await.map_err(Fault::from)?;
    let Some(signed_in) = signed_in else { return sign_out(&web, address, &request, None).await };
    let browser = Browser::of(&web, &headers);
    let vouched = browser.vouches(&web, &csrf_context(&signed_in), form.get("csrf"));
    match action {
        _ if !vouched || form.repeated().is_some() => {
            confirm(&web, &headers, &request, &signed_in, StatusCode::FORBIDDEN).await
        }
        "logout" => sign_out(&web, address, &request, Some(signed_in)).await,
        _ => Ok(respond::see_other(&web.url(path::LOGIN))),
    }
}

async fn resolve(web: &Web, params: &Params) -> Result<LogoutRequest, PageError> {
    let hint = params.get("id_token_hint");
    let hint = hint.and_then(|hint| web.app.keys.current().verify(hint, TYP_ID_TOKEN).ok());
    let record = match unverified_client_id(params, hint.as_deref()) {
        None => None,
        Some(id) => web.app.store.client(&id).await.map_err(Fault::from)?,
    };
    Ok(LogoutRequest::resolve(params, hint.as_deref(), record.as_ref().map(|record| &record.client)))
}

/// A request that waits for a click, or for the redirect that brings the cookies.
#[derive(Serialize, Deserialize)]
struct Ticket {
    issued_at: Timestamp,
    request: LogoutRequest,
}

fn seal(web: &Web, request: &LogoutRequest) -> Result<String, PageError> {
    let ticket = Ticket { issued_at: web.app.now(), request: request.clone() };
    let bytes = serde_json::to_vec(&ticket).map_err(Fault::new)?;
    Ok(web.app.keys.server.logouts.seal(&bytes).map_err(Fault::new)?)
}

/// The request of a ticket. One that is too old, or not ours, asks for nothing but to be signed out.
fn open(web: &Web, sealed: &str) -> LogoutRequest {
    let ticket: Option<Ticket> = open_sealed(&web.app.keys.server.logouts, sealed).ok();
    let in_time = ticket.filter(|ticket| web.app.now() < ticket.issued_at + SIGN_IN_LIFETIME);
    in_time.map(|ticket| ticket.request).unwrap_or_default()
}

fn csrf_context(signed_in: &SignedIn) -> String {
    format!("logout {}", signed_in.session.id)
}

async fn confirm(
    web: &Web,
    headers: &HeaderMap,
    request: &LogoutRequest,
    signed_in: &SignedIn,
    status: StatusCode,
) -> Result<Response, PageError> {
    let browser = Browser::of(web, headers);
    let record = client_of(web, request).await?;
    let page = LogoutPage {
        chrome: web.branding.chrome(),
        client: record.as_ref().map(|record| client_view(&record.client, None)),
        account: account_view(&signed_in.user),
        action: &web.url(path::LOGOUT),
        csrf: &browser.token(web, &csrf_context(signed_in)),
        ticket: Some(&seal(web, request)?),
    };
    // The answer to the click may send the browser on to the app.
    let leaves = request.redirect(record.as_ref().map(|record| &record.client)).is_some();
    let forms = if leaves { Forms::MayLeave } else { Forms::OwnOnly };
    Ok(with_browser_cookie(web, &browser, html(status, &page, forms)))
}

async fn client_of(web: &Web, request: &LogoutRequest) -> Result<Option<Arc<ClientRecord>>, PageError> {
    match &request.client_id {
        None => Ok(None),
        Some(id) => Ok(web.app.store.client(id).await.map_err(Fault::from)?),
    }
}

async fn sign_out(
    web: &Web,
    address: ClientAddress,
    request: &LogoutRequest,
    signed_in: Option<SignedIn>,
) -> Result<Response, PageError> {
    if let Some(signed_in) = &signed_in {
        sessions::sign_out(&web.app, &signed_in.session, address.0).await.map_err(Fault::from)?;
    }
    let record = client_of(web, request).await?;
    let client = record.as_ref().map(|record| &record.client);
    let mut response = match request.redirect(client) {
        Some(location) => respond::see_other(&location),
        None => signed_out_page(web, client),
    };
    session::remove_cookies(web, response.headers_mut());
    Ok(response)
}

fn signed_out_page(web: &Web, client: Option<&Client>) -> Response {
    let label = client.map(|client| format!("Back to {}", client.display_name())).unwrap_or_default();
    let back = client.and_then(|client| client.metadata.client_uri.as_deref()).map(|href| Link { href, label: &label });
    let page = SignedOutPage {
        chrome: web.branding.chrome(),
        client: client.map(|client| client_view(client, None)),
        back,
        login_uri: Some(&web.url(path::LOGIN)),
    };
    html(StatusCode::OK, &page, Forms::None)
}
