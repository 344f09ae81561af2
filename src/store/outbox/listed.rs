//! What operators see of the outbox, and what they can do about it.

use sqlx::any::AnyRow;

use super::{MailState, hold, requeue};
use crate::protocol::ids::ClientId;
use crate::protocol::time::Timestamp;
use crate::store::db::Conn;
use crate::store::{Result, Store, StoreError, column};

/// A mail as an operator sees it.
#[derive(Clone, Debug)]
pub struct ListedMail {
    pub id: String,
    pub kind: String,
    pub to: String,
    pub partner: Option<ClientId>,
    pub state: MailState,
    pub attempts: i64,
    pub created_at: Timestamp,
    pub due_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// What came of an operator's wish to send a mail again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It was dead and is due, with all of its tries.
    Revived,
    /// It waited, and is due.
    Hastened,
    /// Somebody is at it.
    Underway,
    AlreadySent,
    Unknown,
}

/// What waits, and what will not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLevels {
    pub pending: i64,
    /// Since when the oldest of these waits.
    pub oldest: Option<Timestamp>,
    pub dead: i64,
}

/// Onboardings that failed for their mail alone wait for it once more.
macro_rules! reopen {
    ($which:literal) => {
        concat!(
            "UPDATE onboardings SET state = 'mail_queued', reason = NULL, updated_at = $1
             WHERE state = 'failed' AND reason IN ('mail_rejected', 'mail_undeliverable', 'mail_capped') AND ",
            $which
        )
    };
}

impl Store {
    pub async fn outbox_levels(&self) -> Result<OutboxLevels> {
        let sql = "SELECT (SELECT COUNT(*) FROM outbox WHERE state IN ('pending', 'sending')) AS pending,
                   (SELECT MIN(created_at) FROM outbox WHERE state IN ('pending', 'sending')) AS oldest,
                   (SELECT COUNT(*) FROM outbox WHERE state = 'dead') AS dead";
        let Some(row) = self.db.row(|| sqlx::query(sql)).await? else {
            return Ok(OutboxLevels { pending: 0, oldest: None, dead: 0 });
        };
        Ok(OutboxLevels {
            pending: column(&row, "pending")?,
            oldest: column::<Option<i64>>(&row, "oldest")?.map(Timestamp),
            dead: column(&row, "dead")?,
        })
    }

    /// Up to `limit` mails in the order in which they were written, after the one with id `after`. Those that somebody
    /// is at are pending too.
    pub async fn mails(&self, state: Option<MailState>, after: Option<&str>, limit: i64) -> Result<Vec<ListedMail>> {
        let sql = "SELECT id, kind, recipient, partner_id, state, attempts, created_at, due_at, finished_at, last_error
                   FROM outbox
                   WHERE ($1 = '' OR state = $1 OR ($1 = 'pending' AND state = 'sending'))
                       AND ($2 = '' OR (created_at, id) > (SELECT o.created_at, o.id FROM outbox o WHERE o.id = $2))
                   ORDER BY created_at, id LIMIT $3";
        let (state, after) = (state.map_or("", MailState::as_str), after.unwrap_or_default().to_owned());
        let statement = || sqlx::query(sql).bind(state).bind(after.clone()).bind(limit);
        self.db.rows(statement).await?.iter().map(read_listed).collect()
    }

    /// Makes a mail that waits or is dead due at once; what failed for want of it waits for it again.
    pub async fn retry_mail(&self, id: &str, now: Timestamp) -> Result<Retried> {
        let id = id.to_owned();
        let retried = self.db.write(move |conn| Box::pin(async move { retry(conn, &id, now).await })).await?;
        self.mail_was_queued();
        Ok(retried)
    }

    /// The same for every dead mail; how many there were.
    pub async fn retry_dead_mails(&self, now: Timestamp) -> Result<u64> {
        let revived = self
            .db
            .write(move |conn| {
                Box::pin(async move {
                    let sql = reopen!("id IN (SELECT onboarding_id FROM outbox WHERE state = 'dead')");
                    sqlx::query(sql).bind(now.millis()).execute(&mut *conn).await?;
                    let sql = "UPDATE outbox SET state = 'pending', attempts = 0, due_at = $1, finished_at = NULL,
                                   last_error = NULL
                               WHERE state = 'dead'";
                    Ok(sqlx::query(sql).bind(now.millis()).execute(conn).await?.rows_affected())
                })
            })
            .await?;
        self.mail_was_queued();
        Ok(revived)
    }
}

async fn retry(conn: &mut Conn, id: &str, now: Timestamp) -> Result<Retried> {
    let found = sqlx::query("SELECT onboarding_id FROM outbox WHERE id = $1").bind(id);
    let Some(row) = found.fetch_optional(&mut *conn).await? else { return Ok(Retried::Unknown) };
    let onboarding: Option<String> = column(&row, "onboarding_id")?;
    hold(conn, onboarding.as_deref()).await?;
    // Locked, and read as it is now.
    let row = sqlx::query("UPDATE outbox SET id = id WHERE id = $1 RETURNING state").bind(id);
    let Some(row) = row.fetch_optional(&mut *conn).await? else { return Ok(Retried::Unknown) };
    match read_state(&row)? {
        MailState::Sent => Ok(Retried::AlreadySent),
        MailState::Sending => Ok(Retried::Underway),
        MailState::Pending => {
            let sql = "UPDATE outbox SET due_at = $2 WHERE id = $1";
            sqlx::query(sql).bind(id).bind(now.millis()).execute(conn).await?;
            Ok(Retried::Hastened)
        }
        MailState::Dead => {
            if let Some(onboarding) = onboarding {
                requeue(conn, &onboarding, now).await?;
                sqlx::query(reopen!("id = $2")).bind(now.millis()).bind(onboarding).execute(conn).await?;
            } else {
                let sql = "UPDATE outbox SET state = 'pending', attempts = 0, due_at = $2, finished_at = NULL,
                               last_error = NULL
                           WHERE id = $1";
                sqlx::query(sql).bind(id).bind(now.millis()).execute(conn).await?;
            }
            Ok(Retried::Revived)
        }
    }
}

fn read_state(row: &AnyRow) -> Result<MailState> {
    let state: String = column(row, "state")?;
    state.parse().map_err(|()| StoreError::Corrupt { what: "mail", why: format!("state {state}") })
}

fn read_listed(row: &AnyRow) -> Result<ListedMail> {
    Ok(ListedMail {
        id: column(row, "id")?,
        kind: column(row, "kind")?,
        to: column(row, "recipient")?,
        partner: column::<Option<String>>(row, "partner_id")?.map(ClientId::new),
        state: read_state(row)?,
        attempts: column(row, "attempts")?,
        created_at: Timestamp(column(row, "created_at")?),
        due_at: Timestamp(column(row, "due_at")?),
        finished_at: column::<Option<i64>>(row, "finished_at")?.map(Timestamp),
        last_error: column(row, "last_error")?,
    })
}
