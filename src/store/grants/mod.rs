//! Authorizations: one row each, from the code to the last refresh. Every change is one conditional statement, so
//! that of two requests that race exactly one finds the condition true. What every sign-in and every refresh asks for is
//! asked for together with others in `together.rs`; how grants are made is `creation.rs`, and what is remembered of those
//! that are refreshed again and again `rotating.rs`.

mod creation;
mod rotating;
mod together;

use sqlx::any::AnyRow;

use super::db::{Conn, Statement};
use super::events::{self, Event};
use super::users;
use super::{Result, Store, column, from_json};
use crate::protocol::claims::Authentication;
use crate::protocol::grant::{GrantRecord, RefreshState};
use crate::protocol::ids::{ApiKeyId, ClientId, GrantId, SessionId, UserId};
use crate::protocol::pkce::CodeChallenge;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;

/// A grant with the secrets that prove its code and its refresh tokens, and its person.
#[derive(Clone)]
pub struct StoredGrant {
    pub grant: GrantRecord,
    pub user: User,
    pub code_hash: Vec<u8>,
    /// Mixed into the authenticity code of each refresh token.
    pub refresh_seed: Vec<u8>,
}

/// `auth_time` of what came from an API key.
pub(super) const NOBODY_THERE: i64 = 0;

pub(super) fn read_auth_time(row: &AnyRow) -> Result<Option<Timestamp>> {
    Ok(Some(column::<i64>(row, "auth_time")?).filter(|at| *at != NOBODY_THERE).map(Timestamp))
}

/// The columns that [`read`] wants, of `grants` as `g`, beside those of the person.
macro_rules! grant_columns {
    () => {
        "g.id, g.client_id, g.session_id, g.api_key_id, g.facade, g.scope, g.resources, g.claims, g.auth_time, g.acr, g.amr, g.offline, \
         g.nonce, g.redirect_uri, g.code_challenge, g.code_hash, g.code_expires_at, g.redeemed_at, g.refresh_seed, \
         g.refresh_generation, g.refresh_rotated_at, g.refresh_used_at, g.refresh_expires_at, g.revoked_at"
    };
}

/// The rows of a table that `v` names in a column, locked, without those that somebody else holds: PostgreSQL looks for
/// each by its id, whatever it knows of the table.
macro_rules! free_of_v {
    ($column:literal, $table:literal, $lock:literal) => {
        concat!(
            "SELECT f.id FROM (SELECT DISTINCT ",
            $column,
            " AS id FROM v) w CROSS JOIN LATERAL (SELECT x.id FROM ",
            $table,
            " x WHERE x.id = w.id ",
            $lock,
            " SKIP LOCKED) f"
        )
    };
}

use free_of_v;

pub(super) use creation::{Creation, insert};
pub use creation::{GrantCreation, NewGrant};
pub(super) use grant_columns;
pub(super) use rotating::RotatingGrant;
pub(super) use together::{Redemption, Rotation};

pub(super) fn read(row: &AnyRow) -> Result<StoredGrant> {
    let user = users::read(row)?;
    let time = |name: &str| -> Result<Option<Timestamp>> { Ok(column::<Option<i64>>(row, name)?.map(Timestamp)) };
    let refresh = match (time("refresh_rotated_at")?, time("refresh_used_at")?, time("refresh_expires_at")?) {
        (Some(rotated_at), Some(used_at), Some(expires_at)) => {
            let generation = u32::try_from(column::<i64>(row, "refresh_generation")?).unwrap_or(u32::MAX);
            Some(RefreshState { generation, rotated_at, used_at, expires_at })
        }
        _ => None,
    };
    let grant = GrantRecord {
        id: GrantId::new(column::<String>(row, "id")?),
        client_id: ClientId::new(column::<String>(row, "client_id")?),
        user_id: user.id.clone(),
        session_id: column::<Option<String>>(row, "session_id")?.map(SessionId::new),
        api_key_id: column::<Option<String>>(row, "api_key_id")?.map(ApiKeyId::new),
        facade: column::<i64>(row, "facade")? != 0,
        scope: from_json("grant", column(row, "scope")?)?,
        resources: from_json("grant", column(row, "resources")?)?,
        claims: from_json("grant", column(row, "claims")?)?,
        authentication: Authentication {
            auth_time: read_auth_time(row)?,
            acr: column(row, "acr")?,
            amr: from_json("grant", column(row, "amr")?)?,
        },
        offline: column::<i64>(row, "offline")? != 0,
        nonce: column(row, "nonce")?,
        redirect_uri: column(row, "redirect_uri")?,
        code_challenge: column::<Option<String>>(row, "code_challenge")?.map(CodeChallenge::restored),
        code_expires_at: Timestamp(column(row, "code_expires_at")?),
        redeemed_at: time("redeemed_at")?,
        refresh,
        revoked_at: time("revoked_at")?,
    };
    Ok(StoredGrant { grant, user, code_hash: column(row, "code_hash")?, refresh_seed: column(row, "refresh_seed")? })
}

impl Store {
    /// Begins the rest of a refresh token anew. `false` where the grant was revoked meanwhile.
    pub async fn touch_refresh(&self, id: GrantId, now: Timestamp) -> Result<bool> {
        self.conditional(move || {
            sqlx::query("UPDATE grants SET refresh_used_at = $2 WHERE id = $1 AND revoked_at IS NULL")
                .bind(id.as_str().to_owned())
                .bind(now.millis())
        })
        .await
    }

    /// Ends a grant with all its tokens; the event learns whose it was. `false` where it had ended before.
    pub async fn revoke_grant(&self, id: GrantId, reason: &'static str, event: Event, now: Timestamp) -> Result<bool> {
        let sql = "UPDATE grants SET revoked_at = $2, revoked_reason = $3 WHERE id = $1 AND revoked_at IS NULL
                   RETURNING user_id";
        self.write_and_forget(move |conn| {
            Box::pin(async move {
                let statement = sqlx::query(sql).bind(id.as_str()).bind(now.millis()).bind(reason);
                let Some(row) = statement.fetch_optional(&mut *conn).await? else { return Ok(false) };
                let user_id = UserId::new(column::<String>(&row, "user_id")?);
                let event = event.of_user(&user_id).with("reason", reason).with("grant_id", id.as_str());
                events::insert(conn, &event).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Revokes one access token until it would have expired by itself.
    pub async fn revoke_access_token(&self, jti: String, expires_at: Timestamp, event: Event) -> Result<()> {
        let sql = "INSERT INTO used_ids (kind, id, expires_at) VALUES ('jti', $1, $2) ON CONFLICT DO NOTHING";
        self.write_and_forget(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(sql).bind(jti.as_str()).bind(expires_at.millis()).execute(&mut *conn).await?;
                if done.rows_affected() > 0 {
                    events::insert(conn, &event.with("jti", jti)).await?;
                }
                Ok(())
            })
        })
        .await
    }

    pub async fn is_access_token_revoked(&self, jti: &str) -> Result<bool> {
        let sql = "SELECT id FROM used_ids WHERE kind = 'jti' AND id = $1";
        Ok(self.db.row(|| sqlx::query(sql).bind(jti.to_owned())).await?.is_some())
    }

    /// One conditional statement; whether its condition held.
    async fn conditional(&self, statement: impl Fn() -> Statement<'static> + Send + Sync + 'static) -> Result<bool> {
        Ok(self.db.execute(statement).await? > 0)
    }
}

pub(super) async fn revoke_online_of_session(conn: &mut Conn, id: &SessionId, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE grants SET revoked_at = $2, revoked_reason = 'signed_out'
         WHERE session_id = $1 AND offline = 0 AND revoked_at IS NULL",
    )
    .bind(id.as_str())
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends everything that was made from a key; its sessions go with it.
pub(super) async fn revoke_all_of_key(conn: &mut Conn, kid: &ApiKeyId, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE grants SET revoked_at = $2, revoked_reason = 'api_key_revoked'
         WHERE api_key_id = $1 AND revoked_at IS NULL",
    )
    .bind(kid.as_str())
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn revoke_all_of_user(
    conn: &mut Conn,
    id: &UserId,
    reason: &'static str,
    now: Timestamp,
) -> Result<()> {
    sqlx::query("UPDATE grants SET revoked_at = $2, revoked_reason = $3 WHERE user_id = $1 AND revoked_at IS NULL")
        .bind(id.as_str())
        .bind(now.millis())
        .bind(reason)
        .execute(conn)
        .await?;
    Ok(())
}
