//! Whether client metadata is acceptable (RFC 7591 §2, OpenID Connect Registration §2): asked for declared
//! clients and for the command line alike.

use url::Url;

use super::api_key::is_partner_scope;
use super::client::{ClientMetadata, GrantType};
use super::metadata::{Metadata, RESPONSE_TYPE_CODE};
use super::redirect_uri::check_registrable;
use super::scope;
use super::time::Span;

/// Everything that is wrong with `client`, in sentences; empty where it may be registered.
pub fn problems(client: &ClientMetadata, metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    let public = client.is_public();
    check_uris(client, public, &mut problems);
    check_grants(client, public, &mut problems);
    let has = |token: &str| metadata.supports_scope(token) || (client.partner && is_partner_scope(token));
    for token in client.scope.iter().filter(|token| !has(token)) {
        problems.push(format!("scope: `{token}` is neither a standard scope nor declared under [[scopes]]"));
    }
    let ttls = [
        ("access_token_ttl", client.access_token_ttl),
        ("id_token_ttl", client.id_token_ttl),
        ("refresh_token_ttl", client.refresh_token_ttl),
        ("refresh_idle_ttl", client.refresh_idle_ttl),
    ];
    for (name, ttl) in ttls {
        if ttl.is_some_and(|ttl| ttl < Span::from_secs(1)) {
            problems.push(format!("{name}: must be at least 1s"));
        }
    }
    if client.partner && public {
        problems.push("partner: a partner has a secret (token_endpoint_auth_method none cannot be one)".to_owned());
    }
    if client.partner && client.partner_client_id.is_some() {
        problems.push("partner_client_id: a partner belongs to no other partner".to_owned());
    }
    for origin in &client.allowed_origins {
        let serialized = Url::parse(origin).map(|url| url.origin().ascii_serialization());
        if serialized.as_deref() != Ok(origin) {
            problems.push(format!("allowed_origins: `{origin}` is not an origin like https://app.example.com"));
        }
    }
    problems
}

fn check_uris(client: &ClientMetadata, public: bool, problems: &mut Vec<String>) {
    for (name, uris) in
        [("redirect_uris", &client.redirect_uris), ("post_logout_redirect_uris", &client.post_logout_redirect_uris)]
    {
        let wrong = uris.iter().filter_map(|uri| check_registrable(uri, public).err());
        problems.extend(wrong.map(|problem| format!("{name}: {problem}")));
    }
    for (name, uri) in [
        ("client_uri", &client.client_uri),
        ("logo_uri", &client.logo_uri),
        ("policy_uri", &client.policy_uri),
        ("tos_uri", &client.tos_uri),
    ] {
        let web = |uri: &String| Url::parse(uri).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
        if uri.as_ref().is_some_and(|uri| !web(uri)) {
            problems.push(format!("{name}: must be an http or https URL"));
        }
    }
    if client.logo_uri.as_ref().is_some_and(|uri| uri.starts_with("http:")) {
        problems.push("logo_uri: must be https, or no page will show it".to_owned());
    }
}

fn check_grants(client: &ClientMetadata, public: bool, problems: &mut Vec<String>) {
    let codes = client.allows(GrantType::AuthorizationCode);
    if codes && client.redirect_uris.is_empty() {
        problems.push("redirect_uris: the authorization_code grant needs at least one".to_owned());
    }
    if client.response_types.iter().any(|response_type| response_type != RESPONSE_TYPE_CODE) {
        problems.push("response_types: the supported response type is code".to_owned());
    }
    if public && client.allows(GrantType::ClientCredentials) {
        problems.push(
            "grant_types: a public client (token_endpoint_auth_method none) cannot use client_credentials".to_owned(),
        );
    }
    if client.scope.contains(scope::OFFLINE_ACCESS) && !client.allows(GrantType::RefreshToken) {
        problems.push("scope: offline_access needs refresh_token among the grant_types".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::AuthMethod;
    use crate::protocol::ids::ClientId;
    use crate::protocol::metadata::tests::metadata;

    fn web() -> ClientMetadata {
        ClientMetadata { redirect_uris: vec!["https://app.test/cb".to_owned()], ..ClientMetadata::default() }
    }

    #[test]
    fn each_rule_names_what_it_refuses() {
        let machine = |public: bool| ClientMetadata {
            grant_types: vec![GrantType::ClientCredentials],
            token_endpoint_auth_method: public.then_some(AuthMethod::None),
            ..ClientMetadata::default()
        };
        for (client, expected) in [
            (web(), None),
            (machine(false), None),
            (machine(true), Some("grant_types")),
            (ClientMetadata::default(), Some("redirect_uris")),
            (ClientMetadata { redirect_uris: vec!["/cb".to_owned()], ..web() }, Some("redirect_uris")),
            (
                ClientMetadata { post_logout_redirect_uris: vec!["javascript:x".to_owned()], ..web() },
                Some("post_logout"),
            ),
            (ClientMetadata { logo_uri: Some("javascript:x".to_owned()), ..web() }, Some("logo_uri")),
            (ClientMetadata { scope: "openid unheard".parse().unwrap(), ..web() }, Some("scope")),
            (ClientMetadata { scope: "openid offline_access".parse().unwrap(), ..web() }, Some("scope")),
            (ClientMetadata { response_types: vec!["token".to_owned()], ..web() }, Some("response_types")),
            (ClientMetadata { access_token_ttl: Some(Span::ZERO), ..web() }, Some("access_token_ttl")),
            (
                ClientMetadata { allowed_origins: vec!["https://app.test/".to_owned()], ..web() },
                Some("allowed_origins"),
            ),
            (ClientMetadata { allowed_origins: vec!["https://app.test".to_owned()], ..web() }, None),
            (ClientMetadata { partner: true, ..machine(false) }, None),
            (ClientMetadata { partner: true, scope: "partner.users".parse().unwrap(), ..machine(false) }, None),
            (ClientMetadata { scope: "partner.users".parse().unwrap(), ..machine(false) }, Some("scope")),
            (
                ClientMetadata {
                    partner: true,
                    grant_types: vec![GrantType::ApiKey],
                    token_endpoint_auth_method: Some(AuthMethod::None),
                    ..ClientMetadata::default()
                },
                Some("partner"),
            ),
            (
                ClientMetadata { partner: true, partner_client_id: Some(ClientId::new("acme")), ..machine(false) },
                Some("partner_client_id"),
            ),
        ] {
            let found = problems(&client, &metadata());
            match expected {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(name) => assert!(found.len() == 1 && found[0].starts_with(name), "{name}: {found:?}"),
            }
        }
    }
}
