//! Everything a request may need, in one bag without behaviour of its own.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::ambient::{SharedClock, SharedRng, random_bytes};
use crate::config::Config;
use crate::keys::Keyring;
use crate::limit::Limiter;
use crate::mail::Sender;
use crate::passwords::Hasher;
use crate::protocol::metadata::Metadata;
use crate::protocol::time::Timestamp;
use crate::store::Store;

pub struct App {
    pub config: Config,
    /// What we do, and so what we advertise.
    pub metadata: Metadata,
    pub clock: SharedClock,
    pub rng: SharedRng,
    pub store: Store,
    pub keys: Keyring,
    pub limits: Limiter,
    pub mail: Arc<Sender>,
    pub passwords: Hasher,
    /// Somebody has brought an import.
    pub imports: Notify,
}

impl App {
    /// Opens the store and the keyring, making what an empty database lacks.
    pub async fn open(config: Config, clock: SharedClock, rng: SharedRng) -> anyhow::Result<Self> {
        let store = Store::open(&config.database.url, config.database.acquire_timeout.to_std()).await?;
        let keys = Keyring::open(&store, &config.key_source, &rng, clock.now()).await?;
        let metadata = metadata(&config);
        let limits = Limiter::new(store.clone(), keys.server.limits, config.rate_limits.clone());
        let passwords = Hasher::new(&config.passwords, &random_bytes(rng.as_ref()))?;
        let mail = Arc::new(Sender::new(&config, store.clone(), Arc::clone(&clock), Arc::clone(&rng)));
        Ok(Self { config, metadata, clock, rng, store, keys, limits, mail, passwords, imports: Notify::new() })
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What a configuration makes of us.
pub fn metadata(config: &Config) -> Metadata {
    Metadata {
        issuer: config.issuer.as_str().to_owned(),
        scopes: config.scopes.clone(),
        resources: config.resources.clone(),
        tokens: config.tokens.clone(),
        op_policy_uri: config.brand.privacy_uri.clone(),
        op_tos_uri: config.brand.terms_uri.clone(),
    }
}
