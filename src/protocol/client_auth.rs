//! Client authentication at `/token`, `/introspect` and `/revoke` (RFC 6749 §2.3, OpenID Connect Core §9): what a
//! request claims, and whether the claim holds. The shell loads the client between the two.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded;

use super::client::{AuthMethod, Client};
use super::error::Error;
use super::ids::ClientId;
use super::params::Params;
use super::time::Timestamp;
use crate::crypto::digest::{constant_time_eq, sha256};
use crate::crypto::secret::Secret;

/// What a request says of its sender, unproven.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub unverified_client_id: ClientId,
    pub method: AuthMethod,
    secret: Option<Secret<String>>,
}

/// A client secret as the store keeps it: its SHA-256. Secrets are 256 bits of randomness, so a slow hash would
/// protect nothing and would let a flood of token requests starve the machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredSecret {
    /// Base64url SHA-256 of the secret.
    pub sha256: String,
    pub created_at: Timestamp,
    /// Set on the old secret when a new one was made with overlap.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
}

impl StoredSecret {
    pub fn of(secret: &str, created_at: Timestamp) -> Self {
        Self { sha256: crate::crypto::digest::base64url(&sha256(secret.as_bytes())), created_at, expires_at: None }
    }
}

/// Reads the credentials of a request.
///
/// # Errors
/// `invalid_client` for an `Authorization` header that cannot be read, `invalid_request` where the request names
/// two clients or authenticates twice (RFC 6749 §2.3), or names none.
pub fn parse(authorization: Option<&str>, params: &Params) -> Result<Credentials, Error> {
    let body_id = params.get("client_id");
    let body_secret = params.get("client_secret");
    let Some(header) = authorization else {
        let id = body_id.ok_or_else(|| Error::invalid_client("client authentication is missing"))?;
        let method = if body_secret.is_some() { AuthMethod::ClientSecretPost } else { AuthMethod::None };
        return Ok(Credentials {
            unverified_client_id: ClientId::new(id),
            method,
            secret: body_secret.map(|secret| Secret::new(secret.to_owned())),
        });
    };
    let (id, secret) = parse_basic(header)?;
    if body_secret.is_some() {
        return Err(Error::invalid_request("the client authenticates twice: in the header and in the body"));
    }
    if body_id.is_some_and(|body| body != id) {
        return Err(Error::invalid_request("client_id differs from the client in the Authorization header"));
    }
    Ok(Credentials {
        unverified_client_id: ClientId::new(id),
        method: AuthMethod::ClientSecretBasic,
        secret: Some(Secret::new(secret)),
    })
}

/// RFC 6749 §2.3.1: both halves are form-urlencoded before they are joined. Secrets of ours contain nothing that
/// encoding would change, so clients that forget it are understood as well.
fn parse_basic(header: &str) -> Result<(String, String), Error> {
    let refused = || Error::invalid_client("the Authorization header is not a valid Basic credential");
    let (scheme, encoded) = header.split_once(' ').ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refused());
    }
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| refused())?;
    let decoded = String::from_utf8(decoded).map_err(|_| refused())?;
    let (id, secret) = decoded.split_once(':').ok_or_else(refused)?;
    let id = form_decoded(id).ok_or_else(refused)?;
    let secret = form_decoded(secret).ok_or_else(refused)?;
    if id.is_empty() { Err(refused()) } else { Ok((id, secret)) }
}

fn form_decoded(text: &str) -> Option<String> {
    // `&` and `=` would be syntax in a form; an encoder escapes them, so here they stand for themselves.
    let text = text.replace('&', "%26").replace('=', "%3D");
    let (decoded, _) = form_urlencoded::parse(text.as_bytes()).next().unwrap_or_default();
    let broken = decoded.contains(char::REPLACEMENT_CHARACTER) || decoded.contains('\0');
    (!broken).then(|| decoded.into_owned())
}

/// Decides whether the credentials prove the client. `client` is `None` where no such client exists; the answer
/// does not tell that apart from a wrong secret.
///
/// # Errors
/// `invalid_client`, always with the same words but for a method that the client is not registered for.
pub fn authenticate(
    credentials: &Credentials,
    client: Option<&Client>,
    secrets: &[StoredSecret],
    now: Timestamp,
) -> Result<(), Error> {
    let failed = || Error::invalid_client("client authentication failed");
    let client = client.filter(|client| client.is_enabled()).ok_or_else(failed)?;
    let accepted = match client.metadata.token_endpoint_auth_method {
        Some(registered) => registered == credentials.method,
        None => credentials.method != AuthMethod::None,
    };
    if !accepted {
        return Err(failed());
    }
    let Some(secret) = &credentials.secret else { return Ok(()) };
    let presented = crate::crypto::digest::base64url(&sha256(secret.expose().as_bytes()));
    let live = secrets.iter().filter(|stored| stored.expires_at.is_none_or(|end| now < end));
    // Every secret is compared, so that the time taken does not tell which one was right.
    let matched =
        live.fold(false, |matched, stored| constant_time_eq(stored.sha256.as_bytes(), presented.as_bytes()) | matched);
    if matched { Ok(()) } else { Err(failed()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::ClientMetadata;
    use crate::protocol::error::ErrorCode::{InvalidClient, InvalidRequest};

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn credentials_are_read_from_one_place() {
        let big = "x".repeat(64 * 1024);
        for (header, body, expected) in [
            (Some(basic("app:s3cret")), "", Ok(("app", AuthMethod::ClientSecretBasic))),
            (Some(basic("app:s3cret")), "client_id=app", Ok(("app", AuthMethod::ClientSecretBasic))),
            (Some(basic("a%3Ab:s%2B%25").replace("Basic", "bAsIC")), "", Ok(("a:b", AuthMethod::ClientSecretBasic))),
            (None, "client_id=app&client_secret=s", Ok(("app", AuthMethod::ClientSecretPost))),
            (None, "client_id=app", Ok(("app", AuthMethod::None))),
            (None, "", Err(InvalidClient)),
            (None, "client_secret=s", Err(InvalidClient)),
            (Some(basic("app:s")), "client_secret=s", Err(InvalidRequest)),
            (Some(basic("app:s")), "client_id=other", Err(InvalidRequest)),
            (Some(basic("app")), "", Err(InvalidClient)),
            (Some(basic(":s")), "", Err(InvalidClient)),
            (Some("Basic !!!".to_owned()), "", Err(InvalidClient)),
            (Some("Basic".to_owned()), "", Err(InvalidClient)),
            (Some("Bearer abc".to_owned()), "", Err(InvalidClient)),
            (Some(format!("Basic {big}!")), "", Err(InvalidClient)),
            (Some(basic("a%00b:s")), "", Err(InvalidClient)),
            (Some(basic("a%FFb:s")), "", Err(InvalidClient)),
        ] {
            let params = Params::parse(body.as_bytes()).unwrap();
            let parsed = parse(header.as_deref(), &params);
            let parsed = parsed.as_ref().map(|c| (c.unverified_client_id.as_str(), c.method)).map_err(|e| e.code);
            assert_eq!(parsed, expected, "{header:?} {body}");
        }
    }

    #[test]
    fn both_halves_of_basic_are_form_decoded() {
        let read = |text: &str| parse_basic(&basic(text)).unwrap();
        assert_eq!(read("my+app:p%26s%3Dw+1"), ("my app".to_owned(), "p&s=w 1".to_owned()));
        assert_eq!(read("app:a=b&c:d"), ("app".to_owned(), "a=b&c:d".to_owned()));
    }

    #[test]
    fn a_client_proves_itself_by_its_registered_method_and_a_live_secret() {
        use AuthMethod::{ClientSecretBasic, ClientSecretPost};
        let now = Timestamp(1000);
        let old = StoredSecret { expires_at: Some(now), ..StoredSecret::of("old", now) };
        let overlapping = StoredSecret { expires_at: Some(Timestamp(1001)), ..StoredSecret::of("previous", now) };
        let secrets = [StoredSecret::of("current", now), overlapping, old];
        for (registered, method, secret, disabled, expected) in [
            (None, ClientSecretBasic, Some("current"), false, true),
            (None, ClientSecretPost, Some("current"), false, true),
            (None, ClientSecretPost, Some("previous"), false, true),
            (None, ClientSecretPost, Some("old"), false, false),
            (None, ClientSecretPost, Some("wrong"), false, false),
            (None, ClientSecretPost, Some(""), false, false),
            (None, AuthMethod::None, None, false, false),
            (None, ClientSecretBasic, Some("current"), true, false),
            (Some(ClientSecretBasic), ClientSecretBasic, Some("current"), false, true),
            (Some(ClientSecretBasic), ClientSecretPost, Some("current"), false, false),
            (Some(AuthMethod::None), AuthMethod::None, None, false, true),
            (Some(AuthMethod::None), ClientSecretPost, Some("current"), false, false),
        ] {
            let metadata = ClientMetadata { token_endpoint_auth_method: registered, ..ClientMetadata::default() };
            let client = Client { id: ClientId::new("app"), metadata, disabled_at: disabled.then_some(now) };
            let credentials = Credentials {
                unverified_client_id: ClientId::new("app"),
                method,
                secret: secret.map(|s| Secret::new(s.to_owned())),
            };
            let result = authenticate(&credentials, Some(&client), &secrets, now);
            assert_eq!(result.is_ok(), expected, "{registered:?} {method} {secret:?}");
        }
    }

    #[test]
    fn an_unknown_client_reads_like_a_wrong_secret() {
        let credentials = parse(Some(&basic("nobody:s")), &Params::parse(b"").unwrap()).unwrap();
        let unknown = authenticate(&credentials, None, &[], Timestamp(0)).unwrap_err();
        let client = Client { id: ClientId::new("app"), metadata: ClientMetadata::default(), disabled_at: None };
        let wrong = authenticate(&credentials, Some(&client), &[], Timestamp(0)).unwrap_err();
        assert_eq!(unknown, wrong);
    }
}
