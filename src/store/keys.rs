//! Signing keys, sealed, and the settings that say which master key seals them.

use serde_json::{Map, Value};
use sqlx::any::AnyRow;

use super::db::Statements;
use super::{Result, Store, StoreError, column, from_json, to_json};
use crate::protocol::client::SigningAlg;
use crate::protocol::time::Timestamp;

/// A signing key as the database keeps it.
#[derive(Clone, Debug)]
pub struct StoredKey {
    pub kid: String,
    pub alg: SigningAlg,
    /// Counts the keys of one algorithm. The unique key on both makes one winner where two processes make a first key.
    pub serial: i64,
    pub public_jwk: Map<String, Value>,
    /// The private key in DER, sealed under the master key.
    pub sealed_private: String,
    pub created_at: Timestamp,
    pub active_from: Timestamp,
    pub retired_at: Option<Timestamp>,
}

fn read(row: &AnyRow) -> Result<StoredKey> {
    let alg: String = column(row, "alg")?;
    let retired_at: Option<i64> = column(row, "retired_at")?;
    Ok(StoredKey {
        kid: column(row, "kid")?,
        alg: alg.parse().map_err(|()| StoreError::Corrupt { what: "signing key", why: format!("algorithm {alg}") })?,
        serial: column(row, "serial")?,
        public_jwk: from_json("signing key", column(row, "public_jwk")?)?,
        sealed_private: column(row, "sealed_private")?,
        created_at: Timestamp(column(row, "created_at")?),
        active_from: Timestamp(column(row, "active_from")?),
        retired_at: retired_at.map(Timestamp),
    })
}

impl Store {
    /// All keys, oldest first.
    pub async fn signing_keys(&self) -> Result<Vec<StoredKey>> {
        let sql = "SELECT kid, alg, serial, public_jwk, sealed_private, created_at, active_from, retired_at
                   FROM signing_keys ORDER BY alg, serial";
        self.db.rows(|| sqlx::query(sql)).await?.iter().map(read).collect()
    }

    /// Adds a key unless one with its algorithm and serial exists; whether it was added.
    pub async fn add_signing_key(&self, key: StoredKey) -> Result<bool> {
        self.change(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "INSERT INTO signing_keys (kid, alg, serial, public_jwk, sealed_private, created_at, active_from)
                     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                )
                .bind(key.kid)
                .bind(key.alg.as_str())
                .bind(key.serial)
                .bind(to_json("signing key", &key.public_jwk)?)
                .bind(key.sealed_private)
                .bind(key.created_at.millis())
                .bind(key.active_from.millis())
                .execute(conn)
                .await?;
                Ok(done.rows_affected() > 0)
            })
        })
        .await
    }

    pub async fn setting(&self, name: &'static str) -> Result<Option<String>> {
        let row = self.db.row(|| sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name)).await?;
        row.as_ref().map(|row| column(row, "value")).transpose()
    }

    /// Sets `name` unless it is set, and returns what it is now: of several processes one wins and all agree.
    pub async fn settle_setting(&self, name: &'static str, value: String) -> Result<String> {
        self.db
            .write(Statements::One, move |conn| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                        .bind(name)
                        .bind(value)
                        .execute(conn)
                        .await?;
                    Ok(())
                })
            })
            .await?;
        let settled = self.setting(name).await?;
        settled.ok_or_else(|| StoreError::Corrupt { what: "setting", why: format!("{name} vanished") })
    }
}
