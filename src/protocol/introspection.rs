//! Token introspection (RFC 7662): who may ask about a token, and what the answer says. Whether the token is
//! live is a fact that the shell brings.

use serde_json::{Map, Value, json};

use super::api_key::{ApiKeyRecord, may_present};
use super::claims::audience;
use super::client::{Client, IntrospectionRight};
use super::grant::GrantRecord;
use super::metadata::Metadata;
use super::scope::ScopeSet;
use super::time::Timestamp;
use super::user::User;

/// The answer about every token that is dead, foreign, or none of the asker's business: RFC 7662 §2.2 wants these
/// to look alike.
pub fn inactive() -> Map<String, Value> {
    Map::from_iter([("active".to_owned(), Value::Bool(false))])
}

/// Whether `client` may learn about an access token: its own, one for the resource it serves, or any.
pub fn may_introspect(client: &Client, claims: &Map<String, Value>, metadata: &Metadata) -> bool {
    if client.metadata.introspection == IntrospectionRight::Any {
        return true;
    }
    let own = claims.get("client_id").and_then(Value::as_str) == Some(client.id.as_str());
    own || metadata.is_resource_server(client.id.as_str(), &audience(claims))
}

/// The answer about a live access token: its own claims (RFC 7662 §2.2, RFC 9068 §2.2), with the scopes that its
/// person may still have.
pub fn access_token(claims: &Map<String, Value>, scope: &ScopeSet, username: Option<&str>) -> Map<String, Value> {
    let mut body = Map::from_iter([("active".to_owned(), Value::Bool(true))]);
    body.extend(claims.clone());
    body.insert("scope".to_owned(), scope.to_string().into());
    body.insert("token_type".to_owned(), "Bearer".into());
    if let Some(username) = username {
        body.insert("username".to_owned(), username.into());
    }
    body
}

/// The answer about a live API key; `None` where the client must not know: it asks about the keys of its own people,
/// about those for the resource that it serves, or about any.
pub fn api_key(client: &Client, key: &ApiKeyRecord, user: &User, metadata: &Metadata) -> Option<Map<String, Value>> {
    let scope = key.scope_for(user, metadata);
    let audience = metadata.audience(&key.audiences, &scope);
    let names: Vec<&str> = audience.iter().map(String::as_str).collect();
    let own = user.partner.is_some() && client.partner() == user.partner.as_ref();
    let any = client.metadata.introspection == IntrospectionRight::Any;
    let trusted = any || metadata.is_resource_server(client.id.as_str(), &names);
    let allowed = own || (trusted && may_present(client, user));
    if !allowed {
        return None;
    }
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("active", true.into());
    set("iss", metadata.issuer.as_str().into());
    set("sub", user.id.as_str().into());
    set("aud", json!(audience));
    set("scope", scope.to_string().into());
    set("iat", key.created_at.numeric_date().into());
    set("exp", key.expires_at.numeric_date().into());
    set("token_type", "Bearer".into());
    set("credential_type", "api_key".into());
    set("key_id", key.kid.as_str().into());
    if let Some(username) = &user.username {
        set("username", username.as_str().into());
    }
    if let Some(partner) = &user.partner {
        set("client_id", partner.as_str().into());
        set("partner_id", partner.as_str().into());
    }
    // Whoever gets here is the partner's, or trusted with its people.
    if let Some(external_id) = &user.external_id {
        set("external_id", external_id.as_str().into());
    }
    Some(body)
}

/// The answer about a live refresh token.
pub fn refresh_token(grant: &GrantRecord, scope: &ScopeSet, issuer: &str, expires_at: Timestamp) -> Map<String, Value> {
    let body = json!({
        "active": true,
        "iss": issuer,
        "sub": grant.user_id,
        "client_id": grant.client_id,
        "scope": scope.to_string(),
        "exp": expires_at.numeric_date(),
        "token_type": "refresh_token",
    });
    if let Value::Object(body) = body { body } else { inactive() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::ClientMetadata;
    use crate::protocol::ids::ClientId;
    use crate::protocol::metadata::tests::metadata;

    #[test]
    fn a_client_learns_about_its_own_tokens_and_those_of_its_resource() {
        let client = |id: &str, introspection| Client {
            id: ClientId::new(id),
            metadata: ClientMetadata { introspection, ..ClientMetadata::default() },
            disabled_at: None,
        };
        let token = json!({"client_id": "app", "aud": ["https://quiz.test", "https://id.test"]});
        let elsewhere = json!({"client_id": "app", "aud": "https://id.test"});
        for (id, right, claims, expected) in [
            ("app", IntrospectionRight::Own, &token, true),
            ("other", IntrospectionRight::Own, &token, false),
            ("other", IntrospectionRight::Any, &token, true),
            ("rs", IntrospectionRight::Own, &token, true),
            ("rs", IntrospectionRight::Own, &elsewhere, false),
        ] {
            let allowed = may_introspect(&client(id, right), claims.as_object().unwrap(), &metadata());
            assert_eq!(allowed, expected, "{id} {right} {claims}");
        }
    }
}
