//! People's passwords: only their hashes, and never two of a person under one time.

use crate::crypto::secret::Secret;
use crate::protocol::ids::UserId;
use crate::protocol::time::Timestamp;
use crate::store::db::Conn;
use crate::store::events::{self, Event};
use crate::store::{Result, Store};

use super::hold;

/// A password as it is kept.
#[derive(Clone, Debug)]
pub struct StoredPassword {
    /// A PHC string, or as the system spelled it that the person comes from.
    pub hash: Secret<String>,
    /// What names it: the same password may get a new hash, and keeps this.
    pub set_at: Timestamp,
}

impl Store {
    /// Sets the password and ends all that the old one opened: sessions and grants. `false` where there is no such
    /// person.
    pub async fn set_password(&self, id: UserId, hash: Secret<String>, event: Event, now: Timestamp) -> Result<bool> {
        self.change(move |conn| {
            Box::pin(async move {
                if !touch(conn, &id, now).await? {
                    return Ok(false);
                }
                store_hash(conn, &id, &hash, now).await?;
                crate::store::sessions::end_all_of_user(conn, &id).await?;
                crate::store::grants::revoke_all_of_user(conn, &id, "password_changed", now).await?;
                events::insert(conn, &event).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Replaces the hash of an unchanged password by one of today's cost.
    pub async fn upgrade_password_hash(&self, id: UserId, old: Secret<String>, new: Secret<String>) -> Result<()> {
        // Only where the old hash still stands: a password that was changed meanwhile stays changed.
        let sql = "UPDATE passwords SET hash = $3 WHERE user_id = $1 AND hash = $2";
        let statement = move || {
            let statement = sqlx::query(sql).bind(id.as_str().to_owned());
            statement.bind(old.expose().clone()).bind(new.expose().clone())
        };
        self.db.execute(statement).await?;
        Ok(())
    }
}

/// Locks a person and their password until the transaction ends; `false` where the person is disabled or the
/// password is another by now.
pub(in crate::store) async fn hold_password(conn: &mut Conn, id: &UserId, set_at: Timestamp) -> Result<bool> {
    if !hold(conn, id).await? {
        return Ok(false);
    }
    let unchanged = sqlx::query("UPDATE passwords SET hash = hash WHERE user_id = $1 AND updated_at = $2")
        .bind(id.as_str())
        .bind(set_at.millis())
        .execute(conn)
        .await?;
    Ok(unchanged.rows_affected() > 0)
}

async fn touch(conn: &mut Conn, id: &UserId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("UPDATE users SET updated_at = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(now.millis())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// No two passwords of a person are set at the same time, whatever the clock says: it tells the one from the other.
pub(super) async fn store_hash(conn: &mut Conn, id: &UserId, hash: &Secret<String>, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO passwords (user_id, hash, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, updated_at = CASE
             WHEN excluded.updated_at > passwords.updated_at THEN excluded.updated_at
             ELSE passwords.updated_at + 1 END",
    )
    .bind(id.as_str())
    .bind(hash.expose())
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}
