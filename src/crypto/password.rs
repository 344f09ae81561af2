//! Password hashes: Argon2id (RFC 9106) in PHC strings. One call costs about 11 ms and `memory_kib` of memory;
//! who may make it, and on which thread, is for `passwords.rs`.

use argon2::password_hash::{Encoding, PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// Longer passwords are refused, not cut: a cut one would let its prefix in.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// A hash with higher cost than these is not ours and is not computed: whoever can write a hash must not be able
/// to choose how much memory verifying it takes.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_ITERATIONS: u32 = 64;
const MAX_PARALLELISM: u32 = 16;

/// Cost of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub memory_kib: u32,
    pub iterations: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("password hash: {0}")]
pub struct PasswordError(String);

fn hasher(cost: Cost) -> Result<Argon2<'static>, PasswordError> {
    let params =
        Params::new(cost.memory_kib, cost.iterations, 1, Some(32)).map_err(|e| PasswordError(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes `password` under a fresh 16-byte `salt` into a PHC string.
pub fn hash(password: &str, salt: &[u8; 16], cost: Cost) -> Result<String, PasswordError> {
    let salt = SaltString::encode_b64(salt).map_err(|e| PasswordError(e.to_string()))?;
    let hash = hasher(cost)?.hash_password(password.as_bytes(), &salt).map_err(|e| PasswordError(e.to_string()))?;
    Ok(hash.to_string())
}

/// Whether `password` is the one that was hashed. A hash that is malformed or too costly matches nothing.
pub fn verify(password: &str, phc: &str) -> bool {
    let Ok(parsed) = PasswordHash::parse(phc, Encoding::B64) else { return false };
    let Ok(params) = Params::try_from(&parsed) else { return false };
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_ITERATIONS || params.p_cost() > MAX_PARALLELISM {
        return false;
    }
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok()
}

/// Whether a hash was made at another cost than today's and is worth making anew now that the password is at hand.
pub fn needs_rehash(phc: &str, cost: Cost) -> bool {
    let current = PasswordHash::parse(phc, Encoding::B64).ok().and_then(|parsed| {
        let params = Params::try_from(&parsed).ok()?;
        Some(
            parsed.algorithm.as_str() == "argon2id"
                && params.m_cost() == cost.memory_kib
                && params.t_cost() == cost.iterations,
        )
    });
    current != Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 8, iterations: 1 };

    #[test]
    fn a_hash_matches_its_password_only() {
        let phc = hash("correct horse", &[3; 16], CHEAP).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
        assert!(verify("correct horse", &phc));
        for wrong in ["", "correct hors", "correct horse ", "Correct horse"] {
            assert!(!verify(wrong, &phc), "{wrong}");
        }
        assert!(!verify("correct horse", "not a hash"));
    }

    #[test]
    fn a_hash_that_would_take_too_much_memory_is_not_computed() {
        let phc = hash("x", &[3; 16], CHEAP).unwrap().replace("m=8,", "m=4194304,");
        assert!(!verify("x", &phc));
    }

    #[test]
    fn another_cost_asks_for_a_new_hash() {
        let phc = hash("x", &[3; 16], CHEAP).unwrap();
        assert!(!needs_rehash(&phc, CHEAP));
        assert!(needs_rehash(&phc, Cost { iterations: 2, ..CHEAP }));
        assert!(needs_rehash("$2b$10$abc", CHEAP));
    }
}
