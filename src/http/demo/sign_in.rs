//! The code flow's two ends in the browser: the authorization request (OpenID Connect Core 1.0 §3.1.2.1, PKCE by
//! RFC 7636) and its answer (§3.1.2.5, with `iss` of RFC 9207).
//!
//! What the code is worth is for `tokens`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use openidconnect::core::CoreAuthenticationFlow;
use openidconnect::{CsrfToken, Nonce, PkceCodeChallenge, Scope};

use super::Demo;
use super::page::Trouble;
use super::provider::Metadata;
use super::received::{Received, unreadable};
use super::session::Attempt;

/// Parameters handed through to the provider as they are, so that one can try what it does with them.
const EXPERIMENTS: [&str; 3] = ["prompt", "max_age", "response_mode"];

pub(super) async fn start(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Trouble> {
    let received = Received::query(&query);
    let metadata = demo.metadata().await?;
    let client = demo.client(&metadata)?;
    let (challenge, code_verifier) = PkceCodeChallenge::new_random_sha256();
    let flow = CoreAuthenticationFlow::AuthorizationCode;
    let mut request =
        client.authorize_url(flow, CsrfToken::new_random, Nonce::new_random).set_pkce_challenge(challenge);
    // The library asks for `openid` by itself.
    for scope in demo.config.scopes.iter().filter(|scope| *scope != "openid") {
        request = request.add_scope(Scope::new(scope.clone()));
    }
    for name in EXPERIMENTS {
        if let Some(value) = received.one(name)? {
            request = request.add_extra_param(name, value);
        }
    }
    let max_age = received.one("max_age")?.and_then(|seconds| seconds.parse().ok());
    let (url, state, nonce) = request.url();
    let attempt = Attempt { state: state.into_secret(), nonce, code_verifier, max_age };
    let cookie = demo.sessions.ensure(&headers, |session| session.remember(attempt));
    Ok((cookie, Redirect::to(url.as_str())).into_response())
}

/// The provider's answer.
struct Answer {
    state: Option<String>,
    iss: Option<String>,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    error_uri: Option<String>,
    /// JARM, which the demo does not read.
    response: Option<String>,
}

impl Answer {
    fn read(received: &Received) -> Result<Self, Trouble> {
        Ok(Self {
            state: received.one("state")?,
            iss: received.one("iss")?,
            code: received.one("code")?,
            error: received.one("error")?,
            error_description: received.one("error_description")?,
            error_uri: received.one("error_uri")?,
            response: received.one("response")?,
        })
    }
}

pub(super) async fn callback_query(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    query: RawQuery,
) -> Result<Response, Trouble> {
    finish(&demo, &headers, Answer::read(&Received::query(&query))?).await
}

/// `response_mode=form_post`. The cookie comes along only where provider and demo are one site, as on localhost.
pub(super) async fn callback_form(
    State(demo): State<Arc<Demo>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Trouble> {
    finish(&demo, &headers, Answer::read(&Received::form(body)?)?).await
}

async fn finish(demo: &Demo, headers: &HeaderMap, answer: Answer) -> Result<Response, Trouble> {
    let Some(state) = answer.state.as_deref() else { return Err(without_state(&answer)) };
    let attempt = demo.sessions.of(headers, |session| session.claim(state)).flatten();
    let attempt = attempt.ok_or_else(|| not_ours(demo, &answer))?;
    check_issuer(&demo.config.issuer, &*demo.metadata().await?, answer.iss.as_deref())?;
    if let Some(error) = &answer.error {
        let (description, uri) = (answer.error_description.as_deref(), answer.error_uri.as_deref());
        return Err(Trouble::answered("Keyward did not sign you in", error, description, uri));
    }
    let code = answer.code.ok_or_else(|| unreadable("It has neither a code nor an error."))?;
    let signed_in = demo.redeemed(code, attempt).await?;
    let cookie = demo.sessions.sign_in(headers, signed_in);
    Ok((cookie, Redirect::to("/")).into_response())
}

/// RFC 9207 §2.4: compared whenever it is there, required where the provider says that it sends it.
fn check_issuer(issuer: &str, metadata: &Metadata, unverified_iss: Option<&str>) -> Result<(), Trouble> {
    let required = metadata.additional_metadata().additional_metadata.authorization_response_iss_parameter_supported;
    let (title, received) = match unverified_iss {
        Some(iss) if iss == issuer => return Ok(()),
        None if !required => return Ok(()),
        Some(iss) => ("This answer comes from another issuer", iss),
        None => ("This answer does not say who it comes from", "(absent)"),
    };
    Err(Trouble::new(
        StatusCode::BAD_REQUEST,
        title,
        "The demo took nothing from it. Start again from the demo's start page.",
    )
    .detail("Expected iss", issuer)
    .detail("Received iss", received))
}

/// Nothing to go by: most often the answer is where a server cannot read it.
fn without_state(answer: &Answer) -> Trouble {
    if answer.response.is_some() {
        return unreadable("It is a signed response (response_mode=jwt), which this demo does not read.");
    }
    let trouble = Trouble::new(
        StatusCode::BAD_REQUEST,
        "This address has no answer for the demo",
        "It carries no state. With response_mode=fragment the answer stands behind the # in the address bar, which a \
         browser does not send to a server. Sign in again without response_mode.",
    );
    with_unverified_error(trouble, answer)
}

fn not_ours(demo: &Demo, answer: &Answer) -> Trouble {
    let trouble = Trouble::new(
        StatusCode::BAD_REQUEST,
        "This browser did not start this sign-in",
        "Its state is unknown here: it was used before, was started in another browser, or the demo has restarted \
         since. Sign in again, beginning at the address below (its cookie is not sent to another host name).",
    )
    .detail("The demo's address", &demo.config.base_url);
    with_unverified_error(trouble, answer)
}

/// Anybody can write a link with an `error`, so these words are shown as what they are.
fn with_unverified_error(trouble: Trouble, answer: &Answer) -> Trouble {
    let received = [("Unverified error", &answer.error), ("Unverified description", &answer.error_description)];
    received.into_iter().fold(trouble, |trouble, (label, value)| match value {
        Some(value) => trouble.detail(label, value),
        None => trouble,
    })
}
