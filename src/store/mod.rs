//! What Keyward remembers, as verbs: each file holds those of one aggregate as methods of [`Store`], each verb is
//! one statement or one transaction, and the same SQL text serves SQLite and PostgreSQL. `db.rs` alone knows the
//! drivers. Nothing here decides a rule of the protocol.

pub mod api_keys;
pub mod backup;
pub mod changes;
pub mod clients;
pub mod consents;
mod db;
pub mod events;
pub mod first_party;
mod gather;
pub mod grants;
pub mod idempotency;
pub mod imports;
mod key_uses;
pub mod keys;
pub mod limits;
pub mod links;
pub mod onboardings;
pub mod outbox;
pub mod partners;
pub mod purge;
mod remembered;
pub mod sessions;
pub mod standing;
pub mod tickets;
pub mod users;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{ColumnIndex, Decode, Row as _, Type};
use tokio::sync::Notify;

use api_keys::StoredApiKey;
use changes::Freshness;
use clients::ClientRecord;
use db::Db;
pub use db::sqlite_file;
use gather::{Done, Gather};
use grants::{Creation, Redemption, RotatingGrant, Rotation, StoredGrant};
use key_uses::PendingUses;
use remembered::Remembered;
use sessions::{Visit, Visited};
use standing::Standings;

use crate::protocol::ids::{ApiKeyId, ClientId, GrantId};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is full or read-only, or broke off. Nothing was acknowledged; where it broke
    /// off during the commit, the change may have been made all the same.
    #[error("the database is unavailable: {0}")]
    Unavailable(sqlx::Error),
    /// The same, for a write that shared its transaction or its statement with the one that failed.
    #[error("the database is unavailable: {0}")]
    RolledBack(String),
    /// A unique or foreign key stood in the way.
    #[error("the database refused the change: {0}")]
    Conflict(sqlx::Error),
    /// A verb took its own change back; each says what that means.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The writer went away in the middle.
    #[error("the database writer stopped")]
    WriterStopped,
    /// A row holds what we never wrote.
    #[error("a stored {what} cannot be read: {why}")]
    Corrupt { what: &'static str, why: String },
    /// The database cannot be used as it is; says what to do.
    #[error("{0}")]
    Unusable(String),
}

pub type Result<T> = std::result::Result<T, StoreError>;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() || inner.is_foreign_key_violation() => {
                Self::Conflict(error)
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                Self::Corrupt { what: "column", why: error.to_string() }
            }
            _ => Self::Unavailable(error),
        }
    }
}

/// The connections for reads; on PostgreSQL those for writes as well.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub in_use: usize,
    pub idle: usize,
    pub most: usize,
}

/// The store. Cheap to clone; all clones share one database.
#[derive(Clone)]
pub struct Store {
    db: Db,
    caches: Arc<Caches>,
    freshness: Arc<Freshness>,
    standings: Arc<Standings>,
    key_uses: Arc<PendingUses>,
    gathers: Arc<Gathers>,
    /// Rings when a mail was queued here.
    mail_bell: Arc<Notify>,
}

/// What many ask for at once.
struct Gathers {
    api_keys: Arc<Gather<ApiKeyId, Arc<StoredApiKey>>>,
    grants: Arc<Gather<GrantId, StoredGrant>>,
    creations: Arc<Gather<Creation, Done>>,
    redemptions: Arc<Gather<Redemption, Done>>,
    rotations: Arc<Gather<Rotation, Done>>,
    visits: Arc<Gather<Visit, Visited>>,
}

impl Default for Gathers {
    fn default() -> Self {
        Self {
            api_keys: Gather::of_reads(),
            grants: Gather::of_reads(),
            creations: Gather::of_writes(),
            redemptions: Gather::of_writes(),
            rotations: Gather::of_writes(),
            visits: Gather::of_reads(),
        }
    }
}

/// What counts until somebody changes something. Each is used only while changes can be read.
struct Caches {
    clients: Remembered<ClientId, ClientRecord>,
    /// The origins of all enabled clients.
    origins: Remembered<(), HashSet<String>>,
    api_keys: Remembered<ApiKeyId, StoredApiKey>,
    /// Only a conditional change may follow from one.
    rotating: Remembered<GrantId, RotatingGrant>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            clients: Remembered::new(10_000),
            origins: Remembered::new(1),
            api_keys: Remembered::new(20_000),
            rotating: Remembered::new(5_000),
        }
    }
}

impl Caches {
    fn clear(&self) {
        self.clients.clear();
        self.origins.clear();
        self.api_keys.clear();
        self.rotating.clear();
    }
}

impl Store {
    /// Opens the database and brings its tables up to date. Whoever needs a connection waits for it with `patience`.
    pub async fn open(database_url: &str, patience: Duration) -> Result<Self> {
        let db = Db::open(database_url, patience).await?;
        db.migrate().await?;
        let store = Self {
            db,
            caches: Arc::default(),
            freshness: Arc::default(),
            standings: Arc::default(),
            key_uses: Arc::default(),
            gathers: Arc::default(),
            mail_bell: Arc::default(),
        };
        store.poll_changes().await?;
        Ok(store)
    }

    /// Whether the tables are as this release needs them; those of a newer release are as well.
    pub async fn is_migrated(&self) -> Result<bool> {
        let (found, needed) = self.db.migrated().await?;
        Ok(found >= Some(needed))
    }

    pub fn pool(&self) -> Pool {
        self.db.pool()
    }

    /// Ends all connections once the writes that were accepted are done.
    pub async fn close(&self) {
        if let Err(error) = self.flush_key_uses().await {
            tracing::warn!(%error, "when API keys were last used is not written");
        }
        self.db.close().await;
    }
}

/// A column's value; a wrong type is a corrupt row.
fn column<'r, T>(row: &'r AnyRow, name: &str) -> Result<T>
where
    T: Decode<'r, sqlx::Any> + Type<sqlx::Any>,
    for<'n> &'n str: ColumnIndex<AnyRow>,
{
    Ok(row.try_get(name)?)
}

fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { what, why: error.to_string() })
}

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt { what, why: error.to_string() })
}

/// `count` rows of `width` parameters each behind the first `shared` ones, which every row begins with.
fn rows(shared: usize, width: usize, count: usize) -> String {
    let shared_names: Vec<String> = (1..=shared).map(|at| format!("${at}")).collect();
    let row = |nth: usize| {
        let own = (1..=width).map(|at| format!("${}", shared + nth * width + at));
        format!("({})", shared_names.iter().cloned().chain(own).collect::<Vec<_>>().join(", "))
    };
    (0..count).map(row).collect::<Vec<_>>().join(", ")
}
