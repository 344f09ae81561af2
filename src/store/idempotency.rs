//! Answers that a partner's backend may ask for again: written with the change that they tell of, so that whoever
//! lost the answer finds either both or neither.

use super::db::Conn;
use super::{Result, Store, StoreError, column};
use crate::protocol::ids::ClientId;
use crate::protocol::time::Timestamp;

/// An answer to remember. Nothing here reveals the `Idempotency-Key` or what is sealed under it.
#[derive(Clone, Debug)]
pub struct NewAnswer {
    pub partner: ClientId,
    /// Of the key.
    pub key_hash: [u8; 32],
    /// Of what was asked.
    pub request_hash: [u8; 32],
    pub sealed: String,
    pub expires_at: Timestamp,
}

/// An answer that was given.
pub struct StoredAnswer {
    pub request_hash: Vec<u8>,
    pub sealed: String,
}

impl Store {
    /// The answer that was given for a key, if it can still be asked for.
    pub async fn answer(&self, partner: &ClientId, key_hash: [u8; 32], now: Timestamp) -> Result<Option<StoredAnswer>> {
        // A difference, so that the index by expiry does not offer itself: it has all the rows that are alive.
        let sql = "SELECT request_hash, sealed FROM idempotency
                   WHERE partner_id = $1 AND key_hash = $2 AND expires_at - $3 > 0";
        let statement =
            || sqlx::query(sql).bind(partner.as_str().to_owned()).bind(key_hash.to_vec()).bind(now.millis());
        let Some(row) = self.db.row(statement).await? else { return Ok(None) };
        Ok(Some(StoredAnswer { request_hash: column(&row, "request_hash")?, sealed: column(&row, "sealed")? }))
    }
}

/// What a write was taken back for: its key has an answer.
pub(super) const ANSWERED: &str = "answered before";

/// Remembers an answer. Of two requests with one key the second waits here for the first.
///
/// # Errors
/// `Refused` with [`ANSWERED`] where the key has an answer already.
pub(super) async fn remember(conn: &mut Conn, answer: &NewAnswer, now: Timestamp) -> Result<()> {
    let done = sqlx::query(
        "INSERT INTO idempotency (partner_id, key_hash, request_hash, sealed, expires_at)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (partner_id, key_hash) DO UPDATE SET request_hash = excluded.request_hash,
             sealed = excluded.sealed, expires_at = excluded.expires_at
         WHERE idempotency.expires_at <= $6",
    )
    .bind(answer.partner.as_str())
    .bind(answer.key_hash.to_vec())
    .bind(answer.request_hash.to_vec())
    .bind(answer.sealed.as_str())
    .bind(answer.expires_at.millis())
    .bind(now.millis())
    .execute(conn)
    .await?;
    if done.rows_affected() == 0 { Err(StoreError::Refused(ANSWERED)) } else { Ok(()) }
}
