//! Signatures over JWTs (RFC 7515, RFC 7519): making ours and recognising ours again. What the claims mean and
//! whether they are still in time is for `protocol`; which keys are current is for `keys.rs`.
//!
//! Tokens are read by hand and not by `josekit::jwt`, whose date readers panic on numbers that a stranger chooses.

use josekit::jwk::alg::ec::{EcCurve, EcKeyPair};
use josekit::jwk::alg::ed::{EdCurve, EdKeyPair};
use josekit::jwk::alg::rsa::RsaKeyPair;
use josekit::jwk::{Jwk, KeyPair as _};
use josekit::jws::{ES256, EdDSA, JwsSigner, JwsVerifier, PS256, RS256};
use serde_json::{Map, Value};

use super::digest::{base64url, from_base64url, sha256};
use super::secret::Secret;
use crate::protocol::client::SigningAlg;

pub const RSA_BITS: u32 = 2048;

/// `typ` of a JWT access token (RFC 9068 §2.1).
pub const TYP_ACCESS_TOKEN: &str = "at+jwt";
/// `typ` of an ID token; OpenID Connect Core names none, RFC 7519 §5.1 recommends this.
pub const TYP_ID_TOKEN: &str = "JWT";

#[derive(Debug, thiserror::Error)]
#[error("the cryptographic library refused: {0}")]
pub struct CryptoError(#[from] josekit::JoseError);

/// A private signing key, ready to use: building one costs more than a signature, so it is built once.
pub struct SigningKey {
    kid: String,
    alg: SigningAlg,
    signer: Box<dyn JwsSigner>,
}

/// A public key that tokens of ours are recognised by.
pub struct VerifyingKey {
    kid: String,
    alg: SigningAlg,
    verifier: Box<dyn JwsVerifier>,
    jwk: Map<String, Value>,
}

/// A key pair in the form the store keeps.
pub struct KeyPair {
    pub kid: String,
    pub alg: SigningAlg,
    /// DER as [`SigningKey::from_der`] reads it: PKCS#8 for RSA and Ed25519, SEC 1 for EC.
    pub private_der: Secret<Vec<u8>>,
    /// The public JWK (RFC 7517) with `kid`, `alg` and `use`.
    pub public_jwk: Map<String, Value>,
}

/// Makes a key pair with OpenSSL: about 40 ms for RSA, so never inside a request.
pub fn generate(alg: SigningAlg) -> Result<KeyPair, CryptoError> {
    Ok(match alg {
        SigningAlg::Rs256 | SigningAlg::Ps256 => {
            let pair = RsaKeyPair::generate(RSA_BITS)?;
            KeyPair::new(alg, pair.to_der_private_key(), &pair.to_jwk_public_key())
        }
        SigningAlg::Es256 => {
            let pair = EcKeyPair::generate(EcCurve::P256)?;
            KeyPair::new(alg, pair.to_der_private_key(), &pair.to_jwk_public_key())
        }
        SigningAlg::EdDsa => {
            let pair = EdKeyPair::generate(EdCurve::Ed25519)?;
            KeyPair::new(alg, pair.to_der_private_key(), &pair.to_jwk_public_key())
        }
    })
}

impl KeyPair {
    fn new(alg: SigningAlg, private_der: Vec<u8>, public: &Jwk) -> Self {
        let public_jwk = published_jwk(alg, public.as_ref());
        let kid = public_jwk.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { kid, alg, private_der: Secret::new(private_der), public_jwk }
    }

    /// The pair of a private key in DER, as [`SigningKey::from_der`] reads it.
    pub fn from_der(alg: SigningAlg, der: &[u8]) -> Result<Self, CryptoError> {
        let public = match alg {
            SigningAlg::Rs256 | SigningAlg::Ps256 => RsaKeyPair::from_der(der)?.to_jwk_public_key(),
            SigningAlg::Es256 => EcKeyPair::from_der(der, Some(EcCurve::P256))?.to_jwk_public_key(),
            SigningAlg::EdDsa => EdKeyPair::from_der(der)?.to_jwk_public_key(),
        };
        Ok(Self::new(alg, der.to_vec(), &public))
    }

    /// The same pair under another name: relying parties may know it by that of the provider it came from.
    pub fn named(mut self, kid: String) -> Self {
        self.public_jwk.insert("kid".to_owned(), kid.as_str().into());
        Self { kid, ..self }
    }
}

/// The members of a public key that may be published, and no others: copying what is known to be public cannot
/// leak what is not.
fn published_jwk(alg: SigningAlg, jwk: &Map<String, Value>) -> Map<String, Value> {
    let members: &[&str] = match alg {
        SigningAlg::Rs256 | SigningAlg::Ps256 => &["e", "kty", "n"],
        SigningAlg::Es256 => &["crv", "kty", "x", "y"],
        SigningAlg::EdDsa => &["crv", "kty", "x"],
    };
    // RFC 7638 §3: the required members in lexical order, without white space.
    let mut public: Map<String, Value> =
        members.iter().filter_map(|name| Some(((*name).to_owned(), jwk.get(*name)?.clone()))).collect();
    let thumbprint = base64url(&sha256(Value::Object(public.clone()).to_string().as_bytes()));
    public.insert("kid".to_owned(), thumbprint.into());
    public.insert("alg".to_owned(), alg.as_str().into());
    public.insert("use".to_owned(), "sig".into());
    public
}

impl SigningKey {
    pub fn from_der(kid: &str, alg: SigningAlg, der: &[u8]) -> Result<Self, CryptoError> {
        let signer: Box<dyn JwsSigner> = match alg {
            SigningAlg::Rs256 => Box::new(RS256.signer_from_der(der)?),
            SigningAlg::Es256 => Box::new(ES256.signer_from_der(der)?),
            SigningAlg::Ps256 => Box::new(PS256.signer_from_der(der)?),
            SigningAlg::EdDsa => Box::new(EdDSA.signer_from_der(der)?),
        };
        Ok(Self { kid: kid.to_owned(), alg, signer })
    }

    /// A JWS in compact form with our `kid`, the given `typ` and `claims` as its payload.
    pub fn sign(&self, typ: &str, claims: &Map<String, Value>) -> Result<String, CryptoError> {
        let header = serde_json::json!({ "alg": self.alg.as_str(), "kid": self.kid, "typ": typ });
        let mut token = base64url(header.to_string().as_bytes());
        token.push('.');
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        token.push_str(&base64url(&payload));
        let signature = self.signer.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&base64url(&signature));
        Ok(token)
    }
}

impl VerifyingKey {
    /// `jwk` is a public JWK as [`generate`] made it.
    pub fn from_jwk(jwk: Map<String, Value>, alg: SigningAlg) -> Result<Self, CryptoError> {
        let key = Jwk::from_map(jwk.clone())?;
        let verifier: Box<dyn JwsVerifier> = match alg {
            SigningAlg::Rs256 => Box::new(RS256.verifier_from_jwk(&key)?),
            SigningAlg::Es256 => Box::new(ES256.verifier_from_jwk(&key)?),
            SigningAlg::Ps256 => Box::new(PS256.verifier_from_jwk(&key)?),
            SigningAlg::EdDsa => Box::new(EdDSA.verifier_from_jwk(&key)?),
        };
        let kid = jwk.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { kid, alg, verifier, jwk })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What `/jwks` publishes.
    pub fn jwk(&self) -> &Map<String, Value> {
        &self.jwk
    }
}

/// A JWT that none of our keys signed, or whose header asks for something we do not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

impl std::fmt::Display for NotOurs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a token that this issuer signed")
    }
}

impl std::error::Error for NotOurs {}

/// Reads the claims of a token that one of our own keys signed, with the `typ` that its use demands (RFC 8725
/// §3.11: one kind of token never passes for another). The header chooses among our keys by `kid` and nothing
/// else: `jwk`, `jku` and `x5c` are not looked at, `crit` is refused (RFC 7515 §4.1.11).
pub fn verify<'k>(
    token: &str,
    typ: &str,
    key: impl FnOnce(&str) -> Option<&'k VerifyingKey>,
) -> Result<Map<String, Value>, NotOurs> {
    let (signed, signature) = token.rsplit_once('.').ok_or(NotOurs)?;
    let (header, payload) = signed.split_once('.').ok_or(NotOurs)?;
    if payload.contains('.') {
        return Err(NotOurs);
    }
    let header: Map<String, Value> = decode_json(header)?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let key = text("kid").and_then(key).ok_or(NotOurs)?;
    if text("alg") != Some(key.alg.as_str()) || header.contains_key("crit") || header.contains_key("b64") {
        return Err(NotOurs);
    }
    if !text("typ").is_some_and(|own| own.eq_ignore_ascii_case(typ)) {
        return Err(NotOurs);
    }
    let signature = from_base64url(signature).ok_or(NotOurs)?;
    key.verifier.verify(signed.as_bytes(), &signature).map_err(|_| NotOurs)?;
    decode_json(payload)
}

fn decode_json(part: &str) -> Result<Map<String, Value>, NotOurs> {
    let bytes = from_base64url(part).ok_or(NotOurs)?;
    serde_json::from_slice(&bytes).map_err(|_| NotOurs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(alg: SigningAlg) -> (SigningKey, VerifyingKey) {
        let made = generate(alg).unwrap();
        let signing = SigningKey::from_der(&made.kid, alg, made.private_der.expose()).unwrap();
        (signing, VerifyingKey::from_jwk(made.public_jwk, alg).unwrap())
    }

    fn claims() -> Map<String, Value> {
        serde_json::from_str(r#"{"iss":"https://id.test","exp":1e300}"#).unwrap()
    }

    fn find<'k>(key: &'k VerifyingKey) -> impl FnOnce(&str) -> Option<&'k VerifyingKey> {
        move |kid| (kid == key.kid()).then_some(key)
    }

    #[test]
    fn every_algorithm_signs_what_it_verifies_and_publishes_only_public_members() {
        for alg in SigningAlg::ALL {
            let (signing, verifying) = pair(*alg);
            let token = signing.sign(TYP_ID_TOKEN, &claims()).unwrap();
            assert_eq!(verify(&token, TYP_ID_TOKEN, find(&verifying)), Ok(claims()), "{alg}");
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(!verifying.jwk().contains_key(private), "{alg} publishes {private}");
            }
        }
    }

    #[test]
    fn tokens_that_are_not_ours_are_refused() {
        let (signing, verifying) = pair(SigningAlg::Es256);
        let (stranger, _) = pair(SigningAlg::Es256);
        let good = signing.sign(TYP_ID_TOKEN, &claims()).unwrap();
        let parts: Vec<&str> = good.split('.').collect();
        let with_header = |header: Value| {
            let head = base64url(header.to_string().as_bytes());
            format!("{head}.{}.{}", parts[1], parts[2])
        };
        let kid = signing.kid.as_str();
        for (name, token) in [
            ("another signature", stranger.sign(TYP_ID_TOKEN, &claims()).unwrap()),
            ("alg none", with_header(serde_json::json!({"alg":"none","kid":kid,"typ":"JWT"}))),
            ("alg None, no signature", {
                let head = base64url(serde_json::json!({"alg":"None","kid":kid,"typ":"JWT"}).to_string().as_bytes());
                format!("{head}.{}.", parts[1])
            }),
            ("HS256", with_header(serde_json::json!({"alg":"HS256","kid":kid,"typ":"JWT"}))),
            ("crit", with_header(serde_json::json!({"alg":"ES256","kid":kid,"typ":"JWT","crit":["x"]}))),
            ("no kid", with_header(serde_json::json!({"alg":"ES256","typ":"JWT"}))),
            ("no signature", format!("{}.{}.", parts[0], parts[1])),
            ("two parts", format!("{}.{}", parts[0], parts[1])),
            ("four parts", format!("{good}.x")),
            ("changed payload", format!("{}.{}.{}", parts[0], base64url(b"{}"), parts[2])),
            ("empty", String::new()),
        ] {
            assert_eq!(verify(&token, TYP_ID_TOKEN, find(&verifying)), Err(NotOurs), "{name}");
        }
        assert!(verify(&good, TYP_ID_TOKEN, find(&verifying)).is_ok());
    }

    #[test]
    fn an_id_token_is_no_access_token() {
        let (signing, verifying) = pair(SigningAlg::Es256);
        let id_token = signing.sign(TYP_ID_TOKEN, &claims()).unwrap();
        assert_eq!(verify(&id_token, TYP_ACCESS_TOKEN, find(&verifying)), Err(NotOurs));
    }

    #[test]
    fn the_kid_is_the_thumbprint_of_rfc_7638() {
        // RFC 7638 §3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = serde_json::json!({"kty":"RSA","n":n,"e":"AQAB","alg":"RS256","kid":"2011-04-29"});
        let published = published_jwk(SigningAlg::Rs256, jwk.as_object().unwrap());
        assert_eq!(published["kid"], "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
