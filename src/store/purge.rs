//! Expired rows leave in small batches, each a write of its own, so that no request waits for more than one.

use super::db::Kind;
use super::{Result, Store};
use crate::protocol::time::{Span, Timestamp};

/// Rows that one write removes at most.
const BATCH: i64 = 200;

/// How rows that have ended leave a table, in the words of each database. What somebody else holds is left for the next
/// time: whoever waits for nobody makes nobody wait for ever, whatever the order in which they take their rows.
struct Removal {
    sqlite: &'static str,
    postgres: &'static str,
}

/// `removal!(table, key, rows)`: `rows` is what stands behind `FROM`, with `$1` for the time. On PostgreSQL the rows go by
/// where they lie, in that order: no plan can look for them in a better way, or in a worse one.
macro_rules! removal {
    ($table:literal, $key:literal, $rows:literal) => {
        removal!($table, $key, $rows, concat!(" FOR UPDATE OF ", $table, " SKIP LOCKED"))
    };
    ($table:literal, $key:literal, $rows:literal, $held:expr) => {
        Removal {
            sqlite: concat!(
                "DELETE FROM ",
                $table,
                " WHERE (",
                $key,
                ") IN (SELECT ",
                $key,
                " FROM ",
                $rows,
                " LIMIT $2)"
            ),
            postgres: concat!(
                "WITH gone AS (SELECT ",
                $table,
                ".ctid AS place FROM ",
                $rows,
                " LIMIT $2",
                $held,
                ") DELETE FROM ",
                $table,
                " WHERE ctid = ANY (ARRAY(SELECT place FROM gone))"
            ),
        }
    };
}

/// One for each way in which rows end by time. A session also ends by rest, which only its policy knows.
const REMOVALS: [Removal; 13] = [
    removal!("grants", "id", "grants WHERE expires_at <= $1"),
    removal!("sessions", "id", "sessions WHERE expires_at <= $1"),
    removal!("pushed_requests", "id", "pushed_requests WHERE expires_at <= $1"),
    removal!("used_ids", "kind, id", "used_ids WHERE expires_at <= $1"),
    // People see for 90 days what a key was.
    removal!("api_keys", "kid", "api_keys WHERE expires_at <= $1 - 7776000000"),
    removal!("api_keys", "kid", "api_keys WHERE revoked_at <= $1 - 7776000000"),
    removal!("idempotency", "partner_id, key_hash", "idempotency WHERE expires_at <= $1"),
    removal!("links", "token_hash", "links WHERE expires_at <= $1"),
    // Whoever could not be made, and was not tried again for 90 days.
    removal!("onboardings", "id", "onboardings WHERE user_id IS NULL AND updated_at <= $1 - 7776000000"),
    // What became of an import can be asked for 7 days; its lines leave first, for there may be many.
    removal!(
        "import_lines",
        "import_id, line",
        "imports JOIN import_lines ON import_id = imports.id WHERE updated_at <= $1 - 604800000"
    ),
    removal!(
        "imports",
        "id",
        "imports WHERE updated_at <= $1 - 604800000
             AND NOT EXISTS (SELECT 1 FROM import_lines WHERE import_id = imports.id)"
    ),
    // A week is the longest window of a cap; who was written to is nobody's business for longer.
    removal!("outbox", "id", "outbox WHERE finished_at <= $1 - 604800000"),
    removal!("limits", "bucket", "limits WHERE expires_at <= $1"),
];

/// Events are kept for as long as the operator says. To lock one somebody would have to be allowed to change it.
const EVENTS: Removal = removal!("events", "id", "events WHERE at <= $1", "");

impl Store {
    /// Removes what expired before `now`, and events that are older than `events_kept`; how many rows that was. Rows that
    /// somebody is at may stay until the next time.
    pub async fn purge_expired(&self, events_kept: Span, now: Timestamp) -> Result<u64> {
        let mut removed = 0;
        for removal in &REMOVALS {
            removed += self.purge(removal, now).await?;
        }
        // Last: whoever may only add to the trail keeps nothing else for ever.
        Ok(removed + self.purge(&EVENTS, now - events_kept).await?)
    }

    async fn purge(&self, removal: &Removal, until: Timestamp) -> Result<u64> {
        let sql = match self.db.kind() {
            Kind::Sqlite => removal.sqlite,
            Kind::Postgres => removal.postgres,
        };
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
