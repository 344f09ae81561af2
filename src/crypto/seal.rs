//! Values that leave our hands and come back unread and unchanged: JWE compact, `dir` with `A256GCM`
//! (RFC 7516, RFC 7518 §4.5, §5.3). Tickets in URLs and signing keys in the database are sealed this way, each
//! under a key of its own purpose.

use josekit::jwe::{Dir, JweHeader, deserialize_compact, serialize_compact};
use zeroize::Zeroize;

use super::digest::hmac_sha256;

/// A 256-bit key for one purpose, derived from the master key. It also names itself by an id that is safe to show.
#[derive(Clone)]
pub struct SealKey {
    key: [u8; 32],
    id: String,
}

impl Drop for SealKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Not sealed by this key, or changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsealable;

impl std::fmt::Display for Unsealable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this value was not sealed here, or it was changed")
    }
}

impl std::error::Error for Unsealable {}

impl SealKey {
    /// Keys for two purposes are independent: HMAC is a pseudo-random function of the purpose.
    pub fn derive(master: &[u8; 32], purpose: &str) -> Self {
        let key = hmac_sha256(master, &[b"keyward seal", purpose.as_bytes()]);
        Self { key, id: purpose.to_owned() }
    }

    /// Encrypts and authenticates `bytes`. The nonce is random (96 bits), drawn by OpenSSL.
    pub fn seal(&self, bytes: &[u8]) -> Result<String, josekit::JoseError> {
        let mut header = JweHeader::new();
        header.set_algorithm("dir");
        header.set_content_encryption("A256GCM");
        header.set_key_id(&self.id);
        let encrypter = Dir.encrypter_from_bytes(self.key)?;
        serialize_compact(bytes, &header, &encrypter)
    }

    /// Opens what [`SealKey::seal`] made. Headers are compared before anything is decrypted: `zip` would inflate
    /// without limit, and another `alg` is never ours.
    pub fn open(&self, sealed: &str) -> Result<Vec<u8>, Unsealable> {
        let header = sealed.split('.').next().and_then(super::digest::from_base64url).ok_or(Unsealable)?;
        let header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|_| Unsealable)?;
        let is = |name: &str, value: &str| header.get(name).and_then(|v| v.as_str()) == Some(value);
        if header.len() != 3 || !is("alg", "dir") || !is("enc", "A256GCM") || !is("kid", &self.id) {
            return Err(Unsealable);
        }
        let decrypter = Dir.decrypter_from_bytes(self.key).map_err(|_| Unsealable)?;
        deserialize_compact(sealed, &decrypter).map(|(bytes, _)| bytes).map_err(|_| Unsealable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let key = SealKey::derive(&[1; 32], "ticket");
        let sealed = key.seal(b"state of a sign-in").unwrap();
        assert_eq!(key.open(&sealed).unwrap(), b"state of a sign-in");

        let last = if sealed.ends_with('A') { "B" } else { "A" };
        let changed = format!("{}{last}", &sealed[..sealed.len() - 1]);
        for bad in [changed.as_str(), "", "a.b.c", "..", "e30....", &sealed[1..]] {
            assert_eq!(key.open(bad), Err(Unsealable), "{bad}");
        }
    }

    #[test]
    fn a_key_opens_only_what_was_sealed_for_its_purpose() {
        let ticket = SealKey::derive(&[1; 32], "ticket");
        let sealed = ticket.seal(b"x").unwrap();
        assert!(SealKey::derive(&[1; 32], "signing-key").open(&sealed).is_err());
        assert!(SealKey::derive(&[2; 32], "ticket").open(&sealed).is_err());
    }

    #[test]
    fn a_header_that_asks_for_inflation_is_refused_before_decryption() {
        let key = SealKey::derive(&[1; 32], "ticket");
        let mut header = JweHeader::new();
        header.set_algorithm("dir");
        header.set_content_encryption("A256GCM");
        header.set_key_id("ticket");
        header.set_compression("DEF");
        let bomb = serialize_compact(&vec![0; 1 << 20], &header, &Dir.encrypter_from_bytes(key.key).unwrap()).unwrap();
        assert_eq!(key.open(&bomb), Err(Unsealable));
    }
}
