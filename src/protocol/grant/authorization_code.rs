//! The authorization code grant (RFC 6749 §4.1.3, OpenID Connect Core §3.1.3, RFC 7636 §4.6).

use super::{Commit, Effect, Grant, GrantRecord, Issuance, Refusal, RevocationReason, Subject};
use crate::crypto::digest::{base64url, sha256};
use crate::protocol::api_key::ApiKeyRecord;
use crate::protocol::client::{Client, GrantType};
use crate::protocol::error::Error;
use crate::protocol::ids::GrantId;
use crate::protocol::metadata::Metadata;
use crate::protocol::params::Params;
use crate::protocol::pkce;
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;

/// An authorization code: the id of its grant and 256 random bits, of which the store keeps the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    pub grant_id: GrantId,
    secret: String,
}

impl Code {
    pub fn new(grant_id: GrantId, secret: [u8; 32]) -> Self {
        Self { grant_id, secret: base64url(&secret) }
    }

    /// `None` for what no code of ours looks like.
    pub fn parse(text: &str) -> Option<Self> {
        let (grant_id, secret) = text.split_once('.')?;
        let base64url = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let well_formed = grant_id.len() == 22 && secret.len() == 43 && base64url(grant_id) && base64url(secret);
        well_formed.then(|| Self { grant_id: GrantId::new(grant_id), secret: secret.to_owned() })
    }

    pub fn expose(&self) -> String {
        format!("{}.{}", self.grant_id, self.secret)
    }

    /// What the store keeps and compares.
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.secret.as_bytes())
    }
}

/// How far the clocks of two processes may be apart.
const CLOCK_SKEW: Span = Span::minutes(1);

/// Parameters of the grant.
pub struct AuthorizationCode {
    /// `None` for a text that cannot be a code; the answer is that for an unknown one.
    pub code: Option<Code>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    resources: Vec<String>,
}

pub struct Facts {
    /// The grant that the code names, if the code's hash is the one it was issued with.
    pub grant: Option<GrantRecord>,
    /// Its person; `None` once deleted.
    pub user: Option<User>,
    /// The API key that the grant came from; `None` where it has none or the key is gone.
    pub key: Option<ApiKeyRecord>,
}

impl Grant for AuthorizationCode {
    type Facts = Facts;

    fn parse(params: &Params) -> Result<Self, Error> {
        let code = params.get("code").ok_or_else(|| Error::invalid_request("code is missing"))?;
        Ok(Self {
            code: Code::parse(code),
            redirect_uri: params.get("redirect_uri").map(str::to_owned),
            code_verifier: params.get("code_verifier").map(str::to_owned),
            resources: params.resources(),
        })
    }

    /// The order matters: whoever cannot show that the code is theirs (client, redirect URI, PKCE) changes nothing;
    /// only then is a code that was used before a replay that ends the grant.
    fn decide(self, client: &Client, metadata: &Metadata, facts: Facts, now: Timestamp) -> Result<Issuance, Refusal> {
        let unknown = || Error::invalid_grant("the code is unknown, expired or was issued to another client");
        let grant = facts.grant.filter(|grant| grant.client_id == client.id).ok_or_else(unknown)?;
        // RFC 6749 §4.1.3: required where the authorization request had one, and then identical.
        let same = match (&grant.redirect_uri, &self.redirect_uri) {
            (None, None) => true,
            (None, Some(sent)) => matches!(client.metadata.redirect_uris.as_slice(), [only] if only == sent),
            (asked, sent) => asked == sent,
        };
        if !same {
            return Err(Error::invalid_grant("redirect_uri differs from that of the authorization request").into());
        }
        pkce::verify(grant.code_challenge.as_ref(), self.code_verifier.as_deref())?;
        if grant.redeemed_at.is_some() {
            let effect = Effect::Revoke { grant_id: grant.id, reason: RevocationReason::CodeReplayed };
            return Err(Refusal { error: Error::invalid_grant("the code was used before"), effect });
        }
        // A clock that was set back must not lengthen a code's life: one from the future is refused as well.
        let issued_at = grant.code_expires_at - metadata.tokens.authorization_code_ttl;
        if grant.revoked_at.is_some() || now >= grant.code_expires_at || now + CLOCK_SKEW < issued_at {
            return Err(unknown().into());
        }
        let user = facts.user.filter(User::is_active).ok_or_else(unknown)?;
        let key = super::live_key(&grant, facts.key, client, &user, now).map_err(|super::KeyEnded| unknown())?;
        let resources = super::narrow_resources(&grant.resources, &self.resources, metadata)?;
        let refreshes = client.metadata.allows(GrantType::RefreshToken);
        let refresh_expires_at = refreshes.then(|| super::refresh_expiry(client, metadata, key.as_ref(), now));
        let allowed = metadata.allowed(&grant.scope, &user);
        if allowed.is_empty() {
            return Err(Error::invalid_scope("nothing of what was granted may be had any more").into());
        }
        let scope = metadata.scope_for(&allowed, &resources);
        Ok(Issuance {
            subject: Subject::User(Box::new(user)),
            scope,
            resources,
            nonce: grant.nonce.clone(),
            refresh: refreshes.then_some(0),
            commit: Commit::RedeemCode { refresh_expires_at },
            grant: Some(grant),
            key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, client, grant, user};
    use super::*;
    use crate::protocol::error::ErrorCode::{self, InvalidGrant, InvalidTarget};
    use crate::protocol::metadata::tests::metadata;
    use crate::protocol::pkce::CodeChallenge;

    const CB: &str = "redirect_uri=https://app.test/cb";
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn decide(query: &str, grant: Option<GrantRecord>, user: Option<User>) -> Result<Issuance, (ErrorCode, bool)> {
        let params = Params::parse(format!("code=x&{query}").as_bytes()).unwrap();
        let parsed = AuthorizationCode::parse(&params).unwrap();
        let decided = parsed.decide(&client(false), &metadata(), Facts { grant, user, key: None }, NOW);
        decided.map_err(|refusal| (refusal.error.code, refusal.effect != Effect::Nothing))
    }

    #[test]
    fn codes_are_told_from_everything_else() {
        let code = Code::new(GrantId::from_random([7; 16]), [9; 32]);
        assert!(Code::parse(&code.expose()) == Some(code.clone()));
        let text = code.expose();
        for other in ["", "x", "kw_rt_AAAA", &text[1..], &text[..65], &text.replace('.', "~"), "eyJ.eyJ.sig"] {
            assert!(Code::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_code_is_redeemed_by_whom_it_was_issued_to() {
        let with = |change: &dyn Fn(&mut GrantRecord)| {
            let mut grant = grant();
            change(&mut grant);
            Some(grant)
        };
        let challenge = || {
            let query = b"code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
            CodeChallenge::parse(&Params::parse(query).unwrap(), true).unwrap()
        };
        let verifier = format!("{CB}&code_verifier={VERIFIER}");
        let refused = Err((InvalidGrant, false));
        for (name, query, grant, user, expected) in [
            ("happy", CB, Some(grant()), Some(user()), Ok(())),
            ("unknown", CB, None, Some(user()), refused),
            (
                "another client",
                CB,
                with(&|g| g.client_id = crate::protocol::ids::ClientId::new("b")),
                Some(user()),
                refused,
            ),
            ("no redirect_uri", "", Some(grant()), Some(user()), refused),
            ("other redirect_uri", "redirect_uri=https://app.test/CB", Some(grant()), Some(user()), refused),
            ("uninvited redirect_uri", CB, with(&|g| g.redirect_uri = None), Some(user()), refused),
            ("expired", CB, with(&|g| g.code_expires_at = NOW), Some(user()), refused),
            (
                "by a clock a minute ahead",
                CB,
                with(&|g| g.code_expires_at = NOW + Span::minutes(2)),
                Some(user()),
                Ok(()),
            ),
            ("from the future", CB, with(&|g| g.code_expires_at = NOW + Span::hours(1)), Some(user()), refused),
            ("revoked", CB, with(&|g| g.revoked_at = Some(NOW)), Some(user()), refused),
            ("deleted person", CB, Some(grant()), None, refused),
            ("disabled person", CB, Some(grant()), Some(User { disabled_at: Some(NOW), ..user() }), refused),
            ("replay", CB, with(&|g| g.redeemed_at = Some(NOW)), Some(user()), Err((InvalidGrant, true))),
            (
                "replay without PKCE",
                CB,
                with(&|g| {
                    g.redeemed_at = Some(NOW);
                    g.code_challenge = challenge();
                }),
                Some(user()),
                refused,
            ),
            ("PKCE", &verifier, with(&|g| g.code_challenge = challenge()), Some(user()), Ok(())),
            ("PKCE without verifier", CB, with(&|g| g.code_challenge = challenge()), Some(user()), refused),
            ("verifier without PKCE", &verifier, Some(grant()), Some(user()), refused),
            (
                "resource beyond",
                &format!("{CB}&resource=https://pay.test"),
                Some(grant()),
                Some(user()),
                Err((InvalidTarget, false)),
            ),
        ] {
            assert_eq!(decide(query, grant, user).map(|_| ()), expected, "{name}");
        }
    }

    #[test]
    fn tokens_carry_what_was_granted_and_can_be_narrowed_to_a_resource() {
        let issued = decide(CB, Some(grant()), Some(user())).unwrap();
        assert_eq!(issued.scope.to_string(), "openid profile quiz.read");
        assert_eq!(issued.refresh, Some(0));
        assert_eq!(issued.nonce.as_deref(), Some("n"));
        let expires = NOW + Span::days(30);
        assert_eq!(issued.commit, Commit::RedeemCode { refresh_expires_at: Some(expires) });
        let narrowed = decide(&format!("{CB}&resource=https://any.test"), Some(grant()), Some(user())).unwrap();
        assert_eq!(narrowed.scope.to_string(), "openid profile");
        assert_eq!(narrowed.resources, ["https://any.test"]);
    }
}
