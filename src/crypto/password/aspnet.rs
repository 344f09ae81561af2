//! ASP.NET Core Identity: PBKDF2 in one base64 text whose first byte tells the version. Version 2 is SHA-1 with 1000
//! iterations; version 3 says what it is in three big-endian numbers.

use base64::Engine as _;

use super::pbkdf2::{BASE64, Pbkdf2Hash, Prf};
use super::{Result, unusable};

/// Marker, salt and digest of version 2.
const V2_BYTES: usize = 1 + 16 + 32;
const V2_ITERATIONS: u32 = 1000;

/// `None` where it is not such a text at all.
pub fn parse(stored: &str) -> Option<Result<Pbkdf2Hash>> {
    let bytes = BASE64.decode(stored).ok()?;
    let (version, rest) = bytes.split_first()?;
    match version {
        0 if bytes.len() == V2_BYTES => {
            let (salt, digest) = rest.split_at(16);
            Some(Pbkdf2Hash::from_parts(Prf::Sha1, V2_ITERATIONS, salt.to_vec(), digest.to_vec()))
        }
        1 => {
            let (prf, rest) = number(rest)?;
            let (iterations, rest) = number(rest)?;
            let (salt_bytes, rest) = number(rest)?;
            let (salt, digest) = rest.split_at_checked(salt_bytes as usize)?;
            let prf = match prf {
                0 => Prf::Sha1,
                1 => Prf::Sha256,
                2 => Prf::Sha512,
                _ => return Some(unusable("this ASP.NET Core hash is not made with SHA-1, SHA-256 or SHA-512")),
            };
            Some(Pbkdf2Hash::from_parts(prf, iterations, salt.to_vec(), digest.to_vec()))
        }
        _ => None,
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}
