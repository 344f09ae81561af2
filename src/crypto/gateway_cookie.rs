//! The text of the gateway's cookie: the hash that a session's row has of its secret, with an authentication code. It is
//! made of the session's secret and leads to the same row, but not back to the secret, so it opens nothing but the
//! gateway; and whoever reads the table cannot make one.

use super::digest::{base64url, constant_time_eq, from_base64url, hmac_sha256, sha256};

const HASH_LENGTH: usize = 32;

/// The cookie for the session with this secret.
pub fn make(key: &[u8; 32], session_secret: &str) -> String {
    let hash = sha256(session_secret.as_bytes());
    base64url(&[hash, hmac_sha256(key, &[&hash])].concat())
}

/// The hash of the session's secret; `None` for a text that we did not make.
pub fn open(key: &[u8; 32], text: &str) -> Option<[u8; HASH_LENGTH]> {
    let bytes = from_base64url(text)?;
    let (hash, code) = bytes.split_at_checked(HASH_LENGTH)?;
    let hash: [u8; HASH_LENGTH] = hash.try_into().ok()?;
    constant_time_eq(code, &hmac_sha256(key, &[&hash])).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_leads_to_the_row_and_no_further() {
        let cookie = make(&[1; 32], "secret");
        assert_eq!(open(&[1; 32], &cookie), Some(sha256(b"secret")));
        assert_eq!(open(&[2; 32], &cookie), None, "another key");
        // Put in the place of the session's own cookie it is the secret of no session.
        assert_ne!(sha256(cookie.as_bytes()), sha256(b"secret"));
    }

    #[test]
    fn nobody_else_makes_one() {
        let hash = sha256(b"secret");
        let mine = make(&[1; 32], "secret");
        let mut changed = from_base64url(&mine).unwrap();
        changed[0] ^= 1;
        for text in
            ["", "secret", &base64url(&hash), &base64url(&[hash, hash].concat()), &base64url(&changed), &mine[1..]]
        {
            assert_eq!(open(&[1; 32], text), None, "{text}");
        }
    }
}
