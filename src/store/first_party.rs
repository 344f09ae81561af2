//! Sign-ups and sign-ins by plain calls: the account, the grant and the event that tells of it are one transaction. And
//! what is kept of players beside their accounts.

use super::db::{Conn, Kind};
use super::events::{self, Event};
use super::grants::{self, NewGrant};
use super::users::{self, Created, EMAIL_TAKEN, NewUser, REALM_DIRECT};
use super::{Result, Store, StoreError, column};
use crate::protocol::first_party::MAX_SIGN_INS;
use crate::protocol::first_party::device::{Changes, Profile};
use crate::protocol::ids::{GrantId, UserId};
use crate::protocol::time::Timestamp;

/// What a grant is opened by, and only if it still stands then.
pub enum Opening {
    /// When the password was set that was checked.
    Password(Timestamp),
    /// An account that is made with it.
    SignUp(Box<NewUser>),
}

/// What opening came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    Yes,
    /// Another account has the id or a name; nothing was written.
    Taken(Created),
    /// The password was changed or the account disabled since it was checked.
    Ended,
}

const ENDED: &str = "the password was changed or the account disabled";

impl Store {
    /// Writes the grant whose tokens are about to leave, with the account where it is new.
    pub async fn open_grant(&self, by: Opening, new: NewGrant, event: Event, now: Timestamp) -> Result<Opened> {
        let kind = self.db.kind();
        let opened = self.write_and_forget_if(
            |ended| *ended > 0,
            move |conn| Box::pin(async move { open(conn, kind, by, new, &event, now).await }),
        );
        match opened.await {
            Ok(_) => Ok(Opened::Yes),
            Err(StoreError::Refused(ENDED)) => Ok(Opened::Ended),
            Err(StoreError::Refused(why)) => users::refused(why).map(Opened::Taken),
            Err(error) => Err(error),
        }
    }

    /// Ends a grant as its person asks; `false` where it had ended before.
    pub async fn sign_out_of_grant(&self, id: GrantId, event: Event, now: Timestamp) -> Result<bool> {
        self.write_and_forget(move |conn| {
            Box::pin(async move {
                let sql = "UPDATE grants SET revoked_at = $2, revoked_reason = 'signed_out'
                           WHERE id = $1 AND revoked_at IS NULL";
                let done = sqlx::query(sql).bind(id.as_str()).bind(now.millis()).execute(&mut *conn).await?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                events::insert(conn, &event).await?;
                Ok(true)
            })
        })
        .await
    }

    pub async fn player(&self, id: &UserId) -> Result<Profile> {
        let sql = "SELECT pseudo, total_games_completed FROM players WHERE user_id = $1";
        let row = self.db.row(|| sqlx::query(sql).bind(id.as_str().to_owned())).await?;
        let Some(row) = row else { return Ok(Profile::default()) };
        Ok(Profile { pseudo: column(&row, "pseudo")?, total_games_completed: column(&row, "total_games_completed")? })
    }

    /// # Errors
    /// `Conflict` where the person is gone.
    pub async fn change_player(&self, id: UserId, changes: Changes) -> Result<Profile> {
        self.db
            .write(move |conn| {
                Box::pin(async move {
                    let row = sqlx::query(
                        "INSERT INTO players (user_id, pseudo, total_games_completed)
                         VALUES ($1, COALESCE(CAST($2 AS TEXT), ''), COALESCE(CAST($3 AS BIGINT), 0))
                         ON CONFLICT (user_id) DO UPDATE SET
                             pseudo = COALESCE(CAST($2 AS TEXT), players.pseudo),
                             total_games_completed = COALESCE(CAST($3 AS BIGINT), players.total_games_completed)
                         RETURNING pseudo, total_games_completed",
                    )
                    .bind(id.as_str())
                    .bind(changes.pseudo.as_deref())
                    .bind(changes.total_games_completed)
                    .fetch_one(conn)
                    .await?;
                    let total_games_completed = column(&row, "total_games_completed")?;
                    Ok(Profile { pseudo: column(&row, "pseudo")?, total_games_completed })
                })
            })
            .await
    }
}

/// Returns how many older sign-ins ended for it.
async fn open(conn: &mut Conn, kind: Kind, by: Opening, new: NewGrant, event: &Event, now: Timestamp) -> Result<u64> {
    let (user_id, client_id) = (new.grant.user_id.clone(), new.grant.client_id.clone());
    match by {
        Opening::Password(set_at) => {
            if !users::hold_password(conn, &user_id, set_at).await? {
                return Err(StoreError::Refused(ENDED));
            }
        }
        Opening::SignUp(user) => sign_up(conn, &user, now).await?,
    }
    let written = grants::insert(kind, new, now)?().execute(&mut *conn).await?;
    if written.rows_affected() == 0 {
        return Err(StoreError::Refused(ENDED));
    }
    events::insert(conn, event).await?;
    let ended = sqlx::query(
        "DELETE FROM grants WHERE id IN (
             SELECT id FROM grants WHERE user_id = $1 AND client_id = $2 AND facade = 1 AND api_key_id IS NULL
             ORDER BY CASE WHEN revoked_at IS NULL THEN 0 ELSE 1 END, created_at DESC, id LIMIT 1000 OFFSET $3)",
    );
    let ended = ended.bind(user_id.as_str()).bind(client_id.as_str()).bind(MAX_SIGN_INS).execute(conn).await?;
    Ok(ended.rows_affected())
}

/// Where both the id and the address are taken, the address is what is told.
async fn sign_up(conn: &mut Conn, user: &NewUser, now: Timestamp) -> Result<()> {
    match (users::insert(conn, user, now).await, &user.email) {
        (Err(StoreError::Refused(users::ID_TAKEN)), Some(email)) => {
            let sql = "SELECT user_id FROM identifiers WHERE realm = $1 AND kind = 'email' AND value = $2";
            let taken = sqlx::query(sql).bind(REALM_DIRECT).bind(email.as_str()).fetch_optional(conn).await?;
            Err(StoreError::Refused(if taken.is_some() { EMAIL_TAKEN } else { users::ID_TAKEN }))
        }
        (result, _) => result,
    }
}
