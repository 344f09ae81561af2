//! The text of an API key: `kw_uk_<kid>_<secret><checksum>`. The checksum tells a mistyped or invented key from a real
//! one without asking anybody, and lets scanners of leaked secrets find ours with next to no false alarm.

use super::digest::{constant_time_eq, hmac_sha256};
use super::secret::Secret;
use crate::protocol::api_key::Kind;
use crate::protocol::ids::ApiKeyId;

const KID_LENGTH: usize = 16;
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;
/// Bytes of an id that the kid is made of; all but one bit of them fit its digits.
const KID_BYTES: usize = 12;

/// What every key looks like, for scanners.
pub const PATTERN: &str = "kw_(uk|pk)_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}";

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key whose checksum is right; whether it was ever given out is for the store to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub kind: Kind,
    pub kid: ApiKeyId,
    text: Secret<String>,
}

impl ApiKey {
    /// From bytes of [`Rng::id`](crate::ambient::Rng::id), and random ones that stay secret.
    pub fn new(kind: Kind, mut id: [u8; 16], secret: [u8; 32]) -> Self {
        id[0] &= 0x7f;
        let kid = base62(&id[..KID_BYTES], KID_LENGTH);
        let mut text = format!("kw_{kind}_{kid}_{}", base62(&secret, SECRET_LENGTH));
        text.push_str(&checksum(&text));
        Self { kind, kid: ApiKeyId::new(kid), text: Secret::new(text) }
    }

    /// `None` for whatever is not a key, or has a wrong checksum.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.strip_prefix("kw_")?.split_once('_')?;
        let (kid, secret) = rest.split_once('_')?;
        let well_formed = kid.len() == KID_LENGTH && secret.len() == SECRET_LENGTH + CHECKSUM_LENGTH;
        if !well_formed || !kid.bytes().chain(secret.bytes()).all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let kind = kind.parse().ok()?;
        let (body, sum) = text.split_at(text.len() - CHECKSUM_LENGTH);
        (checksum(body) == sum).then(|| Self { kind, kid: ApiKeyId::new(kid), text: Secret::new(text.to_owned()) })
    }

    /// Whether a text claims to be a key, right or wrong: no other credential of ours begins so.
    pub fn claims(text: &str) -> bool {
        Kind::ALL.iter().any(|kind| text.strip_prefix("kw_").is_some_and(|rest| rest.starts_with(&format!("{kind}_"))))
    }

    /// The key itself, for the one answer that carries it.
    pub const fn expose(&self) -> &String {
        self.text.expose()
    }

    /// What the store keeps. A key has 256 random bits, so a fast code with a key of its own protects it as well as
    /// a slow hash would, and costs nobody a queue.
    pub fn mac(&self, pepper: &[u8; 32]) -> [u8; 32] {
        hmac_sha256(pepper, &[self.text.expose().as_bytes()])
    }

    pub fn matches(&self, pepper: &[u8; 32], mac: &[u8]) -> bool {
        constant_time_eq(&self.mac(pepper), mac)
    }
}

/// A number in base 62, most significant digit first, as long as asked.
fn base62(number: &[u8], length: usize) -> String {
    let mut number = number.to_vec();
    let mut digits = vec![b'0'; length];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = DIGITS[remainder as usize];
    }
    digits.into_iter().map(char::from).collect()
}

/// CRC-32 (IEEE 802.3) of the text, in base 62.
fn checksum(text: &str) -> String {
    base62(&crc32fast::hash(text.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind) -> ApiKey {
        ApiKey::new(kind, std::array::from_fn(|at| at as u8), std::array::from_fn(|at| at as u8))
    }

    #[test]
    fn a_key_has_the_published_form() {
        for (kind, byte) in [(Kind::User, 0), (Kind::Partner, 255)] {
            let text = ApiKey::new(kind, [byte; 16], [byte; 32]).expose().clone();
            let (prefix, rest) = text.split_at(6);
            assert_eq!(prefix, format!("kw_{kind}_"));
            let (kid, secret) = rest.split_once('_').unwrap();
            assert_eq!((kid.len(), secret.len()), (16, 49), "{PATTERN}");
            assert!(kid.bytes().chain(secret.bytes()).all(|byte| byte.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn numbers_in_base_62_are_those_that_anybody_computes() {
        for (number, expected) in [
            (&[0][..], "000000"),
            (&[61], "00000z"),
            (&[62], "000010"),
            (&[0xff, 0xff, 0xff, 0xff], "4gfFC3"),
            (&[0xcb, 0xf4, 0x39, 0x26], "3jZRME"),
        ] {
            assert_eq!(base62(number, 6), expected, "{number:?}");
        }
        // CRC-32/ISO-HDLC of "123456789" is cbf43926, as its catalogue says.
        assert_eq!(checksum("123456789"), "3jZRME");
    }

    #[test]
    fn every_single_change_breaks_the_checksum() {
        let text = key(Kind::User).expose().clone();
        assert_eq!(ApiKey::parse(&text), Some(key(Kind::User)));
        for at in 0..text.len() {
            for other in [b'a', b'Z', b'_'] {
                let mut changed = text.clone().into_bytes();
                if std::mem::replace(&mut changed[at], other) == other {
                    continue;
                }
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(ApiKey::parse(&changed), None, "{changed}");
            }
        }
        for other in ["", "kw_uk_", &text[1..], &text[..71], &format!("{text}0"), &text.replacen("uk", "pk", 1)] {
            assert_eq!(ApiKey::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_claims_to_be_a_key_is_never_taken_for_a_token() {
        for (text, claims) in
            [("kw_uk_", true), ("kw_pk_x", true), ("kw_rt_x", false), ("eyJ.e30.x", false), ("kw_", false), ("", false)]
        {
            assert_eq!(ApiKey::claims(text), claims, "{text}");
        }
    }

    #[test]
    fn the_store_keeps_what_only_the_key_and_the_pepper_make() {
        let mac = key(Kind::User).mac(&[1; 32]);
        assert!(key(Kind::User).matches(&[1; 32], &mac));
        assert!(!key(Kind::User).matches(&[2; 32], &mac));
        assert!(!key(Kind::Partner).matches(&[1; 32], &mac));
        assert_eq!(format!("{:?}", key(Kind::User).text), "[secret]");
    }
}
