//! Private keys from elsewhere, as PEM: RSA in PKCS#1 or PKCS#8 through the `rsa` crate, which checks that the numbers
//! belong together; P-256 in SEC 1 or PKCS#8 and Ed25519 in PKCS#8 through OpenSSL. What is too weak is refused here;
//! what happens to the key is for `keys`.

use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use rsa::RsaPrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use rsa::traits::PublicKeyParts as _;

use super::jws::{CryptoError, KeyPair, RSA_BITS};
use crate::protocol::client::SigningAlg;

/// Beyond this a signature takes so long that a few clients could keep us busy.
const MOST_RSA_BITS: usize = 8192;
/// The public exponent that everybody uses; smaller ones have been broken, and larger ones slow every verifier.
const RSA_EXPONENT: u32 = 65537;

/// Why a PEM file is no signing key for us.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    #[error("this is no private key in PEM: BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY")]
    NotPem,
    #[error("the key is locked by a passphrase; write it without one first: openssl pkey -in KEY -out KEY.open")]
    Encrypted,
    #[error("the key cannot be read: {0}")]
    Unreadable(String),
    #[error("an RSA key of {0} bits is too short: {RSA_BITS} at least")]
    TooShort(usize),
    #[error("an RSA key of {0} bits is too long: {MOST_RSA_BITS} at most")]
    TooLong(usize),
    #[error("the RSA key's public exponent is not {RSA_EXPONENT}")]
    Exponent,
    #[error("keys of this kind cannot sign for us: RSA, P-256 (ES256) or Ed25519 (EdDSA)")]
    Kind,
    #[error("a key of this kind signs {}, not {wanted}", possible.iter().map(|alg| alg.as_str()).collect::<Vec<_>>().join(" or "))]
    Alg { wanted: SigningAlg, possible: &'static [SigningAlg] },
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// The key pair of a PEM file, for `alg` or for what its kind usually signs.
pub fn key_pair(pem: &str, alg: Option<SigningAlg>) -> Result<KeyPair, PemError> {
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(PemError::Encrypted);
    }
    if !pem.contains("PRIVATE KEY-----") {
        return Err(PemError::NotPem);
    }
    let key = PKey::private_key_from_pem(pem.as_bytes()).map_err(|error| PemError::Unreadable(error.to_string()))?;
    let possible: &'static [SigningAlg] = match key.id() {
        Id::RSA => &[SigningAlg::Rs256, SigningAlg::Ps256],
        Id::EC if is_p256(&key) => &[SigningAlg::Es256],
        Id::ED25519 => &[SigningAlg::EdDsa],
        _ => return Err(PemError::Kind),
    };
    let alg = alg.unwrap_or(possible[0]);
    if !possible.contains(&alg) {
        return Err(PemError::Alg { wanted: alg, possible });
    }
    let unreadable = |error: openssl::error::ErrorStack| PemError::Unreadable(error.to_string());
    let der = match alg {
        SigningAlg::Rs256 | SigningAlg::Ps256 => rsa_der(pem)?,
        SigningAlg::Es256 => key.ec_key().and_then(|key| key.private_key_to_der()).map_err(unreadable)?,
        SigningAlg::EdDsa => key.private_key_to_pkcs8().map_err(unreadable)?,
    };
    Ok(KeyPair::from_der(alg, &der)?)
}

fn is_p256(key: &PKey<Private>) -> bool {
    key.ec_key().is_ok_and(|key| key.group().curve_name() == Some(Nid::X9_62_PRIME256V1))
}

/// Reads and checks an RSA key; PKCS#8 in DER.
fn rsa_der(pem: &str) -> Result<Vec<u8>, PemError> {
    let unreadable = |error: String| PemError::Unreadable(error);
    let key = if pem.contains("BEGIN RSA PRIVATE KEY") {
        RsaPrivateKey::from_pkcs1_pem(pem.trim()).map_err(|error| unreadable(error.to_string()))?
    } else {
        RsaPrivateKey::from_pkcs8_pem(pem.trim()).map_err(|error| unreadable(error.to_string()))?
    };
    key.validate().map_err(|error| unreadable(error.to_string()))?;
    let bits = key.n().bits();
    if bits < RSA_BITS as usize {
        return Err(PemError::TooShort(bits));
    }
    if bits > MOST_RSA_BITS {
        return Err(PemError::TooLong(bits));
    }
    if *key.e() != RSA_EXPONENT.into() {
        return Err(PemError::Exponent);
    }
    let der = key.to_pkcs8_der().map_err(|error| unreadable(error.to_string()))?;
    Ok(der.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;
    use serde_json::{Map, Value};

    use super::*;
    use crate::crypto::jws::{SigningKey, TYP_ID_TOKEN, VerifyingKey, verify};

    fn text(pem: Vec<u8>) -> String {
        String::from_utf8(pem).unwrap()
    }

    fn ec(curve: Nid) -> PKey<Private> {
        PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn keys_of_every_spelling_sign_what_their_public_half_verifies() {
        let rsa = Rsa::generate(2048).unwrap();
        let pkcs1 = text(rsa.private_key_to_pem().unwrap());
        let pkcs8 = text(PKey::from_rsa(rsa).unwrap().private_key_to_pem_pkcs8().unwrap());
        assert!(pkcs1.contains("BEGIN RSA PRIVATE KEY") && pkcs8.contains("BEGIN PRIVATE KEY"));
        let p256 = ec(Nid::X9_62_PRIME256V1);
        let sec1 = text(p256.ec_key().unwrap().private_key_to_pem().unwrap());
        let ed = text(PKey::generate_ed25519().unwrap().private_key_to_pem_pkcs8().unwrap());
        for (name, pem, alg, expected) in [
            ("PKCS#1", &pkcs1, None, SigningAlg::Rs256),
            ("PKCS#8", &pkcs8, None, SigningAlg::Rs256),
            ("PKCS#8 for PS256", &pkcs8, Some(SigningAlg::Ps256), SigningAlg::Ps256),
            ("SEC 1", &sec1, None, SigningAlg::Es256),
            ("EC PKCS#8", &text(p256.private_key_to_pem_pkcs8().unwrap()), None, SigningAlg::Es256),
            ("Ed25519", &ed, None, SigningAlg::EdDsa),
            ("with space around it", &format!("\n{pkcs8}\n\n"), None, SigningAlg::Rs256),
        ] {
            let pair = key_pair(pem, alg).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(pair.alg, expected, "{name}");
            let signing = SigningKey::from_der(&pair.kid, pair.alg, pair.private_der.expose()).unwrap();
            let verifying = VerifyingKey::from_jwk(pair.public_jwk, pair.alg).unwrap();
            let claims: Map<String, Value> = serde_json::from_str(r#"{"sub":"x"}"#).unwrap();
            let token = signing.sign(TYP_ID_TOKEN, &claims).unwrap();
            assert_eq!(verify(&token, TYP_ID_TOKEN, |_| Some(&verifying)), Ok(claims), "{name}");
        }
    }

    #[test]
    fn weak_foreign_and_locked_keys_are_refused_with_the_reason() {
        let rsa = |bits| text(Rsa::generate(bits).unwrap().private_key_to_pem().unwrap());
        let good = rsa(2048);
        let small_exponent = Rsa::generate_with_e(2048, &openssl::bn::BigNum::from_u32(3).unwrap()).unwrap();
        let locked = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let locked = text(locked.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"x").unwrap());
        let public = text(Rsa::generate(2048).unwrap().public_key_to_pem().unwrap());
        let p384 = text(ec(Nid::SECP384R1).private_key_to_pem_pkcs8().unwrap());
        let ed = text(PKey::generate_ed25519().unwrap().private_key_to_pem_pkcs8().unwrap());
        for (pem, alg, expected) in [
            (rsa(1024), None, "1024 bits is too short: 2048"),
            (rsa(2040), None, "2040 bits is too short"),
            (text(small_exponent.private_key_to_pem().unwrap()), None, "public exponent"),
            (locked, None, "passphrase"),
            (public, None, "no private key"),
            (p384, None, "RSA, P-256"),
            (ed, Some(SigningAlg::Rs256), "signs EdDSA, not RS256"),
            (good.clone(), Some(SigningAlg::Es256), "signs RS256 or PS256, not ES256"),
            (good.replace("MII", "MIJ"), None, "cannot be read"),
            (String::new(), None, "no private key"),
        ] {
            let error = key_pair(&pem, alg).err().unwrap_or_else(|| panic!("accepted: {expected}")).to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(key_pair(&good, None).is_ok());
    }
}
