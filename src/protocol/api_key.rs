//! API keys as the rules see them: what a new one may be, when one counts, and how far what is made from it reaches.
//! The text of a key is `crypto/api_key.rs`; the grant that turns one into tokens is `grant/api_key.rs`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::client::{Client, wire_enum};
use super::ids::{ApiKeyId, ClientId, GrantId, UserId};
use super::metadata::Metadata;
use super::scope::{PARTNER_USERS, ScopeSet};
use super::time::{Span, Timestamp};
use super::user::User;

/// `acr` of whatever came from a key and not from a person at a page.
pub const ACR_API_KEY: &str = "urn:keyward:acr:api-key";
/// `acr` of a sign-in that a partner vouched for.
pub const ACR_HANDOFF: &str = "urn:keyward:acr:handoff";
/// `subject_token_type` of a key in a token exchange (RFC 8693 §3), and its `token_type_hint`.
pub const TOKEN_TYPE_API_KEY: &str = "urn:keyward:oauth:token-type:api-key";

/// What a key of a person may do where nobody said: sign in, and stay signed in.
pub const DEFAULT_SCOPES: &str = "openid profile email roles groups offline_access";
/// How long a replaced key goes on where nobody said.
pub const DEFAULT_OVERLAP: Span = Span::days(1);
pub const MAX_OVERLAP: Span = Span::days(7);
/// Characters of a key's name.
pub const MAX_NAME: usize = 100;
/// Entries of a key's lists: scopes, audiences, networks.
pub const MAX_ENTRIES: usize = 50;
/// Keys of one owner that count at a time: a leaked session must not fill a disk.
pub const MAX_LIVE_KEYS: i64 = 100;
/// Keys of one owner, those that ended in the last 90 days among them: making and ending them in turn must not either.
pub const MAX_KEYS: i64 = 1000;
/// Refresh tokens, and sessions, that one key has at a time: whoever signs in anew for every request ends the oldest.
pub const MAX_OPENED_BY_KEY: i64 = 100;

wire_enum! {
    /// Whose key it is.
    pub enum Kind {
        /// A person's.
        User = "uk",
        /// A partner's own, for its administration.
        Partner = "pk",
    }
}

/// The owner of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    User(UserId),
    Partner(ClientId),
}

/// A key without what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    pub kid: ApiKeyId,
    pub owner: Owner,
    pub name: String,
    pub scopes: ScopeSet,
    /// Default `aud` of its tokens, and the most they may have; empty: unbound.
    pub audiences: Vec<String>,
    /// Networks that it may be used from; empty: from anywhere.
    pub allowed_cidrs: Vec<IpNet>,
    /// It opens nothing itself and is good for tokens only.
    pub exchange_only: bool,
    /// The key that it replaces.
    pub predecessor: Option<ApiKeyId>,
    pub created_at: Timestamp,
    /// What it was made for, and its successor will be; a rotation makes its own life shorter.
    pub lifetime: Span,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// How a key stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Active,
    Expired,
    Revoked,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl ApiKeyRecord {
    pub fn status(&self, now: Timestamp) -> Status {
        match self.revoked_at {
            Some(_) => Status::Revoked,
            None if now >= self.expires_at => Status::Expired,
            None => Status::Active,
        }
    }

    pub fn is_live(&self, now: Timestamp) -> bool {
        self.status(now) == Status::Active
    }

    /// Whether it may be used from there. Who comes from nowhere (a unix socket) is in no network.
    pub fn admits(&self, from: Option<IpAddr>) -> bool {
        let from = from.map(|from| from.to_canonical());
        self.allowed_cidrs.is_empty()
            || from.is_some_and(|from| self.allowed_cidrs.iter().any(|cidr| cidr.contains(&from)))
    }

    /// The scopes that it yields for its person now, at the resources that it is for: a role that was taken away takes
    /// its scopes along.
    pub fn scope_for(&self, user: &User, metadata: &Metadata) -> ScopeSet {
        metadata.scope_for(&metadata.allowed(&self.scopes, user), &self.audiences)
    }
}

/// Whether a client may present keys of this person: a partner's people are nobody else's, but for clients that
/// belong to no partner.
pub fn may_present(client: &Client, owner: &User) -> bool {
    match (client.partner(), &owner.partner) {
        (_, None) | (None, Some(_)) => true,
        (Some(own), Some(partner)) => own == partner,
    }
}

/// Who acts for the person where a key is presented (RFC 8693 §4.1): the partner whose person it is, or the partner
/// that presents it.
pub fn actor<'a>(client: Option<&'a Client>, owner: &'a User) -> Option<&'a ClientId> {
    owner.partner.as_ref().or_else(|| client?.partner())
}

/// A session that came from a key, or from a partner that handed a browser over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySession {
    /// `None` of a hand-off.
    pub kid: Option<ApiKeyId>,
    /// The most that may come from the session.
    pub scope: ScopeSet,
    /// The resources that tokens from it may be for; empty: unbound.
    pub audiences: Vec<String>,
    /// The token that it was begun by, where it was not the key itself.
    pub origin: Option<Origin>,
    pub partner: Option<ClientId>,
}

/// A token that a session leans on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub jti: String,
    pub grant_id: Option<GrantId>,
}

impl KeySession {
    /// Such a session counts as a sign-in only for the partner that it came from: to everybody else nobody has
    /// signed in.
    pub fn signs_in_to(&self, client: &Client) -> bool {
        self.partner.is_some() && client.partner() == self.partner.as_ref()
    }

    /// Whether a token from it may be for these resources.
    pub fn covers(&self, resources: &[String]) -> bool {
        self.audiences.is_empty() || (!resources.is_empty() && resources.iter().all(|uri| self.audiences.contains(uri)))
    }
}

/// What somebody wants of a new key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Wish {
    pub name: String,
    pub scopes: Option<ScopeSet>,
    pub audiences: Vec<String>,
    pub allowed_cidrs: Vec<String>,
    pub expires_in: Option<Span>,
    pub exchange_only: bool,
}

/// Limits of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub default_ttl: Span,
    pub max_ttl: Span,
}

/// Why a key cannot be as wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    #[error("name must have 1 to {MAX_NAME} characters, without control characters")]
    Name,
    #[error("expires_in must be 1 second to {0} seconds, which is the longest that a key may live here")]
    Lifetime(i64),
    #[error("`{0}` is not a scope that this key may have")]
    Scope(String),
    #[error("a key needs a scope")]
    NoScope,
    #[error("`{0}` is not a resource that this provider issues tokens for")]
    Audience(String),
    #[error("these audiences want different signing algorithms: make a key for each")]
    Audiences,
    #[error("`{0}` is not a network like 192.0.2.0/24 or 2001:db8::/32")]
    Network(String),
    #[error("at most {MAX_ENTRIES} scopes, audiences and networks each")]
    TooMany,
}

/// What a key will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub name: String,
    pub scopes: ScopeSet,
    pub audiences: Vec<String>,
    pub allowed_cidrs: Vec<IpNet>,
    pub exchange_only: bool,
    pub expires_at: Timestamp,
}

/// Judges a wish. `ceiling` says what the owner may do themselves: a key never exceeds it. `default` counts where the
/// wish names no scopes, as far as the ceiling allows.
pub fn terms(
    wish: Wish,
    default: &ScopeSet,
    ceiling: impl Fn(&str) -> bool,
    metadata: &Metadata,
    policy: Policy,
    now: Timestamp,
) -> Result<Terms, Unacceptable> {
    let length = wish.name.chars().count();
    if !(1..=MAX_NAME).contains(&length) || wish.name.chars().any(char::is_control) || wish.name.trim().is_empty() {
        return Err(Unacceptable::Name);
    }
    let entries = [wish.scopes.as_ref().map_or(0, |scopes| scopes.iter().count()), wish.audiences.len()];
    if entries.into_iter().chain([wish.allowed_cidrs.len()]).any(|count| count > MAX_ENTRIES) {
        return Err(Unacceptable::TooMany);
    }
    let lifetime = wish.expires_in.unwrap_or(policy.default_ttl.min(policy.max_ttl));
    if lifetime < Span::from_secs(1) || lifetime > policy.max_ttl {
        return Err(Unacceptable::Lifetime(policy.max_ttl.secs()));
    }
    let scopes = match wish.scopes {
        None => default.filtered(&ceiling),
        Some(scopes) => {
            if let Some(beyond) = scopes.iter().find(|token| !ceiling(token)) {
                return Err(Unacceptable::Scope(beyond.to_owned()));
            }
            scopes
        }
    };
    if scopes.is_empty() {
        return Err(Unacceptable::NoScope);
    }
    for uri in &wish.audiences {
        metadata.check_resources(std::slice::from_ref(uri)).map_err(|_| Unacceptable::Audience(uri.clone()))?;
    }
    metadata.check_resources(&wish.audiences).map_err(|_| Unacceptable::Audiences)?;
    let network = |text: &String| parse_network(text).ok_or_else(|| Unacceptable::Network(text.clone()));
    Ok(Terms {
        name: wish.name,
        scopes,
        audiences: wish.audiences,
        allowed_cidrs: wish.allowed_cidrs.iter().map(network).collect::<Result<_, _>>()?,
        exchange_only: wish.exchange_only,
        expires_at: now + lifetime,
    })
}

/// `192.0.2.0/24`, or one address. Networks that only wrap IPv4 ones (`::ffff:192.0.2.0/120`) are those.
fn parse_network(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?.trunc();
    match (net.addr().to_canonical(), net.prefix_len()) {
        (IpAddr::V4(inner), 96..) if net.addr().is_ipv6() => IpNet::new(inner.into(), net.prefix_len() - 96).ok(),
        _ => Some(net),
    }
}

/// What a person may give a key: every scope but those of roles that they lack, and none that only partners have.
pub fn ceiling_of<'a>(user: &'a User, metadata: &'a Metadata) -> impl Fn(&str) -> bool + 'a {
    |token| !is_partner_scope(token) && metadata.permits(token, &user.roles)
}

/// What a partner may give its own key: its administration, and nothing else.
pub fn is_partner_scope(token: &str) -> bool {
    token == PARTNER_USERS
}

#[cfg(test)]
mod tests {
    use super::super::grant::tests::{NOW, client, user};
    use super::*;
    use crate::protocol::metadata::tests::metadata;

    const POLICY: Policy = Policy { default_ttl: Span::days(365), max_ttl: Span::days(1095) };

    fn wish(name: &str, scopes: Option<&str>) -> Wish {
        Wish { name: name.to_owned(), scopes: scopes.map(|scopes| scopes.parse().unwrap()), ..Wish::default() }
    }

    fn judge(wish: Wish, roles: &[&str]) -> Result<Terms, Unacceptable> {
        let user = User { roles: roles.iter().map(|role| (*role).to_owned()).collect(), ..user() };
        let metadata = metadata();
        let default = DEFAULT_SCOPES.parse().unwrap();
        terms(wish, &default, ceiling_of(&user, &metadata), &metadata, POLICY, NOW)
    }

    #[test]
    fn a_key_is_never_more_than_its_owner() {
        for (name, scopes, roles, expected) in [
            ("laptop", None, &[][..], Ok(DEFAULT_SCOPES)),
            ("laptop", Some("openid quiz.read"), &[], Ok("openid quiz.read")),
            ("laptop", Some("teach"), &["teacher"], Ok("teach")),
            ("laptop", Some("teach"), &[], Err(Unacceptable::Scope("teach".to_owned()))),
            ("laptop", Some("openid root"), &[], Err(Unacceptable::Scope("root".to_owned()))),
            ("laptop", Some("partner.users"), &[], Err(Unacceptable::Scope("partner.users".to_owned()))),
            ("laptop", Some(""), &[], Err(Unacceptable::NoScope)),
            ("", None, &[], Err(Unacceptable::Name)),
            ("  ", None, &[], Err(Unacceptable::Name)),
            ("a\nb", None, &[], Err(Unacceptable::Name)),
        ] {
            let terms = judge(wish(name, scopes), roles);
            let found = terms.map(|terms| terms.scopes.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{name:?} {scopes:?}");
        }
        assert_eq!(judge(wish(&"x".repeat(101), None), &[]), Err(Unacceptable::Name));
    }

    #[test]
    fn lifetimes_audiences_and_networks_have_limits() {
        let base = || wish("laptop", None);
        let at = |days: i64| Ok(NOW + Span::days(days));
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (wish, expected) in [
            (base(), at(365)),
            (Wish { expires_in: Some(Span::days(1095)), ..base() }, at(1095)),
            (Wish { expires_in: Some(Span::days(1096)), ..base() }, Err(Unacceptable::Lifetime(94_608_000))),
            (Wish { expires_in: Some(Span::ZERO), ..base() }, Err(Unacceptable::Lifetime(94_608_000))),
            (Wish { audiences: texts(&["https://quiz.test"]), ..base() }, at(365)),
            (
                Wish { audiences: texts(&["https://x.test"]), ..base() },
                Err(Unacceptable::Audience("https://x.test".into())),
            ),
            (
                Wish { audiences: texts(&["https://quiz.test", "https://pay.test"]), ..base() },
                Err(Unacceptable::Audiences),
            ),
            (Wish { allowed_cidrs: texts(&["192.0.2.7/24", "2001:db8::1", "10.0.0.1"]), ..base() }, at(365)),
            (
                Wish { allowed_cidrs: texts(&["192.0.2.0/33"]), ..base() },
                Err(Unacceptable::Network("192.0.2.0/33".into())),
            ),
            (Wish { allowed_cidrs: texts(&["10.0.0.1"; 51]), ..base() }, Err(Unacceptable::TooMany)),
        ] {
            let text = format!("{wish:?}");
            assert_eq!(judge(wish, &[]).map(|terms| terms.expires_at), expected, "{text}");
        }
    }

    #[test]
    fn a_key_is_used_from_its_networks_only() {
        let terms = Wish {
            allowed_cidrs: vec!["192.0.2.0/25".into(), "::ffff:192.0.2.128/121".into(), "2001:db8::/32".into()],
            ..wish("laptop", None)
        };
        let cidrs = judge(terms, &[]).unwrap().allowed_cidrs;
        let key = |allowed_cidrs| ApiKeyRecord { allowed_cidrs, ..super::super::grant::tests::api_key() };
        for (from, within) in [
            (Some("192.0.2.200"), true),
            (Some("::ffff:192.0.2.200"), true),
            (Some("192.0.3.1"), false),
            (Some("2001:db8:ffff::1"), true),
            (Some("::1"), false),
            (None, false),
        ] {
            let from = from.map(|from| from.parse().unwrap());
            assert_eq!(key(cidrs.clone()).admits(from), within, "{from:?}");
            assert!(key(Vec::new()).admits(from));
        }
    }

    #[test]
    fn a_key_ends_by_time_or_by_hand() {
        let key = super::super::grant::tests::api_key();
        assert_eq!(key.status(key.expires_at - Span::from_millis(1)), Status::Active);
        assert_eq!(key.status(key.expires_at), Status::Expired);
        assert_eq!(ApiKeyRecord { revoked_at: Some(NOW), ..key }.status(NOW), Status::Revoked);
    }

    #[test]
    fn a_partners_people_are_nobody_elses() {
        let of = |partner: Option<&str>| User { partner: partner.map(ClientId::new), ..user() };
        let with = |partner: bool, belongs: Option<&str>| {
            let mut client = client(false);
            client.id = ClientId::new("acme");
            client.metadata.partner = partner;
            client.metadata.partner_client_id = belongs.map(ClientId::new);
            client
        };
        for (client, owner, allowed, acts) in [
            (with(false, None), of(None), true, None),
            (with(false, None), of(Some("acme")), true, Some("acme")),
            (with(true, None), of(Some("acme")), true, Some("acme")),
            (with(true, None), of(Some("other")), false, Some("other")),
            (with(false, Some("acme")), of(Some("acme")), true, Some("acme")),
            (with(false, Some("other")), of(Some("acme")), false, Some("acme")),
            (with(true, None), of(None), true, Some("acme")),
        ] {
            assert_eq!(may_present(&client, &owner), allowed, "{client:?} {owner:?}");
            assert_eq!(actor(Some(&client), &owner).map(ClientId::as_str), acts);
            let session = |partner| KeySession {
                kid: Some(ApiKeyId::new("k")),
                scope: ScopeSet::default(),
                audiences: Vec::new(),
                origin: None,
                partner,
            };
            assert_eq!(
                session(owner.partner.clone()).signs_in_to(&client),
                allowed && acts.is_some() && owner.partner.is_some() && client.partner().is_some()
            );
        }
    }
}
