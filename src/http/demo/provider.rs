//! The provider as its relying party sees it: discovery (OpenID Connect Discovery 1.0 §4), its keys, and the HTTP
//! client that the `openidconnect` crate speaks through.
//!
//! What is done with them is for `sign_in`, `tokens` and `sign_out`.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
    CoreSubjectIdentifierType,
};
use openidconnect::{
    AdditionalProviderMetadata, AsyncHttpClient, ClientId, ClientSecret, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    HttpRequest, HttpResponse, IssuerUrl, LogoutProviderMetadata, ProviderMetadata, RedirectUrl,
};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};

use super::Demo;
use super::page::Trouble;

/// The discovery document with the two members that the library's own type leaves out.
pub(super) type Metadata = ProviderMetadata<
    LogoutProviderMetadata<ResponseIssuer>,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// RFC 9207 §3.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ResponseIssuer {
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for ResponseIssuer {}

/// The library's client, with the endpoints that discovery tells.
pub(super) type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

impl Demo {
    /// What discovery said, asked for at first use.
    pub async fn metadata(&self) -> Result<Arc<Metadata>, Trouble> {
        if let Some(known) = self.metadata.read().await.as_ref() {
            return Ok(Arc::clone(known));
        }
        self.discover().await
    }

    /// Asks again: the provider may have new keys.
    pub async fn discover(&self) -> Result<Arc<Metadata>, Trouble> {
        let issuer = IssuerUrl::new(self.config.issuer.clone()).map_err(|error| {
            Trouble::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The issuer is not a URL",
                "Correct the demo's configuration.",
            )
            .detail("Issuer", &self.config.issuer)
            .detail("Cause", error)
        })?;
        let metadata = Metadata::discover_async(issuer, &self.http).await.map_err(|error| {
            Trouble::new(
                StatusCode::BAD_GATEWAY,
                "Keyward does not answer as expected",
                "The demo reads the discovery document and the keys of its issuer before anything else. Check that \
                 the provider runs at this address, then try again: nothing has to be restarted.",
            )
            .detail("Issuer", &self.config.issuer)
            .detail("Cause", chain(&error))
        })?;
        let metadata = Arc::new(metadata);
        *self.metadata.write().await = Some(Arc::clone(&metadata));
        Ok(metadata)
    }

    pub fn client(&self, metadata: &Metadata) -> Result<Client, Trouble> {
        let redirect_uri = RedirectUrl::new(format!("{}/callback", self.config.base_url)).map_err(|error| {
            Trouble::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The base URL is not a URL",
                "Correct the demo's configuration.",
            )
            .detail("Base URL", &self.config.base_url)
            .detail("Cause", error)
        })?;
        let secret = ClientSecret::new(self.config.client_secret.expose().clone());
        let client_id = ClientId::new(self.config.client_id.clone());
        Ok(Client::from_provider_metadata(metadata.clone(), client_id, Some(secret)).set_redirect_uri(redirect_uri))
    }
}

/// The transport. An answer is never followed elsewhere: a token request must not be replayed to another host.
pub(super) struct Http(Result<reqwest::Client, String>);

const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any discovery document, key set or token response needs.
const MAX_ANSWER: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum HttpFailure {
    #[error("the HTTP client could not be made: {0}")]
    Setup(String),
    #[error(transparent)]
    Transport(#[from] reqwest::Error),
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    #[error(transparent)]
    Message(#[from] openidconnect::http::Error),
}

impl Http {
    pub fn new(issuer: &str) -> Self {
        // The provider runs beside the demo, where no proxy of the environment could reach it.
        let mut builder = reqwest::Client::builder().redirect(Policy::none()).timeout(TIMEOUT).no_proxy();
        if issuer.starts_with("http://") {
            // Otherwise a machine without CA certificates could not even make a client for plain HTTP.
            builder = builder.tls_certs_only([]);
        }
        Self(builder.build().map_err(|error| chain(&error)))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let client = self.0.as_ref().map_err(|cause| HttpFailure::Setup(cause.clone()))?;
        let mut answer = client.execute(request.try_into()?).await?;
        let mut response = openidconnect::http::Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            response = response.header(name, value);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(HttpFailure::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(response.body(body)?)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpFailure;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpFailure>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// An error with its causes: the first line alone often says only that something failed.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
