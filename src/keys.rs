//! The keyring: the master key on disk, and what it seals in the database — the server key that everything of our
//! own is derived from, and the signing keys that relying parties know. Processes on one database use one set.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::ambient::{Rng, random_bytes};
use crate::config::KeySource;
use crate::crypto::digest::{base64url, from_base64url, hmac_sha256, sha256};
use crate::crypto::jws::{self, NotOurs, SigningKey, VerifyingKey};
use crate::crypto::seal::SealKey;
use crate::protocol::client::SigningAlg;
use crate::protocol::time::Timestamp;
use crate::store::keys::StoredKey;
use crate::store::{Store, StoreError};

const MASTER_KEY_FILE: &str = "master.key";
const MASTER_KEY_SETTING: &str = "master_key";
const SERVER_KEY_SETTING: &str = "server_key_1";

/// Why the keyring cannot be opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: {problem}", path.display())]
    MasterKey { path: PathBuf, problem: String },
    #[error(
        "the database was sealed under another master key (id {expected}) than the one in {} (id {found}); \
         put the right key there or use another database", path.display()
    )]
    Foreign { path: PathBuf, expected: String, found: String },
    #[error("a sealed key in the database cannot be opened; the database was changed from outside")]
    Unsealable,
    #[error("there is no signing key for {0}")]
    NoKey(SigningAlg),
    #[error(transparent)]
    Crypto(#[from] jws::CryptoError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keys for what leaves our hands and comes back, derived from the server key, one for each purpose.
pub struct ServerKeys {
    /// Sign-in tickets.
    pub tickets: SealKey,
    /// Logout requests that wait for a click.
    pub logouts: SealKey,
    /// Form tokens.
    pub csrf: [u8; 32],
    /// Refresh tokens; version 1.
    pub refresh: [u8; 32],
    /// Names of rate-limit buckets.
    pub limits: [u8; 32],
}

impl ServerKeys {
    fn derive(server_key: &[u8; 32]) -> Self {
        let mac = |purpose: &str| hmac_sha256(server_key, &[b"keyward mac", purpose.as_bytes()]);
        Self {
            tickets: SealKey::derive(server_key, "ticket"),
            logouts: SealKey::derive(server_key, "logout"),
            csrf: mac("csrf"),
            refresh: mac("refresh"),
            limits: mac("limits"),
        }
    }
}

/// The signing keys at one time.
pub struct KeySet {
    signing: HashMap<SigningAlg, SigningKey>,
    verifying: HashMap<String, VerifyingKey>,
    /// The document at `/jwks` (RFC 7517 §5).
    pub jwks: String,
}

pub struct Keyring {
    pub server: ServerKeys,
    set: KeySet,
}

impl Keyring {
    /// Opens the keyring, making on an empty database whatever is missing.
    pub async fn open(store: &Store, source: &KeySource, rng: &dyn Rng, now: Timestamp) -> Result<Self, KeyError> {
        let sealed_by = store.setting(MASTER_KEY_SETTING).await?;
        let (path, master) = load_master(source, sealed_by.is_none(), rng)?;
        let own = fingerprint(&master);
        let settled = store.settle_setting(MASTER_KEY_SETTING, own.clone()).await?;
        if settled != own {
            let id = |fingerprint: &str| fingerprint.split('.').next().unwrap_or_default().to_owned();
            return Err(KeyError::Foreign { path, expected: id(&settled), found: id(&own) });
        }
        let seal = SealKey::derive(&master, "server-key");
        let fresh = seal.seal(&random_bytes::<32>(rng)).map_err(jws::CryptoError::from)?;
        let sealed = store.settle_setting(SERVER_KEY_SETTING, fresh).await?;
        let server_key = Zeroizing::new(seal.open(&sealed).map_err(|_| KeyError::Unsealable)?);
        let server_key: &[u8; 32] = server_key.as_slice().try_into().map_err(|_| KeyError::Unsealable)?;

        let seal = SealKey::derive(&master, "signing-key");
        make_missing_keys(store, &seal, now).await?;
        let set = KeySet::build(store.signing_keys().await?, &seal, now)?;
        Ok(Self { server: ServerKeys::derive(server_key), set })
    }

    /// The keys as they stand now.
    pub fn current(&self) -> &KeySet {
        &self.set
    }
}

impl KeySet {
    fn build(stored: Vec<StoredKey>, seal: &SealKey, now: Timestamp) -> Result<Self, KeyError> {
        let mut signing = HashMap::new();
        let mut verifying = HashMap::new();
        let mut published = Vec::new();
        // Oldest first, so that the newest of each algorithm whose time has come is the one that signs.
        for key in stored.into_iter().filter(|key| key.retired_at.is_none()) {
            let der = Zeroizing::new(seal.open(&key.sealed_private).map_err(|_| KeyError::Unsealable)?);
            // The first of all signs from the beginning: on a host whose clock is behind that of the one which made
            // it, its time has not come.
            if key.active_from <= now || !signing.contains_key(&key.alg) {
                signing.insert(key.alg, SigningKey::from_der(&key.kid, key.alg, &der)?);
            }
            published.push(Value::Object(key.public_jwk.clone()));
            verifying.insert(key.kid, VerifyingKey::from_jwk(key.public_jwk, key.alg)?);
        }
        Ok(Self { signing, verifying, jwks: json!({ "keys": published }).to_string() })
    }

    /// Signs with the active key of `alg`.
    pub fn sign(&self, alg: SigningAlg, typ: &str, claims: &Map<String, Value>) -> Result<String, KeyError> {
        let key = self.signing.get(&alg).ok_or(KeyError::NoKey(alg))?;
        Ok(key.sign(typ, claims)?)
    }

    /// The claims of a token that one of these keys signed. What they mean is not looked at.
    pub fn verify(&self, token: &str, typ: &str) -> Result<Map<String, Value>, NotOurs> {
        jws::verify(token, typ, |kid| self.verifying.get(kid))
    }
}

/// A first key of each algorithm. Two processes may make one each; the database keeps one of them.
async fn make_missing_keys(store: &Store, seal: &SealKey, now: Timestamp) -> Result<(), KeyError> {
    let known = store.signing_keys().await?;
    for alg in SigningAlg::ALL.iter().copied().filter(|alg| !known.iter().any(|key| key.alg == *alg)) {
        let made = tokio::task::spawn_blocking(move || jws::generate(alg)).await;
        let made = made.map_err(|_| KeyError::Store(StoreError::WriterStopped))??;
        let sealed_private = seal.seal(made.private_der.expose()).map_err(jws::CryptoError::from)?;
        let key = StoredKey {
            kid: made.kid,
            alg,
            serial: 1,
            public_jwk: made.public_jwk,
            sealed_private,
            created_at: now,
            active_from: now,
            retired_at: None,
        };
        store.add_signing_key(key).await?;
    }
    Ok(())
}

/// The id of a master key and a check value: enough to recognise the key, not to learn it.
fn fingerprint(master: &[u8; 32]) -> String {
    let check = hmac_sha256(master, &[b"keyward master key check"]);
    format!("{}.{}", base64url(&sha256(&check)[..6]), base64url(&check))
}

fn load_master(
    source: &KeySource,
    may_create: bool,
    rng: &dyn Rng,
) -> Result<(PathBuf, Zeroizing<[u8; 32]>), KeyError> {
    let path = match source {
        KeySource::File(path) => path.clone(),
        KeySource::Dir(dir) => dir.join(MASTER_KEY_FILE),
    };
    let problem = |problem: String| KeyError::MasterKey { path: path.clone(), problem };
    if let KeySource::Dir(dir) = source
        && !path.exists()
        && may_create
    {
        create_master(dir, &path, rng).map_err(|error| problem(error.to_string()))?;
    }
    let metadata = fs::metadata(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if may_create => problem("there is no master key here".to_owned()),
        std::io::ErrorKind::NotFound => problem(
            "the master key is missing, but the database was sealed under one; put it back from your backup".to_owned(),
        ),
        _ => problem(error.to_string()),
    })?;
    let mode = metadata.permissions().mode();
    if mode & 0o007 != 0 {
        let text = format!(
            "everybody on this machine can read the master key (mode {:03o}); run `chmod 600` on it",
            mode & 0o777
        );
        return Err(problem(text));
    }
    let text = Zeroizing::new(fs::read_to_string(&path).map_err(|error| problem(error.to_string()))?);
    let bytes = from_base64url(text.trim()).map(Zeroizing::new);
    let master = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    let master = master.ok_or_else(|| problem("this is not a master key: 32 bytes in base64url".to_owned()))?;
    Ok((path, Zeroizing::new(master)))
}

/// Writes a fresh key under another name and links it into place, so that of several processes one wins and none
/// reads half a key.
fn create_master(dir: &Path, path: &Path, rng: &dyn Rng) -> std::io::Result<()> {
    if !dir.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
    let text = Zeroizing::new(base64url(&random_bytes::<32>(rng)));
    writeln!(file, "{}", text.as_str())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => fs::File::open(dir)?.sync_all(),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}
