//! The `openidconnect` crate as a relying party: discovery, code flow with PKCE, verified tokens, UserInfo, refresh.

use axum::Router;
use axum::body::{Body, to_bytes};
use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreProviderMetadata, CoreUserInfoClaims};
use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    OAuth2TokenResponse as _, PkceCodeChallenge, RedirectUrl, Scope, TokenResponse as _,
};
use tower::ServiceExt as _;

use crate::on_both_databases;
use crate::support::CALLBACK;

/// The crate's HTTP client: the provider's router itself.
async fn call(router: Router, request: HttpRequest) -> Result<HttpResponse, std::io::Error> {
    let (parts, body) = request.into_parts();
    let response = router.oneshot(http::Request::from_parts(parts, Body::from(body))).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.map_err(std::io::Error::other)?;
    Ok(http::Response::from_parts(parts, body.to_vec()))
}

on_both_databases! {
    async fn the_whole_flow(provider: Provider) {
        // The crate verifies expiry by the real clock, so this provider tells the real time.
        let now = i64::try_from(
            std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()
        ).expect("a time");
        provider.pass(keyward::protocol::time::Timestamp::from_millis(now) - provider.app.now());
        let router = provider.router.clone();
        let http = move |request: HttpRequest| Box::pin(call(router.clone(), request));

        let issuer = IssuerUrl::new(provider.issuer.clone()).unwrap();
        let metadata = CoreProviderMetadata::discover_async(issuer, &http).await.expect("discovery");
        let secret = ClientSecret::new("web-secret".to_owned());
        let client = CoreClient::from_provider_metadata(metadata, ClientId::new("web".to_owned()), Some(secret))
            .set_redirect_uri(RedirectUrl::new(CALLBACK.to_owned()).unwrap());

        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
            .add_scope(Scope::new("email".to_owned()))
            .add_scope(Scope::new("profile".to_owned()))
            .add_scope(Scope::new("offline_access".to_owned()))
            .set_pkce_challenge(challenge)
            .url();
        let page = provider.authorize(&mut provider.browser(), url.as_str()).await;
        let params = page.location_params();
        assert_eq!(&params["state"], state.secret());

        let code = AuthorizationCode::new(params["code"].clone());
        let tokens = client.exchange_code(code).unwrap().set_pkce_verifier(verifier).request_async(&http).await.expect("tokens");
        let id_token = tokens.id_token().expect("an ID token");
        let id_verifier = client.id_token_verifier();
        let claims = id_token.claims(&id_verifier, &nonce).expect("a valid ID token");
        let hash = AccessTokenHash::from_token(
            tokens.access_token(),
            id_token.signing_alg().unwrap(),
            id_token.signing_key(&id_verifier).unwrap(),
        );
        assert_eq!(Some(&hash.unwrap()), claims.access_token_hash());

        let userinfo: CoreUserInfoClaims = client
            .user_info(tokens.access_token().clone(), Some(claims.subject().clone()))
            .unwrap()
            .request_async(&http)
            .await
            .expect("userinfo");
        assert_eq!(userinfo.email().map(|email| email.as_str()), Some("alice@example.com"));

        let refreshed = client
            .exchange_refresh_token(tokens.refresh_token().expect("a refresh token"))
            .unwrap()
            .request_async(&http)
            .await
            .expect("refreshed tokens");
        let again = refreshed.id_token().expect("an ID token").claims(&id_verifier, |_: Option<&Nonce>| Ok(())).unwrap();
        assert_eq!(again.subject(), claims.subject());
    }
}
