//! PBKDF2 (RFC 8018 §5.2) with HMAC, in the spellings of the PHC format, passlib, Django and Werkzeug. Those that
//! other files read end here too.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;

use super::{MAX_DIGEST_BYTES, MIN_DIGEST_BYTES, Result, UnusableHash, unusable};
use crate::crypto::digest::constant_time_eq;

/// A few seconds.
const MAX_ITERATIONS: u32 = 10_000_000;

/// base64 with its padding or without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub struct Pbkdf2Hash {
    prf: Prf,
    iterations: u32,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// The hash function below HMAC.
#[derive(Clone, Copy)]
pub enum Prf {
    Sha1,
    Sha256,
    Sha512,
}

impl Prf {
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => unusable("this PBKDF2 hash is not made with SHA-1, SHA-256 or SHA-512"),
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }
}

fn malformed() -> UnusableHash {
    UnusableHash("this PBKDF2 hash cannot be read".to_owned())
}

pub fn parse(stored: &str) -> Result<Pbkdf2Hash> {
    if let Some(rest) = stored.strip_prefix("$pbkdf2") {
        parse_modular(rest)
    } else if let Some(rest) = stored.strip_prefix("pbkdf2_") {
        parse_django(rest)
    } else {
        parse_werkzeug(stored)
    }
}

/// passlib's `-sha256$29000$salt$digest`, where SHA-1 goes unnamed, and the PHC format's
/// `-sha256$i=600000,l=32$salt$digest`. Both leave the padding away; passlib writes `.` for `+`.
fn parse_modular(rest: &str) -> Result<Pbkdf2Hash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [name, params, salt, digest] = fields[..] else { return Err(malformed()) };
    let prf = if name.is_empty() { Prf::Sha1 } else { Prf::named(name.strip_prefix('-').unwrap_or_default())? };
    let decode = |text: &str| BASE64.decode(text.replace('.', "+")).map_err(|_| malformed());
    let digest = decode(digest)?;
    let mut iterations = params;
    if params.contains('=') {
        for pair in params.split(',') {
            match pair.split_once('=') {
                Some(("i", number)) => iterations = number,
                Some(("l", length)) if length.parse() == Ok(digest.len()) => {}
                Some(("l", _)) => return unusable("the digest of this PBKDF2 hash has not the length l"),
                _ => return unusable("this PBKDF2 hash has a parameter besides i and l"),
            }
        }
    }
    Pbkdf2Hash::new(prf, iterations, decode(salt)?, digest)
}

/// Django: `sha256$600000$salt$digest`, with the salt as it stands.
fn parse_django(rest: &str) -> Result<Pbkdf2Hash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [name, iterations, salt, digest] = fields[..] else { return Err(malformed()) };
    let digest = BASE64.decode(digest).map_err(|_| malformed())?;
    Pbkdf2Hash::new(Prf::named(name)?, iterations, salt.as_bytes().to_vec(), digest)
}

/// Werkzeug: `pbkdf2:sha256:600000$salt$digest`, with the salt as it stands and the digest in hexadecimal.
fn parse_werkzeug(stored: &str) -> Result<Pbkdf2Hash> {
    let fields: Vec<&str> = stored.split('$').collect();
    let [method, salt, digest] = fields[..] else { return Err(malformed()) };
    let (name, iterations) = match method.split(':').collect::<Vec<_>>()[..] {
        [_, name, iterations] => (name, iterations),
        _ => return unusable("this PBKDF2 hash does not say how many iterations it has"),
    };
    let digest = from_hex(digest).ok_or_else(malformed)?;
    Pbkdf2Hash::new(Prf::named(name)?, iterations, salt.as_bytes().to_vec(), digest)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?)).collect()
}

impl Pbkdf2Hash {
    /// A hash from its parts, with its iterations as they are written.
    fn new(prf: Prf, iterations: &str, salt: Vec<u8>, digest: Vec<u8>) -> Result<Self> {
        let digits = !iterations.is_empty() && iterations.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return unusable("the iterations of this PBKDF2 hash are not a number");
        }
        // What does not fit is too many as well.
        Self::from_parts(prf, iterations.parse().unwrap_or(u32::MAX), salt, digest)
    }

    /// A hash from its parts, if it is one that may be computed.
    pub fn from_parts(prf: Prf, iterations: u32, salt: Vec<u8>, digest: Vec<u8>) -> Result<Self> {
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return unusable(format!(
                "this PBKDF2 hash has {iterations} iterations; 1 to {MAX_ITERATIONS} are computed here"
            ));
        }
        if !(MIN_DIGEST_BYTES..=MAX_DIGEST_BYTES).contains(&digest.len()) {
            return unusable(format!(
                "the digest of this PBKDF2 hash has not {MIN_DIGEST_BYTES} to {MAX_DIGEST_BYTES} bytes"
            ));
        }
        Ok(Self { prf, iterations, salt, digest })
    }

    pub fn matches(&self, password: &str) -> bool {
        let mut digest = vec![0; self.digest.len()];
        let iterations = self.iterations as usize;
        let computed = pbkdf2_hmac(password.as_bytes(), &self.salt, iterations, self.prf.digest(), &mut digest);
        computed.is_ok() && constant_time_eq(&digest, &self.digest)
    }
}
