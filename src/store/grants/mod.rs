//! Authorizations: one row each, from the code to the last refresh. Every change is one conditional statement, so
//! that of two requests that race exactly one finds the condition true. What every sign-in and every refresh asks for is
//! asked for together with others in `together.rs`.

mod together;

use sqlx::any::AnyRow;

use super::db::{Conn, Kind, Statement};
use super::events::{self, Event};
use super::users;
use super::{Result, Store, column, from_json, to_json};
use crate::protocol::api_key::MAX_OPENED_BY_KEY;
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

/// A grant to make, with its secrets.
pub struct NewGrant {
    pub grant: GrantRecord,
    /// `None` where it never had a code.
    pub code_hash: Option<[u8; 32]>,
    pub refresh_seed: [u8; 32],
    /// When the row may be forgotten.
    pub expires_at: Timestamp,
    /// Where a key signs its person in by a call.
    pub event: Option<Event>,
}

/// What writing a grant came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantCreation {
    Created,
    /// The sign-in that the id stands for was completed already.
    IdUsed,
    /// What it leans on ended meanwhile: the person signed out, was disabled or deleted, the API key was revoked.
    Ended,
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

pub(super) use grant_columns;
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
    /// Writes the grant whose code or refresh token is about to leave.
    pub async fn create_grant(&self, new: NewGrant, now: Timestamp) -> Result<GrantCreation> {
        let (id, api_key_id) = (new.grant.id.clone(), new.grant.api_key_id.clone());
        let event = new.event.clone();
        let statement = insert(insert_sql(self.db.kind()), new, now)?;
        let created = match &api_key_id {
            None => self.conditional(statement).await?,
            Some(kid) => self.create_grant_of_key(statement, kid.clone(), event).await?,
        };
        if created {
            return Ok(GrantCreation::Created);
        }
        if api_key_id.is_some() {
            // Another process ended the key: what is remembered of it here would only decide the same again.
            self.caches.api_keys.clear();
        }
        let used = self.db.row(|| sqlx::query("SELECT id FROM grants WHERE id = $1").bind(id.as_str().to_owned()));
        Ok(if used.await?.is_some() { GrantCreation::IdUsed } else { GrantCreation::Ended })
    }

    /// The same for one that an API key opened; the oldest of too many ends.
    async fn create_grant_of_key(
        &self,
        statement: impl Fn() -> Statement<'static> + Send + Sync + 'static,
        kid: ApiKeyId,
        event: Option<Event>,
    ) -> Result<bool> {
        let written = self.db.write(move |conn| {
            let insert = statement();
            Box::pin(async move {
                if insert.execute(&mut *conn).await?.rows_affected() == 0 {
                    return Ok((false, 0));
                }
                if let Some(event) = &event {
                    events::insert(conn, event).await?;
                }
                let oldest = sqlx::query(
                    "DELETE FROM grants WHERE id IN (
                         SELECT id FROM grants WHERE api_key_id = $1 ORDER BY created_at DESC, id LIMIT 1000 OFFSET $2)",
                );
                let ended = oldest.bind(kid.as_str()).bind(MAX_OPENED_BY_KEY).execute(conn).await?;
                Ok((true, ended.rows_affected()))
            })
        });
        let (created, ended) = written.await?;
        if ended > 0 {
            self.standings.forget();
        }
        Ok(created)
    }

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

/// The grant's row, before what makes it conditional.
macro_rules! insert_row {
    () => {
        "INSERT INTO grants (id, client_id, user_id, session_id, scope, resources, claims, auth_time, acr, amr,
             offline, nonce, redirect_uri, code_challenge, code_hash, code_expires_at, refresh_seed,
             refresh_generation, created_at, expires_at, api_key_id, redeemed_at, refresh_rotated_at, refresh_used_at,
             refresh_expires_at, facade)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 0, $18, $19, $20, $21, $22,
             $22, $23, $24"
    };
}

/// Only for a person who is active, by a key that counts, in a session that has not ended. SQLite has one writer, so
/// what holds in the statement holds until its commit.
const INSERT_ON_SQLITE: &str = concat!(
    insert_row!(),
    " WHERE EXISTS (SELECT 1 FROM users WHERE id = $3 AND disabled_at IS NULL)
        AND ($20 IS NULL OR EXISTS (
            SELECT 1 FROM api_keys WHERE kid = $20 AND revoked_at IS NULL AND expires_at > $18))
        AND ($4 IS NULL OR EXISTS (SELECT 1 FROM sessions WHERE id = $4))
      ON CONFLICT (id) DO NOTHING"
);

/// The same, and person, key and session are locked, in the order that everything else does, so that a revocation or a
/// sign-out at the same moment either sees this grant or prevents it.
const INSERT_ON_POSTGRES: &str = concat!(
    "WITH person AS (SELECT id FROM users WHERE id = $3 AND disabled_at IS NULL FOR SHARE),
         key AS (SELECT kid FROM api_keys WHERE kid = $20 AND revoked_at IS NULL AND expires_at > $18
             AND EXISTS (SELECT 1 FROM person) FOR SHARE),
         session AS (SELECT id FROM sessions WHERE id = $4
             AND ($20 IS NULL OR EXISTS (SELECT 1 FROM key)) FOR SHARE) ",
    insert_row!(),
    " WHERE EXISTS (SELECT 1 FROM person) AND ($20 IS NULL OR EXISTS (SELECT 1 FROM key))
        AND ($4 IS NULL OR EXISTS (SELECT 1 FROM session))
      ON CONFLICT (id) DO NOTHING"
);

pub(super) const fn insert_sql(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite => INSERT_ON_SQLITE,
        Kind::Postgres => INSERT_ON_POSTGRES,
    }
}

pub(super) fn insert(
    sql: &'static str,
    new: NewGrant,
    now: Timestamp,
) -> Result<impl Fn() -> Statement<'static> + Send + Sync + 'static> {
    let NewGrant { grant, code_hash, refresh_seed, expires_at, event: _ } = new;
    let (scope, resources) = (to_json("grant", &grant.scope)?, to_json("grant", &grant.resources)?);
    let (claims, amr) = (to_json("grant", &grant.claims)?, to_json("grant", &grant.authentication.amr)?);
    Ok(move || {
        sqlx::query(sql)
            .bind(grant.id.as_str().to_owned())
            .bind(grant.client_id.as_str().to_owned())
            .bind(grant.user_id.as_str().to_owned())
            .bind(grant.session_id.as_ref().map(|id| id.as_str().to_owned()))
            .bind(scope.clone())
            .bind(resources.clone())
            .bind(claims.clone())
            .bind(grant.authentication.auth_time.map_or(NOBODY_THERE, Timestamp::millis))
            .bind(grant.authentication.acr.clone())
            .bind(amr.clone())
            .bind(i64::from(grant.offline))
            .bind(grant.nonce.clone())
            .bind(grant.redirect_uri.clone())
            .bind(grant.code_challenge.as_ref().map(|challenge| challenge.as_str().to_owned()))
            .bind(code_hash.map(|hash| hash.to_vec()).unwrap_or_default())
            .bind(grant.code_expires_at.millis())
            .bind(refresh_seed.to_vec())
            .bind(now.millis())
            .bind(expires_at.millis())
            .bind(grant.api_key_id.as_ref().map(|kid| kid.as_str().to_owned()))
            .bind(grant.redeemed_at.map(Timestamp::millis))
            .bind(grant.refresh.map(|refresh| refresh.used_at.millis()))
            .bind(grant.refresh.map(|refresh| refresh.expires_at.millis()))
            .bind(i64::from(grant.facade))
    })
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
