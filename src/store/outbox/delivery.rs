//! The way of a mail out of the table. A claim is a lease, so that a process that dies in the middle delays its mails
//! and loses none; whoever lost a lease changes nothing any more, but that a mail has left.

use sqlx::any::AnyRow;

use super::{DeadReason, Mail, hold};
use crate::protocol::ids::ClientId;
use crate::protocol::time::{Span, Timestamp};
use crate::store::db::Conn;
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

/// The most mails within a window.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    pub mails: i64,
    pub window: Span,
}

/// How much mail may leave.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// For one address.
    pub address: Cap,
    /// On behalf of one partner.
    pub partner: Cap,
}

/// What was due.
#[derive(Debug, Default)]
pub struct Claims {
    /// To be sent.
    pub mails: Vec<ClaimedMail>,
    /// To addresses that have had enough: claimed as well, to be ended.
    pub capped: Vec<ClaimedMail>,
    pub put_off: Vec<PutOff>,
}

/// A partner has had enough for now: all that waits of theirs was moved at once, so that each need not learn it.
#[derive(Clone, Debug)]
pub struct PutOff {
    pub partner: ClientId,
    pub mails: u64,
    pub until: Timestamp,
}

/// What the caps say of one mail.
enum Room {
    Free,
    /// Others on their way may use up the last place, or give it back.
    NotYet,
    AddressFull,
    PartnerFull(ClientId, Timestamp),
}

/// How long a mail waits for others that may use up the last place.
const ASIDE: Span = Span::from_secs(2);
/// The shortest rest of a partner who has had enough, so that their mail is not moved all the time.
const REST: Span = Span::minutes(1);
/// Mails that one claim looks at, for each that it may take.
const LOOKS: usize = 4;

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

/// Those of processes that died first, then the oldest.
const CLAIM: &str = "UPDATE outbox SET state = 'sending', attempts = attempts + 1, due_at = $2
    WHERE id IN (
            SELECT c.id FROM (
                SELECT * FROM (SELECT id FROM outbox WHERE state = 'sending' AND due_at <= $1 ORDER BY due_at LIMIT 1) s
                UNION ALL
                SELECT * FROM (SELECT id FROM outbox WHERE state = 'pending' AND due_at <= $1 ORDER BY due_at LIMIT 1) p
            ) c LIMIT 1)
        AND state IN ('pending', 'sending') AND due_at <= $1
    RETURNING id, recipient, payload, partner_id, onboarding_id, attempts, created_at";

/// Claims take turns, over all processes: what one admits, the next has to count.
const TURN: &str = "INSERT INTO limits (bucket, attempts, expires_at) VALUES ('mail_claims', $1, $2)
    ON CONFLICT (bucket) DO UPDATE SET expires_at = excluded.expires_at";

impl Store {
    /// Takes up to `limit` mails that are due, those of processes that died at them included. Nobody else gets them
    /// for as long as `lease`.
    pub async fn claim_mails(&self, now: Timestamp, lease: Span, limit: usize, caps: Caps) -> Result<Claims> {
        // Looking costs no write, and mostly nothing is there.
        if self.db.row(|| sqlx::query(DUE).bind(now.millis())).await?.is_none() {
            return Ok(Claims::default());
        }
        self.db.write(move |conn| Box::pin(async move { claim(conn, now, lease, limit, caps).await })).await
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

async fn claim(conn: &mut Conn, now: Timestamp, lease: Span, limit: usize, caps: Caps) -> Result<Claims> {
    // For ever: it is a lock, and nothing that anybody counts.
    sqlx::query(TURN).bind(Vec::<u8>::new()).bind(i64::MAX).execute(&mut *conn).await?;
    let (mut claims, until) = (Claims::default(), now + lease);
    for _ in 0..limit * LOOKS {
        if claims.mails.len() + claims.capped.len() >= limit {
            break;
        }
        let row = sqlx::query(CLAIM).bind(now.millis()).bind(until.millis()).fetch_optional(&mut *conn).await?;
        let Some(row) = row else { break };
        let mail = read_claimed(&row, until)?;
        match room(conn, &mail, caps, now).await? {
            Room::Free => claims.mails.push(mail),
            Room::AddressFull => claims.capped.push(mail),
            Room::NotYet => put_off(conn, &mail.id, now + ASIDE).await?,
            Room::PartnerFull(partner, until) => {
                put_off(conn, &mail.id, until).await?;
                let mails = put_off_all(conn, &partner, until).await? + 1;
                claims.put_off.push(PutOff { partner, mails, until });
            }
        }
    }
    Ok(claims)
}

/// What the caps say, with all that is on its way counted: nobody else can change that before we commit.
async fn room(conn: &mut Conn, mail: &ClaimedMail, caps: Caps, now: Timestamp) -> Result<Room> {
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
    let (sent, sending) = tally(conn, tally!("recipient"), &mail.to, mail, now - caps.address.window, now).await?;
    if sent >= caps.address.mails {
        return Ok(Room::AddressFull);
    }
    if sent + sending >= caps.address.mails {
        return Ok(Room::NotYet);
    }
    let Some(partner) = &mail.partner else { return Ok(Room::Free) };
    let Cap { mails, window } = caps.partner;
    let (sent, sending) = tally(conn, tally!("partner_id"), partner.as_str(), mail, now - window, now).await?;
    if sent >= mails {
        let sql = "SELECT finished_at FROM outbox WHERE partner_id = $1 AND finished_at > $2 AND state = 'sent'
                   ORDER BY finished_at DESC LIMIT 1 OFFSET $3";
        let statement = sqlx::query(sql).bind(partner.as_str()).bind((now - window).millis()).bind(mails - 1);
        let oldest = Timestamp(column(&statement.fetch_one(conn).await?, "finished_at")?);
        return Ok(Room::PartnerFull(partner.clone(), (oldest + window).max(now + REST)));
    }
    Ok(if sent + sending >= mails { Room::NotYet } else { Room::Free })
}

/// How many were sent in the window, and how many others are on their way.
async fn tally(
    conn: &mut Conn,
    sql: &'static str,
    value: &str,
    mail: &ClaimedMail,
    since: Timestamp,
    now: Timestamp,
) -> Result<(i64, i64)> {
    let statement = sqlx::query(sql).bind(value).bind(since.millis()).bind(now.millis()).bind(mail.id.as_str());
    let row = statement.fetch_one(conn).await?;
    Ok((column(&row, "sent")?, column(&row, "sending")?))
}

/// It was not tried at all.
async fn put_off(conn: &mut Conn, id: &str, until: Timestamp) -> Result<()> {
    let sql = "UPDATE outbox SET state = 'pending', due_at = $2, attempts = attempts - 1 WHERE id = $1";
    sqlx::query(sql).bind(id).bind(until.millis()).execute(conn).await?;
    Ok(())
}

async fn put_off_all(conn: &mut Conn, partner: &ClientId, until: Timestamp) -> Result<u64> {
    let sql = "UPDATE outbox SET due_at = $2
               WHERE partner_id = $1 AND finished_at IS NULL AND state = 'pending' AND due_at < $2";
    let done = sqlx::query(sql).bind(partner.as_str()).bind(until.millis()).execute(conn).await?;
    Ok(done.rows_affected())
}
