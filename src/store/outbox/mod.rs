//! Mail that must leave, written in the transaction of what it tells about: nobody is told what was taken back, and
//! nothing that holds goes untold. How it is taken out and ended is `delivery.rs`, what operators see and do is
//! `listed.rs`; when to try again and what to write is for `mail/`.

mod delivery;
mod listed;

pub use delivery::{Cap, Caps, ClaimedMail, Claims, PutOff};
pub use listed::{ListedMail, OutboxLevels, Retried};

use serde::{Deserialize, Serialize};

use super::db::Conn;
use super::{Result, Store, to_json};
use crate::protocol::client::wire_enum;
use crate::protocol::ids::ClientId;
use crate::protocol::time::Timestamp;
use crate::protocol::user::canonical_email;

/// What a mail can be, with all that it tells beside what the configuration says. Nothing here comes from whoever
/// asked for it: a mail in our name must not carry words of theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Mail {
    /// A partner has made an account for the recipient.
    Welcome {
        /// The partner's `client_name`, which an operator chose.
        partner_name: String,
    },
}

impl Mail {
    /// Its name in the table and in lists.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Welcome { .. } => "welcome",
        }
    }
}

/// A mail to send.
#[derive(Clone, Debug)]
pub struct NewMail {
    /// Names it for ever, in its `Message-ID` too: 127 random bits.
    pub id: String,
    pub to: String,
    pub mail: Mail,
    /// On whose behalf: it counts for their cap.
    pub partner: Option<ClientId>,
    /// What moves on with it.
    pub onboarding: Option<String>,
}

wire_enum! {
    /// How far a mail got.
    pub enum MailState {
        Pending = "pending",
        /// Some process is at it, until its lease ends.
        Sending = "sending",
        Sent = "sent",
        Dead = "dead",
    }
}

wire_enum! {
    /// Why a mail is never sent.
    pub enum DeadReason {
        /// There is no such recipient, or their server refused it for good.
        Rejected = "mail_rejected",
        /// Every try has failed.
        Undeliverable = "mail_undeliverable",
        /// The recipient has had enough.
        Capped = "mail_capped",
    }
}

/// Writes a mail; part of what it tells about. Whoever commits calls [`Store::mail_was_queued`].
pub(super) async fn enqueue(conn: &mut Conn, new: &NewMail, now: Timestamp) -> Result<()> {
    // Two spellings of one address share its cap. What is no address is found out when it is sent.
    let recipient = canonical_email(&new.to).unwrap_or_else(|_| new.to.clone());
    sqlx::query(
        "INSERT INTO outbox (id, kind, recipient, partner_id, onboarding_id, payload, state, attempts, due_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, $7)",
    )
    .bind(new.id.as_str())
    .bind(new.mail.kind())
    .bind(recipient)
    .bind(new.partner.as_ref().map(ClientId::as_str))
    .bind(new.onboarding.as_deref())
    .bind(to_json("mail", &new.mail)?)
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes the dead mail of an onboarding due again, with all of its tries; `false` where there is none any more. The
/// onboarding itself is its caller's.
pub(super) async fn requeue(conn: &mut Conn, onboarding_id: &str, now: Timestamp) -> Result<bool> {
    let sql = "UPDATE outbox SET state = 'pending', attempts = 0, due_at = $2, finished_at = NULL, last_error = NULL
               WHERE onboarding_id = $1 AND state = 'dead'";
    let done = sqlx::query(sql).bind(onboarding_id).bind(now.millis()).execute(conn).await?;
    Ok(done.rows_affected() > 0)
}

/// Locks the onboarding before its mail, in the order in which the end of a person takes them.
async fn hold(conn: &mut Conn, onboarding: Option<&str>) -> Result<()> {
    if let Some(id) = onboarding {
        sqlx::query("UPDATE onboardings SET id = id WHERE id = $1").bind(id).execute(conn).await?;
    }
    Ok(())
}

impl Store {
    /// Writes a mail that belongs to no other change.
    pub async fn queue_mail(&self, new: NewMail, now: Timestamp) -> Result<()> {
        self.db.write(move |conn| Box::pin(async move { enqueue(conn, &new, now).await })).await?;
        self.mail_was_queued();
        Ok(())
    }

    /// Wakes whoever sends in this process. The others look by themselves.
    pub fn mail_was_queued(&self) {
        self.mail_bell.notify_one();
    }

    /// Returns once a mail was queued in this process, also where that was before the call.
    pub async fn mail_is_queued(&self) {
        self.mail_bell.notified().await;
    }
}
