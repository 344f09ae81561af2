//! The client that calls `/token`, `/introspect` or `/revoke`, authenticated (RFC 6749 §2.3).

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::params::{FormParams, QueryParams};
use crate::http::error::TokenError;
use crate::http::{Shared, Web};
use crate::protocol::client::Client;
use crate::protocol::client_auth;
use crate::protocol::error::Error;
use crate::protocol::params::Params;
use crate::store::clients::ClientRecord;

/// A request whose sender is not proven yet.
pub struct Unproven {
    headers: HeaderMap,
    secret_in_url: bool,
    pub params: Params,
}

/// A request whose sender is proven, with the parameters of its body.
pub struct Caller {
    record: Arc<ClientRecord>,
    pub params: Params,
}

impl Caller {
    pub fn client(&self) -> &Client {
        &self.record.client
    }
}

impl FromRequest<Shared> for Unproven {
    type Rejection = TokenError;

    async fn from_request(request: Request, web: &Shared) -> Result<Self, TokenError> {
        let (mut parts, body) = request.into_parts();
        let QueryParams(query) = QueryParams::from_request_parts(&mut parts, web).await.unwrap_or_else(infallible);
        let headers = parts.headers.clone();
        let request = Request::from_parts(parts, body);
        let FormParams(params) = FormParams::from_request(request, web).await.unwrap_or_else(infallible);
        let params = params?;
        Ok(Self { headers, secret_in_url: query?.get("client_secret").is_some(), params })
    }
}

impl Unproven {
    /// Finds out who sent it.
    pub async fn prove(self, web: &Web) -> Result<Caller, TokenError> {
        // In the URL a secret would end up in logs.
        if self.secret_in_url {
            return Err(Error::invalid_request("client_secret must not be sent in the URL").into());
        }
        let challenge = self.headers.contains_key(AUTHORIZATION);
        let record = authenticate(web, &self.headers, &self.params).await;
        Ok(Caller { record: record.map_err(|error| error.challenged(challenge))?, params: self.params })
    }
}

impl FromRequest<Shared> for Caller {
    type Rejection = TokenError;

    async fn from_request(request: Request, web: &Shared) -> Result<Self, TokenError> {
        Unproven::from_request(request, web).await?.prove(web).await
    }
}

fn infallible<T>(never: Infallible) -> T {
    match never {}
}

async fn authenticate(web: &Web, headers: &HeaderMap, params: &Params) -> Result<Arc<ClientRecord>, TokenError> {
    if let Some(name) = params.repeated() {
        return Err(Error::invalid_request(format!("{name} was sent more than once")).into());
    }
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let header = lines.next().map(|line| line.to_str().unwrap_or_default());
    if lines.next().is_some() {
        return Err(Error::invalid_request("more than one Authorization header").into());
    }
    let credentials = client_auth::parse(header, params)?;
    let record = web.app.store.client(&credentials.unverified_client_id).await?;
    let client = record.as_ref().map(|record| &record.client);
    let secrets = record.as_ref().map(|record| record.secrets.as_slice()).unwrap_or_default();
    client_auth::authenticate(&credentials, client, secrets, web.app.now())?;
    record.ok_or_else(|| Error::invalid_client("client authentication failed").into())
}
