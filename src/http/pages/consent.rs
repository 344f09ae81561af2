//! The consent page: what an app may do, said by the person it concerns, and remembered.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::error::PageError;
use super::view::{ConsentPage, ScopeView};
use super::{Forms, account_view, client_view, html, web_host, with_browser_cookie};
use crate::account::audit;
use crate::http::error::Fault;
use crate::http::extract::csrf::{Browser, refuse_foreign};
use crate::http::extract::params::{FormParams, QueryParams};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::oauth::authorize::{next, step_to};
use crate::http::oauth::ticket::Ticket;
use crate::http::{Shared, Web};
use crate::protocol::client::Client;
use crate::protocol::interaction::{Allowed, Step};
use crate::protocol::metadata::path;
use crate::protocol::redirect_uri::with_query;
use crate::protocol::scope::ScopeSet;
use crate::store::events::{Event, EventKind};
use crate::store::sessions::SignedIn;

/// A sign-in that really waits for consent: asked of the rules, not of the URL.
struct Pending {
    ticket: Ticket,
    client: Client,
    signed_in: SignedIn,
    scope: ScopeSet,
}

pub async fn show(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    QueryParams(query): QueryParams,
) -> Result<Response, PageError> {
    let query = query?;
    let sealed = query.get("ticket").unwrap_or_default();
    let ticket = Ticket::open(&web, Some(sealed)).await?;
    match pending(&web, &headers, ticket).await? {
        Ok(pending) => Ok(render(&web, &Browser::of(&web, &headers), &pending, sealed, StatusCode::OK)),
        Err(ticket) => step_to(&web, address, path::AUTHORIZE_RESUME, &ticket).await,
    }
}

pub async fn submit(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    FormParams(form): FormParams,
) -> Result<Response, PageError> {
    refuse_foreign(&web, &headers)?;
    let form = form?;
    let browser = Browser::of(&web, &headers);
    if browser.is_new {
        return Err(PageError::form_of_another_browser());
    }
    let sealed = form.get("ticket").unwrap_or_default();
    let ticket = Ticket::open(&web, Some(sealed)).await?;
    let mut pending = match pending(&web, &headers, ticket).await? {
        Ok(pending) => pending,
        Err(ticket) => return step_to(&web, address, path::AUTHORIZE_RESUME, &ticket).await,
    };
    let vouched = browser.vouches(&web, &csrf_context(&pending), form.get("csrf"));
    let decision = form.get("decision").filter(|_| vouched && form.repeated().is_none());
    match decision {
        Some("allow") => remember(&web, &pending, address).await?,
        Some("deny") => {
            pending.ticket.deny();
            let event = event(&web, EventKind::ConsentDenied, &pending, address);
            web.app.store.record_event(event).await.map_err(Fault::from)?;
        }
        _ => return Ok(render(&web, &browser, &pending, sealed, StatusCode::FORBIDDEN)),
    }
    step_to(&web, address, path::AUTHORIZE_RESUME, &pending.ticket).await
}

/// What waits, or the ticket back where something else comes first.
async fn pending(web: &Web, headers: &HeaderMap, ticket: Ticket) -> Result<Result<Pending, Ticket>, PageError> {
    let app = &web.app;
    let record = app.store.client(&ticket.request.client_id).await.map_err(Fault::from)?;
    let visitor = session::visitor(web, headers, &ticket.request.client_id).await.map_err(Fault::from)?;
    // A client or an address that is no longer what it was when the page was made is for resume to explain.
    let readdressed = ticket.request.readdress(record.as_ref().map(|record| &record.client), &app.metadata.issuer);
    let (Some(record), Some(visitor), Ok(_)) = (record, visitor, readdressed) else { return Ok(Err(ticket)) };
    let client = record.client.clone();
    match next(web, &ticket, &client, Some(&visitor)) {
        Step::Consent { scope } => Ok(Ok(Pending { ticket, client, signed_in: visitor.signed_in, scope })),
        _ => Ok(Err(ticket)),
    }
}

/// A page that was made for one person does not speak for another who signed in meanwhile, nor for another app.
fn csrf_context(pending: &Pending) -> String {
    format!("consent {} {}", pending.signed_in.session.id, pending.ticket.id)
}

async fn remember(web: &Web, pending: &Pending, address: ClientAddress) -> Result<(), PageError> {
    let app = &web.app;
    let allowed = Allowed { scope: pending.scope.clone(), resources: pending.ticket.request.resources.clone() };
    let user_id = &pending.signed_in.user.id;
    let event = event(web, EventKind::ConsentGiven, pending, address);
    let event = event.with("scope", pending.scope.to_string()).with("resources", allowed.resources.clone());
    let client_id = pending.client.id.clone();
    Ok(app.store.remember_consent(user_id.clone(), client_id, allowed, event, app.now()).await.map_err(Fault::from)?)
}

fn event(web: &Web, kind: EventKind, pending: &Pending, address: ClientAddress) -> Event {
    let event = audit::person(&web.app, address.0).event(kind, web.app.now());
    event.of_user(&pending.signed_in.user.id).of_client(&pending.client.id)
}

fn render(web: &Web, browser: &Browser, pending: &Pending, sealed: &str, status: StatusCode) -> Response {
    let metadata = &web.app.metadata;
    let scopes: Vec<ScopeView<'_>> = pending
        .scope
        .iter()
        .map(|name| ScopeView { name, sentence: metadata.scope_description(name), note: None })
        .collect();
    let resources: Vec<&str> = pending.ticket.request.resources.iter().map(String::as_str).collect();
    let redirect_uri = pending.ticket.request.redirect_uri.as_deref();
    let host = redirect_uri.or(pending.client.metadata.redirect_uris.first().map(String::as_str)).and_then(web_host);
    let switch_uri = with_query(&web.url(path::LOGIN), &[("ticket", sealed.to_owned())]);
    let page = ConsentPage {
        chrome: web.branding.chrome(),
        client: client_view(&pending.client, host.as_deref()),
        account: account_view(&pending.signed_in.user),
        switch_uri: Some(&switch_uri),
        scopes: &scopes,
        resources: &resources,
        account_uri: None,
        action: &web.url(path::CONSENT),
        csrf: &browser.token(web, &csrf_context(pending)),
        ticket: sealed,
    };
    with_browser_cookie(web, browser, html(status, &page, Forms::MayLeave))
}
