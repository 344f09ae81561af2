//! Claims about people and sign-ins: which scope or `claims` request brings which (OpenID Connect Core §5.4, §5.5),
//! and the bodies of ID tokens (§2), UserInfo answers (§5.3) and JWT access tokens (RFC 9068 §2.2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::api_key::{ACR_API_KEY, ACR_HANDOFF};
use super::client::SigningAlg;
use super::error::Error;
use super::scope::ScopeSet;
use super::time::Timestamp;
use super::user::User;
use crate::crypto::digest::half_hash;

/// Claims by the scope that brings them (OpenID Connect Core §5.4).
const BY_SCOPE: [(&str, &[&str]); 6] = [
    (
        "profile",
        &[
            "name",
            "family_name",
            "given_name",
            "middle_name",
            "nickname",
            "preferred_username",
            "profile",
            "picture",
            "website",
            "gender",
            "birthdate",
            "zoneinfo",
            "locale",
            "updated_at",
        ],
    ),
    ("email", &["email", "email_verified"]),
    ("address", &["address"]),
    ("phone", &["phone_number", "phone_number_verified"]),
    ("roles", &["roles"]),
    ("groups", &["groups"]),
];

/// Claims of every ID token, which are not about the person.
const PROTOCOL_CLAIMS: [&str; 11] =
    ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash"];

/// `claims_supported` (OpenID Connect Discovery §3).
pub fn supported() -> Vec<&'static str> {
    PROTOCOL_CLAIMS.iter().copied().chain(BY_SCOPE.iter().flat_map(|(_, claims)| claims.iter().copied())).collect()
}

/// The scope that a claim belongs to; `None` for one we do not know.
fn scope_of(claim: &str) -> Option<&'static str> {
    BY_SCOPE.iter().find(|(_, claims)| claims.contains(&claim)).map(|(scope, _)| *scope)
}

/// Whether a member of a user's `claims` is one of the standard ones that may be set.
pub fn is_settable(claim: &str) -> bool {
    let kept_elsewhere = ["email", "email_verified", "updated_at", "roles", "groups"];
    scope_of(claim).is_some() && !kept_elsewhere.contains(&claim)
}

/// One member of a `claims` request (OpenID Connect Core §5.5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub essential: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Value>>,
}

impl ClaimRequest {
    /// Whether `actual` is one of the values that were asked for; any is where none was.
    pub fn accepts(&self, actual: &str) -> bool {
        let listed = self.values.as_deref().unwrap_or_default();
        let mut wanted = self.value.iter().chain(listed).peekable();
        wanted.peek().is_none() || wanted.any(|value| value.as_str() == Some(actual))
    }
}

/// The `claims` parameter (OpenID Connect Core §5.5), reduced to what we know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsRequest {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub userinfo: BTreeMap<String, ClaimRequest>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub id_token: BTreeMap<String, ClaimRequest>,
}

impl ClaimsRequest {
    /// # Errors
    /// `invalid_request` for what is not a JSON object of objects; claims we do not know are left out, as the
    /// specification says.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let malformed = || Error::invalid_request("claims must be a JSON object as in OpenID Connect Core 5.5");
        let mut request: Map<String, Value> = serde_json::from_str(text).map_err(|_| malformed())?;
        let mut member = |name: &str| match request.remove(name) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(Value::Object(claims)) => claims
                .into_iter()
                .filter(|(name, _)| scope_of(name).is_some() || matches!(name.as_str(), "sub" | "acr" | "auth_time"))
                .map(|(name, value)| match value {
                    Value::Null => Ok((name, ClaimRequest::default())),
                    value => serde_json::from_value(value).map(|request| (name, request)).map_err(|_| malformed()),
                })
                .collect(),
            Some(_) => Err(malformed()),
        };
        Ok(Self { userinfo: member("userinfo")?, id_token: member("id_token")? })
    }

    pub fn is_empty(&self) -> bool {
        self.userinfo.is_empty() && self.id_token.is_empty()
    }

    /// The scopes that would bring the claims asked for by name: what a person must allow and a client must be
    /// registered for before they are told.
    pub fn scopes(&self) -> ScopeSet {
        self.userinfo.keys().chain(self.id_token.keys()).filter_map(|name| scope_of(name)).map(str::to_owned).collect()
    }

    /// The same request without the claims of scopes that `allowed` lacks.
    pub fn within(mut self, allowed: &ScopeSet) -> Self {
        let keep = |name: &String| scope_of(name).is_none_or(|scope| allowed.contains(scope));
        self.userinfo.retain(|name, _| keep(name));
        self.id_token.retain(|name, _| keep(name));
        self
    }
}

/// Every standard claim that we know of a person.
fn all_claims(user: &User) -> Map<String, Value> {
    let mut claims = user.claims.clone();
    claims.retain(|name, value| is_settable(name) && !value.is_null());
    if let Some(username) = &user.username {
        claims.entry("preferred_username").or_insert_with(|| username.as_str().into());
    }
    if let Some(email) = &user.email {
        claims.insert("email".to_owned(), email.as_str().into());
        claims.insert("email_verified".to_owned(), user.email_verified.into());
    }
    claims.insert("updated_at".to_owned(), user.updated_at.numeric_date().into());
    claims.insert("roles".to_owned(), json!(user.roles));
    claims.insert("groups".to_owned(), json!(user.groups));
    claims
}

/// What may be told of a person for these scopes and these claims asked for by name.
fn released(user: &User, scope: &ScopeSet, asked: &BTreeMap<String, ClaimRequest>) -> Map<String, Value> {
    let mut claims = all_claims(user);
    claims.retain(|name, _| asked.contains_key(name) || scope_of(name).is_some_and(|own| scope.contains(own)));
    claims
}

/// The UserInfo answer (OpenID Connect Core §5.3.2).
pub fn userinfo(user: &User, scope: &ScopeSet, request: &ClaimsRequest) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("sub".to_owned(), user.id.as_str().into());
    body.extend(released(user, scope, &request.userinfo));
    body
}

/// `aud` (RFC 7519 §4.1.3) as a list, whichever of its two forms it has.
pub fn audience(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(only)) => vec![only],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// When and how somebody signed in, as tokens say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// `None` where nobody was there: an API key was presented.
    pub auth_time: Option<Timestamp>,
    pub acr: String,
    /// Authentication method references (RFC 8176).
    pub amr: Vec<String>,
}

impl Authentication {
    /// That of an API key.
    pub fn of_api_key() -> Self {
        Self { auth_time: None, acr: ACR_API_KEY.to_owned(), amr: Vec::new() }
    }

    /// That of a partner that handed a browser over.
    pub fn of_handoff() -> Self {
        Self { auth_time: None, acr: ACR_HANDOFF.to_owned(), amr: Vec::new() }
    }

    /// Its claims, in tokens of both kinds.
    fn put_into(&self, body: &mut Map<String, Value>) {
        if let Some(auth_time) = self.auth_time {
            body.insert("auth_time".to_owned(), auth_time.numeric_date().into());
        }
        body.insert("acr".to_owned(), self.acr.as_str().into());
        if !self.amr.is_empty() {
            body.insert("amr".to_owned(), json!(self.amr));
        }
    }
}

/// What an ID token says beside the person's claims.
pub struct IdToken<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub authentication: &'a Authentication,
    /// Only in the first one: OpenID Connect Core §12.2.
    pub nonce: Option<&'a str>,
    pub sid: Option<&'a str>,
    /// The API key that it was made from.
    pub key_id: Option<&'a str>,
    /// Who acts for the person (RFC 8693 §4.1).
    pub actor: Option<&'a str>,
    pub access_token: &'a str,
    /// How the ID token will be signed: `at_hash` follows it.
    pub alg: SigningAlg,
    /// Scopes whose claims go into the token too; empty for `id_token_claims = "userinfo"`.
    pub scope_claims: &'a ScopeSet,
    pub claims: &'a ClaimsRequest,
}

impl IdToken<'_> {
    pub fn body(&self, user: &User) -> Map<String, Value> {
        let mut body = Map::new();
        let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
        set("iss", self.issuer.into());
        set("sub", user.id.as_str().into());
        set("aud", self.client_id.into());
        set("exp", self.expires_at.numeric_date().into());
        set("iat", self.issued_at.numeric_date().into());
        set("at_hash", half_hash(self.access_token, self.alg).into());
        if let Some(nonce) = self.nonce {
            set("nonce", nonce.into());
        }
        if let Some(sid) = self.sid {
            set("sid", sid.into());
        }
        put_key_into(&mut body, self.key_id, self.actor);
        self.authentication.put_into(&mut body);
        body.extend(released(user, self.scope_claims, &self.claims.id_token));
        body
    }
}

/// What a JWT access token says (RFC 9068 §2.2).
pub struct AccessToken<'a> {
    pub issuer: &'a str,
    pub subject: &'a str,
    pub client_id: &'a str,
    pub audience: &'a [String],
    pub scope: &'a ScopeSet,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub jti: &'a str,
    /// The grant it lives and dies with; a client-credentials token has none.
    pub grant_id: Option<&'a str>,
    /// The API key that it was made from, and lives and dies with as well.
    pub key_id: Option<&'a str>,
    /// Who acts for the person (RFC 8693 §4.1).
    pub actor: Option<&'a str>,
    pub authentication: Option<&'a Authentication>,
    /// The person, for apps of the username API, which read them from the token: `userId` and `username`.
    pub person: Option<&'a User>,
}

/// Private claim: names the `grants` row whose end is the token's end.
pub const GRANT_ID: &str = "grant_id";
/// Private claim: names the API key whose end is the token's end.
pub const KEY_ID: &str = "key_id";

/// What tokens of both kinds say where they were made from an API key.
fn put_key_into(body: &mut Map<String, Value>, key_id: Option<&str>, actor: Option<&str>) {
    if let Some(key_id) = key_id {
        body.insert(KEY_ID.to_owned(), key_id.into());
    }
    if let Some(actor) = actor {
        body.insert("act".to_owned(), json!({ "sub": actor }));
    }
}

impl AccessToken<'_> {
    pub fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
        set("iss", self.issuer.into());
        set("sub", self.subject.into());
        // A single audience is a string, as more libraries expect (RFC 7519 §4.1.3).
        set("aud", if let [only] = self.audience { only.as_str().into() } else { json!(self.audience) });
        set("client_id", self.client_id.into());
        set("exp", self.expires_at.numeric_date().into());
        set("iat", self.issued_at.numeric_date().into());
        set("jti", self.jti.into());
        set("scope", self.scope.to_string().into());
        if let Some(grant_id) = self.grant_id {
            set(GRANT_ID, grant_id.into());
        }
        put_key_into(&mut body, self.key_id, self.actor);
        if let Some(authentication) = self.authentication {
            authentication.put_into(&mut body);
        }
        if let Some(person) = self.person {
            body.insert("userId".to_owned(), person.id.as_str().into());
            if let Some(username) = &person.username {
                body.insert("username".to_owned(), username.as_str().into());
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::UserId;

    fn alice() -> User {
        let claims = json!({ "name": "Alice", "phone_number": "+1", "address": {"locality": "Oslo"}, "nonsense": 1 });
        User {
            id: UserId::new("u1"),
            username: Some("alice".to_owned()),
            email: Some("alice@a.test".to_owned()),
            email_verified: true,
            claims: claims.as_object().unwrap().clone(),
            roles: vec!["student".to_owned()],
            groups: Vec::new(),
            partner: None,
            external_id: None,
            disabled_at: None,
            updated_at: Timestamp(5000),
        }
    }

    fn names(body: &Map<String, Value>) -> Vec<&str> {
        body.keys().map(String::as_str).collect()
    }

    #[test]
    fn scopes_and_named_claims_bring_their_claims_and_no_others() {
        for (scope, request, expected) in [
            ("openid", "{}", &["sub"][..]),
            ("openid email", "{}", &["sub", "email", "email_verified"]),
            ("openid profile", "{}", &["sub", "name", "preferred_username", "updated_at"]),
            ("openid phone address", "{}", &["sub", "phone_number", "address"]),
            ("openid", r#"{"userinfo":{"name":{"essential":true}}}"#, &["sub", "name"]),
            ("openid", r#"{"id_token":{"name":null}}"#, &["sub"]),
            ("openid", r#"{"userinfo":{"nonsense":null,"password":null}}"#, &["sub"]),
        ] {
            let body = userinfo(&alice(), &scope.parse().unwrap(), &ClaimsRequest::parse(request).unwrap());
            assert_eq!(names(&body), expected, "{scope} {request}");
        }
    }

    #[test]
    fn a_claims_parameter_must_be_an_object_of_objects() {
        for (text, valid) in [
            ("{}", true),
            (r#"{"userinfo":null,"other":{"x":1}}"#, true),
            (r#"{"id_token":{"acr":{"values":["a"]}}}"#, true),
            ("[]", false),
            ("", false),
            (r#"{"userinfo":[]}"#, false),
            (r#"{"userinfo":{"name":true}}"#, false),
            (r#"{"userinfo":{"name":{"essential":"yes"}}}"#, false),
        ] {
            assert_eq!(ClaimsRequest::parse(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn named_claims_need_the_scope_that_would_bring_them() {
        let request =
            ClaimsRequest::parse(r#"{"userinfo":{"email":null,"name":null},"id_token":{"acr":null}}"#).unwrap();
        assert_eq!(request.scopes().to_string(), "email profile");
        let within = request.within(&"openid email".parse().unwrap());
        assert_eq!(within.userinfo.keys().collect::<Vec<_>>(), ["email"]);
        assert!(within.id_token.contains_key("acr"));
    }

    #[test]
    fn an_id_token_holds_the_session_and_no_profile_unless_asked() {
        let authentication =
            Authentication { auth_time: Some(Timestamp(1000)), acr: "a".into(), amr: vec!["pwd".into()] };
        let claims = ClaimsRequest::default();
        let none = ScopeSet::default();
        let mut token = IdToken {
            issuer: "https://id.test",
            client_id: "app",
            issued_at: Timestamp(2000),
            expires_at: Timestamp(9000),
            authentication: &authentication,
            nonce: Some("n"),
            sid: Some("s"),
            key_id: None,
            actor: None,
            access_token: "t",
            alg: SigningAlg::Rs256,
            scope_claims: &none,
            claims: &claims,
        };
        assert_eq!(
            names(&token.body(&alice())),
            ["iss", "sub", "aud", "exp", "iat", "at_hash", "nonce", "sid", "auth_time", "acr", "amr"]
        );
        let email = "email".parse().unwrap();
        token.scope_claims = &email;
        assert_eq!(token.body(&alice())["email"], "alice@a.test");
    }
}
