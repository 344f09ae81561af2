//! The page that carries an authorization response to an app by POST (OAuth 2.0 Form Post Response Mode). Its script
//! is one line under a nonce; without scripts there is a button.

use axum::response::Response;
use http::StatusCode;

use super::error::PageError;
use super::view::{Field, FormPostPage};
use super::{client_view, html_with_policy};
use crate::ambient::random_token;
use crate::http::Web;
use crate::protocol::client::Client;

pub fn page(
    web: &Web,
    action: &str,
    fields: &[(&'static str, String)],
    client: Option<&Client>,
) -> Result<Response, PageError> {
    let fields: Vec<Field<'_>> = fields.iter().map(|(name, value)| Field { name, value }).collect();
    let host = super::web_host(action);
    let nonce = random_token::<16>(web.app.rng.as_ref());
    let page = FormPostPage {
        chrome: web.branding.chrome(),
        client: client.map(|client| client_view(client, host.as_deref())),
        action,
        fields: &fields,
        nonce: &nonce,
    };
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self' https: data:; script-src 'nonce-{nonce}'; \
         frame-ancestors 'none'; base-uri 'none'"
    );
    Ok(html_with_policy(StatusCode::OK, &page, &policy))
}
