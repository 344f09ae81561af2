//! Keycloak's credentials as its exports have them: `{"secretData": …, "credentialData": …}`, either member an object
//! or a text that holds one. Errors say which member is wrong and never what it holds.

use ::argon2::{Algorithm, ParamsBuilder, Version};
use base64::Engine as _;
use serde_json::Value;

use super::argon2::Argon2Hash;
use super::pbkdf2::{BASE64, Pbkdf2Hash, Prf};
use super::{Result, StoredHash, UnusableHash, unusable};

fn wrong(member: &str) -> UnusableHash {
    UnusableHash(format!("`{member}` of this Keycloak credential is missing or not what Keycloak writes"))
}

pub fn parse(stored: &str) -> Result<StoredHash> {
    let credential: Value = serde_json::from_str(stored).map_err(|_| wrong("secretData"))?;
    if credential.get("type").is_some_and(|kind| kind != "password") {
        return unusable("this Keycloak credential is no password");
    }
    let secret = member(&credential, "secretData")?;
    let data = member(&credential, "credentialData")?;
    let decode = |name: &'static str| {
        let text = secret.get(name).and_then(Value::as_str);
        text.and_then(|text| BASE64.decode(text).ok()).ok_or_else(|| wrong(name))
    };
    let (digest, salt) = (decode("value")?, decode("salt")?);
    let iterations = data.get("hashIterations").and_then(Value::as_u64).ok_or_else(|| wrong("hashIterations"))?;
    let iterations = u32::try_from(iterations).unwrap_or(u32::MAX);
    let prf = match data.get("algorithm").and_then(Value::as_str) {
        Some("pbkdf2") => Prf::Sha1,
        Some("pbkdf2-sha256") => Prf::Sha256,
        Some("pbkdf2-sha512") => Prf::Sha512,
        Some("argon2") => return argon2(&data, iterations, salt, digest).map(StoredHash::Argon2),
        _ => {
            return unusable(
                "this Keycloak credential is not made with pbkdf2, pbkdf2-sha256, pbkdf2-sha512 or argon2",
            );
        }
    };
    Pbkdf2Hash::from_parts(prf, iterations, salt, digest).map(StoredHash::Pbkdf2)
}

fn argon2(data: &Value, iterations: u32, salt: Vec<u8>, digest: Vec<u8>) -> Result<Argon2Hash> {
    // Each additional parameter is a list of one text.
    let text = |name: &'static str| {
        let value = data.get("additionalParameters").and_then(|all| all.get(name)?.get(0)?.as_str());
        value.ok_or_else(|| wrong(name))
    };
    let number = |name: &'static str| text(name)?.parse::<u32>().map_err(|_| wrong(name));
    let algorithm = match text("type")? {
        "id" => Algorithm::Argon2id,
        "i" => Algorithm::Argon2i,
        "d" => Algorithm::Argon2d,
        _ => return Err(wrong("type")),
    };
    let version = match text("version")? {
        "1.3" => Version::V0x13,
        "1.0" => Version::V0x10,
        _ => return Err(wrong("version")),
    };
    let mut params = ParamsBuilder::new();
    params.m_cost(number("memory")?).t_cost(iterations).p_cost(number("parallelism")?);
    let params = params.build().map_err(|error| UnusableHash(format!("this Keycloak credential: {error}")))?;
    Argon2Hash::new(algorithm, version, params, salt, digest)
}

/// A member that is an object, or a text that holds one.
fn member(credential: &Value, name: &'static str) -> Result<Value> {
    let found = match credential.get(name) {
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        other => other.cloned(),
    };
    found.filter(Value::is_object).ok_or_else(|| wrong(name))
}
