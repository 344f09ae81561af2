//! The way of a mail out of the table. A claim is a lease, so that a process that dies in the middle delays its mails
//! and loses none; whoever lost a lease changes nothing any more, but that a mail has left.

use sqlx::any::AnyRow;

use super::{DeadReason, Mail, hold};
use crate::protocol::ids::ClientId;
use crate::protocol::time::{Span, Timestamp};
use crate::store::{Result, Store, column, from_json, onboardings};

/// A mail that nobody else is at before the lease ends.
#[derive(Clone, Debug)]
pub struct ClaimedMail {
    pub id: String,
    pub to: String,
    /// What a newer release wrote may be no mail of this one: then why not.
    pub mail: std::result::Result<Mail, String>,
    pub partner: Option<ClientId>,
    pub onboarding: Option<String>,
    /// The first is 1.
    pub attempt: i64,
    pub created_at: Timestamp,
    /// The end of the lease, and so its name.
    leased_until: Timestamp,
}

/// How many mails count for a cap, and how much of it is left.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Within the window.
    pub sent: i64,
    /// By others, at this moment.
    pub sending: i64,
}

/// What a cap counts.
#[derive(Clone, Copy, Debug)]
pub enum Counted {
    Address,
    Partner,
}

fn read_claimed(row: &AnyRow, leased_until: Timestamp) -> Result<ClaimedMail> {
    Ok(ClaimedMail {
        id: column(row, "id")?,
        to: column(row, "recipient")?,
        mail: from_json("mail", column(row, "payload")?).map_err(|error| error.to_string()),
        partner: column::<Option<String>>(row, "partner_id")?.map(ClientId::new),
        onboarding: column(row, "onboarding_id")?,
        attempt: column(row, "attempts")?,
        created_at: Timestamp(column(row, "created_at")?),
        leased_until,
    })
}

const DUE: &str = "SELECT id FROM outbox WHERE state IN ('pending', 'sending') AND due_at <= $1 LIMIT 1";

/// Those of processes that died first, then the oldest. Each row is looked at again once it is locked, so that of two
/// processes one gets it.
const CLAIM: &str = "UPDATE outbox SET state = 'sending', attempts = attempts + 1, due_at = $2
    WHERE id IN (
            SELECT c.id FROM (
                SELECT * FROM (SELECT id FROM outbox WHERE state = 'sending' AND due_at <= $1 ORDER BY due_at LIMIT $3) s
                UNION ALL
                SELECT * FROM (SELECT id FROM outbox WHERE state = 'pending' AND due_at <= $1 ORDER BY due_at LIMIT $3) p
            ) c LIMIT $3)
        AND state IN ('pending', 'sending') AND due_at <= $1
    RETURNING id, recipient, payload, partner_id, onboarding_id, attempts, created_at";

impl Store {
    /// Takes up to `limit` mails that are due, those of processes that died at them included. Nobody else gets them
    /// for as long as `lease`.
    pub async fn claim_mails(&self, now: Timestamp, lease: Span, limit: i64) -> Result<Vec<ClaimedMail>> {
        // Looking costs no write, and mostly nothing is there.
        if self.db.row(|| sqlx::query(DUE).bind(now.millis())).await?.is_none() {
            return Ok(Vec::new());
        }
        let until = now + lease;
        self.db
            .write(move |conn| {
                Box::pin(async move {
                    let claim = sqlx::query(CLAIM).bind(now.millis()).bind(until.millis()).bind(limit);
                    claim.fetch_all(conn).await?.iter().map(|row| read_claimed(row, until)).collect()
                })
            })
            .await
    }

    /// How much of a cap is used up around a claimed mail. Of two processes that are about to use the last place, at
    /// least one sees the other.
    pub async fn tally_mails(
        &self,
        of: Counted,
        mail: &ClaimedMail,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Tally> {
        macro_rules! tally {
            ($column:literal) => {
                concat!(
                    "SELECT (SELECT COUNT(*) FROM outbox WHERE ",
                    $column,
                    " = $1 AND finished_at > $2 AND state = 'sent') AS sent,
                     (SELECT COUNT(*) FROM outbox WHERE ",
                    $column,
                    " = $1 AND state = 'sending' AND due_at > $3 AND id <> $4) AS sending"
                )
            };
        }
        let (sql, value) = match of {
            Counted::Address => (tally!("recipient"), Some(mail.to.as_str())),
            Counted::Partner => (tally!("partner_id"), mail.partner.as_ref().map(ClientId::as_str)),
        };
        let Some(value) = value else { return Ok(Tally { sent: 0, sending: 0 }) };
        let row = self
            .db
            .row(|| {
                let statement = sqlx::query(sql).bind(value.to_owned()).bind(since.millis());
                statement.bind(now.millis()).bind(mail.id.clone())
            })
            .await?;
        let Some(row) = row else { return Ok(Tally { sent: 0, sending: 0 }) };
        Ok(Tally { sent: column(&row, "sent")?, sending: column(&row, "sending")? })
    }

    /// When the partner's `nth` latest mail was sent; the first is 0.
    pub async fn mail_sent_before(&self, partner: &ClientId, nth: i64) -> Result<Option<Timestamp>> {
        let sql = "SELECT finished_at FROM outbox WHERE partner_id = $1 AND finished_at > 0 AND state = 'sent'
                   ORDER BY finished_at DESC LIMIT 1 OFFSET $2";
        let row = self.db.row(|| sqlx::query(sql).bind(partner.as_str().to_owned()).bind(nth)).await?;
        row.as_ref().map(|row| Ok(Timestamp(column(row, "finished_at")?))).transpose()
    }

    /// The mail has left, whatever others made of it meanwhile.
    pub async fn finish_sent(&self, mail: &ClaimedMail, now: Timestamp) -> Result<()> {
        let mail = mail.clone();
        self.db
            .write(move |conn| {
                Box::pin(async move {
                    hold(conn, mail.onboarding.as_deref()).await?;
                    let sql = "UPDATE outbox SET state = 'sent', finished_at = $2, last_error = NULL
                               WHERE id = $1 AND state <> 'sent'";
                    let done = sqlx::query(sql).bind(mail.id).bind(now.millis()).execute(&mut *conn).await?;
                    match mail.onboarding {
                        Some(id) if done.rows_affected() > 0 => onboardings::mail_sent(conn, &id, now).await,
                        _ => Ok(()),
                    }
                })
            })
            .await
    }

    /// The try has failed, and another follows; unless the lease went to somebody else.
    pub async fn finish_later(&self, mail: &ClaimedMail, due_at: Timestamp, error: String) -> Result<()> {
        let mail = mail.clone();
        let sql = "UPDATE outbox SET state = 'pending', due_at = $3, last_error = $4
                   WHERE id = $1 AND state = 'sending' AND due_at = $2";
        let statement = move || {
            let statement = sqlx::query(sql).bind(mail.id.clone()).bind(mail.leased_until.millis());
            statement.bind(due_at.millis()).bind(error.clone())
        };
        self.db.execute(statement).await?;
        Ok(())
    }

    /// It was not tried at all, and its time comes later.
    pub async fn put_off(&self, mail: &ClaimedMail, due_at: Timestamp) -> Result<()> {
        let mail = mail.clone();
        let sql = "UPDATE outbox SET state = 'pending', due_at = $3, attempts = attempts - 1
                   WHERE id = $1 AND state = 'sending' AND due_at = $2";
        let statement = move || {
            let statement = sqlx::query(sql).bind(mail.id.clone()).bind(mail.leased_until.millis());
            statement.bind(due_at.millis())
        };
        self.db.execute(statement).await?;
        Ok(())
    }

    /// The same for all that waits on behalf of a partner, so that each need not be claimed to learn it.
    pub async fn put_off_all(&self, partner: &ClientId, due_at: Timestamp) -> Result<u64> {
        let partner = partner.as_str().to_owned();
        let sql = "UPDATE outbox SET due_at = $2
                   WHERE partner_id = $1 AND finished_at IS NULL AND state = 'pending' AND due_at < $2";
        self.db.execute(move || sqlx::query(sql).bind(partner.clone()).bind(due_at.millis())).await
    }

    /// The mail is never sent; `false` where the lease went to somebody else, who may do better.
    pub async fn finish_dead(
        &self,
        mail: &ClaimedMail,
        reason: DeadReason,
        error: String,
        now: Timestamp,
    ) -> Result<bool> {
        let mail = mail.clone();
        self.db
            .write(move |conn| {
                Box::pin(async move {
                    hold(conn, mail.onboarding.as_deref()).await?;
                    let sql = "UPDATE outbox SET state = 'dead', finished_at = $3, last_error = $4
                               WHERE id = $1 AND state = 'sending' AND due_at = $2";
                    let statement = sqlx::query(sql).bind(mail.id).bind(mail.leased_until.millis());
                    let statement = statement.bind(now.millis()).bind(error);
                    if statement.execute(&mut *conn).await?.rows_affected() == 0 {
                        return Ok(false);
                    }
                    if let Some(id) = mail.onboarding {
                        onboardings::mail_failed(conn, &id, reason.as_str(), now).await?;
                    }
                    Ok(true)
                })
            })
            .await
    }
}
