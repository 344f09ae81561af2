//! What this provider does, as one value: validators read it, and the discovery documents (OpenID Connect
//! Discovery §3, RFC 8414 §2) are printed from it, so that nothing is advertised that is not enforced.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::api_key::{ACR_API_KEY, ACR_HANDOFF, TOKEN_TYPE_API_KEY};
use super::claims;
use super::client::{AuthMethod, GrantType, RefreshTokenRotation, SigningAlg};
use super::error::Error;
use super::pkce;
use super::redirect_uri::ResponseMode;
use super::scope::{self, ScopeSet};
use super::time::Span;
use super::user::User;

/// Endpoint paths below the issuer.
pub mod path {
    pub const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";
    pub const OAUTH_METADATA: &str = "/.well-known/oauth-authorization-server";
    pub const JWKS: &str = "/jwks";
    pub const AUTHORIZE: &str = "/authorize";
    pub const AUTHORIZE_RESUME: &str = "/authorize/resume";
    pub const TOKEN: &str = "/token";
    pub const USERINFO: &str = "/userinfo";
    pub const INTROSPECT: &str = "/introspect";
    pub const REVOKE: &str = "/revoke";
    pub const LOGOUT: &str = "/logout";
    pub const LOGIN: &str = "/login";
    pub const CONSENT: &str = "/consent";
    /// The page of a partner's link.
    pub const HANDOFF: &str = "/handoff";
    /// The mode of the route follows.
    pub const FORWARD_AUTH: &str = "/forward-auth";
}

/// How long relying parties may keep `/jwks` and the discovery documents.
pub const JWKS_LIFETIME: Span = Span::minutes(5);

/// The only `response_type` so far.
pub const RESPONSE_TYPE_CODE: &str = "code";

/// `acr` of a sign-in with a password.
pub const ACR_PASSWORD: &str = "urn:keyward:acr:password";

/// A protected resource that tokens may be made for (RFC 8707).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    pub uri: String,
    #[serde(deserialize_with = "scope_list")]
    pub scopes: ScopeSet,
    /// `None`: the client's choice, or the default.
    pub access_token_signing_alg: Option<SigningAlg>,
    /// Clients that are this resource's servers and may introspect tokens for it.
    pub introspection_clients: Vec<String>,
}

/// A scope of a resource beside the standard ones.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredScope {
    pub name: String,
    pub description: Option<String>,
    /// Only people with this role get it.
    pub requires_role: Option<String>,
}

/// Lifetimes that a client may override.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenDefaults {
    pub access_token_ttl: Span,
    pub id_token_ttl: Span,
    pub refresh_token_ttl: Span,
    pub authorization_code_ttl: Span,
    pub refresh_retry_window: Span,
    pub refresh_token_rotation: RefreshTokenRotation,
}

/// The configuration writes scopes as a list.
fn scope_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ScopeSet, D::Error> {
    Ok(Vec::<String>::deserialize(deserializer)?.into_iter().collect())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub issuer: String,
    pub scopes: Vec<DeclaredScope>,
    pub resources: Vec<Resource>,
    pub tokens: TokenDefaults,
    pub op_policy_uri: Option<String>,
    pub op_tos_uri: Option<String>,
}

impl Metadata {
    /// The absolute URL of an endpoint.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    pub fn supports_scope(&self, token: &str) -> bool {
        scope::STANDARD.contains(&token) || self.scopes.iter().any(|declared| declared.name == token)
    }

    /// Every scope that there is for people.
    pub fn all_scopes(&self) -> impl Iterator<Item = &str> {
        scope::STANDARD.into_iter().chain(self.scopes.iter().map(|declared| declared.name.as_str()))
    }

    /// Whether somebody with these roles may have the scope. One that left the configuration is nobody's.
    pub fn permits(&self, token: &str, roles: &[String]) -> bool {
        let declared = self.scopes.iter().find(|declared| declared.name == token);
        let required = declared.and_then(|declared| declared.requires_role.as_ref());
        self.supports_scope(token) && required.is_none_or(|required| roles.contains(required))
    }

    /// Every scope that this person may have.
    pub fn scopes_of(&self, user: &User) -> ScopeSet {
        let declared = self.scopes.iter().map(|scope| scope.name.as_str());
        let all = scope::STANDARD.into_iter().chain(declared);
        all.filter(|token| self.permits(token, &user.roles)).map(str::to_owned).collect()
    }

    /// What of these scopes this person may have.
    pub fn allowed(&self, scope: &ScopeSet, user: &User) -> ScopeSet {
        scope.filtered(|token| self.permits(token, &user.roles))
    }

    /// What a scope lets an app do, as a sentence for the consent page.
    pub fn scope_description<'a>(&'a self, token: &'a str) -> &'a str {
        let declared = self.scopes.iter().find(|declared| declared.name == token);
        let own = match token {
            scope::OPENID => Some("Know who you are when you sign in"),
            "profile" => Some("See your name, picture and other profile details"),
            "email" => Some("See your email address"),
            "address" => Some("See your postal address"),
            "phone" => Some("See your phone number"),
            "roles" => Some("See your roles"),
            "groups" => Some("See the groups you are in"),
            scope::OFFLINE_ACCESS => Some("Keep access while you are away"),
            _ => None,
        };
        declared.and_then(|declared| declared.description.as_deref()).or(own).unwrap_or(token)
    }

    fn resource(&self, uri: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.uri == uri)
    }

    /// Checks `resource` parameters (RFC 8707 §2): known, and of one mind about the signing algorithm, since one
    /// token can be signed only once.
    pub fn check_resources(&self, uris: &[String]) -> Result<(), Error> {
        if uris.iter().any(|uri| self.resource(uri).is_none()) {
            return Err(Error::invalid_target("resource is not one that this provider issues tokens for"));
        }
        let mut algs = self.algs(uris);
        let first = algs.next();
        if algs.any(|alg| Some(alg) != first) {
            return Err(Error::invalid_target(
                "these resources want different signing algorithms: ask for them one by one",
            ));
        }
        Ok(())
    }

    fn algs<'a>(&'a self, uris: &'a [String]) -> impl Iterator<Item = SigningAlg> + 'a {
        uris.iter().filter_map(|uri| self.resource(uri)?.access_token_signing_alg)
    }

    /// How an access token for these resources is signed: as the resources want, else as the client does.
    pub fn access_token_alg(&self, uris: &[String], client: Option<SigningAlg>) -> SigningAlg {
        self.algs(uris).next().or(client).unwrap_or(SigningAlg::Rs256)
    }

    /// `aud` of an access token: the issuer without a resource; else the resources, and the issuer as well where
    /// `openid` lets the token be used at `/userinfo`.
    pub fn audience(&self, resources: &[String], scope: &ScopeSet) -> Vec<String> {
        let mut audience = resources.to_vec();
        if audience.is_empty() || scope.contains(scope::OPENID) {
            audience.push(self.issuer.clone());
        }
        audience
    }

    /// The part of `scope` that has a meaning for a token to `resources`: a scope that belongs to other resources
    /// only is left out (RFC 8707 §2, a token opens no more than it was asked for).
    pub fn scope_for(&self, scope: &ScopeSet, resources: &[String]) -> ScopeSet {
        if resources.is_empty() {
            return scope.clone();
        }
        scope.filtered(|token| {
            let mut owners = self.resources.iter().filter(|resource| resource.scopes.contains(token)).peekable();
            owners.peek().is_none() || owners.any(|owner| resources.contains(&owner.uri))
        })
    }

    /// Whether `client_id` is the server of one of the resources that a token is for.
    pub fn is_resource_server(&self, client_id: &str, audience: &[&str]) -> bool {
        self.resources.iter().any(|resource| {
            audience.contains(&resource.uri.as_str())
                && resource.introspection_clients.iter().any(|own| own == client_id)
        })
    }

    /// The document at `/.well-known/openid-configuration`: registered names only.
    pub fn openid_configuration(&self) -> Value {
        let mut document = self.registered_metadata();
        if let Value::Object(members) = &mut document {
            members.insert("userinfo_endpoint".to_owned(), self.url(path::USERINFO).into());
            members.insert("end_session_endpoint".to_owned(), self.url(path::LOGOUT).into());
            members.insert("subject_types_supported".to_owned(), json!(["public"]));
            members.insert("id_token_signing_alg_values_supported".to_owned(), json!(names(SigningAlg::ALL)));
            members.insert("acr_values_supported".to_owned(), json!([ACR_PASSWORD, ACR_API_KEY, ACR_HANDOFF]));
            members.insert("claim_types_supported".to_owned(), json!(["normal"]));
            members.insert("claims_supported".to_owned(), json!(claims::supported()));
            members.insert("ui_locales_supported".to_owned(), json!(["en"]));
            members.insert("claims_parameter_supported".to_owned(), true.into());
            members.insert("display_values_supported".to_owned(), json!(["page"]));
            members.insert("prompt_values_supported".to_owned(), json!(["none", "login", "consent", "select_account"]));
            // Absent means true for the last of these (OpenID Connect Discovery §3), so they are spelled out.
            members.insert("request_parameter_supported".to_owned(), false.into());
            members.insert("request_uri_parameter_supported".to_owned(), false.into());
        }
        document
    }

    /// The document at `/.well-known/oauth-authorization-server` (RFC 8414), which may have members of our own.
    pub fn oauth_metadata(&self) -> Value {
        let mut document = self.registered_metadata();
        if let Value::Object(members) = &mut document {
            members.insert("keyward_subject_token_types_supported".to_owned(), json!([TOKEN_TYPE_API_KEY]));
        }
        document
    }

    /// What both documents say.
    fn registered_metadata(&self) -> Value {
        let scopes = scope::STANDARD.iter().copied().chain(self.scopes.iter().map(|scope| scope.name.as_str()));
        let secrets = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost];
        let mut document = json!({
            "issuer": self.issuer,
            "authorization_endpoint": self.url(path::AUTHORIZE),
            "token_endpoint": self.url(path::TOKEN),
            "jwks_uri": self.url(path::JWKS),
            "introspection_endpoint": self.url(path::INTROSPECT),
            "revocation_endpoint": self.url(path::REVOKE),
            "scopes_supported": scopes.collect::<Vec<_>>(),
            "response_types_supported": [RESPONSE_TYPE_CODE],
            "response_modes_supported": names(ResponseMode::ALL),
            "grant_types_supported": names(GrantType::ALL),
            "token_endpoint_auth_methods_supported": names(AuthMethod::ALL),
            "introspection_endpoint_auth_methods_supported": names(&secrets),
            "revocation_endpoint_auth_methods_supported": names(AuthMethod::ALL),
            "code_challenge_methods_supported": [pkce::METHOD_S256],
            "authorization_response_iss_parameter_supported": true,
        });
        self.extend(&mut document);
        document
    }

    /// The members that only some providers have.
    fn extend(&self, document: &mut Value) {
        let Value::Object(members) = document else { return };
        let optional = [("op_policy_uri", &self.op_policy_uri), ("op_tos_uri", &self.op_tos_uri)];
        for (name, value) in optional {
            if let Some(value) = value {
                members.insert(name.to_owned(), value.as_str().into());
            }
        }
    }
}

fn names<T: std::fmt::Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::grant::tests::user;

    fn resource(uri: &str, scopes: &str, alg: Option<SigningAlg>) -> Resource {
        Resource {
            uri: uri.to_owned(),
            scopes: scopes.parse().unwrap(),
            access_token_signing_alg: alg,
            introspection_clients: vec!["rs".to_owned()],
        }
    }

    /// A provider with two resources, for the rule tables of this and other files.
    pub(crate) fn metadata() -> Metadata {
        let scope = |name: &str| DeclaredScope {
            name: name.to_owned(),
            description: Some(format!("Use {name}")),
            requires_role: (name == "teach").then(|| "teacher".to_owned()),
        };
        Metadata {
            issuer: "https://id.test".to_owned(),
            scopes: vec![scope("quiz.read"), scope("pay"), scope("teach")],
            resources: vec![
                resource("https://quiz.test", "quiz.read", Some(SigningAlg::Es256)),
                resource("https://pay.test", "pay", Some(SigningAlg::Rs256)),
                resource("https://any.test", "", None),
            ],
            tokens: TokenDefaults {
                access_token_ttl: Span::minutes(15),
                id_token_ttl: Span::hours(1),
                refresh_token_ttl: Span::days(30),
                authorization_code_ttl: Span::from_secs(60),
                refresh_retry_window: Span::from_secs(60),
                refresh_token_rotation: RefreshTokenRotation::Auto,
            },
            op_policy_uri: None,
            op_tos_uri: None,
        }
    }

    fn uris(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn resources_must_be_known_and_agree_on_an_algorithm() {
        for (asked, allowed) in [
            ("", true),
            ("https://quiz.test", true),
            ("https://quiz.test https://any.test", true),
            ("https://quiz.test https://pay.test", false),
            ("https://other.test", false),
            ("https://quiz.test/", false),
        ] {
            assert_eq!(metadata().check_resources(&uris(asked)).is_ok(), allowed, "{asked}");
        }
    }

    #[test]
    fn the_audience_follows_the_resource_and_openid() {
        for (asked, scope, expected) in [
            ("", "openid", "https://id.test"),
            ("", "quiz.read", "https://id.test"),
            ("https://quiz.test", "quiz.read", "https://quiz.test"),
            ("https://quiz.test", "openid quiz.read", "https://quiz.test https://id.test"),
        ] {
            assert_eq!(metadata().audience(&uris(asked), &scope.parse().unwrap()), uris(expected), "{asked} {scope}");
        }
    }

    #[test]
    fn a_token_for_one_resource_does_not_carry_the_scopes_of_another() {
        for (asked, expected) in [
            ("", "openid quiz.read pay"),
            ("https://quiz.test", "openid quiz.read"),
            ("https://any.test", "openid"),
            ("https://quiz.test https://pay.test", "openid quiz.read pay"),
        ] {
            let scope = metadata().scope_for(&"openid quiz.read pay".parse().unwrap(), &uris(asked));
            assert_eq!(scope.to_string(), expected, "{asked}");
        }
    }

    #[test]
    fn a_scope_may_want_a_role() {
        let scope = "openid quiz.read teach".parse().unwrap();
        for (roles, expected) in [(&[][..], "openid quiz.read"), (&["teacher"], "openid quiz.read teach")] {
            let user = User { roles: roles.iter().map(|role: &&str| (*role).to_owned()).collect(), ..user() };
            assert_eq!(metadata().allowed(&scope, &user).to_string(), expected);
        }
    }

    #[test]
    fn the_documents_name_what_the_enums_know() {
        let document = metadata().openid_configuration();
        assert_eq!(document["issuer"], "https://id.test");
        assert_eq!(document["grant_types_supported"].as_array().unwrap().len(), GrantType::ALL.len());
        assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(document["request_uri_parameter_supported"], false);
        assert!(document["id_token_signing_alg_values_supported"].as_array().unwrap().contains(&json!("RS256")));
        assert!(document["scopes_supported"].as_array().unwrap().contains(&json!("quiz.read")));
    }
}
