//! Password hashes: our own are Argon2id (RFC 9106) in PHC strings. Those of other systems are verified as they are
//! spelled there, one file for each family, until the next sign-in replaces them. One call costs about 11 ms and
//! `memory_kib` of memory; who may make it, and on which thread, is for `passwords`.

mod argon2;
mod aspnet;
mod bcrypt;
mod keycloak;
mod pbkdf2;
#[cfg(test)]
mod vectors;

pub use self::argon2::Memory;

use self::argon2::Argon2Hash;
use self::bcrypt::BcryptHash;
use self::pbkdf2::Pbkdf2Hash;

/// Longer passwords are refused, not cut: a cut one would let its prefix in.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// The highest costs of an Argon2 hash that is computed, ours included: whoever can write a hash must not be able to
/// choose how much memory and time verifying it takes. The other families have their own.
pub const MAX_MEMORY_KIB: u32 = 1 << 20;
pub const MAX_ITERATIONS: u32 = 64;

/// Longer than any spelling that is read here.
const MAX_HASH_BYTES: usize = 4096;
/// A digest below 128 bits could be met by chance, and an empty one by anything.
const MIN_DIGEST_BYTES: usize = 16;
const MAX_DIGEST_BYTES: usize = 64;

/// Cost of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub memory_kib: u32,
    pub iterations: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("password hash: {0}")]
pub struct PasswordError(String);

/// Why a hash cannot be verified here. Never holds a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableHash(String);

type Result<T> = std::result::Result<T, UnusableHash>;

fn unusable<T>(why: impl Into<String>) -> Result<T> {
    Err(UnusableHash(why.into()))
}

/// A hash in any of the spellings, taken apart.
enum StoredHash {
    Argon2(Argon2Hash),
    Bcrypt(BcryptHash),
    Pbkdf2(Pbkdf2Hash),
}

/// Reads a hash by how it begins.
fn parse(stored: &str) -> Result<StoredHash> {
    if stored.len() > MAX_HASH_BYTES {
        return unusable("it is longer than any password hash");
    }
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| stored.starts_with(prefix));
    if stored.starts_with('{') && stored.contains("secretData") {
        keycloak::parse(stored)
    } else if begins(&["$argon2", "argon2$argon2"]) {
        argon2::parse(stored).map(StoredHash::Argon2)
    } else if begins(&["$2", "bcrypt$", "bcrypt_sha256$", "$bcrypt-sha256$"]) {
        bcrypt::parse(stored).map(StoredHash::Bcrypt)
    } else if begins(&["$pbkdf2", "pbkdf2_", "pbkdf2:"]) {
        pbkdf2::parse(stored).map(StoredHash::Pbkdf2)
    } else if begins(&["scrypt", "$scrypt"]) {
        unusable("scrypt hashes cannot be verified here")
    } else if let Some(hash) = aspnet::parse(stored) {
        hash.map(StoredHash::Pbkdf2)
    } else {
        unusable("it is no argon2, bcrypt or PBKDF2 hash in a spelling that is known here")
    }
}

/// Whether a hash of another system could be verified, were its password typed.
///
/// # Errors
/// Says why not.
pub fn check(stored: &str) -> Result<()> {
    parse(stored).map(drop)
}

/// Hashes `password` under a fresh 16-byte `salt` into a PHC string.
pub fn hash(password: &str, salt: &[u8; 16], cost: Cost) -> std::result::Result<String, PasswordError> {
    hash_in(&mut Memory::default(), password, salt, cost)
}

/// The same in memory that is there already.
pub fn hash_in(
    memory: &mut Memory,
    password: &str,
    salt: &[u8; 16],
    cost: Cost,
) -> std::result::Result<String, PasswordError> {
    argon2::hash(memory, password, salt, cost)
}

/// Stands in for the hash of somebody who does not exist; see [`argon2::stand_in`].
pub fn stand_in(random: &[u8; 48], cost: Cost) -> std::result::Result<String, PasswordError> {
    argon2::stand_in(random, cost)
}

/// Whether `password` is the one that was hashed. A hash that is malformed or too costly matches nothing.
pub fn verify(password: &str, stored: &str) -> bool {
    verify_in(&mut Memory::default(), password, stored)
}

/// The same in memory that is there already.
pub fn verify_in(memory: &mut Memory, password: &str, stored: &str) -> bool {
    match parse(stored) {
        Ok(StoredHash::Argon2(hash)) => hash.matches(memory, password),
        Ok(StoredHash::Bcrypt(hash)) => hash.matches(password),
        Ok(StoredHash::Pbkdf2(hash)) => hash.matches(password),
        Err(_) => false,
    }
}

/// Whether a hash is not one that we would make today and is worth making anew now that the password is at hand.
pub fn needs_rehash(stored: &str, cost: Cost) -> bool {
    match parse(stored) {
        Ok(StoredHash::Argon2(hash)) => !(stored.starts_with("$argon2id$") && hash.is_ours(cost)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 8, iterations: 1 };

    #[test]
    fn the_stand_in_looks_like_a_hash_and_matches_nothing() {
        let real = hash("x", &[3; 16], CHEAP).unwrap();
        let stand_in = super::stand_in(&[7; 48], CHEAP).unwrap();
        assert_eq!(real.len(), stand_in.len());
        assert!(parse(&stand_in).is_ok() && !needs_rehash(&stand_in, CHEAP), "{stand_in}");
        assert!(verify("x", &real) && !verify("x", &stand_in) && !verify("", &stand_in));
        assert!(super::stand_in(&[7; 48], Cost { memory_kib: 1, iterations: 1 }).is_err(), "a cost that cannot be");
    }

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
        assert!(needs_rehash(&phc, Cost { memory_kib: 16, ..CHEAP }));
    }

    /// The same numbers, and yet another hash.
    #[test]
    fn whatever_else_differs_from_ours_asks_for_a_new_hash() {
        let ours = "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$1Z2Yard74fm6b7ad3ZXPpY9ZFBZ56e0Td+ZQ0ZTn2S8";
        let cost = Cost { memory_kib: 64, iterations: 2 };
        assert!(!needs_rehash(ours, cost));
        for other in [
            ours.replace("argon2id", "argon2i"),
            ours.replace("v=19", "v=16"),
            ours.replace("v=19$", ""),
            ours.replace("p=1", "p=2"),
            ours.replace("ZQ0ZTn2S8", "Z"),
            format!("argon2{ours}"),
            "$2b$04$7MaB/Wd3MJvEmBJI2Svn2umqnPcpfUUK/PnWdnEp.9BYKi4.8vD.W".to_owned(),
        ] {
            assert!(needs_rehash(&other, cost), "{other}");
        }
    }
}
