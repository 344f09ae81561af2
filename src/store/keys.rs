//! Signing keys, sealed, and the settings that say which master key seals them.

use std::sync::Arc;

use serde_json::{Map, Value};
use sqlx::any::AnyRow;

use super::db::Conn;
use super::events::{self, Event};
use super::{Result, Store, StoreError, column, from_json, to_json};
use crate::protocol::client::SigningAlg;
use crate::protocol::time::{Span, Timestamp};

/// The setting that tells by its fingerprint which master key everything is sealed under.
pub const MASTER_KEY: &str = "master_key";
/// The setting that holds the sealed server key.
pub const SERVER_KEY: &str = "server_key_1";

/// A signing key as the database keeps it.
#[derive(Clone, Debug)]
pub struct StoredKey {
    pub kid: String,
    pub alg: SigningAlg,
    /// Counts the keys of one algorithm. The unique key on both makes one winner where two processes make a first key.
    pub serial: i64,
    pub public_jwk: Map<String, Value>,
    /// The private key in DER, sealed under the master key; empty once the key is retired.
    pub sealed_private: String,
    pub created_at: Timestamp,
    /// When it signs first; it is published before.
    pub active_from: Timestamp,
    /// Since when it is recognised no more.
    pub retired_at: Option<Timestamp>,
    /// How long the longest-lived token signed with it may live; `None` for keys of an older release.
    pub longest_token: Option<Span>,
}

/// What adding a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Yes,
    /// One with its name, or with its algorithm and serial, is there.
    Known,
    /// Meanwhile everything was sealed under another master key.
    OtherMasterKey,
}

/// Who signs in place of a key that is retired.
pub enum Successor {
    /// Nobody need: it did not sign.
    None,
    /// The key with this name, from now on.
    Promote(String),
    /// A new key, with the fingerprint of the master key that sealed it and the event that tells of it.
    Add(Box<StoredKey>, String, Box<Event>),
}

/// What a sealed value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    ServerKey,
    SigningKey,
}

/// Opens a value sealed under the old master key and seals it under the new one.
pub type Reseal = Arc<dyn Fn(Sealed, &str) -> Option<String> + Send + Sync>;

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
        longest_token: column::<Option<i64>>(row, "longest_token")?.map(Span::from_millis),
    })
}

impl Store {
    /// All keys, oldest first.
    pub async fn signing_keys(&self) -> Result<Vec<StoredKey>> {
        let sql = "SELECT kid, alg, serial, public_jwk, sealed_private, created_at, active_from, retired_at,
                       longest_token
                   FROM signing_keys ORDER BY alg, serial";
        self.db.rows(|| sqlx::query(sql)).await?.iter().map(read).collect()
    }

    /// Adds a key that was sealed under the master key with this fingerprint.
    pub async fn add_signing_key(&self, key: StoredKey, sealed_by: String, event: Event) -> Result<Added> {
        self.change(move |conn| Box::pin(async move { insert(conn, key, &sealed_by, &event).await })).await
    }

    /// Remembers how long tokens of a key may live; that never becomes less.
    pub async fn note_longest_token(&self, kid: String, longest: Span) -> Result<()> {
        let sql = "UPDATE signing_keys SET longest_token = $2
                   WHERE kid = $1 AND (longest_token IS NULL OR longest_token < $2)";
        self.db.execute(move || sqlx::query(sql).bind(kid.clone()).bind(longest.millis())).await?;
        Ok(())
    }

    /// Ends a key for good and forgets its private half. `false` where there is none that lives.
    pub async fn retire_signing_key(
        &self,
        kid: String,
        successor: Successor,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        self.change(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE signing_keys SET retired_at = $2, sealed_private = ''
                     WHERE kid = $1 AND retired_at IS NULL",
                )
                .bind(kid)
                .bind(now.millis())
                .execute(&mut *conn)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                events::insert(conn, &event).await?;
                match successor {
                    Successor::None => Ok(true),
                    Successor::Promote(next) => promote(conn, next, now).await,
                    Successor::Add(key, sealed_by, event) => match insert(conn, *key, &sealed_by, &event).await? {
                        Added::Yes => Ok(true),
                        _ => Err(StoreError::Refused("another process is changing the signing keys; try again")),
                    },
                }
            })
        })
        .await
    }

    /// Seals everything anew, under the master key with the fingerprint `new`. `false` where it was not sealed under
    /// `old`.
    pub async fn reseal(&self, old: String, new: String, reseal: Reseal, event: Event) -> Result<bool> {
        self.change(move |conn| {
            Box::pin(async move {
                // First, so that no key is added under the old one meanwhile.
                let done = sqlx::query("UPDATE settings SET value = $3 WHERE name = $1 AND value = $2")
                    .bind(MASTER_KEY)
                    .bind(old)
                    .bind(new)
                    .execute(&mut *conn)
                    .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                reseal_all(conn, &reseal).await?;
                events::insert(conn, &event).await?;
                Ok(true)
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
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.db.execute(move || sqlx::query(sql).bind(name).bind(value.clone())).await?;
        let settled = self.setting(name).await?;
        settled.ok_or_else(|| StoreError::Corrupt { what: "setting", why: format!("{name} vanished") })
    }
}

async fn insert(conn: &mut Conn, key: StoredKey, sealed_by: &str, event: &Event) -> Result<Added> {
    // Locks the setting until the transaction ends: a change of the master key waits, or we see that it is done.
    let held = sqlx::query("UPDATE settings SET value = value WHERE name = $1 AND value = $2")
        .bind(MASTER_KEY)
        .bind(sealed_by)
        .execute(&mut *conn)
        .await?;
    if held.rows_affected() == 0 {
        return Ok(Added::OtherMasterKey);
    }
    let done = sqlx::query(
        "INSERT INTO signing_keys (kid, alg, serial, public_jwk, sealed_private, created_at, active_from,
             longest_token)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(key.kid)
    .bind(key.alg.as_str())
    .bind(key.serial)
    .bind(to_json("signing key", &key.public_jwk)?)
    .bind(key.sealed_private)
    .bind(key.created_at.millis())
    .bind(key.active_from.millis())
    .bind(key.longest_token.map(Span::millis))
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(Added::Known);
    }
    events::insert(conn, event).await?;
    Ok(Added::Yes)
}

async fn promote(conn: &mut Conn, kid: String, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("UPDATE signing_keys SET active_from = $2 WHERE kid = $1 AND retired_at IS NULL")
        .bind(kid)
        .bind(now.millis())
        .execute(conn)
        .await?;
    if done.rows_affected() == 0 {
        return Err(StoreError::Refused("the key that was to take over was retired meanwhile; try again"));
    }
    Ok(true)
}

async fn reseal_all(conn: &mut Conn, reseal: &Reseal) -> Result<()> {
    let unsealable = |what| StoreError::Corrupt { what, why: "it is not sealed under the master key".to_owned() };
    let row = sqlx::query("SELECT value FROM settings WHERE name = $1").bind(SERVER_KEY).fetch_one(&mut *conn).await?;
    let sealed: String = column(&row, "value")?;
    let fresh = reseal(Sealed::ServerKey, &sealed).ok_or_else(|| unsealable("server key"))?;
    sqlx::query("UPDATE settings SET value = $2 WHERE name = $1")
        .bind(SERVER_KEY)
        .bind(fresh)
        .execute(&mut *conn)
        .await?;
    let rows = sqlx::query("SELECT kid, sealed_private FROM signing_keys WHERE sealed_private <> ''")
        .fetch_all(&mut *conn)
        .await?;
    for row in rows {
        let (kid, sealed): (String, String) = (column(&row, "kid")?, column(&row, "sealed_private")?);
        let fresh = reseal(Sealed::SigningKey, &sealed).ok_or_else(|| unsealable("signing key"))?;
        sqlx::query("UPDATE signing_keys SET sealed_private = $2 WHERE kid = $1")
            .bind(kid)
            .bind(fresh)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
