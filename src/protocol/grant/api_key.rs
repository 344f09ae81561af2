//! A person's API key for tokens, in two spellings with one engine: our own grant (RFC 6749 §4.5) and token exchange
//! (RFC 8693 §2.1). They differ in their parameters and in what a bad key is called: `invalid_grant` there,
//! `invalid_request` here (RFC 8693 §2.2.2).

use std::net::IpAddr;

use super::{Commit, Grant, GrantRecord, Issuance, KeyUse, RefreshState, Refusal, Subject};
use crate::protocol::api_key::{ApiKeyRecord, TOKEN_TYPE_API_KEY, may_present};
use crate::protocol::claims::{Authentication, ClaimsRequest};
use crate::protocol::client::{Client, GrantType};
use crate::protocol::error::Error;
use crate::protocol::ids::GrantId;
use crate::protocol::metadata::Metadata;
use crate::protocol::params::Params;
use crate::protocol::scope::{self, ScopeSet};
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;

/// `issued_token_type` of an exchange (RFC 8693 §3).
pub const TOKEN_TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The same token by its format, which some clients ask for.
const TOKEN_TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What every bad key is told, whatever is wrong with it.
pub const BAD_KEY: &str = "the API key is unknown, expired, revoked, or not for this use";

/// Where the key was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    Grant,
    TokenExchange,
    /// A sign-in call for first-party apps: no client authenticates, and a refresh token always comes along.
    Facade,
}

/// Parameters of the grant.
pub struct ApiKeyGrant {
    pub spelling: Spelling,
    /// As it was sent; the shell finds out whose it is.
    pub unverified_key: String,
    scope: Option<ScopeSet>,
    resources: Vec<String>,
}

pub struct Facts {
    /// The key, if it was given out, and its person.
    pub key: Option<(ApiKeyRecord, User)>,
    /// Where it was presented from.
    pub from: Option<IpAddr>,
    /// The id of the grant that this may become.
    pub grant_id: GrantId,
}

impl ApiKeyGrant {
    /// What a sign-in call asks for.
    pub fn facade(unverified_key: String, scope: Option<ScopeSet>) -> Self {
        Self { spelling: Spelling::Facade, unverified_key, scope, resources: Vec::new() }
    }

    /// RFC 8693 §2.1.
    pub fn parse_exchange(params: &Params) -> Result<Self, Error> {
        let required =
            |name: &'static str| params.get(name).ok_or_else(|| Error::invalid_request(format!("{name} is missing")));
        let subject_token = required("subject_token")?;
        if required("subject_token_type")? != TOKEN_TYPE_API_KEY {
            return Err(Error::invalid_request(format!("the only subject_token_type is {TOKEN_TYPE_API_KEY}")));
        }
        let wanted = params.get("requested_token_type");
        if wanted.is_some_and(|wanted| ![TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT].contains(&wanted)) {
            return Err(Error::invalid_request("the only requested_token_type is an access token"));
        }
        if params.get("actor_token").is_some() || params.get("actor_token_type").is_some() {
            return Err(Error::invalid_request("an actor_token is not taken: the client itself is who acts"));
        }
        // Logical names of services (§2.1 `audience`) are the URIs of our resources, as `resource` is.
        let mut resources = params.resources();
        for uri in params.all("audience") {
            if !resources.iter().any(|known| known == uri) {
                resources.push(uri.to_owned());
            }
        }
        Ok(Self {
            spelling: Spelling::TokenExchange,
            unverified_key: subject_token.to_owned(),
            scope: scope_of(params)?,
            resources,
        })
    }

    fn bad_key(&self) -> Error {
        match self.spelling {
            Spelling::TokenExchange => Error::invalid_request(BAD_KEY),
            Spelling::Grant | Spelling::Facade => Error::invalid_grant(BAD_KEY),
        }
    }

    /// The resources of the tokens: those of the key, or of them the ones asked for.
    fn resources(&self, key: &ApiKeyRecord, metadata: &Metadata) -> Result<Vec<String>, Error> {
        let bound = !key.audiences.is_empty();
        if bound && self.resources.iter().any(|uri| !key.audiences.contains(uri)) {
            return Err(Error::invalid_target("the API key is not for this resource"));
        }
        let resources = if self.resources.is_empty() { &key.audiences } else { &self.resources };
        metadata.check_resources(resources)?;
        Ok(resources.clone())
    }
}

fn scope_of(params: &Params) -> Result<Option<ScopeSet>, Error> {
    let scope = params.get("scope").map(str::parse).transpose();
    scope.map_err(|_| Error::invalid_scope("scope holds a character that RFC 6749 3.3 forbids"))
}

impl Grant for ApiKeyGrant {
    type Facts = Facts;

    fn parse(params: &Params) -> Result<Self, Error> {
        let key = params.get("api_key").ok_or_else(|| Error::invalid_request("api_key is missing"))?;
        Ok(Self {
            spelling: Spelling::Grant,
            unverified_key: key.to_owned(),
            scope: scope_of(params)?,
            resources: params.resources(),
        })
    }

    fn decide(self, client: &Client, metadata: &Metadata, facts: Facts, now: Timestamp) -> Result<Issuance, Refusal> {
        let counts = |(key, user): &(ApiKeyRecord, User)| {
            key.is_live(now) && key.admits(facts.from) && user.is_active() && may_present(client, user)
        };
        let (key, user) = facts.key.filter(counts).ok_or_else(|| self.bad_key())?;
        let resources = self.resources(&key, metadata)?;
        // A key grant intersects where others refuse: one client serves people whose keys differ.
        let reach = key.scope_for(&user, metadata).intersection(&client.metadata.scope);
        let wanted = self.scope.as_ref().unwrap_or(&reach);
        let scope = metadata.scope_for(&reach.intersection(wanted), &resources);
        if scope.is_empty() {
            return Err(Error::invalid_scope("the API key and this client have none of these scopes in common").into());
        }
        let asked_for = scope.contains(scope::OFFLINE_ACCESS) && client.metadata.allows(GrantType::RefreshToken);
        let refreshes = asked_for || self.spelling == Spelling::Facade;
        let key = KeyUse::of(&key, client, &user);
        let grant = refreshes.then(|| {
            let expires_at = super::refresh_expiry(client, metadata, Some(&key), now);
            GrantRecord {
                id: facts.grant_id,
                client_id: client.id.clone(),
                user_id: user.id.clone(),
                session_id: None,
                api_key_id: Some(key.kid.clone()),
                facade: self.spelling == Spelling::Facade,
                scope: scope.clone(),
                resources: resources.clone(),
                claims: ClaimsRequest::default(),
                authentication: Authentication::of_api_key(),
                offline: true,
                nonce: None,
                redirect_uri: None,
                code_challenge: None,
                code_expires_at: now,
                redeemed_at: Some(now),
                refresh: Some(RefreshState { generation: 0, rotated_at: now, used_at: now, expires_at }),
                revoked_at: None,
            }
        });
        Ok(Issuance {
            subject: Subject::User(Box::new(user)),
            scope,
            resources,
            nonce: None,
            refresh: grant.as_ref().map(|_| 0),
            commit: if grant.is_some() { Commit::Create } else { Commit::Nothing },
            grant,
            key: Some(key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, api_key, client, user};
    use super::*;
    use crate::protocol::error::ErrorCode::{self, InvalidGrant, InvalidRequest, InvalidScope, InvalidTarget};
    use crate::protocol::ids::ClientId;
    use crate::protocol::metadata::tests::metadata;
    use crate::protocol::time::Span;

    const EXCHANGE: &str = "subject_token=k&subject_token_type=urn:keyward:oauth:token-type:api-key";

    fn parse(query: &str) -> Result<ApiKeyGrant, Error> {
        let params = Params::parse(query.as_bytes()).unwrap();
        if query.contains("subject_token") { ApiKeyGrant::parse_exchange(&params) } else { ApiKeyGrant::parse(&params) }
    }

    fn decide(query: &str, key: Option<(ApiKeyRecord, User)>, client: &Client) -> Result<Issuance, ErrorCode> {
        let from = "192.0.2.1".parse().ok();
        let facts = Facts { key, from, grant_id: GrantId::from_random([1; 16]) };
        let decided = parse(query).map_err(|error| error.code)?.decide(client, &metadata(), facts, NOW);
        decided.map_err(|refusal| refusal.error.code)
    }

    #[test]
    fn parameters_of_both_spellings() {
        let with = |more: &str| format!("{EXCHANGE}&{more}");
        for (query, expected) in [
            ("api_key=k".to_owned(), Ok(())),
            ("scope=openid".to_owned(), Err(InvalidRequest)),
            ("api_key=k&scope=%22".to_owned(), Err(InvalidScope)),
            (EXCHANGE.to_owned(), Ok(())),
            ("subject_token=k".to_owned(), Err(InvalidRequest)),
            (
                "subject_token=k&subject_token_type=urn:ietf:params:oauth:token-type:access_token".to_owned(),
                Err(InvalidRequest),
            ),
            (with(&format!("requested_token_type={TOKEN_TYPE_ACCESS_TOKEN}")), Ok(())),
            (with("requested_token_type=urn:ietf:params:oauth:token-type:refresh_token"), Err(InvalidRequest)),
            (with("actor_token=x&actor_token_type=y"), Err(InvalidRequest)),
        ] {
            assert_eq!(parse(&query).map(drop).map_err(|error| error.code), expected, "{query}");
        }
    }

    #[test]
    fn every_bad_key_gets_the_one_answer_of_its_spelling() {
        let key = |change: &dyn Fn(&mut ApiKeyRecord)| {
            let mut key = api_key();
            change(&mut key);
            Some((key, user()))
        };
        let of_partner = |partner: &str| Some((api_key(), User { partner: Some(ClientId::new(partner)), ..user() }));
        let mut partner = client(false);
        partner.metadata.partner_client_id = Some(ClientId::new("acme"));
        let plain = client(false);
        for (name, key, client, query) in [
            ("unknown", None, &plain, ""),
            ("expired", key(&|key| key.expires_at = NOW), &plain, ""),
            ("revoked", key(&|key| key.revoked_at = Some(NOW)), &plain, ""),
            ("owner disabled", Some((api_key(), User { disabled_at: Some(NOW), ..user() })), &plain, ""),
            ("outside its networks", key(&|key| key.allowed_cidrs = vec!["10.0.0.0/8".parse().unwrap()]), &plain, ""),
            ("of another partner", of_partner("other"), &partner, ""),
        ] {
            for (spelling, code) in [("api_key=k", InvalidGrant), (EXCHANGE, InvalidRequest)] {
                assert_eq!(decide(&format!("{spelling}{query}"), key.clone(), client).err(), Some(code), "{name}");
            }
        }
        assert!(decide("api_key=k", of_partner("acme"), &partner).is_ok());
        assert!(decide("api_key=k", of_partner("acme"), &plain).is_ok());
    }

    #[test]
    fn scopes_are_what_request_key_client_and_person_share() {
        let teacher = User { roles: vec!["teacher".to_owned()], ..user() };
        for (query, person, expected) in [
            ("", user(), Ok("openid profile offline_access quiz.read")),
            ("", teacher.clone(), Ok("openid profile offline_access quiz.read teach")),
            ("&scope=openid+pay", user(), Ok("openid")),
            ("&scope=teach", user(), Err(InvalidScope)),
            ("&scope=teach", teacher, Ok("teach")),
            ("&scope=pay", user(), Err(InvalidScope)),
            ("&scope=root", user(), Err(InvalidScope)),
            ("&resource=https://quiz.test&scope=quiz.read", user(), Ok("quiz.read")),
            ("&resource=https://any.test&scope=quiz.read", user(), Err(InvalidScope)),
            ("&resource=https://x.test", user(), Err(InvalidTarget)),
        ] {
            for spelling in ["api_key=k", EXCHANGE] {
                let issued = decide(&format!("{spelling}{query}"), Some((api_key(), person.clone())), &client(false));
                assert_eq!(issued.map(|issued| issued.scope.to_string()), expected.map(str::to_owned), "{query}");
            }
        }
    }

    #[test]
    fn audiences_are_the_keys() {
        let bound = || {
            let audiences = vec!["https://quiz.test".to_owned(), "https://any.test".to_owned()];
            Some((ApiKeyRecord { audiences, ..api_key() }, user()))
        };
        for (query, expected) in [
            ("api_key=k", Ok(&["https://quiz.test", "https://any.test"][..])),
            ("api_key=k&resource=https://any.test", Ok(&["https://any.test"])),
            ("api_key=k&resource=https://pay.test", Err(InvalidTarget)),
            ("api_key=k&resource=https://any.test&resource=https://pay.test", Err(InvalidTarget)),
            (&format!("{EXCHANGE}&audience=https://any.test"), Ok(&["https://any.test"])),
            (&format!("{EXCHANGE}&audience=https://pay.test"), Err(InvalidTarget)),
        ] {
            let issued = decide(query, bound(), &client(false)).map(|issued| issued.resources);
            assert_eq!(issued, expected.map(|uris| uris.iter().map(|uri| (*uri).to_owned()).collect()), "{query}");
        }
    }

    #[test]
    fn nothing_outlives_the_key() {
        let short = ApiKeyRecord { expires_at: NOW + Span::minutes(1), ..api_key() };
        let issued = decide("api_key=k", Some((short.clone(), user())), &client(false)).unwrap();
        let refresh = issued.grant.unwrap().refresh.unwrap();
        assert_eq!((refresh.expires_at, issued.key.unwrap().expires_at), (short.expires_at, short.expires_at));
        let long = decide("api_key=k", Some((api_key(), user())), &client(false)).unwrap();
        assert_eq!(
            long.grant.unwrap().refresh.unwrap().expires_at,
            api_key().expires_at,
            "thirty days are more than ten"
        );
    }

    #[test]
    fn a_refresh_token_needs_offline_access_and_the_grant_for_it() {
        let mut no_refresh = client(false);
        no_refresh.metadata.grant_types = vec![GrantType::ApiKey];
        for (query, client, refreshes) in [
            ("api_key=k", &client(false), true),
            ("api_key=k&scope=openid", &client(false), false),
            ("api_key=k", &no_refresh, false),
        ] {
            let issued = decide(query, Some((api_key(), user())), client).unwrap();
            assert_eq!((issued.refresh.is_some(), issued.grant.is_some()), (refreshes, refreshes), "{query}");
            assert_eq!(issued.commit, if refreshes { Commit::Create } else { Commit::Nothing });
        }
        let facts = Facts { key: Some((api_key(), user())), from: None, grant_id: GrantId::from_random([1; 16]) };
        let facade = ApiKeyGrant::facade("k".to_owned(), Some("openid".parse().unwrap()));
        assert_eq!(facade.decide(&no_refresh, &metadata(), facts, NOW).unwrap().refresh, Some(0));
    }
}
