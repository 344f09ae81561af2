//! Sign-up and sign-in by plain calls of an app of our own, which shows its own forms: what is asked of the bodies, and
//! what the right password opens. Each API is one seed system's; the tokens are ordinary ones of this issuer.

pub mod device;
pub mod username;

use serde_json::{Map, Value};

use super::claims::{Authentication, ClaimsRequest};
use super::client::{Client, RefreshTokenRotation};
use super::grant::{Commit, GrantRecord, Issuance, RefreshState, Subject, refresh_token_ttl};
use super::ids::GrantId;
use super::metadata::{ACR_PASSWORD, Metadata};
use super::time::{Span, Timestamp};
use super::user::User;
use crate::crypto::password::MAX_PASSWORD_BYTES;

/// How many of one person's sign-ins by these calls are alive at a time, with each client; the oldest ends.
pub const MAX_SIGN_INS: i64 = 100;

/// Which of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/api/auth/*`
    Username,
    /// `/auth/*`
    Device,
}

impl Api {
    pub const ALL: [Self; 2] = [Self::Username, Self::Device];

    /// The client that the calls act as, with the lifetimes that this API has where the client has none of its own.
    pub fn client(self, client: &Client) -> Client {
        let mut client = client.clone();
        let metadata = &mut client.metadata;
        match self {
            Self::Username => metadata.access_token_ttl = metadata.access_token_ttl.or(Some(Span::days(7))),
            Self::Device => {
                metadata.access_token_ttl = metadata.access_token_ttl.or(Some(Span::days(30)));
                metadata.refresh_token_ttl = metadata.refresh_token_ttl.or(Some(Span::days(180)));
                // Nobody authenticates here, whatever the client does elsewhere (RFC 9700 §4.14.2).
                if matches!(metadata.refresh_token_rotation, None | Some(RefreshTokenRotation::Auto)) {
                    metadata.refresh_token_rotation = Some(RefreshTokenRotation::Always);
                }
            }
        }
        client
    }

    /// What the right password of `user` opens: all that the client may ask for, as far as the person may have it.
    /// `client` is that of [`Api::client`].
    pub fn opens(self, client: &Client, metadata: &Metadata, user: User, id: GrantId, now: Timestamp) -> Issuance {
        let scope = metadata.allowed(&client.metadata.scope, &user);
        let expires_at = now + refresh_token_ttl(client, metadata);
        let refresh =
            (self == Self::Device).then_some(RefreshState { generation: 0, rotated_at: now, used_at: now, expires_at });
        let grant = GrantRecord {
            id,
            client_id: client.id.clone(),
            user_id: user.id.clone(),
            session_id: None,
            api_key_id: None,
            facade: true,
            scope: scope.clone(),
            resources: Vec::new(),
            claims: ClaimsRequest::default(),
            authentication: Authentication {
                auth_time: Some(now),
                acr: ACR_PASSWORD.to_owned(),
                amr: vec!["pwd".to_owned()],
            },
            offline: true,
            nonce: None,
            redirect_uri: None,
            code_challenge: None,
            code_expires_at: now,
            redeemed_at: Some(now),
            refresh,
            revoked_at: None,
        };
        Issuance {
            subject: Subject::User(Box::new(user)),
            scope,
            resources: Vec::new(),
            nonce: None,
            refresh: refresh.map(|refresh| refresh.generation),
            commit: Commit::Create,
            grant: Some(grant),
            key: None,
        }
    }
}

/// A member that is a text with something in it.
fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Longer ones are refused and never cut.
fn is_too_long(password: &str) -> bool {
    password.len() > MAX_PASSWORD_BYTES
}

fn is_shorter(password: &str, characters: u32) -> bool {
    password.chars().count() < characters as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::grant::tests::{NOW, client, user};
    use crate::protocol::metadata::tests::metadata;

    #[test]
    fn lifetimes_are_the_clients_or_those_of_the_seed_systems() {
        let mut own = client(false);
        own.metadata.access_token_ttl = Some(Span::hours(1));
        own.metadata.refresh_token_ttl = Some(Span::hours(2));
        own.metadata.refresh_token_rotation = Some(RefreshTokenRotation::Never);
        let days = |n| Some(Span::days(n));
        for (api, given, access, refresh, rotation) in [
            (Api::Username, client(false), days(7), None, None),
            (Api::Device, client(false), days(30), days(180), Some(RefreshTokenRotation::Always)),
            (Api::Device, own, Some(Span::hours(1)), Some(Span::hours(2)), Some(RefreshTokenRotation::Never)),
        ] {
            let metadata = api.client(&given).metadata;
            let found = (metadata.access_token_ttl, metadata.refresh_token_ttl, metadata.refresh_token_rotation);
            assert_eq!(found, (access, refresh, rotation), "{api:?}");
        }
    }

    #[test]
    fn a_sign_in_opens_what_client_and_person_may_have() {
        for (api, refreshes) in [(Api::Username, false), (Api::Device, true)] {
            let opened = api.opens(&api.client(&client(true)), &metadata(), user(), GrantId::new("g"), NOW);
            // `teach` wants a role.
            assert_eq!(opened.scope.to_string(), "openid profile offline_access quiz.read pay");
            let grant = opened.grant.unwrap();
            assert!(grant.facade && grant.api_key_id.is_none());
            assert_eq!(grant.refresh.map(|refresh| refresh.expires_at), refreshes.then_some(NOW + Span::days(180)));
            assert_eq!(opened.refresh, refreshes.then_some(0));
        }
    }
}
