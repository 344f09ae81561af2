//! What changes the signing keys: the work that is due, and an operator's orders. Each change is one conditional
//! transaction, so that processes which do the same at once come to one result.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::life::{self, ALWAYS, PUBLISHED_AHEAD, Policy, Step};
use super::master::{self, Master};
use super::{KeyError, Keyring};
use crate::config::KeySource;
use crate::crypto::jws::{self, KeyPair};
use crate::protocol::client::SigningAlg;
use crate::protocol::time::Timestamp;
use crate::store::events::{Author, Event, EventKind};
use crate::store::keys::{Added, Reseal, Sealed, StoredKey, Successor};
use crate::store::{Store, StoreError};

/// What became of the order to replace a key.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// This key was made.
    Made(StoredKey),
    /// This one waits already.
    Waits(StoredKey),
}

/// What a retirement did.
#[derive(Clone, Debug)]
pub struct Retirement {
    pub retired: StoredKey,
    /// Whether it signed until now.
    pub was_active: bool,
    /// The key that signs in its place.
    pub successor: Option<String>,
}

/// What a new master key brought with it.
#[derive(Clone, Debug)]
pub struct Rekeyed {
    /// Where the new key must be and, except for somebody else's file, is.
    pub path: PathBuf,
    /// Where the old key was kept, which older backups need.
    pub old: Option<PathBuf>,
}

impl Keyring {
    /// A first key of each algorithm that always has one. Two processes may make one each; the database keeps one.
    pub(super) async fn make_first_keys(&self, store: &Store, author: &Author, now: Timestamp) -> Result<(), KeyError> {
        for alg in ALWAYS {
            let known = store.signing_keys().await?;
            if life::active(&known, alg, now).is_none() {
                self.make(store, alg, &known, now, author, now).await?;
            }
        }
        Ok(())
    }

    /// Does what is due; how many steps that were.
    pub async fn maintain(
        &self,
        store: &Store,
        policy: &Policy,
        author: &Author,
        now: Timestamp,
    ) -> Result<usize, KeyError> {
        let keys = store.signing_keys().await?;
        let steps = life::due(&keys, policy, now);
        for step in &steps {
            match step {
                Step::Make { alg, active_from } => {
                    if let Some(made) = self.make(store, *alg, &keys, *active_from, author, now).await? {
                        tracing::info!(kid = made.kid, alg = alg.as_str(), "a signing key was made");
                    }
                }
                Step::NoteLongest { kid, longest } => store.note_longest_token(kid.clone(), *longest).await?,
                Step::Retire { kid } => {
                    let event = retired(author, kid, now);
                    if store.retire_signing_key(kid.clone(), Successor::None, event, now).await? {
                        tracing::info!(kid, "a replaced signing key was retired: its last token has expired");
                    }
                }
            }
        }
        if !steps.is_empty() {
            self.reload(store).await?;
        }
        Ok(steps.len())
    }

    /// Makes the successor of an algorithm's key; at once, or once every copy of `/jwks` has it.
    pub async fn rotate(
        &self,
        store: &Store,
        alg: SigningAlg,
        at_once: bool,
        author: &Author,
        now: Timestamp,
    ) -> Result<Prepared, KeyError> {
        let keys = store.signing_keys().await?;
        if let Some(waits) = life::next(&keys, alg, now).filter(|_| !at_once) {
            return Ok(Prepared::Waits(waits.clone()));
        }
        let is_first = life::active(&keys, alg, now).is_none();
        let active_from = if at_once || is_first { now } else { now + PUBLISHED_AHEAD };
        let made = self.make(store, alg, &keys, active_from, author, now).await?.ok_or(KeyError::Overtaken)?;
        self.reload(store).await?;
        Ok(Prepared::Made(made))
    }

    /// Takes a key from elsewhere into use, as [`Keyring::rotate`] does with a fresh one.
    pub async fn import(
        &self,
        store: &Store,
        pair: KeyPair,
        at_once: bool,
        author: &Author,
        now: Timestamp,
    ) -> Result<StoredKey, KeyError> {
        let keys = store.signing_keys().await?;
        if keys.iter().any(|key| key.kid == pair.kid) {
            return Err(KeyError::KnownKid(pair.kid));
        }
        // Under another name as well: whoever retires a stolen key must not find it signing on.
        if let Some(known) = keys.iter().find(|key| is_same_key(&key.public_jwk, &pair.public_jwk)) {
            return Err(KeyError::KnownKey(known.kid.clone()));
        }
        let is_first = life::active(&keys, pair.alg, now).is_none();
        let active_from = if at_once || is_first { now } else { now + PUBLISHED_AHEAD };
        let event = author.event(EventKind::SigningKeyImported, now);
        let added = self.add(store, pair, &keys, active_from, event).await?.ok_or(KeyError::Overtaken)?;
        self.reload(store).await?;
        Ok(added)
    }

    /// Ends a key at once, whatever it breaks. If it signs, the one that waits takes over, or a fresh one where the
    /// algorithm is wanted.
    pub async fn retire(
        &self,
        store: &Store,
        kid: &str,
        policy: &Policy,
        author: &Author,
        now: Timestamp,
    ) -> Result<Retirement, KeyError> {
        let keys = store.signing_keys().await?;
        let unknown = || KeyError::UnknownKid(kid.to_owned());
        let key = keys.iter().find(|key| key.kid == kid).ok_or_else(unknown)?.clone();
        let was_active = life::active(&keys, key.alg, now).is_some_and(|active| active.kid == kid);
        let (successor, in_its_place) = match life::next(&keys, key.alg, now) {
            _ if !was_active => (Successor::None, None),
            Some(next) => (Successor::Promote(next.kid.clone()), Some(next.kid.clone())),
            None if !policy.wanted.contains(&key.alg) => (Successor::None, None),
            None => {
                let pair = generate(key.alg).await?;
                let (new, sealed_by) = self.sealed(pair, &keys, now, now)?;
                let event = made(author.event(EventKind::SigningKeyRotated, now), &new, &keys);
                let new_kid = new.kid.clone();
                (Successor::Add(Box::new(new), sealed_by, Box::new(event)), Some(new_kid))
            }
        };
        let event = retired(author, kid, now).with("successor", in_its_place.as_deref());
        if !store.retire_signing_key(kid.to_owned(), successor, event, now).await? {
            return Err(KeyError::AlreadyRetired(kid.to_owned()));
        }
        self.reload(store).await?;
        Ok(Retirement { retired: key, was_active, successor: in_its_place })
    }

    /// Seals everything under a new master key: a fresh one, or that of a file. Refresh tokens, sessions and signing
    /// keys stay what they are.
    pub async fn rekey(
        &self,
        store: &Store,
        new: Option<PathBuf>,
        author: &Author,
        now: Timestamp,
    ) -> Result<Rekeyed, KeyError> {
        let old = Master::matching(&self.source, &self.sealing().fingerprint)?;
        let new = match (new, &self.source) {
            (Some(path), _) => Master::read(path, true)?,
            (None, KeySource::Dir(_)) => Master::random(old.path.clone(), author.rng()),
            (None, KeySource::File(_)) => return Err(KeyError::NoNewKey),
        };
        if new.fingerprint() == old.fingerprint() {
            return Err(KeyError::SameKey);
        }
        let io = |error: std::io::Error| KeyError::MasterKey { path: old.path.clone(), problem: error.to_string() };
        // First on disk, then in the database: whenever this is interrupted, one of the files opens it.
        if let KeySource::Dir(dir) = &self.source {
            new.put_aside(dir).map_err(io)?;
        }
        let event = author.event(EventKind::MasterKeyChanged, now);
        let event = event.with("from", master::id(&old.fingerprint())).with("to", master::id(&new.fingerprint()));
        if !store.reseal(old.fingerprint(), new.fingerprint(), resealing(&old, &new), event).await? {
            return Err(KeyError::Overtaken);
        }
        let kept = match &self.source {
            KeySource::Dir(dir) => {
                new.put_in_place(dir).map_err(io)?;
                Some(master::aside(dir, &old.fingerprint()))
            }
            KeySource::File(_) => None,
        };
        // Nothing was changed but the seals; a file of somebody else's is not in its place yet.
        if kept.is_some() {
            self.reload(store).await?;
        }
        Ok(Rekeyed { path: old.path, old: kept })
    }

    /// Makes and stores a key; `None` where another process stored one first.
    async fn make(
        &self,
        store: &Store,
        alg: SigningAlg,
        known: &[StoredKey],
        active_from: Timestamp,
        author: &Author,
        now: Timestamp,
    ) -> Result<Option<StoredKey>, KeyError> {
        let pair = generate(alg).await?;
        let is_first = !known.iter().any(|key| key.alg == alg && key.retired_at.is_none());
        let kind = if is_first { EventKind::SigningKeyCreated } else { EventKind::SigningKeyRotated };
        self.add(store, pair, known, active_from, author.event(kind, now)).await
    }

    async fn add(
        &self,
        store: &Store,
        pair: KeyPair,
        known: &[StoredKey],
        active_from: Timestamp,
        event: Event,
    ) -> Result<Option<StoredKey>, KeyError> {
        let (key, sealed_by) = self.sealed(pair, known, active_from, event.at)?;
        let event = made(event, &key, known);
        match store.add_signing_key(key.clone(), sealed_by, event).await? {
            Added::Yes => Ok(Some(key)),
            Added::Known => Ok(None),
            Added::OtherMasterKey => Err(KeyError::Overtaken),
        }
    }

    /// The key as the store keeps it, and the fingerprint of the master key that sealed it.
    fn sealed(
        &self,
        pair: KeyPair,
        known: &[StoredKey],
        active_from: Timestamp,
        now: Timestamp,
    ) -> Result<(StoredKey, String), KeyError> {
        let sealing = self.sealing();
        let sealed_private = sealing.signing.seal(pair.private_der.expose()).map_err(jws::CryptoError::from)?;
        let last = known.iter().filter(|key| key.alg == pair.alg).map(|key| key.serial).max().unwrap_or(0);
        let key = StoredKey {
            kid: pair.kid,
            alg: pair.alg,
            serial: last + 1,
            public_jwk: pair.public_jwk,
            sealed_private,
            created_at: now,
            active_from,
            retired_at: None,
            longest_token: None,
        };
        Ok((key, sealing.fingerprint.clone()))
    }
}

/// Whether two JWKs are one key, by the members that RFC 7638 §3.2 takes for its thumbprint.
fn is_same_key(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    ["kty", "crv", "x", "y", "n", "e"].iter().all(|member| one.get(*member) == other.get(*member))
}

fn retired(author: &Author, kid: &str, now: Timestamp) -> Event {
    author.event(EventKind::SigningKeyRetired, now).with("kid", kid)
}

/// What is told of a key that comes into use, and of the one that it follows.
fn made(event: Event, key: &StoredKey, known: &[StoredKey]) -> Event {
    let before = life::active(known, key.alg, event.at).map(|before| before.kid.clone());
    let event = event.with("kid", key.kid.as_str()).with("alg", key.alg.as_str());
    event.with("active_from", key.active_from.rfc3339()).with("predecessor", before)
}

fn resealing(old: &Master, new: &Master) -> Reseal {
    let ((old_server, old_signing), (new_server, new_signing)) = (old.seals(), new.seals());
    Arc::new(move |what: Sealed, sealed: &str| {
        let (from, to) = match what {
            Sealed::ServerKey => (&old_server, &new_server),
            Sealed::SigningKey => (&old_signing, &new_signing),
        };
        to.seal(&zeroize::Zeroizing::new(from.open(sealed).ok()?)).ok()
    })
}

/// Off the threads that serve: an RSA key takes its time.
async fn generate(alg: SigningAlg) -> Result<KeyPair, KeyError> {
    let made = tokio::task::spawn_blocking(move || jws::generate(alg)).await;
    Ok(made.map_err(|_| KeyError::Store(StoreError::WriterStopped))??)
}
