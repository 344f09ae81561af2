//! Token introspection (RFC 7662): who may ask about a token, and what the answer says. Whether the token is
//! live is a fact that the shell brings.

use serde_json::{Map, Value, json};

use super::claims::audience;
use super::client::{Client, IntrospectionRight};
use super::grant::GrantRecord;
use super::metadata::Metadata;
use super::time::Timestamp;

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

/// The answer about a live access token: its own claims (RFC 7662 §2.2, RFC 9068 §2.2).
pub fn access_token(claims: &Map<String, Value>, username: Option<&str>) -> Map<String, Value> {
    let mut body = Map::from_iter([("active".to_owned(), Value::Bool(true))]);
    body.extend(claims.clone());
    body.insert("token_type".to_owned(), "Bearer".into());
    if let Some(username) = username {
        body.insert("username".to_owned(), username.into());
    }
    body
}

/// The answer about a live refresh token.
pub fn refresh_token(grant: &GrantRecord, issuer: &str, expires_at: Timestamp) -> Map<String, Value> {
    let body = json!({
        "active": true,
        "iss": issuer,
        "sub": grant.user_id,
        "client_id": grant.client_id,
        "scope": grant.scope.to_string(),
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
