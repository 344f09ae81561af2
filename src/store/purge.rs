//! Expired rows leave in small batches, each a write of its own, so that no request waits for more than one.

use super::db::Kind;
use super::{Result, Store};
use crate::protocol::time::{Span, Timestamp};

/// Rows that one write removes at most.
const BATCH: i64 = 200;

/// One statement for each table whose rows end by time. A session also ends by rest, which only its policy knows.
const STATEMENTS: [&str; 12] = [
    "DELETE FROM grants WHERE id IN (SELECT id FROM grants WHERE expires_at <= $1 LIMIT $2)",
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at <= $1 LIMIT $2)",
    "DELETE FROM pushed_requests WHERE id IN (SELECT id FROM pushed_requests WHERE expires_at <= $1 LIMIT $2)",
    "DELETE FROM used_ids WHERE (kind, id) IN (SELECT kind, id FROM used_ids WHERE expires_at <= $1 LIMIT $2)",
    // People see for 90 days what a key was.
    "DELETE FROM api_keys WHERE kid IN (SELECT kid FROM api_keys WHERE expires_at <= $1 - 7776000000 LIMIT $2)",
    "DELETE FROM api_keys WHERE kid IN (SELECT kid FROM api_keys WHERE revoked_at <= $1 - 7776000000 LIMIT $2)",
    "DELETE FROM idempotency WHERE (partner_id, key_hash) IN (
         SELECT partner_id, key_hash FROM idempotency WHERE expires_at <= $1 LIMIT $2)",
    "DELETE FROM links WHERE token_hash IN (SELECT token_hash FROM links WHERE expires_at <= $1 LIMIT $2)",
    // Whoever could not be made, and was not tried again for 90 days.
    "DELETE FROM onboardings WHERE id IN (
         SELECT id FROM onboardings WHERE user_id IS NULL AND updated_at <= $1 - 7776000000 LIMIT $2)",
    // What became of an import can be asked for 7 days; its lines leave first, for there may be many.
    "DELETE FROM import_lines WHERE (import_id, line) IN (
         SELECT l.import_id, l.line FROM imports i JOIN import_lines l ON l.import_id = i.id
         WHERE i.updated_at <= $1 - 604800000 LIMIT $2)",
    "DELETE FROM imports WHERE id IN (
         SELECT i.id FROM imports i WHERE i.updated_at <= $1 - 604800000
         AND NOT EXISTS (SELECT 1 FROM import_lines l WHERE l.import_id = i.id) LIMIT $2)",
    // A week is the longest window of a cap; who was written to is nobody's business for longer.
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE finished_at <= $1 - 604800000 LIMIT $2)",
];

/// Attempts lock several buckets at a time, in an order of their own. What one of them holds is left for the next time:
/// whoever waits for nobody makes nobody wait for ever.
const fn limits(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite => {
            "DELETE FROM limits WHERE bucket IN (SELECT bucket FROM limits WHERE expires_at <= $1 LIMIT $2)"
        }
        Kind::Postgres => {
            "DELETE FROM limits WHERE bucket IN (
                 SELECT bucket FROM limits WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"
        }
    }
}

/// Events are kept for as long as the operator says.
const EVENTS: &str = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at <= $1 LIMIT $2)";

impl Store {
    /// Removes what expired before `now`, and events that are older than `events_kept`; how many rows that was.
    pub async fn purge_expired(&self, events_kept: Span, now: Timestamp) -> Result<u64> {
        let mut removed = 0;
        for sql in STATEMENTS {
            removed += self.purge(sql, now).await?;
        }
        removed += self.purge(limits(self.db.kind()), now).await?;
        // Last: whoever may only add to the trail keeps nothing else for ever.
        Ok(removed + self.purge(EVENTS, now - events_kept).await?)
    }

    async fn purge(&self, sql: &'static str, until: Timestamp) -> Result<u64> {
        let mut removed = 0;
        loop {
            let batch = self.db.execute(move || sqlx::query(sql).bind(until.millis()).bind(BATCH)).await?;
            removed += batch;
            if batch < BATCH.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}
