//! bcrypt as other systems spell it: crypt(3) with its versions, Django's two kinds, and passlib's `bcrypt-sha256`.
//! bcrypt looks at no more than 72 bytes and ends at a zero byte. Both cuts are made here as well: whoever signed in
//! there with a longer password signs in here, and the hash that replaces this one covers all of it.

use base64::Engine as _;
use base64::alphabet::BCRYPT;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Result, UnusableHash, unusable};
use crate::crypto::digest::{constant_time_eq, sha256};

/// About four seconds.
const MAX_COST: u32 = 16;
const MIN_COST: u32 = 4;
/// What Blowfish takes of a key.
const MAX_KEY_BYTES: usize = 72;
const SALT_CHARS: usize = 22;
const DIGEST_BYTES: usize = 23;

/// Not every implementation leaves the last bits of a salt empty.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What becomes of the password before bcrypt sees it.
enum Preparation {
    Nothing,
    /// Django: SHA-256 in hexadecimal.
    Sha256Hex,
    /// passlib, version 1: SHA-256 in base64.
    Sha256Base64,
    /// passlib, version 2: HMAC-SHA-256 under the salt as it is written, in base64.
    HmacBase64(String),
}

pub struct BcryptHash {
    preparation: Preparation,
    cost: u32,
    salt: [u8; 16],
    digest: [u8; DIGEST_BYTES],
}

pub fn parse(stored: &str) -> Result<BcryptHash> {
    if let Some(crypt) = stored.strip_prefix("bcrypt_sha256$") {
        parse_crypt(crypt, Preparation::Sha256Hex)
    } else if let Some(parts) = stored.strip_prefix("$bcrypt-sha256$") {
        parse_passlib(parts)
    } else {
        parse_crypt(stored.strip_prefix("bcrypt$").unwrap_or(stored), Preparation::Nothing)
    }
}

/// `$2b$12$` and 53 characters.
fn parse_crypt(crypt: &str, preparation: Preparation) -> Result<BcryptHash> {
    let fields: Vec<&str> = crypt.split('$').collect();
    let ["", version, cost, rest] = fields[..] else { return unusable("this bcrypt hash cannot be read") };
    check_version(version)?;
    let Some((salt, digest)) = rest.split_at_checked(SALT_CHARS) else {
        return unusable("this bcrypt hash is cut short");
    };
    BcryptHash::new(preparation, cost, salt, digest)
}

/// `v=2,t=2b,r=12$salt$digest`, or in version 1 `2b,12$salt$digest`.
fn parse_passlib(parts: &str) -> Result<BcryptHash> {
    let fields: Vec<&str> = parts.split('$').collect();
    let [params, salt, digest] = fields[..] else { return unusable("this bcrypt-sha256 hash cannot be read") };
    let (version, cost, preparation) = match params.split(',').collect::<Vec<_>>()[..] {
        ["v=2", version, cost] => (
            version.strip_prefix("t=").unwrap_or_default(),
            cost.strip_prefix("r=").unwrap_or_default(),
            Preparation::HmacBase64(salt.to_owned()),
        ),
        [version, cost] => (version, cost, Preparation::Sha256Base64),
        _ => return unusable("this bcrypt-sha256 hash is of an unknown version"),
    };
    check_version(version)?;
    BcryptHash::new(preparation, cost, salt, digest)
}

fn check_version(version: &str) -> Result<()> {
    match version {
        "2a" | "2b" | "2y" => Ok(()),
        "2x" => unusable("bcrypt hashes of version 2x come from a faulty implementation; set a new password instead"),
        _ => unusable("this bcrypt hash is of an unknown version; 2a, 2b and 2y are known"),
    }
}

impl BcryptHash {
    fn new(preparation: Preparation, cost: &str, salt: &str, digest: &str) -> Result<Self> {
        let Some(cost) = cost.parse().ok().filter(|_| cost.bytes().all(|byte| byte.is_ascii_digit())) else {
            return unusable("the cost of this bcrypt hash is not a number");
        };
        if cost > MAX_COST {
            return unusable(format!("this bcrypt hash has cost {cost}; at most {MAX_COST} is computed here"));
        }
        if cost < MIN_COST {
            return unusable(format!("this bcrypt hash has cost {cost}, which is less than bcrypt has"));
        }
        let wrong = |what: &str| UnusableHash(format!("the {what} of this bcrypt hash is not what bcrypt writes"));
        let decode = |text: &str| BASE64.decode(text).ok();
        let salt = decode(salt).and_then(|salt| salt.try_into().ok()).ok_or_else(|| wrong("salt"))?;
        let digest = decode(digest).and_then(|digest| digest.try_into().ok()).ok_or_else(|| wrong("digest"))?;
        Ok(Self { preparation, cost, salt, digest })
    }

    pub fn matches(&self, password: &str) -> bool {
        let prepared = self.prepare(password.as_bytes());
        let mut key: Zeroizing<Vec<u8>> =
            Zeroizing::new(prepared.iter().copied().take_while(|byte| *byte != 0).collect());
        // The zero byte at its end belongs to the key, where it has room.
        key.push(0);
        key.truncate(MAX_KEY_BYTES);
        let digest = ::bcrypt::bcrypt(self.cost, self.salt, &key);
        constant_time_eq(&digest[..DIGEST_BYTES], &self.digest)
    }

    fn prepare(&self, password: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match &self.preparation {
            Preparation::Nothing => password.to_vec(),
            Preparation::Sha256Hex => {
                sha256(password).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()
            }
            Preparation::Sha256Base64 => STANDARD.encode(sha256(password)).into_bytes(),
            Preparation::HmacBase64(salt) => {
                // HMAC takes keys of any length, so this cannot fail; an empty key matches nothing of its own.
                let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(salt.as_bytes()) else { return Zeroizing::default() };
                mac.update(password);
                STANDARD.encode(mac.finalize().into_bytes()).into_bytes()
            }
        })
    }
}
