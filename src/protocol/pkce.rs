//! Proof Key for Code Exchange (RFC 7636), method `S256` only: RFC 9700 §2.1.1 leaves no use for `plain`.

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::params::Params;
use crate::crypto::digest::{base64url, constant_time_eq, sha256};

pub const METHOD_S256: &str = "S256";

/// `code_challenge` (RFC 7636 §4.2): the base64url SHA-256 of a verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CodeChallenge(String);

impl CodeChallenge {
    /// Reads the challenge of an authorization request; `None` where it has none.
    ///
    /// # Errors
    /// `invalid_request` for a malformed challenge, for a method other than `S256` (an absent method means
    /// `plain`, RFC 7636 §4.3), and for a public client that sends no challenge (RFC 9700 §2.1.1).
    pub fn parse(params: &Params, required: bool) -> Result<Option<Self>, Error> {
        let method = params.get("code_challenge_method");
        let Some(challenge) = params.get("code_challenge") else {
            if required {
                return Err(Error::invalid_request("code_challenge is required: this client must use PKCE with S256"));
            }
            if method.is_some() {
                return Err(Error::invalid_request("code_challenge_method without code_challenge"));
            }
            return Ok(None);
        };
        if method != Some(METHOD_S256) {
            return Err(Error::invalid_request("code_challenge_method must be S256"));
        }
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if challenge.len() != 43 || !challenge.bytes().all(base64url) {
            return Err(Error::invalid_request("code_challenge must be 43 characters of base64url"));
        }
        Ok(Some(Self(challenge.to_owned())))
    }

    /// For a challenge that comes back from our own store.
    pub fn restored(stored: String) -> Self {
        Self(stored)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the verifier of a token request against the challenge that its code was issued for.
///
/// # Errors
/// `invalid_grant` where the two do not belong together, in either direction: a verifier for a code without a
/// challenge means that somebody stripped the challenge (RFC 9700 §4.8.2). `invalid_request` for a malformed one.
pub fn verify(challenge: Option<&CodeChallenge>, code_verifier: Option<&str>) -> Result<(), Error> {
    let (challenge, verifier) = match (challenge, code_verifier) {
        (None, None) => return Ok(()),
        (Some(_), None) => return Err(Error::invalid_grant("code_verifier is missing")),
        (None, Some(_)) => return Err(Error::invalid_grant("code_verifier for a code that was issued without PKCE")),
        (Some(challenge), Some(verifier)) => (challenge, verifier),
    };
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(unreserved) {
        return Err(Error::invalid_request("code_verifier must be 43 to 128 unreserved characters"));
    }
    let computed = base64url(&sha256(verifier.as_bytes()));
    if !constant_time_eq(computed.as_bytes(), challenge.0.as_bytes()) {
        return Err(Error::invalid_grant("code_verifier does not match the code_challenge"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error::ErrorCode::{InvalidGrant, InvalidRequest};

    // RFC 7636 appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn challenges_of_requests() {
        for (query, required, expected) in [
            (format!("code_challenge={CHALLENGE}&code_challenge_method=S256"), true, Ok(true)),
            (String::new(), false, Ok(false)),
            (String::new(), true, Err(InvalidRequest)),
            (format!("code_challenge={CHALLENGE}"), false, Err(InvalidRequest)),
            (format!("code_challenge={CHALLENGE}&code_challenge_method=plain"), false, Err(InvalidRequest)),
            ("code_challenge_method=S256".to_owned(), false, Err(InvalidRequest)),
            (format!("code_challenge={CHALLENGE}x&code_challenge_method=S256"), false, Err(InvalidRequest)),
            (format!("code_challenge={}&code_challenge_method=S256", &CHALLENGE[1..]), false, Err(InvalidRequest)),
            (format!("code_challenge=%2B{}&code_challenge_method=S256", &CHALLENGE[1..]), false, Err(InvalidRequest)),
        ] {
            let params = Params::parse(query.as_bytes()).unwrap();
            let parsed = CodeChallenge::parse(&params, required).map(|c| c.is_some()).map_err(|e| e.code);
            assert_eq!(parsed, expected, "{query}");
        }
    }

    #[test]
    fn verifiers_of_token_requests() {
        let challenge = CodeChallenge(CHALLENGE.to_owned());
        let long = "a".repeat(129);
        for (challenge, verifier, expected) in [
            (Some(&challenge), Some(VERIFIER), None),
            (None, None, None),
            (Some(&challenge), None, Some(InvalidGrant)),
            (None, Some(VERIFIER), Some(InvalidGrant)),
            (Some(&challenge), Some(CHALLENGE), Some(InvalidGrant)),
            (Some(&challenge), Some(&VERIFIER[1..]), Some(InvalidRequest)),
            (Some(&challenge), Some(long.as_str()), Some(InvalidRequest)),
            (Some(&challenge), Some("dBjftJeZ4CVP+mB92K27uhbUJU1p1r/wW1gFWFOEjXk"), Some(InvalidRequest)),
        ] {
            assert_eq!(verify(challenge, verifier).err().map(|e| e.code), expected, "{verifier:?}");
        }
    }
}
