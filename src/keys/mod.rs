//! The keyring: the master key on disk, and what it seals in the database — the server key that everything of our
//! own is derived from, and the signing keys that relying parties know. Processes on one database use one set, and
//! each learns of another's change within a second.

mod change;
pub mod life;
mod master;
mod set;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::ambient::{SharedRng, random_bytes};
use crate::config::KeySource;
use crate::crypto::digest::hmac_sha256;
use crate::crypto::jws;
use crate::crypto::pem::PemError;
use crate::crypto::seal::SealKey;
use crate::protocol::client::SigningAlg;
use crate::protocol::time::Timestamp;
use crate::store::events::{Author, By};
use crate::store::keys::{MASTER_KEY, SERVER_KEY};
use crate::store::{Store, StoreError};

pub use change::{Prepared, Rekeyed, Retirement};
use master::Master;
pub use master::{FILE as MASTER_KEY_FILE, path as master_key_path};
pub use set::{KeySet, Signing};

/// Why the keyring cannot be opened or changed; each says what to do.
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
    #[error("there is no signing key with the kid `{0}`; `keyward key list` shows all")]
    UnknownKid(String),
    #[error("the signing key `{0}` is there already; `keyward key list` shows it")]
    KnownKid(String),
    #[error("this key is known as `{0}`; `keyward key list --all` shows it")]
    KnownKey(String),
    #[error("the signing key `{0}` was retired before")]
    AlreadyRetired(String),
    #[error("another process is changing the keys; look at `keyward key list` and try again")]
    Overtaken,
    #[error(
        "`master_key_file` belongs to somebody else; write a new key to another file and pass it with --new-key-file"
    )]
    NoNewKey,
    #[error("the new master key is the one in use")]
    SameKey,
    #[error(transparent)]
    Pem(#[from] PemError),
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
    /// The pepper of API keys: without it a stolen table proves none of them.
    pub api_keys: [u8; 32],
    /// Answers that partners may ask for again, with what they send for it.
    pub answers: [u8; 32],
    /// Cookies that gateways take.
    pub gateway: [u8; 32],
    /// Cookies that tell where somebody signed in before.
    pub devices: [u8; 32],
}

/// The pepper that new API keys are kept under.
pub const PEPPER_VERSION: i64 = 1;

impl ServerKeys {
    fn derive(server_key: &[u8; 32]) -> Self {
        let mac = |purpose: &str| hmac_sha256(server_key, &[b"keyward mac", purpose.as_bytes()]);
        Self {
            tickets: SealKey::derive(server_key, "ticket"),
            logouts: SealKey::derive(server_key, "logout"),
            csrf: mac("csrf"),
            refresh: mac("refresh"),
            limits: mac("limits"),
            api_keys: mac("api keys"),
            answers: mac("answers"),
            gateway: mac("gateway cookie"),
            devices: mac("device cookie"),
        }
    }

    /// The pepper of a version; `None` for one that this release does not know.
    pub fn pepper(&self, version: i64) -> Option<&[u8; 32]> {
        (version == PEPPER_VERSION).then_some(&self.api_keys)
    }
}

/// Whether the master key can be read where it is said to be; one that `key_dir` lacks is made at the first start.
pub fn check(source: &KeySource) -> Result<(), KeyError> {
    let path = master_key_path(source);
    if matches!(source, KeySource::Dir(_)) && !path.exists() {
        return Ok(());
    }
    Master::read(path, true).map(drop)
}

pub struct Keyring {
    pub server: ServerKeys,
    source: KeySource,
    sealing: RwLock<Arc<Sealing>>,
    set: RwLock<Arc<KeySet>>,
    /// Held from the reading to the installing: what was read first must not be installed last, or a key would be back
    /// that was retired in between.
    reloading: tokio::sync::Mutex<()>,
}

/// What seals the signing keys.
struct Sealing {
    /// Of the master key.
    fingerprint: String,
    signing: SealKey,
}

impl Sealing {
    fn of(master: &Master) -> Self {
        Self { fingerprint: master.fingerprint(), signing: master.seals().1 }
    }
}

impl Keyring {
    /// Opens the keyring, making on an empty database whatever is missing.
    pub async fn open(store: &Store, source: &KeySource, rng: &SharedRng, now: Timestamp) -> Result<Self, KeyError> {
        let master = match store.setting(MASTER_KEY).await? {
            Some(sealed_by) => Master::matching(source, &sealed_by)?,
            None => {
                let own = Master::load(source, true, rng.as_ref())?;
                // Another process may have been faster, with a key of its own.
                let settled = store.settle_setting(MASTER_KEY, own.fingerprint()).await?;
                if settled == own.fingerprint() { own } else { Master::matching(source, &settled)? }
            }
        };
        let (seal, _) = master.seals();
        let fresh = seal.seal(&random_bytes::<32>(rng.as_ref())).map_err(jws::CryptoError::from)?;
        let sealed = store.settle_setting(SERVER_KEY, fresh).await?;
        let server_key = Zeroizing::new(seal.open(&sealed).map_err(|_| KeyError::Unsealable)?);
        let server_key: &[u8; 32] = server_key.as_slice().try_into().map_err(|_| KeyError::Unsealable)?;
        let keyring = Self {
            server: ServerKeys::derive(server_key),
            source: source.clone(),
            sealing: RwLock::new(Arc::new(Sealing::of(&master))),
            set: RwLock::default(),
            reloading: tokio::sync::Mutex::default(),
        };
        keyring.make_first_keys(store, &Author::new(Arc::clone(rng), By::Keyward), now).await?;
        keyring.reload(store).await?;
        Ok(keyring)
    }

    /// The keys as this process knows them.
    pub fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the signing keys anew: another process, or a command, may have changed them. Where the master key that seals
    /// them now is not here, what needs none holds all the same: keys that were retired are no more, and those that were
    /// added are published and recognised. Those that are known go on signing.
    pub async fn reload(&self, store: &Store) -> Result<(), KeyError> {
        let _one_by_one = self.reloading.lock().await;
        let sealed_by = store.setting(MASTER_KEY).await?;
        let stored = store.signing_keys().await?;
        let master = match sealed_by.filter(|sealed_by| *sealed_by != self.sealing().fingerprint) {
            Some(sealed_by) => Master::matching(&self.source, &sealed_by).map(Some),
            None => Ok(None),
        };
        if let Ok(Some(master)) = &master {
            *self.sealing.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Sealing::of(master));
        }
        let (set, all_opened) = KeySet::build(stored, &self.sealing().signing, &self.current())?;
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        master?;
        if all_opened { Ok(()) } else { Err(KeyError::Unsealable) }
    }

    fn sealing(&self) -> Arc<Sealing> {
        Arc::clone(&self.sealing.read().unwrap_or_else(PoisonError::into_inner))
    }
}
