//! `scope` values (RFC 6749 §3.3): an ordered set of scope tokens, written space-separated on every wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub const OPENID: &str = "openid";
pub const OFFLINE_ACCESS: &str = "offline_access";

/// What lets a partner administer its people.
pub const PARTNER_USERS: &str = "partner.users";

/// The scopes that need no configuration: those of OpenID Connect Core §5.4 and §11, and the two that bring a person's
/// roles and groups.
pub const STANDARD: [&str; 8] = [OPENID, "profile", "email", "address", "phone", OFFLINE_ACCESS, "roles", "groups"];

/// A set of scope tokens in the order in which they were first named. Order never decides anything; keeping it
/// lets people recognise what they wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(Vec<String>);

/// A text that is no `scope` value: a character outside `%x21 / %x23-5B / %x5D-7E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedScope;

impl fmt::Display for MalformedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scope may hold only printable ASCII without quotes and backslashes")
    }
}

impl std::error::Error for MalformedScope {}

/// Whether `token` is a `scope-token` (RFC 6749 §3.3).
pub fn is_scope_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

impl ScopeSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, token: &str) -> bool {
        self.0.iter().any(|own| own == token)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|token| other.contains(token))
    }

    /// The tokens for which `keep` holds, in our order.
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|token| keep(token)).cloned().collect())
    }

    pub fn intersection(&self, other: &Self) -> Self {
        self.filtered(|token| other.contains(token))
    }

    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).map(str::to_owned).collect()
    }
}

impl FromIterator<String> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = String>>(tokens: I) -> Self {
        let mut set = Vec::new();
        for token in tokens {
            if !set.contains(&token) {
                set.push(token);
            }
        }
        Self(set)
    }
}

impl FromStr for ScopeSet {
    type Err = MalformedScope;

    /// Extra spaces between tokens are tolerated, as every peer does.
    fn from_str(text: &str) -> Result<Self, MalformedScope> {
        let tokens = text.split(' ').filter(|token| !token.is_empty());
        if tokens.clone().all(is_scope_token) { Ok(tokens.map(str::to_owned).collect()) } else { Err(MalformedScope) }
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> ScopeSet {
        text.parse().unwrap()
    }

    #[test]
    fn tokens_keep_their_order_and_lose_their_repeats() {
        assert_eq!(set("email openid  email").to_string(), "email openid");
        assert_eq!(set("").to_string(), "");
        assert_eq!(set("quiz.read urn:x:y https://a/b").iter().count(), 3);
    }

    #[test]
    fn what_rfc_6749_forbids_is_refused() {
        for text in ["a\"b", "a\\b", "a\tb", "a\nb", "é", "a\u{0}b", "a\u{7f}"] {
            assert_eq!(text.parse::<ScopeSet>(), Err(MalformedScope), "{text:?}");
        }
    }

    #[test]
    fn sets_narrow_and_never_widen() {
        let granted = set("openid profile email");
        assert!(set("email openid").is_subset(&granted));
        assert!(!set("email phone").is_subset(&granted));
        assert_eq!(granted.intersection(&set("phone email")).to_string(), "email");
        assert_eq!(granted.union(&set("phone email")).to_string(), "openid profile email phone");
    }
}
