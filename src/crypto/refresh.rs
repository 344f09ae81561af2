//! The text of a refresh token: which grant, which generation, and a code of authenticity over both. Nothing of it
//! is stored, so a successor can be made again when the answer that carried it was lost.

use super::digest::{base64url, constant_time_eq, from_base64url, hmac_sha256};

/// What our refresh tokens begin with, so that scanners and people recognise them.
pub const PREFIX: &str = "kw_rt_";
/// The server key that authenticates tokens made now.
const KEY_VERSION: u8 = 1;
const BYTES: usize = 1 + 16 + 4 + 32;

/// A refresh token as it was presented.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// Base64url of the grant's 128 bits.
    pub grant_id: String,
    pub generation: u32,
    mac: [u8; 32],
}

impl RefreshToken {
    /// `None` for what no refresh token of ours looks like.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; BYTES] = from_base64url(text.strip_prefix(PREFIX)?)?.try_into().ok()?;
        let (version, rest) = bytes.split_first()?;
        let (grant_id, rest) = rest.split_at(16);
        let (generation, mac) = rest.split_at(4);
        if *version != KEY_VERSION {
            return None;
        }
        let generation = u32::from_be_bytes(generation.try_into().ok()?);
        Some(Self { grant_id: base64url(grant_id), generation, mac: mac.try_into().ok()? })
    }

    /// Whether it was made with this server key for a grant with this seed: neither a stolen database nor a stolen
    /// key is enough to make one.
    pub fn is_authentic(&self, key: &[u8; 32], seed: &[u8]) -> bool {
        constant_time_eq(&mac(key, seed, &self.grant_id, self.generation), &self.mac)
    }
}

fn mac(key: &[u8; 32], seed: &[u8], grant_id: &str, generation: u32) -> [u8; 32] {
    hmac_sha256(key, &[seed, grant_id.as_bytes(), &generation.to_be_bytes()])
}

/// The token of one generation of a grant. `None` where `grant_id` is not one of ours.
pub fn make(key: &[u8; 32], seed: &[u8], grant_id: &str, generation: u32) -> Option<String> {
    let mut bytes = vec![KEY_VERSION];
    bytes.extend(from_base64url(grant_id).filter(|id| id.len() == 16)?);
    bytes.extend(generation.to_be_bytes());
    bytes.extend(mac(key, seed, grant_id, generation));
    Some(format!("{PREFIX}{}", base64url(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];
    const GRANT: &str = "AAECAwQFBgcICQoLDA0ODw";

    #[test]
    fn a_token_names_its_grant_and_generation_and_proves_both() {
        let text = make(&KEY, b"seed", GRANT, 7).unwrap();
        let token = RefreshToken::parse(&text).unwrap();
        assert_eq!((token.grant_id.as_str(), token.generation), (GRANT, 7));
        assert!(token.is_authentic(&KEY, b"seed"));
        assert!(!token.is_authentic(&[2; 32], b"seed"));
        assert!(!token.is_authentic(&KEY, b"other"));
        assert!(!RefreshToken { generation: 8, ..token.clone() }.is_authentic(&KEY, b"seed"));
    }

    #[test]
    fn the_same_generation_is_the_same_token() {
        assert_eq!(make(&KEY, b"seed", GRANT, 7), make(&KEY, b"seed", GRANT, 7));
        assert_ne!(make(&KEY, b"seed", GRANT, 7), make(&KEY, b"seed", GRANT, 8));
    }

    #[test]
    fn anything_else_is_no_refresh_token() {
        let text = make(&KEY, b"seed", GRANT, 7).unwrap();
        for other in ["", "kw_rt_", "kw_rt_AAAA", &text[1..], &text[..text.len() - 2], "eyJhbGciOiJFUzI1NiJ9.e30.x"] {
            assert!(RefreshToken::parse(other).is_none(), "{other}");
        }
    }
}
