//! How far partners' people got on their way in.

use sqlx::any::AnyRow;

use super::db::Conn;
use super::outbox::{self, NewMail};
use super::{Result, Store, StoreError, column, from_json, to_json};
use crate::protocol::ids::{ClientId, OnboardingId, UserId};
use crate::protocol::partner::{OnboardingState, Registration};
use crate::protocol::time::Timestamp;

/// Where somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onboarding {
    pub id: OnboardingId,
    pub partner: ClientId,
    pub external_id: String,
    /// `None` where they could not be made.
    pub user_id: Option<UserId>,
    pub state: OnboardingState,
    /// A code for what went wrong.
    pub reason: Option<String>,
    /// What was asked for, where it failed.
    pub wish: Option<Registration>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Which of a partner's people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those who have not used their account.
    Waiting,
    In(OnboardingState),
}

fn read(row: &AnyRow) -> Result<Onboarding> {
    let corrupt = || StoreError::Corrupt { what: "onboarding", why: "unknown state".to_owned() };
    Ok(Onboarding {
        id: OnboardingId::new(column::<String>(row, "id")?),
        partner: ClientId::new(column::<String>(row, "partner_id")?),
        external_id: column(row, "external_id")?,
        user_id: column::<Option<String>>(row, "user_id")?.map(UserId::new),
        state: column::<String>(row, "state")?.parse().map_err(|()| corrupt())?,
        reason: column(row, "reason")?,
        wish: column::<Option<String>>(row, "wish")?.map(|wish| from_json("onboarding", &wish)).transpose()?,
        created_at: Timestamp(column(row, "created_at")?),
        updated_at: Timestamp(column(row, "updated_at")?),
    })
}

macro_rules! onboarding_columns {
    () => {
        "o.id, o.partner_id, o.external_id, o.user_id, o.state, o.reason, o.wish, o.created_at, o.updated_at"
    };
}

impl Store {
    /// One of a partner's; somebody else's is as good as none.
    pub async fn onboarding(&self, partner: &ClientId, id: &OnboardingId) -> Result<Option<Onboarding>> {
        let sql =
            concat!("SELECT ", onboarding_columns!(), " FROM onboardings o WHERE o.id = $1 AND o.partner_id = $2");
        let statement = || sqlx::query(sql).bind(id.as_str().to_owned()).bind(partner.as_str().to_owned());
        self.db.row(statement).await?.as_ref().map(read).transpose()
    }

    /// That of somebody by the partner's own id.
    pub async fn onboarding_of(&self, partner: &ClientId, external_id: &str) -> Result<Option<Onboarding>> {
        let sql = concat!(
            "SELECT ",
            onboarding_columns!(),
            " FROM onboardings o WHERE o.partner_id = $1 AND o.external_id = $2"
        );
        let statement = || sqlx::query(sql).bind(partner.as_str().to_owned()).bind(external_id.to_owned());
        self.db.row(statement).await?.as_ref().map(read).transpose()
    }

    /// Up to `limit` of a partner's in the order in which they began, after the one that began at `after`.
    pub async fn onboardings(
        &self,
        partner: &ClientId,
        which: Which,
        after: Option<(Timestamp, OnboardingId)>,
        limit: i64,
    ) -> Result<Vec<Onboarding>> {
        // A text for each, so that its index is used.
        macro_rules! page_of {
            ($state:literal) => {
                concat!(
                    "SELECT ",
                    onboarding_columns!(),
                    " FROM onboardings o WHERE o.partner_id = $1 AND ",
                    $state,
                    " AND (o.created_at, o.id) > ($3, $4) ORDER BY o.created_at, o.id LIMIT $5"
                )
            };
        }
        let (sql, state) = match which {
            Which::All => (page_of!("$2 = ''"), ""),
            Which::Waiting => (page_of!("o.state <> $2"), OnboardingState::FirstAuth.as_str()),
            Which::In(state) => (page_of!("o.state = $2"), state.as_str()),
        };
        let (at, id) = after.map_or((i64::MIN, String::new()), |(at, id)| (at.millis(), id.as_str().to_owned()));
        let statement = || {
            let statement = sqlx::query(sql).bind(partner.as_str().to_owned()).bind(state);
            statement.bind(at).bind(id.clone()).bind(limit)
        };
        self.db.rows(statement).await?.iter().map(read).collect()
    }

    /// Writes the welcome mail anew that could not be delivered, to where the person is now; `false` where it did not
    /// fail.
    pub async fn rewrite_welcome_mail(&self, id: OnboardingId, mail: NewMail, now: Timestamp) -> Result<bool> {
        let retried = self.db.write(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE onboardings SET state = 'mail_queued', reason = NULL, updated_at = $2
                     WHERE id = $1 AND state = 'failed' AND user_id IS NOT NULL",
                )
                .bind(id.as_str())
                .bind(now.millis())
                .execute(&mut *conn)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query("DELETE FROM outbox WHERE onboarding_id = $1 AND state = 'dead'")
                    .bind(id.as_str())
                    .execute(&mut *conn)
                    .await?;
                outbox::enqueue(conn, &mail, now).await?;
                Ok(true)
            })
        });
        let retried = retried.await?;
        self.mail_was_queued();
        Ok(retried)
    }

    /// Notes that somebody could not be made. Whoever was made stays as they are.
    pub async fn note_failed_registration(&self, failed: Onboarding) -> Result<()> {
        let sql = "INSERT INTO onboardings (id, partner_id, external_id, state, reason, wish, created_at, updated_at)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
                   ON CONFLICT (partner_id, external_id) DO UPDATE SET state = excluded.state,
                       reason = excluded.reason, wish = excluded.wish, updated_at = excluded.updated_at
                   WHERE onboardings.user_id IS NULL";
        let wish = failed.wish.as_ref().map(|wish| to_json("onboarding", wish)).transpose()?;
        let statement = move || {
            sqlx::query(sql)
                .bind(failed.id.as_str().to_owned())
                .bind(failed.partner.as_str().to_owned())
                .bind(failed.external_id.clone())
                .bind(failed.state.as_str())
                .bind(failed.reason.clone())
                .bind(wish.clone())
                .bind(failed.updated_at.millis())
        };
        self.db.execute(statement).await?;
        Ok(())
    }
}

/// Writes where a person is that was just made, in place of earlier failures to make them.
pub(super) async fn insert(conn: &mut Conn, new: &Onboarding) -> Result<()> {
    sqlx::query(
        "INSERT INTO onboardings (id, partner_id, external_id, user_id, state, reason, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
         ON CONFLICT (partner_id, external_id) DO UPDATE SET id = excluded.id, user_id = excluded.user_id,
             state = excluded.state, reason = excluded.reason, wish = NULL, updated_at = excluded.updated_at",
    )
    .bind(new.id.as_str())
    .bind(new.partner.as_str())
    .bind(new.external_id.as_str())
    .bind(new.user_id.as_ref().map(UserId::as_str))
    .bind(new.state.as_str())
    .bind(new.reason.as_deref())
    .bind(new.created_at.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// The first key of somebody who was made without one. Whoever is further stays there.
pub(super) async fn key_issued(conn: &mut Conn, user_id: &UserId, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE onboardings SET state = 'key_issued', updated_at = $2 WHERE user_id = $1 AND state = 'user_created'",
    )
    .bind(user_id.as_str())
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// These people have used their accounts, each for the first time or not; the partners of those who had not before.
pub(super) async fn first_auth(conn: &mut Conn, users: &[(UserId, Timestamp)]) -> Result<Vec<ClientId>> {
    let mut partners = Vec::new();
    for (id, at) in users {
        let row = sqlx::query(
            "UPDATE onboardings SET state = 'first_auth', reason = NULL, updated_at = $2
             WHERE user_id = $1 AND state <> 'first_auth' RETURNING partner_id",
        )
        .bind(id.as_str())
        .bind(at.millis())
        .fetch_optional(&mut *conn)
        .await?;
        partners.extend(row.as_ref().map(|row| column::<String>(row, "partner_id").map(ClientId::new)).transpose()?);
    }
    Ok(partners)
}

/// The welcome mail has left, also where another process had given it up. Whoever has used their account by now stays
/// where they are.
pub(super) async fn mail_sent(conn: &mut Conn, id: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE onboardings SET state = 'mail_sent', reason = NULL, updated_at = $2
         WHERE id = $1 AND (state = 'mail_queued' OR (state = 'failed' AND user_id IS NOT NULL))",
    )
    .bind(id)
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// The welcome mail never will. The same holds.
pub(super) async fn mail_failed(conn: &mut Conn, id: &str, reason: &'static str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE onboardings SET state = 'failed', reason = $2, updated_at = $3
         WHERE id = $1 AND state = 'mail_queued'",
    )
    .bind(id)
    .bind(reason)
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes back the letters to somebody that have not left; those that have count on for their address. Locks in the
/// order of everything else: the way in before its letters.
pub(super) async fn drop_mail_of(conn: &mut Conn, user_id: &UserId) -> Result<()> {
    for sql in [
        "UPDATE users SET realm = realm WHERE id = $1",
        "UPDATE onboardings SET id = id WHERE user_id = $1",
        "DELETE FROM outbox WHERE state IN ('pending', 'dead')
             AND onboarding_id IN (SELECT id FROM onboardings WHERE user_id = $1)",
    ] {
        sqlx::query(sql).bind(user_id.as_str()).execute(&mut *conn).await?;
    }
    Ok(())
}
