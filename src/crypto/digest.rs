//! Hashes, message authentication codes and their encodings.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use crate::protocol::client::SigningAlg;

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// HMAC-SHA-256 (RFC 2104) over `parts`, each preceded by its length so that no two lists of parts collide.
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length, so this cannot fail for one of 32 bytes.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Compares without telling by its duration where the first difference is.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes unpadded base64url; anything else is `None`.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// `at_hash`, `c_hash` (OpenID Connect Core §3.1.3.6): the left half of the hash of the value, base64url. The hash is
/// the one inside the ID token's signature: SHA-512 in Ed25519 (RFC 8032 §5.1), SHA-256 in all others.
pub fn half_hash(value: &str, alg: SigningAlg) -> String {
    match alg {
        SigningAlg::EdDsa => base64url(&Sha512::digest(value.as_bytes())[..32]),
        SigningAlg::Rs256 | SigningAlg::Es256 | SigningAlg::Ps256 => base64url(&sha256(value.as_bytes())[..16]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_hash_is_that_of_the_specification() {
        // OpenID Connect Core A.3: at_hash of this access token.
        let access_token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(half_hash(access_token, SigningAlg::Rs256), "77QmUPtjPfzWtF2AnpK9RQ");
        assert_eq!(half_hash(access_token, SigningAlg::EdDsa).len(), 43);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = [7; 32];
        assert_ne!(hmac_sha256(&key, &[b"ab", b"c"]), hmac_sha256(&key, &[b"a", b"bc"]));
    }
}
