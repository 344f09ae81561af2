//! Signing out: here at once, then at the provider (OpenID Connect RP-Initiated Logout 1.0 §2), which may ask the
//! person first and sends the browser back to `/signed-out`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use openidconnect::core::CoreIdToken;
use openidconnect::{CsrfToken, LogoutRequest, PostLogoutRedirectUrl};

use super::page::{SignedOut, Trouble};
use super::received::Received;
use super::{Demo, checked_session};

pub(super) async fn start(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Trouble> {
    let signed_in = checked_session(&demo, &headers, body, |session| session.signed_in.take())?;
    let Some(signed_in) = signed_in else {
        return Ok(Redirect::to("/").into_response());
    };
    // From here on nothing undoes the sign-out in the demo, whatever the provider does.
    let state = CsrfToken::new_random();
    match logout_url(&demo, &signed_in.id_token, &state).await {
        Ok(url) => Ok((demo.sessions.sign_out(&headers, state.into_secret()), Redirect::to(&url)).into_response()),
        Err(trouble) => Ok((demo.sessions.close(&headers), trouble).into_response()),
    }
}

async fn logout_url(demo: &Demo, id_token: &CoreIdToken, state: &CsrfToken) -> Result<String, Trouble> {
    let only_here = |cause: &str| {
        Trouble::new(
            StatusCode::BAD_GATEWAY,
            "You are signed out of the demo only",
            "The provider could not be asked to sign you out as well. Your session there may still be open.",
        )
        .detail("Cause", cause)
    };
    let metadata = demo.metadata().await.map_err(|trouble| only_here(&trouble.line()))?;
    let endpoint = metadata.additional_metadata().end_session_endpoint.clone();
    let endpoint = endpoint.ok_or_else(|| only_here("The discovery document names no end_session_endpoint."))?;
    let back = PostLogoutRedirectUrl::new(format!("{}/signed-out", demo.config.base_url))
        .map_err(|error| only_here(&error.to_string()))?;
    let request = LogoutRequest::from(endpoint)
        .set_id_token_hint(id_token)
        .set_post_logout_redirect_uri(back)
        .set_state(state.clone());
    Ok(request.http_get_url().into())
}

pub(super) async fn finished(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Trouble> {
    let unverified_state = Received::query(&query).one("state")?;
    let expected = demo.sessions.of(&headers, |session| session.sign_out_state.take()).flatten();
    // Only a return that this browser's own request explains says something about the provider.
    let at_provider = expected.is_some() && expected == unverified_state;
    let signed_in = demo.sessions.of(&headers, |session| session.signed_in.is_some()).unwrap_or(false);
    Ok(SignedOut::new(&demo.config, at_provider, signed_in).into_response())
}
