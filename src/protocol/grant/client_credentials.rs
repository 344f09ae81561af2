//! The client credentials grant (RFC 6749 §4.4): a token for the client itself. Nothing is stored for it.

use super::{Commit, Grant, Issuance, Refusal, Subject};
use crate::protocol::api_key::is_partner_scope;
use crate::protocol::client::Client;
use crate::protocol::error::Error;
use crate::protocol::metadata::Metadata;
use crate::protocol::params::Params;
use crate::protocol::scope::{self, ScopeSet};
use crate::protocol::time::Timestamp;

/// Parameters of the grant.
pub struct ClientCredentials {
    scope: Option<ScopeSet>,
    resources: Vec<String>,
}

impl Grant for ClientCredentials {
    type Facts = ();

    fn parse(params: &Params) -> Result<Self, Error> {
        let scope = params.get("scope").map(str::parse).transpose();
        Ok(Self {
            scope: scope.map_err(|_| Error::invalid_scope("scope holds a character that RFC 6749 3.3 forbids"))?,
            resources: params.resources(),
        })
    }

    fn decide(self, client: &Client, metadata: &Metadata, (): (), _now: Timestamp) -> Result<Issuance, Refusal> {
        // RFC 6749 §4.4: confidential clients only.
        if client.metadata.is_public() {
            return Err(Error::unauthorized_client("a public client cannot use client_credentials").into());
        }
        // Scopes about a person mean nothing where there is no person (RFC 9700 §4.15).
        let own = client.metadata.scope.filtered(|token| {
            !scope::STANDARD.contains(&token) && (metadata.supports_scope(token) || is_partners(client, token))
        });
        let scope = match &self.scope {
            None => own,
            Some(asked) if asked.is_subset(&own) => asked.clone(),
            Some(_) => return Err(Error::invalid_scope("scope is not registered for this client's own use").into()),
        };
        metadata.check_resources(&self.resources)?;
        Ok(Issuance {
            subject: Subject::Client,
            scope: super::scope_for(metadata, &scope, &self.resources, self.scope.as_ref())?,
            resources: self.resources,
            grant: None,
            key: None,
            nonce: None,
            refresh: None,
            commit: Commit::Nothing,
        })
    }
}

/// What only a partner has.
fn is_partners(client: &Client, token: &str) -> bool {
    client.metadata.partner && is_partner_scope(token)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, client};
    use super::*;
    use crate::protocol::error::ErrorCode::{self, InvalidScope, InvalidTarget, UnauthorizedClient};
    use crate::protocol::metadata::tests::metadata;

    fn decide(query: &str, public: bool) -> Result<String, ErrorCode> {
        let parsed = ClientCredentials::parse(&Params::parse(query.as_bytes()).unwrap()).unwrap();
        let decided = parsed.decide(&client(public), &metadata(), (), NOW);
        decided.map(|issuance| issuance.scope.to_string()).map_err(|refusal| refusal.error.code)
    }

    #[test]
    fn a_client_gets_its_own_scopes_and_none_about_people() {
        for (query, expected) in [
            ("", Ok("quiz.read pay teach")),
            ("scope=pay", Ok("pay")),
            ("resource=https://quiz.test", Ok("quiz.read teach")),
            ("scope=pay&resource=https://quiz.test", Err(InvalidScope)),
            ("scope=openid", Err(InvalidScope)),
            ("scope=offline_access", Err(InvalidScope)),
            ("scope=quiz.read+profile", Err(InvalidScope)),
            ("scope=unknown", Err(InvalidScope)),
            ("resource=https://other.test", Err(InvalidTarget)),
        ] {
            assert_eq!(decide(query, false), expected.map(str::to_owned), "{query}");
        }
        assert_eq!(decide("", true), Err(UnauthorizedClient));
    }
}
