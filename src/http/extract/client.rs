//! The client that calls `/token`, `/introspect` or `/revoke`, authenticated.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::http::Web;
use crate::http::error::TokenError;
use crate::protocol::client_auth;
use crate::protocol::error::Error;
use crate::protocol::params::Params;
use crate::store::clients::ClientRecord;

/// Proves who calls (RFC 6749 §2.3). `query` is that of the URL: credentials there would end up in logs.
pub async fn authenticate(
    web: &Web,
    headers: &HeaderMap,
    query: &Params,
    params: &Params,
) -> Result<Arc<ClientRecord>, TokenError> {
    let challenge = headers.contains_key(AUTHORIZATION);
    prove(web, headers, query, params).await.map_err(|error| error.challenged(challenge))
}

async fn prove(
    web: &Web,
    headers: &HeaderMap,
    query: &Params,
    params: &Params,
) -> Result<Arc<ClientRecord>, TokenError> {
    if query.get("client_secret").is_some() {
        return Err(Error::invalid_request("client_secret must not be sent in the URL").into());
    }
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
