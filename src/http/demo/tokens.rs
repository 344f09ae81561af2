//! What a relying party does with tokens: redeem the code or the refresh token, verify the ID token (OpenID Connect
//! Core 1.0 §3.1.3.7, §3.1.3.8 and §12.2) and ask for the claims of the person (§5.3).
//!
//! Signature, `iss`, `aud`, `exp` and the nonce are verified by the `openidconnect` crate, whose clock it uses.

use std::time::Duration;

use axum::http::StatusCode;
use openidconnect::core::{CoreGenderClaim, CoreIdToken, CoreIdTokenClaims, CoreRequestTokenError, CoreTokenResponse};
use openidconnect::{
    AccessToken, AccessTokenHash, AdditionalClaims, AuthorizationCode, ClaimsVerificationError, Nonce,
    OAuth2TokenResponse, RefreshToken, SignatureVerificationError, SubjectIdentifier, TokenResponse, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Demo;
use super::page::Trouble;
use super::provider::{Client, HttpFailure, Metadata, chain};
use super::session::Attempt;

/// How much longer than `max_age` ago the person may have signed in when the ID token is made: consent takes a while.
const CONSENT_SECONDS: i64 = 300;

/// Everything the provider gave us about one person.
#[derive(Clone)]
pub(super) struct SignedIn {
    pub id_token: CoreIdToken,
    pub claims: CoreIdTokenClaims,
    pub access_token: AccessToken,
    pub refresh_token: Option<RefreshToken>,
    /// As the token response said it; absent means what was asked for (RFC 6749 §5.1).
    pub scope: Option<String>,
    pub expires_in: Option<Duration>,
    /// The claims of the userinfo endpoint, or why there are none.
    pub userinfo: Result<Value, String>,
    pub refreshes: u32,
    nonce: Nonce,
}

impl SignedIn {
    pub fn same_refresh_token(&self, other: &Self) -> bool {
        self.refresh_token.as_ref().map(RefreshToken::secret) == other.refresh_token.as_ref().map(RefreshToken::secret)
    }
}

/// Userinfo members that are no standard claims: kept as they came.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct OtherClaims(Map<String, Value>);

impl AdditionalClaims for OtherClaims {}

impl Demo {
    /// Code → tokens → verified ID token → userinfo.
    pub async fn redeemed(&self, code: String, attempt: Attempt) -> Result<SignedIn, Trouble> {
        let metadata = self.metadata().await?;
        let client = self.client(&metadata)?;
        let request = client.exchange_code(AuthorizationCode::new(code)).map_err(no_token_endpoint)?;
        let request = request.set_pkce_verifier(attempt.code_verifier);
        let tokens = request.request_async(&self.http).await.map_err(|error| self.token_trouble(&error))?;
        let id_token = tokens.id_token().ok_or_else(|| refused("The token response has no ID token."))?.clone();
        let claims = self.verified(&metadata, &id_token, tokens.access_token(), &attempt.nonce, true).await?;
        if let Some(max_age) = attempt.max_age {
            let signed_in_at =
                claims.auth_time().ok_or_else(|| refused("max_age was sent, but auth_time is absent."))?;
            let age = claims.issue_time().timestamp().saturating_sub(signed_in_at.timestamp());
            if age > max_age.saturating_add(CONSENT_SECONDS) {
                return Err(refused(&format!("max_age was {max_age}, but the person signed in {age} seconds before.")));
            }
        }
        let userinfo = self.userinfo(&metadata, tokens.access_token(), claims.subject()).await;
        Ok(SignedIn {
            id_token,
            claims,
            access_token: tokens.access_token().clone(),
            refresh_token: tokens.refresh_token().cloned(),
            scope: scope(&tokens),
            expires_in: tokens.expires_in(),
            userinfo,
            refreshes: 0,
            nonce: attempt.nonce,
        })
    }

    /// The refresh grant. What the answer leaves out stays as it was (RFC 6749 §6).
    pub async fn refreshed(&self, before: &SignedIn) -> Result<SignedIn, Trouble> {
        let metadata = self.metadata().await?;
        let Some(refresh_token) = &before.refresh_token else {
            return Err(Trouble::new(
                StatusCode::BAD_REQUEST,
                "There is no refresh token",
                "The provider gave none: the scope offline_access brings it. Sign in again.",
            ));
        };
        let client = self.client(&metadata)?;
        let request = client.exchange_refresh_token(refresh_token).map_err(no_token_endpoint)?;
        let tokens = request.request_async(&self.http).await.map_err(|error| self.token_trouble(&error))?;
        let mut after = before.clone();
        if let Some(id_token) = tokens.id_token() {
            let claims = self.verified(&metadata, id_token, tokens.access_token(), &before.nonce, false).await?;
            same_person(&before.claims, &claims)?;
            after.id_token = id_token.clone();
            after.claims = claims;
        }
        after.access_token = tokens.access_token().clone();
        after.refresh_token = tokens.refresh_token().cloned().or(after.refresh_token);
        after.scope = scope(&tokens).or(after.scope);
        after.expires_in = tokens.expires_in();
        after.userinfo = self.userinfo(&metadata, &after.access_token, after.claims.subject()).await;
        after.refreshes = before.refreshes.saturating_add(1);
        Ok(after)
    }

    /// Verifies the ID token; an unknown `kid` means that the provider has rotated its keys, so those are fetched anew.
    async fn verified(
        &self,
        metadata: &Metadata,
        id_token: &CoreIdToken,
        access_token: &AccessToken,
        nonce: &Nonce,
        nonce_required: bool,
    ) -> Result<CoreIdTokenClaims, Trouble> {
        let first = verify(&self.client(metadata)?, id_token, access_token, nonce, nonce_required);
        let outcome = match first {
            Err(ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey)) => {
                let fresh = self.discover().await?;
                verify(&self.client(&fresh)?, id_token, access_token, nonce, nonce_required)
            }
            other => other,
        };
        outcome.map_err(|error| refused(&chain(&error)))
    }

    /// A failure here does not undo the sign-in: the ID token is the proof, so the page shows what went wrong.
    async fn userinfo(
        &self,
        metadata: &Metadata,
        access_token: &AccessToken,
        subject: &SubjectIdentifier,
    ) -> Result<Value, String> {
        let client = self.client(metadata).map_err(|trouble| trouble.line())?;
        let request = client
            .user_info(access_token.clone(), Some(subject.clone()))
            .map_err(|_| "The discovery document names no userinfo_endpoint.".to_owned())?;
        let claims: UserInfoClaims<OtherClaims, CoreGenderClaim> =
            request.request_async(&self.http).await.map_err(|error| chain(&error))?;
        serde_json::to_value(&claims).map_err(|error| error.to_string())
    }

    fn token_trouble(&self, error: &CoreRequestTokenError<HttpFailure>) -> Trouble {
        match error {
            CoreRequestTokenError::ServerResponse(answer) => Trouble::answered(
                "The token endpoint refused",
                answer.error().as_ref(),
                answer.error_description().map(String::as_str),
                answer.error_uri().map(String::as_str),
            ),
            other => Trouble::new(
                StatusCode::BAD_GATEWAY,
                "The token endpoint does not answer as expected",
                "Check that the provider runs at this address, then sign in again.",
            )
            .detail("Issuer", &self.config.issuer)
            .detail("Cause", chain(other)),
        }
    }
}

/// Core §3.1.3.7 by the library, then `at_hash` (§3.1.3.8). A refreshed ID token need not repeat the nonce (§12.2).
fn verify(
    client: &Client,
    id_token: &CoreIdToken,
    access_token: &AccessToken,
    nonce: &Nonce,
    nonce_required: bool,
) -> Result<CoreIdTokenClaims, ClaimsVerificationError> {
    let verifier = client.id_token_verifier();
    let same_nonce = |received: Option<&Nonce>| match received {
        Some(received) if received.secret() == nonce.secret() => Ok(()),
        None if !nonce_required => Ok(()),
        _ => Err("the nonce is not the one that was sent".to_owned()),
    };
    let claims = id_token.claims(&verifier, same_nonce)?;
    if let Some(expected) = claims.access_token_hash() {
        let alg = id_token.signing_alg().map_err(ClaimsVerificationError::SignatureVerification)?;
        let key = id_token.signing_key(&verifier).map_err(ClaimsVerificationError::SignatureVerification)?;
        let actual = AccessTokenHash::from_token(access_token, alg, key)
            .map_err(|error| ClaimsVerificationError::Other(error.to_string()))?;
        if actual != *expected {
            return Err(ClaimsVerificationError::Other("at_hash does not belong to the access token".to_owned()));
        }
    }
    Ok(claims.clone())
}

/// Core §12.2: a refresh may renew the ID token, but neither its subject nor the time of the sign-in.
fn same_person(before: &CoreIdTokenClaims, after: &CoreIdTokenClaims) -> Result<(), Trouble> {
    if before.subject() != after.subject() {
        return Err(refused("The refreshed ID token is about somebody else."));
    }
    match (before.auth_time(), after.auth_time()) {
        (Some(before), Some(after)) if before != after => Err(refused("The refreshed ID token has another auth_time.")),
        _ => Ok(()),
    }
}

fn scope(tokens: &CoreTokenResponse) -> Option<String> {
    tokens.scopes().map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "))
}

fn refused(cause: &str) -> Trouble {
    Trouble::new(
        StatusCode::BAD_GATEWAY,
        "The demo does not accept this answer",
        "A relying party must check what it receives, and one check failed. If signing in again ends here too, the \
         provider's configuration or keys and the demo's disagree.",
    )
    .detail("Cause", cause)
}

fn no_token_endpoint(error: openidconnect::ConfigurationError) -> Trouble {
    refused(&format!("The discovery document names no token_endpoint: {error}"))
}
