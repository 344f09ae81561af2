//! The authorization endpoint (RFC 6749 §3.1, OpenID Connect Core §3.1.2) and where its pages return to. Both ask
//! the same rules, so no page can be skipped; the first row is written when a code leaves.

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::ticket::Ticket;
use crate::ambient::random_bytes;
use crate::crypto::jws::TYP_ID_TOKEN;
use crate::http::error::Fault;
use crate::http::extract::params::{FormParams, QueryParams};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session::{self, Visitor};
use crate::http::pages::{error::PageError, form_post};
use crate::http::{Shared, Web, respond};
use crate::issue::unredeemed_row_expiry;
use crate::protocol::authorize::{Addressed, unverified_client_id};
use crate::protocol::client::Client;
use crate::protocol::grant::GrantRecord;
use crate::protocol::grant::authorization_code::Code;
use crate::protocol::interaction::{self, Step};
use crate::protocol::metadata::path;
use crate::protocol::params::Params;
use crate::protocol::redirect_uri::{AuthorizationResponse, RedirectTarget, with_query};
use crate::protocol::scope::ScopeSet;
use crate::store::grants::{GrantCreation, NewGrant};
use crate::store::sessions::SignedIn;

/// A request as it was understood, or the answer that it gets at once.
enum Parsed {
    Ticket(Box<Ticket>),
    Answer(Response),
}

pub async fn get(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    QueryParams(query): QueryParams,
) -> Result<Response, PageError> {
    match parse(&web, &query?).await? {
        Parsed::Ticket(ticket) => proceed(&web, &headers, address, *ticket).await,
        Parsed::Answer(response) => Ok(response),
    }
}

/// A form of another site brings no `SameSite=Lax` cookies, so the session is looked for one redirect later, by a
/// GET. That holds for every POST, ours and theirs, so that nobody can tell the two apart.
pub async fn post(
    State(web): State<Shared>,
    address: ClientAddress,
    FormParams(form): FormParams,
) -> Result<Response, PageError> {
    match parse(&web, &form?).await? {
        Parsed::Ticket(ticket) => step_to(&web, address, path::AUTHORIZE_RESUME, &ticket).await,
        Parsed::Answer(response) => Ok(response),
    }
}

/// Where every page returns to.
pub async fn resume(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    QueryParams(query): QueryParams,
) -> Result<Response, PageError> {
    let ticket = Ticket::open(&web, query?.get("ticket")).await?;
    proceed(&web, &headers, address, ticket).await
}

async fn parse(web: &Web, params: &Params) -> Result<Parsed, PageError> {
    let app = &web.app;
    let unaddressed = |why| PageError::unaddressed(web, why);
    let client_id = unverified_client_id(params).map_err(unaddressed)?;
    let record = app.store.client(&client_id).await.map_err(Fault::from)?;
    let client = record.as_ref().map(|record| &record.client);
    let addressed = Addressed::prove(params, client, &app.metadata.issuer).map_err(unaddressed)?;
    let hint = addressed.id_token_hint().and_then(|hint| app.keys.current().verify(hint, TYP_ID_TOKEN).ok());
    match addressed.validate(&app.metadata, hint.as_deref()) {
        Ok(request) => Ok(Parsed::Ticket(Box::new(Ticket::new(web, request)))),
        Err(error) => Ok(Parsed::Answer(deliver(web, addressed.target().error(&error), client)?)),
    }
}

/// Takes the next step of a sign-in.
async fn proceed(
    web: &Web,
    headers: &HeaderMap,
    address: ClientAddress,
    ticket: Ticket,
) -> Result<Response, PageError> {
    let app = &web.app;
    let record = app.store.client(&ticket.request.client_id).await.map_err(Fault::from)?;
    let client = record.as_ref().map(|record| &record.client);
    let target = ticket.request.readdress(client, &app.metadata.issuer);
    let target = target.map_err(|why| PageError::unaddressed(web, why))?;
    let Some(client) = client else { return Err(PageError::ticket_expired()) };
    let visitor = session::visitor(web, headers, &client.id).await.map_err(Fault::from)?;
    match next(web, &ticket, client, visitor.as_ref()) {
        Step::Login | Step::SelectAccount => step_to(web, address, path::LOGIN, &ticket).await,
        Step::Consent { .. } => step_to(web, address, path::CONSENT, &ticket).await,
        Step::Fail(error) => deliver(web, target.error(&error), Some(client)),
        Step::Issue { scope, offline } => match visitor {
            Some(visitor) => issue(web, ticket, client, &target, visitor.signed_in, scope, offline).await,
            None => step_to(web, address, path::LOGIN, &ticket).await,
        },
    }
}

/// Asks the rules what comes next for this browser.
pub fn next(web: &Web, ticket: &Ticket, client: &Client, visitor: Option<&Visitor>) -> Step {
    let session = visitor.map(|visitor| &visitor.signed_in.session);
    let consent = visitor.and_then(|visitor| visitor.consent.as_ref());
    let (app, progress) = (&web.app, ticket.progress());
    interaction::next(&ticket.request, client, &app.metadata, session, consent, progress, app.now())
}

/// Sends the browser to one of our pages with the ticket.
pub async fn step_to(web: &Web, address: ClientAddress, page: &str, ticket: &Ticket) -> Result<Response, PageError> {
    let sealed = ticket.seal(web, address.0).await?;
    Ok(respond::see_other(&with_query(&web.url(page), &[("ticket", sealed)])))
}

/// Writes the grant and sends its code.
async fn issue(
    web: &Web,
    ticket: Ticket,
    client: &Client,
    target: &RedirectTarget,
    signed_in: SignedIn,
    scope: ScopeSet,
    offline: bool,
) -> Result<Response, PageError> {
    let app = &web.app;
    let now = app.now();
    let code = Code::new(ticket.id.clone(), random_bytes(app.rng.as_ref()));
    let claims = interaction::claims_within(&ticket.request, &signed_in.session);
    let request = ticket.request;
    let grant = GrantRecord {
        id: ticket.id,
        client_id: client.id.clone(),
        user_id: signed_in.user.id,
        session_id: Some(signed_in.session.id),
        api_key_id: signed_in.session.key.and_then(|key| key.kid),
        facade: false,
        scope,
        resources: request.resources,
        claims,
        authentication: signed_in.session.authentication,
        offline,
        nonce: request.nonce,
        redirect_uri: request.redirect_uri,
        code_challenge: request.code_challenge,
        code_expires_at: now + app.metadata.tokens.authorization_code_ttl,
        redeemed_at: None,
        refresh: None,
        revoked_at: None,
    };
    let new = NewGrant {
        grant,
        code_hash: Some(code.hash()),
        refresh_seed: random_bytes(app.rng.as_ref()),
        expires_at: unredeemed_row_expiry(app, now),
        event: None,
    };
    match app.store.create_grant(new, now).await.map_err(Fault::from)? {
        GrantCreation::Created => deliver(web, target.code(code.expose()), Some(client)),
        GrantCreation::IdUsed => Err(PageError::already_completed(client)),
        GrantCreation::Ended => Err(PageError::ticket_expired()),
    }
}

/// Sends an answer through the browser.
fn deliver(web: &Web, response: AuthorizationResponse, client: Option<&Client>) -> Result<Response, PageError> {
    match response {
        AuthorizationResponse::Redirect(location) => Ok(respond::see_other(&location)),
        AuthorizationResponse::FormPost { action, fields } => form_post::page(web, &action, &fields, client),
    }
}
