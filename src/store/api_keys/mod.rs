//! API keys: what proves them and whose they are. How they are read is `read.rs`, when they were last used
//! `../key_uses.rs`.

mod read;

pub use read::ListedApiKey;

use super::db::Conn;
use super::events::{self, Event};
use super::{Result, Store, column, grants, onboardings, sessions, to_json, users};
use crate::protocol::api_key::{ApiKeyRecord, Kind, MAX_KEYS, MAX_LIVE_KEYS, Owner};
use crate::protocol::ids::ApiKeyId;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;

/// A key with what proves it, and its person.
pub struct StoredApiKey {
    pub record: ApiKeyRecord,
    /// `None` for a partner's own.
    pub user: Option<User>,
    pub mac: Vec<u8>,
    /// Which pepper the code was made with.
    pub pepper: i64,
}

impl StoredApiKey {
    pub fn kind(&self) -> Kind {
        match self.record.owner {
            Owner::User(_) => Kind::User,
            Owner::Partner(_) => Kind::Partner,
        }
    }
}

/// A key to write.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub record: ApiKeyRecord,
    pub mac: [u8; 32],
    pub pepper: i64,
}

/// What making a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCreation {
    Created,
    /// The owner was disabled or deleted meanwhile.
    NoOwner,
    /// The owner has as many as may be.
    TooMany,
}

/// What replacing a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRotation {
    Rotated,
    /// It does not count any more, or is not there.
    NotLive,
    /// Another key has taken its place already.
    Replaced,
}

impl Store {
    /// Writes a new key, unless its owner is gone or has too many.
    pub async fn create_api_key(&self, new: NewApiKey, event: Event, now: Timestamp) -> Result<KeyCreation> {
        let created = self.db.write(move |conn| {
            Box::pin(async move {
                if !hold_owner(conn, &new.record.owner).await? {
                    return Ok(KeyCreation::NoOwner);
                }
                let (live, all) = count_keys(conn, &new.record.owner, now).await?;
                if live >= MAX_LIVE_KEYS || all >= MAX_KEYS {
                    return Ok(KeyCreation::TooMany);
                }
                insert(conn, &new).await?;
                if let Owner::User(id) = &new.record.owner {
                    onboardings::key_issued(conn, id, now).await?;
                }
                events::insert(conn, &event).await?;
                Ok(KeyCreation::Created)
            })
        });
        created.await
    }

    /// Puts a key in the place of another, which goes on until `until` at most. Whatever the old one itself replaced
    /// ends now, so that two of a line count at most; the event learns what ended.
    pub async fn rotate_api_key(
        &self,
        old: ApiKeyId,
        new: NewApiKey,
        until: Timestamp,
        event: Event,
        now: Timestamp,
    ) -> Result<KeyRotation> {
        let rotated = |outcome: &KeyRotation| *outcome == KeyRotation::Rotated;
        let rotate = self.change_if(rotated, move |conn| {
            Box::pin(async move {
                let (outcome, ended) = rotate(conn, &old, &new, until, now).await?;
                if outcome == KeyRotation::Rotated {
                    events::insert(conn, &event.with("ended", ended)).await?;
                }
                Ok(outcome)
            })
        });
        rotate.await
    }

    /// Ends a key with all that was made from it. `false` where it had ended by hand before, or is not there.
    pub async fn revoke_api_key(
        &self,
        kid: ApiKeyId,
        reason: &'static str,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        let revoke = self.change_if(
            |ended| *ended,
            move |conn| {
                Box::pin(async move {
                    let ended = revoke(conn, &kid, reason, now).await?;
                    if ended {
                        events::insert(conn, &event).await?;
                    }
                    Ok(ended)
                })
            },
        );
        revoke.await
    }
}

/// Locks the owner until the transaction ends; `false` where they are disabled or gone.
async fn hold_owner(conn: &mut Conn, owner: &Owner) -> Result<bool> {
    match owner {
        Owner::User(id) => users::hold(conn, id).await,
        Owner::Partner(id) => {
            let done = sqlx::query("UPDATE clients SET id = id WHERE id = $1 AND disabled_at IS NULL")
                .bind(id.as_str())
                .execute(conn)
                .await?;
            Ok(done.rows_affected() > 0)
        }
    }
}

/// How many keys of an owner count, and how many there are.
async fn count_keys(conn: &mut Conn, owner: &Owner, now: Timestamp) -> Result<(i64, i64)> {
    macro_rules! counts {
        ($owner:literal) => {
            concat!(
                "SELECT COUNT(CASE WHEN revoked_at IS NULL AND expires_at > $2 THEN 1 END) AS live, COUNT(*) AS n
                 FROM api_keys WHERE ",
                $owner,
                " = $1"
            )
        };
    }
    let (sql, id) = match owner {
        Owner::User(id) => (counts!("user_id"), id.as_str()),
        Owner::Partner(id) => (counts!("client_id"), id.as_str()),
    };
    let row = sqlx::query(sql).bind(id).bind(now.millis()).fetch_one(conn).await?;
    Ok((column(&row, "live")?, column(&row, "n")?))
}

/// Locks a key that counts until the transaction ends; `false` where it does not.
pub(super) async fn hold(conn: &mut Conn, kid: &ApiKeyId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("UPDATE api_keys SET kid = kid WHERE kid = $1 AND revoked_at IS NULL AND expires_at > $2")
        .bind(kid.as_str())
        .bind(now.millis())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn insert(conn: &mut Conn, new: &NewApiKey) -> Result<()> {
    let key = &new.record;
    let (kind, user, client) = match &key.owner {
        Owner::User(id) => (Kind::User, Some(id.as_str()), None),
        Owner::Partner(id) => (Kind::Partner, None, Some(id.as_str())),
    };
    sqlx::query(
        "INSERT INTO api_keys (kid, kind, user_id, client_id, name, scopes, audiences, allowed_cidrs, exchange_only,
             mac, pepper, predecessor, created_at, lifetime, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(key.kid.as_str())
    .bind(kind.as_str())
    .bind(user)
    .bind(client)
    .bind(key.name.as_str())
    .bind(to_json("API key", &key.scopes)?)
    .bind(to_json("API key", &key.audiences)?)
    .bind(to_json("API key", &key.allowed_cidrs)?)
    .bind(i64::from(key.exchange_only))
    .bind(new.mac.to_vec())
    .bind(new.pepper)
    .bind(key.predecessor.as_ref().map(ApiKeyId::as_str))
    .bind(key.created_at.millis())
    .bind(key.lifetime.millis())
    .bind(key.expires_at.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// What came of it, and the keys that ended with it.
async fn rotate(
    conn: &mut Conn,
    old: &ApiKeyId,
    new: &NewApiKey,
    until: Timestamp,
    now: Timestamp,
) -> Result<(KeyRotation, Vec<String>)> {
    let mut ended = Vec::new();
    if !hold_owner(conn, &new.record.owner).await? || !hold(conn, old, now).await? {
        return Ok((KeyRotation::NotLive, ended));
    }
    let successor = sqlx::query(
        "SELECT kid FROM api_keys WHERE predecessor = $1 AND revoked_at IS NULL AND expires_at > $2 LIMIT 1",
    );
    if successor.bind(old.as_str()).bind(now.millis()).fetch_optional(&mut *conn).await?.is_some() {
        return Ok((KeyRotation::Replaced, ended));
    }
    let row = sqlx::query("SELECT predecessor FROM api_keys WHERE kid = $1").bind(old.as_str());
    let row = row.fetch_one(&mut *conn).await?;
    if let Some(older) = column::<Option<String>>(&row, "predecessor")?
        && revoke(conn, &ApiKeyId::new(older.as_str()), "replaced", now).await?
    {
        ended.push(older);
    }
    if until <= now {
        revoke(conn, old, "replaced", now).await?;
        ended.push(old.as_str().to_owned());
    } else {
        sqlx::query("UPDATE api_keys SET expires_at = $2 WHERE kid = $1 AND expires_at > $2")
            .bind(old.as_str())
            .bind(until.millis())
            .execute(&mut *conn)
            .await?;
        sessions::shorten_all_of_key(conn, old, until).await?;
    }
    insert(conn, new).await?;
    Ok((KeyRotation::Rotated, ended))
}

async fn revoke(conn: &mut Conn, kid: &ApiKeyId, reason: &'static str, now: Timestamp) -> Result<bool> {
    // The person first, as everything does that locks more than one row.
    sqlx::query("UPDATE users SET realm = realm WHERE id = (SELECT user_id FROM api_keys WHERE kid = $1)")
        .bind(kid.as_str())
        .execute(&mut *conn)
        .await?;
    let done =
        sqlx::query("UPDATE api_keys SET revoked_at = $2, revoked_reason = $3 WHERE kid = $1 AND revoked_at IS NULL")
            .bind(kid.as_str())
            .bind(now.millis())
            .bind(reason)
            .execute(&mut *conn)
            .await?;
    sessions::end_all_of_key(conn, kid).await?;
    grants::revoke_all_of_key(conn, kid, now).await?;
    Ok(done.rows_affected() > 0)
}
