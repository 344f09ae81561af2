//! The refresh grant (RFC 6749 §6, OpenID Connect Core §12) with rotation that survives a lost answer
//! (RFC 9700 §4.14.2): generations are compared, never seconds alone.

use super::{Commit, Effect, Grant, GrantRecord, Issuance, RefreshState, Refusal, RevocationReason, Subject};
use crate::protocol::api_key::ApiKeyRecord;
use crate::protocol::client::Client;
use crate::protocol::error::Error;
use crate::protocol::metadata::Metadata;
use crate::protocol::params::Params;
use crate::protocol::scope::ScopeSet;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;

/// Parameters of the grant.
pub struct RefreshToken {
    /// As it was sent; the shell reads and verifies it.
    pub unverified_token: String,
    scope: Option<ScopeSet>,
    resources: Vec<String>,
    door: Door,
}

/// Where a refresh token is presented. Those that were given out at one door are taken at no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/token`
    Token,
    /// The sign-in call for API keys, where no client authenticates.
    ApiKey,
    /// A sign-in API for first-party apps, where none does either.
    FirstParty,
}

impl Door {
    fn gave_out(self, grant: &GrantRecord) -> bool {
        match self {
            Self::Token => !grant.facade,
            Self::ApiKey => grant.facade && grant.api_key_id.is_some(),
            Self::FirstParty => grant.facade && grant.api_key_id.is_none(),
        }
    }
}

pub struct Facts {
    /// The grant that the token names, if the token's code of authenticity is right.
    pub grant: Option<GrantRecord>,
    /// The generation that the token names.
    pub generation: u32,
    /// The grant's person; `None` once deleted.
    pub user: Option<User>,
    /// The API key that the grant came from; `None` where it has none or the key is gone.
    pub key: Option<ApiKeyRecord>,
}

impl RefreshToken {
    /// A refresh by a call that needs no client authentication.
    pub const fn by_call(unverified_token: String, door: Door) -> Self {
        Self { unverified_token, scope: None, resources: Vec::new(), door }
    }
}

impl Grant for RefreshToken {
    type Facts = Facts;

    fn parse(params: &Params) -> Result<Self, Error> {
        let token = params.get("refresh_token").ok_or_else(|| Error::invalid_request("refresh_token is missing"))?;
        let scope = params.get("scope").map(str::parse).transpose();
        Ok(Self {
            unverified_token: token.to_owned(),
            scope: scope.map_err(|_| Error::invalid_scope("scope holds a character that RFC 6749 3.3 forbids"))?,
            resources: params.resources(),
            door: Door::Token,
        })
    }

    fn decide(self, client: &Client, metadata: &Metadata, facts: Facts, now: Timestamp) -> Result<Issuance, Refusal> {
        let unknown = || Error::invalid_grant("the refresh token is unknown, expired, revoked or of another client");
        let own = |grant: &GrantRecord| grant.client_id == client.id && self.door.gave_out(grant);
        let grant = facts.grant.filter(own).ok_or_else(unknown)?;
        let state = live_state(&grant, client, now).ok_or_else(unknown)?;
        let user = facts.user.filter(User::is_active).ok_or_else(unknown)?;
        let key = super::live_key(&grant, facts.key, client, &user, now).map_err(|super::KeyEnded| unknown())?;
        let (generation, commit) = match standing(facts.generation, &state, metadata, now) {
            Standing::Current if client.rotates_refresh_tokens(metadata.tokens.refresh_token_rotation) => {
                (state.generation + 1, Commit::Rotate { from: state.generation })
            }
            Standing::Current if client.metadata.refresh_idle_ttl.is_some() => (state.generation, Commit::Touch),
            // The answer that carried the successor was lost, or two tabs asked at once: all get the same successor.
            Standing::Current | Standing::ParentOfUnused => (state.generation, Commit::Nothing),
            Standing::Reused => {
                let effect = Effect::Revoke { grant_id: grant.id, reason: RevocationReason::RefreshTokenReused };
                return Err(Refusal { error: unknown(), effect });
            }
            Standing::Unissued => return Err(unknown().into()),
        };
        let granted = metadata.allowed(&grant.scope.intersection(&client.metadata.scope), &user);
        // A sign-in by plain calls may have been granted nothing but to know who it is.
        if granted.is_empty() && !grant.scope.is_empty() {
            return Err(Error::invalid_scope("nothing of what was granted may be had any more").into());
        }
        let scope = narrow_scope(&granted, self.scope.as_ref())?;
        let resources = super::narrow_resources(&grant.resources, &self.resources, metadata)?;
        Ok(Issuance {
            subject: Subject::User(Box::new(user)),
            scope: super::scope_for(metadata, &scope, &resources, self.scope.as_ref())?,
            resources,
            nonce: None,
            refresh: Some(generation),
            commit,
            grant: Some(grant),
            key,
        })
    }
}

/// Where the grant's refresh tokens stand, if they can still be used. `client` is the grant's.
pub fn live_state(grant: &GrantRecord, client: &Client, now: Timestamp) -> Option<RefreshState> {
    let rested =
        |state: &RefreshState| client.metadata.refresh_idle_ttl.is_some_and(|idle| now >= state.used_at + idle);
    grant.refresh.filter(|state| grant.revoked_at.is_none() && now < state.expires_at && !rested(state))
}

/// What a generation means, seen from the one that counts now.
enum Standing {
    Current,
    /// The immediate parent, within the retry window, whose successor nobody has used.
    ParentOfUnused,
    /// Anything older.
    Reused,
    /// One that was never handed out: the database was set back.
    Unissued,
}

fn standing(presented: u32, state: &RefreshState, metadata: &Metadata, now: Timestamp) -> Standing {
    if presented == state.generation {
        return Standing::Current;
    }
    if presented > state.generation {
        return Standing::Unissued;
    }
    let in_window = now < state.rotated_at + metadata.tokens.refresh_retry_window;
    // A successor that was used has itself been rotated away, so an unused one is always the current generation.
    if presented + 1 == state.generation && in_window { Standing::ParentOfUnused } else { Standing::Reused }
}

/// RFC 6749 §6: no scope beyond what was granted.
fn narrow_scope(granted: &ScopeSet, asked: Option<&ScopeSet>) -> Result<ScopeSet, Error> {
    match asked {
        None => Ok(granted.clone()),
        Some(asked) if asked.is_subset(granted) => Ok(asked.clone()),
        Some(_) => Err(Error::invalid_scope("scope goes beyond what was granted")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, client, grant, user};
    use super::*;
    use crate::protocol::error::ErrorCode::{self, InvalidGrant, InvalidScope, InvalidTarget};
    use crate::protocol::metadata::tests::metadata;
    use crate::protocol::time::Span;

    fn refreshed(generation: u32, rotated_ago: Span) -> GrantRecord {
        let state = RefreshState {
            generation,
            rotated_at: NOW - rotated_ago,
            used_at: NOW - rotated_ago,
            expires_at: NOW + Span::days(1),
        };
        GrantRecord { refresh: Some(state), redeemed_at: Some(NOW), ..grant() }
    }

    fn decide(
        query: &str,
        public: bool,
        grant: GrantRecord,
        generation: u32,
        user: Option<User>,
    ) -> Result<Issuance, (ErrorCode, bool)> {
        let params = Params::parse(format!("refresh_token=x&{query}").as_bytes()).unwrap();
        let facts = Facts { grant: Some(grant), generation, user, key: None };
        let decided = RefreshToken::parse(&params).unwrap().decide(&client(public), &metadata(), facts, NOW);
        decided.map_err(|refusal| (refusal.error.code, refusal.effect != Effect::Nothing))
    }

    #[test]
    fn rotation_is_safe_to_retry_and_reuse_ends_the_grant() {
        let soon = Span::from_secs(5);
        let late = Span::from_secs(60);
        let reuse = Err((InvalidGrant, true));
        let refused = Err((InvalidGrant, false));
        for (name, public, current, ago, presented, expected) in [
            ("first use", true, 0, soon, 0, Ok((Some(1), Commit::Rotate { from: 0 }))),
            ("second use", true, 4, soon, 4, Ok((Some(5), Commit::Rotate { from: 4 }))),
            ("retry", true, 5, soon, 4, Ok((Some(5), Commit::Nothing))),
            ("retry too late", true, 5, late, 4, reuse),
            ("grandparent", true, 5, soon, 3, reuse),
            ("from the future", true, 5, soon, 6, refused),
            ("confidential", false, 0, soon, 0, Ok((Some(0), Commit::Nothing))),
        ] {
            let decided = decide("", public, refreshed(current, ago), presented, Some(user()));
            assert_eq!(decided.map(|i| (i.refresh, i.commit)), expected, "{name}");
        }
    }

    #[test]
    fn a_refresh_dies_with_what_it_stands_for() {
        let refused = Err((InvalidGrant, false));
        let live = || refreshed(0, Span::ZERO);
        let dead = RefreshState { expires_at: NOW, ..live().refresh.unwrap() };
        for (name, grant, user, expected) in [
            ("live", live(), Some(user()), Ok(())),
            ("revoked", GrantRecord { revoked_at: Some(NOW), ..live() }, Some(user()), refused),
            ("expired", GrantRecord { refresh: Some(dead), ..live() }, Some(user()), refused),
            ("never issued", GrantRecord { refresh: None, ..live() }, Some(user()), refused),
            (
                "of another client",
                GrantRecord { client_id: crate::protocol::ids::ClientId::new("b"), ..live() },
                Some(user()),
                refused,
            ),
            ("deleted person", live(), None, refused),
            ("disabled person", live(), Some(User { disabled_at: Some(NOW), ..user() }), refused),
        ] {
            assert_eq!(decide("", true, grant, 0, user).map(|_| ()), expected, "{name}");
        }
    }

    #[test]
    fn a_rest_longer_than_allowed_is_the_end() {
        let mut app = client(false);
        app.metadata.refresh_idle_ttl = Some(Span::hours(1));
        for (ago, expected) in [(Span::minutes(59), Some(Commit::Touch)), (Span::hours(1), None)] {
            let params = Params::parse(b"refresh_token=x").unwrap();
            let facts = Facts { grant: Some(refreshed(0, ago)), generation: 0, user: Some(user()), key: None };
            let decided = RefreshToken::parse(&params).unwrap().decide(&app, &metadata(), facts, NOW);
            assert_eq!(decided.ok().map(|issuance| issuance.commit), expected);
        }
    }

    #[test]
    fn scope_and_resource_narrow_and_never_widen() {
        let scope = |query: &str| {
            let decided = decide(query, false, refreshed(0, Span::ZERO), 0, Some(user()));
            decided.map(|issuance| issuance.scope.to_string()).map_err(|(code, _)| code)
        };
        assert_eq!(scope("").as_deref(), Ok("openid profile quiz.read"));
        assert_eq!(scope("scope=profile").as_deref(), Ok("profile"));
        assert_eq!(scope("resource=https://any.test").as_deref(), Ok("openid profile"));
        assert_eq!(scope("scope=profile+pay"), Err(InvalidScope));
        assert_eq!(scope("resource=https://pay.test"), Err(InvalidTarget));
    }
}
