//! The page that a partner's link leads to. Looking at it changes nothing; its form signs the browser in, once, so that
//! neither a program that fetches links nor a stranger's page does.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::error::PageError;
use super::view::HandOffPage;
use super::{Forms, account_view, client_view, html, with_browser_cookie};
use crate::account::partner::handoff::{self, HandedOver};
use crate::crypto::digest::{base64url, sha256};
use crate::http::error::Fault;
use crate::http::extract::csrf::{Browser, refuse_foreign};
use crate::http::extract::params::{FormParams, QueryParams};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::{Shared, Web, respond};
use crate::protocol::metadata::path;
use crate::protocol::params::Params;
use crate::store::sessions::SignedIn;

/// A browser with a link that is good.
struct Visit<'a> {
    token: &'a str,
    handed_over: HandedOver,
    signed_in: Option<SignedIn>,
    browser: Browser,
}

impl<'a> Visit<'a> {
    async fn load(web: &Web, headers: &HeaderMap, params: &'a Params) -> Result<Self, PageError> {
        let token = params.get("token").unwrap_or_default();
        let about = handoff::about(&web.app, token).await.map_err(Fault::from)?;
        let handed_over = about.ok_or_else(PageError::handoff_over)?;
        let signed_in = session::current(web, headers).await.map_err(Fault::from)?;
        Ok(Self { token, handed_over, signed_in, browser: Browser::of(web, headers) })
    }

    /// The form speaks for this link alone.
    fn csrf_context(&self) -> String {
        format!("handoff {}", base64url(&sha256(self.token.as_bytes())))
    }

    fn render(&self, web: &Web, status: StatusCode) -> Response {
        let user = &self.handed_over.user;
        let other = self.signed_in.as_ref().filter(|signed_in| signed_in.user.id != user.id);
        let page = HandOffPage {
            chrome: web.branding.chrome(),
            client: client_view(&self.handed_over.partner.client, None),
            account: account_view(user),
            replaces: other.map(|signed_in| account_view(&signed_in.user)),
            action: &web.url(path::HANDOFF),
            csrf: &self.browser.token(web, &self.csrf_context()),
            token: self.token,
        };
        with_browser_cookie(web, &self.browser, html(status, &page, Forms::OwnOnly))
    }
}

pub async fn show(
    State(web): State<Shared>,
    headers: HeaderMap,
    QueryParams(query): QueryParams,
) -> Result<Response, PageError> {
    let query = query?;
    Ok(Visit::load(&web, &headers, &query).await?.render(&web, StatusCode::OK))
}

pub async fn submit(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    FormParams(form): FormParams,
) -> Result<Response, PageError> {
    refuse_foreign(&web, &headers)?;
    let form = form?;
    let visit = Visit::load(&web, &headers, &form).await?;
    if form.repeated().is_some() || !visit.browser.vouches(&web, &visit.csrf_context(), form.get("csrf")) {
        return Ok(visit.render(&web, StatusCode::FORBIDDEN));
    }
    let replaced = visit.signed_in.as_ref().map(|signed_in| &signed_in.session);
    let accepted = handoff::accept(&web.app, visit.token, &visit.handed_over, replaced, address.0).await;
    let (secret, lifetime) = accepted.map_err(Fault::from)?.ok_or_else(PageError::handoff_over)?;
    let mut response = respond::see_other(&web.url(path::LOGIN));
    session::set_cookies(&web, response.headers_mut(), &secret, lifetime)?;
    Ok(response)
}
