//! The demo's pages: who is signed in and with which tokens, the end of a sign-out, and whatever went wrong, in words
//! that say what to do next.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::DemoConfig;
use super::session::Session;
use super::tokens::SignedIn;

#[derive(Template)]
#[template(path = "demo/home.html")]
pub(super) struct Home {
    issuer: String,
    base_url: String,
    csrf: String,
    person: Option<Person>,
}

/// A signed-in person as the page shows them.
struct Person {
    name: String,
    facts: Vec<Detail>,
    id_token: Jwt,
    /// `None` when the access token is not a JWT: it is opaque to its client anyway (RFC 6749 §1.4).
    access_token: Option<Jwt>,
    userinfo: Result<String, String>,
    can_refresh: bool,
}

impl Home {
    pub fn new(config: &DemoConfig, session: Option<&mut Session>) -> Self {
        let signed_in = session.as_ref().and_then(|session| session.signed_in.as_ref());
        Self {
            issuer: config.issuer.clone(),
            base_url: config.base_url.clone(),
            person: signed_in.map(|signed_in| Person::new(config, signed_in)),
            csrf: session.map(|session| session.csrf.clone()).unwrap_or_default(),
        }
    }
}

impl IntoResponse for Home {
    fn into_response(self) -> Response {
        render(&self)
    }
}

impl Person {
    fn new(config: &DemoConfig, signed_in: &SignedIn) -> Self {
        let id_token = Jwt::decode(&signed_in.id_token.to_string()).unwrap_or_default();
        let access_token = Jwt::decode(signed_in.access_token.secret());
        let known = [signed_in.userinfo.as_ref().unwrap_or(&Value::Null), &id_token.claims];
        let names = ["name", "preferred_username", "email", "sub"];
        let mut candidates = names.iter().flat_map(|name| known.iter().filter_map(|claims| claims[*name].as_str()));
        let name = candidates.find(|name| !name.trim().is_empty()).unwrap_or_default().to_owned();
        Self {
            facts: facts(config, signed_in, &id_token, access_token.as_ref()),
            name,
            userinfo: signed_in.userinfo.as_ref().map(pretty).map_err(Clone::clone),
            can_refresh: signed_in.refresh_token.is_some(),
            id_token,
            access_token,
        }
    }
}

fn facts(config: &DemoConfig, signed_in: &SignedIn, id_token: &Jwt, access_token: Option<&Jwt>) -> Vec<Detail> {
    let lifetime = signed_in.expires_in.map(|span| format!("{} seconds after it was issued", span.as_secs()));
    let refresh_token = signed_in.refresh_token.as_ref().map_or("none".to_owned(), |token| {
        let beginning: String = token.secret().chars().take(8).collect();
        format!("{beginning}… (the rest stays on the server)")
    });
    let asked = || format!("{} (as asked)", config.scopes.join(" "));
    vec![
        Detail::new("Subject", signed_in.claims.subject().as_str()).id("demo-subject"),
        Detail::new("Issuer", &config.issuer),
        Detail::new("Client", &config.client_id),
        Detail::new("Signed in at", id_token.time("auth_time").unwrap_or_else(|| "not said".to_owned())),
        Detail::new("Scope", signed_in.scope.clone().unwrap_or_else(asked)).id("demo-scope"),
        Detail::new("ID token expires", id_token.time("exp").unwrap_or_else(|| "not said".to_owned())),
        Detail::new(
            "Access token expires",
            access_token.and_then(|jwt| jwt.time("exp")).or(lifetime).unwrap_or_else(|| "not said".to_owned()),
        ),
        Detail::new("Refresh token", refresh_token).id("demo-refresh-token"),
        Detail::new("Refreshed", times(signed_in.refreshes)).id("demo-refresh-count"),
    ]
}

fn times(count: u32) -> String {
    match count {
        0 => "not yet".to_owned(),
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// A JWS (RFC 7515 §3.1) taken apart for the eye; nothing is verified here.
#[derive(Default)]
struct Jwt {
    header: Value,
    claims: Value,
}

impl Jwt {
    fn decode(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let mut json = || serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
        Some(Self { header: json()?, claims: json()? })
    }

    fn header(&self) -> String {
        pretty(&self.header)
    }

    fn claims(&self) -> String {
        pretty(&self.claims)
    }

    /// A `NumericDate` claim as people read it.
    fn time(&self, claim: &str) -> Option<String> {
        let moment = OffsetDateTime::from_unix_timestamp(self.claims[claim].as_i64()?).ok()?;
        moment.format(&Rfc3339).ok()
    }
}

/// `{:#}` of a JSON value is the indented form.
fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

#[derive(Template)]
#[template(path = "demo/signed_out.html")]
pub(super) struct SignedOut {
    issuer: String,
    base_url: String,
    at_provider: bool,
    still_signed_in: bool,
}

impl SignedOut {
    pub fn new(config: &DemoConfig, at_provider: bool, still_signed_in: bool) -> Self {
        let (issuer, base_url) = (config.issuer.clone(), config.base_url.clone());
        Self { issuer, base_url, at_provider, still_signed_in }
    }
}

impl IntoResponse for SignedOut {
    fn into_response(self) -> Response {
        render(&self)
    }
}

/// Something that did not work: what, and what to do about it.
#[derive(Debug, Template)]
#[template(path = "demo/trouble.html")]
pub(super) struct Trouble {
    status: StatusCode,
    title: &'static str,
    advice: &'static str,
    details: Vec<Detail>,
}

/// A line of a page's list of facts.
#[derive(Debug)]
struct Detail {
    label: &'static str,
    value: String,
    /// For people's scripts; empty: none.
    id: &'static str,
}

impl Detail {
    fn new(label: &'static str, value: impl Into<String>) -> Self {
        Self { label, value: value.into(), id: "" }
    }

    fn id(self, id: &'static str) -> Self {
        Self { id, ..self }
    }
}

impl Trouble {
    pub fn new(status: StatusCode, title: &'static str, advice: &'static str) -> Self {
        Self { status, title, advice, details: Vec::new() }
    }

    pub fn detail(mut self, label: &'static str, value: impl ToString) -> Self {
        self.details.push(Detail::new(label, value.to_string()));
        self
    }

    /// In one line, for another page.
    pub fn line(&self) -> String {
        let details = self.details.iter().map(|detail| format!("; {}: {}", detail.label, detail.value));
        std::iter::once(self.title.to_owned()).chain(details).collect()
    }

    /// The provider answered, with an error (RFC 6749 §4.1.2.1 and §5.2, OpenID Connect Core 1.0 §3.1.2.6).
    pub fn answered(title: &'static str, error: &str, description: Option<&str>, uri: Option<&str>) -> Self {
        let mut trouble = Self::new(StatusCode::BAD_REQUEST, title, advice(error));
        trouble.details.push(Detail::new("error", error).id("demo-error"));
        if let Some(description) = description {
            trouble.details.push(Detail::new("error_description", description).id("demo-error-description"));
        }
        // Shown, not linked: the demo vouches for no address that it was given.
        trouble.details.extend(uri.map(|uri| Detail::new("error_uri", uri)));
        trouble
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (self.status, render(&self)).into_response()
    }
}

fn advice(error: &str) -> &'static str {
    match error {
        "access_denied" => "Access was refused, most often with the button on the consent page. You can try again.",
        "login_required" => "There is no session that fits, and prompt=none forbids asking. Sign in without it.",
        "consent_required" | "interaction_required" | "account_selection_required" => {
            "Keyward must ask you something, and prompt=none forbids asking. Sign in without it."
        }
        "invalid_scope" => "The demo asks for a scope that its client may not have. Compare the client's scope.",
        "invalid_client" | "unauthorized_client" => {
            "The demo's client is unknown, has another secret, or may not do this. Compare its registration."
        }
        "invalid_grant" => "The code or refresh token is used up, expired or revoked. Sign in again.",
        "server_error" | "temporarily_unavailable" => {
            "Keyward has a problem. Its log says more; try again in a moment."
        }
        _ => "The request did not please the provider. The lines below say why.",
    }
}

fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
