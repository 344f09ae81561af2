//! Argon2 (RFC 9106) in PHC strings: our own, those of the reference library, and Django's, which stand behind a
//! word of Django's own.

use ::argon2::password_hash::{Encoding, PasswordHash};
use ::argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{
    Cost, MAX_DIGEST_BYTES, MAX_ITERATIONS, MAX_MEMORY_KIB, MIN_DIGEST_BYTES, PasswordError, Result, UnusableHash,
    unusable,
};
use crate::crypto::digest::constant_time_eq;

/// Lanes are computed one after the other here, so they cost time and no threads.
const MAX_PARALLELISM: u32 = 16;
/// What our own hashes have.
const OUR_PARALLELISM: u32 = 1;
const OUR_DIGEST_BYTES: usize = 32;

pub struct Argon2Hash {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// What a computation works in. Kept from one to the next it costs no time to have.
#[derive(Default)]
pub struct Memory(Vec<Block>);

impl Memory {
    /// Blocks of 1 KiB; what stands in them does not matter.
    fn blocks(&mut self, params: &Params) -> &mut [Block] {
        let count = params.block_count();
        if self.0.len() < count {
            self.0.resize(count, Block::default());
        }
        &mut self.0[..count]
    }

    /// Gives back what one of a higher cost has needed.
    pub fn keep_at_most(&mut self, kib: u32) {
        if self.0.len() > kib as usize {
            self.0 = Vec::new();
        }
    }
}

/// Hashes `password` under a fresh 16-byte `salt` into a PHC string.
pub fn hash(
    memory: &mut Memory,
    password: &str,
    salt: &[u8; 16],
    cost: Cost,
) -> std::result::Result<String, PasswordError> {
    let failed = |error: &dyn std::fmt::Display| PasswordError(error.to_string());
    let params = Params::new(cost.memory_kib, cost.iterations, OUR_PARALLELISM, Some(OUR_DIGEST_BYTES))
        .map_err(|error| failed(&error))?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let mut digest = [0; OUR_DIGEST_BYTES];
    let blocks = memory.blocks(&params);
    let computed = hasher.hash_password_into_with_memory(password.as_bytes(), salt, &mut digest, blocks);
    computed.map_err(|error| failed(&error))?;
    Ok(phc(cost, salt, &digest))
}

/// What looks like a hash of this cost, takes as long to verify, and matches nothing: its digest is `random` and not
/// computed. 16 bytes are its salt.
pub fn stand_in(random: &[u8; 48], cost: Cost) -> std::result::Result<String, PasswordError> {
    let params = Params::new(cost.memory_kib, cost.iterations, OUR_PARALLELISM, Some(OUR_DIGEST_BYTES));
    params.map_err(|error| PasswordError(error.to_string()))?;
    let (salt, digest) = random.split_at(16);
    Ok(phc(cost, salt, digest))
}

fn phc(cost: Cost, salt: &[u8], digest: &[u8]) -> String {
    let Cost { memory_kib, iterations } = cost;
    let (salt, digest) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(digest));
    format!("$argon2id$v=19$m={memory_kib},t={iterations},p={OUR_PARALLELISM}${salt}${digest}")
}

/// `$argon2id$v=19$m=65536,t=3,p=4$salt$digest`, or Django's `argon2$argon2id$…`.
pub fn parse(stored: &str) -> Result<Argon2Hash> {
    let phc = stored.strip_prefix("argon2").unwrap_or(stored);
    let wrong = |why: &dyn std::fmt::Display| UnusableHash(format!("this argon2 hash cannot be read: {why}"));
    let parsed = PasswordHash::parse(phc, Encoding::B64).map_err(|error| wrong(&error))?;
    let algorithm = Algorithm::new(parsed.algorithm.as_str()).map_err(|error| wrong(&error))?;
    // A hash without a version is of the first one, which had no such field.
    let version = parsed.version.map_or(Ok(Version::V0x10), Version::try_from).map_err(|error| wrong(&error))?;
    let params = Params::try_from(&parsed).map_err(|error| wrong(&error))?;
    if !params.keyid().is_empty() {
        return unusable("this argon2 hash was made with a secret key (keyid) that is not here");
    }
    let mut salt = [0; 64];
    let salt = parsed.salt.ok_or_else(|| wrong(&"the salt is missing"))?.decode_b64(&mut salt);
    let digest = parsed.hash.ok_or_else(|| wrong(&"the digest is missing"))?;
    Argon2Hash::new(
        algorithm,
        version,
        params,
        salt.map_err(|error| wrong(&error))?.to_vec(),
        digest.as_bytes().to_vec(),
    )
}

impl Argon2Hash {
    /// A hash from its parts, if it is one that may be computed.
    pub fn new(algorithm: Algorithm, version: Version, params: Params, salt: Vec<u8>, digest: Vec<u8>) -> Result<Self> {
        for (name, value, most) in [
            ("m", params.m_cost(), MAX_MEMORY_KIB),
            ("t", params.t_cost(), MAX_ITERATIONS),
            ("p", params.p_cost(), MAX_PARALLELISM),
        ] {
            if value > most {
                return unusable(format!("this argon2 hash has {name}={value}; at most {most} is computed here"));
            }
        }
        if salt.len() < ::argon2::MIN_SALT_LEN {
            return unusable(format!("the salt of this argon2 hash has less than {} bytes", ::argon2::MIN_SALT_LEN));
        }
        if !(MIN_DIGEST_BYTES..=MAX_DIGEST_BYTES).contains(&digest.len()) {
            return unusable(format!(
                "the digest of this argon2 hash has not {MIN_DIGEST_BYTES} to {MAX_DIGEST_BYTES} bytes"
            ));
        }
        Ok(Self { algorithm, version, params, salt, digest })
    }

    pub fn matches(&self, memory: &mut Memory, password: &str) -> bool {
        let hasher = Argon2::new(self.algorithm, self.version, self.params.clone());
        let mut digest = vec![0; self.digest.len()];
        let blocks = memory.blocks(&self.params);
        let computed = hasher.hash_password_into_with_memory(password.as_bytes(), &self.salt, &mut digest, blocks);
        computed.is_ok() && constant_time_eq(&digest, &self.digest)
    }

    /// Whether [`hash`] makes such hashes at this cost.
    pub fn is_ours(&self, cost: Cost) -> bool {
        self.algorithm == Algorithm::Argon2id
            && self.version == Version::V0x13
            && self.params.m_cost() == cost.memory_kib
            && self.params.t_cost() == cost.iterations
            && self.params.p_cost() == OUR_PARALLELISM
            && self.digest.len() == OUR_DIGEST_BYTES
    }
}
