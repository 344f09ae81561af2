//! The signing keys of one moment, ready to use: parsing a key costs more than signing with it, so each is parsed once
//! and handed on from set to set.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::KeyError;
use crate::crypto::digest::{base64url, sha256};
use crate::crypto::jws::{self, NotOurs, SigningKey, VerifyingKey};
use crate::crypto::seal::SealKey;
use crate::protocol::client::SigningAlg;
use crate::protocol::time::Timestamp;
use crate::store::keys::StoredKey;

/// The keys that are published, of which one of each algorithm signs.
pub struct KeySet {
    /// By algorithm, in the order in which they sign.
    signing: HashMap<SigningAlg, Vec<Signer>>,
    verifying: HashMap<String, Arc<VerifyingKey>>,
    /// Claims by the hash of `typ` and token: a resource server asks about the same token again and again, and a
    /// signature that was right stays right for as long as its key is in the set.
    verified: Cache<[u8; 32], Arc<Map<String, Value>>>,
    /// The document at `/jwks` (RFC 7517 §5).
    pub jwks: Bytes,
    /// Changes with the document.
    pub jwks_tag: String,
}

#[derive(Clone)]
struct Signer {
    kid: String,
    active_from: Timestamp,
    key: Arc<SigningKey>,
}

/// Tokens whose claims are kept, and how long one may be: some megabytes at most.
const MOST_KEPT: u64 = 4096;
const LONGEST_KEPT: usize = 2048;

impl Default for KeySet {
    fn default() -> Self {
        Self {
            signing: HashMap::new(),
            verifying: HashMap::new(),
            verified: Cache::new(MOST_KEPT),
            jwks: Bytes::new(),
            jwks_tag: String::new(),
        }
    }
}

/// A key that signs, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    pub alg: SigningAlg,
    pub kid: String,
    pub since: Timestamp,
}

impl KeySet {
    /// Builds the set of what is stored, with the parsed keys of `before`. Also whether all could be opened: one that
    /// could not is published and recognised, and does not sign here.
    pub(super) fn build(stored: Vec<StoredKey>, seal: &SealKey, before: &Self) -> Result<(Self, bool), KeyError> {
        let (mut set, mut all_opened) = (Self::default(), true);
        let mut published = Vec::new();
        let mut keys: Vec<StoredKey> = stored.into_iter().filter(|key| key.retired_at.is_none()).collect();
        keys.sort_by_key(|key| (key.active_from, key.serial));
        for key in keys {
            let private = match before.signer(key.alg, &key.kid) {
                Some(known) => Some(Arc::clone(&known.key)),
                None => open(&key, seal)?,
            };
            all_opened &= private.is_some();
            if let Some(private) = private {
                let signer = Signer { kid: key.kid.clone(), active_from: key.active_from, key: private };
                set.signing.entry(key.alg).or_default().push(signer);
            }
            published.push(Value::Object(key.public_jwk.clone()));
            let verifier = match before.verifying.get(&key.kid) {
                Some(known) => Arc::clone(known),
                None => Arc::new(VerifyingKey::from_jwk(key.public_jwk, key.alg)?),
            };
            set.verifying.insert(key.kid, verifier);
        }
        set.jwks = json!({ "keys": published }).to_string().into();
        set.jwks_tag = base64url(&sha256(&set.jwks)[..12]);
        Ok((set, all_opened))
    }

    fn signer(&self, alg: SigningAlg, kid: &str) -> Option<&Signer> {
        self.signing.get(&alg)?.iter().find(|signer| signer.kid == kid)
    }

    /// The one whose time has come last; see [`super::life::active`].
    fn active(&self, alg: SigningAlg, now: Timestamp) -> Option<&Signer> {
        let signers = self.signing.get(&alg)?;
        signers.iter().rev().find(|signer| signer.active_from <= now).or(signers.first())
    }

    /// Signs with the active key of `alg`.
    pub fn sign(
        &self,
        alg: SigningAlg,
        typ: &str,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<String, KeyError> {
        let signer = self.active(alg, now).ok_or(KeyError::NoKey(alg))?;
        Ok(signer.key.sign(typ, claims)?)
    }

    /// The claims of a token that one of these keys signed. What they mean is not looked at.
    pub fn verify(&self, token: &str, typ: &str) -> Result<Arc<Map<String, Value>>, NotOurs> {
        let hash = sha256(&[typ.as_bytes(), b" ", token.as_bytes()].concat());
        if let Some(claims) = self.verified.get(&hash) {
            return Ok(claims);
        }
        let claims = Arc::new(jws::verify(token, typ, |kid| self.verifying.get(kid).map(AsRef::as_ref))?);
        if token.len() <= LONGEST_KEPT {
            self.verified.insert(hash, Arc::clone(&claims));
        }
        Ok(claims)
    }

    /// The keys that sign now, one of each algorithm.
    pub fn signing(&self, now: Timestamp) -> Vec<Signing> {
        let active = |alg: SigningAlg| {
            let signer = self.active(alg, now)?;
            Some(Signing { alg, kid: signer.kid.clone(), since: signer.active_from })
        };
        SigningAlg::ALL.iter().copied().filter_map(active).collect()
    }
}

/// The private half; `None` where another master key sealed it.
fn open(key: &StoredKey, seal: &SealKey) -> Result<Option<Arc<SigningKey>>, KeyError> {
    let Ok(der) = seal.open(&key.sealed_private) else { return Ok(None) };
    Ok(Some(Arc::new(SigningKey::from_der(&key.kid, key.alg, &Zeroizing::new(der))?)))
}
