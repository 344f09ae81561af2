//! Browser sessions. The cookie's secret is kept as its hash; the row's id is the `sid` that apps are told.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::db::{Conn, Db, Statement};
use super::events::{self, Event};
use super::gather::{Found, Texts};
use super::grants::{NOBODY_THERE, read_auth_time};
use super::links::{self, LinkKind};
use super::users::{self, user_columns};
use super::{Result, Store, StoreError, api_keys, column, consents, from_json, onboardings, to_json};
use crate::protocol::api_key::{KeySession, MAX_OPENED_BY_KEY, Origin};
use crate::protocol::claims::Authentication;
use crate::protocol::ids::{ApiKeyId, ClientId, SessionId, UserId};
use crate::protocol::interaction::{Consent, Session};
use crate::protocol::partner::{MAX_HANDED_OVER, OnboardingState};
use crate::protocol::scope::ScopeSet;
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;
use crate::telemetry::metrics;

/// A session to begin, or to go on under a new secret.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub token_hash: [u8; 32],
    pub user_id: UserId,
    pub proof: Proof,
    pub authentication: Authentication,
    pub expires_at: Timestamp,
}

/// The session that a browser had before, and the event that tells of its end.
#[derive(Clone, Debug)]
pub struct Replaced {
    pub id: SessionId,
    pub event: Event,
}

/// What a session begins by, and only if it still stands then.
#[derive(Clone, Debug)]
pub enum Proof {
    /// When the password was set that was checked.
    Password(Timestamp),
    /// A key, with how far the session reaches.
    ApiKey(ApiKeyId, Box<KeySession>),
    /// A partner's link, by the hash of its secret, with the same.
    HandOff([u8; 32], Box<KeySession>),
}

impl Proof {
    fn reach(&self) -> Option<&KeySession> {
        match self {
            Self::Password(_) => None,
            Self::ApiKey(_, reach) | Self::HandOff(_, reach) => Some(reach),
        }
    }
}

/// The `reach` of a row.
#[derive(Serialize, Deserialize)]
struct Reach {
    scope: ScopeSet,
    audiences: Vec<String>,
    origin: Option<Origin>,
}

/// A live session with its person.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub session: Session,
    pub user: User,
    pub last_seen_at: Timestamp,
    pub expires_at: Timestamp,
}

/// A live session as an operator sees it: without what proves it.
#[derive(Clone, Debug)]
pub struct ListedSession {
    pub id: SessionId,
    pub user_id: UserId,
    pub username: Option<String>,
    pub email: Option<String>,
    /// `None` for one from an API key.
    pub auth_time: Option<Timestamp>,
    pub created_at: Timestamp,
    pub last_seen_at: Timestamp,
    pub expires_at: Timestamp,
}

fn read_listed(row: &AnyRow) -> Result<ListedSession> {
    Ok(ListedSession {
        id: SessionId::new(column::<String>(row, "id")?),
        user_id: UserId::new(column::<String>(row, "user_id")?),
        username: column(row, "username")?,
        email: column(row, "email")?,
        auth_time: read_auth_time(row)?,
        created_at: Timestamp(column(row, "created_at")?),
        last_seen_at: Timestamp(column(row, "last_seen_at")?),
        expires_at: Timestamp(column(row, "expires_at")?),
    })
}

fn read(row: &AnyRow) -> Result<SignedIn> {
    let user = users::read(row)?;
    let authentication = Authentication {
        auth_time: read_auth_time(row)?,
        acr: column(row, "acr")?,
        amr: from_json("session", column(row, "amr")?)?,
    };
    let key = match column::<Option<String>>(row, "reach")? {
        None => None,
        Some(reach) => {
            let kid = column::<Option<String>>(row, "api_key_id")?.map(ApiKeyId::new);
            let Reach { scope, audiences, origin } = from_json("session", &reach)?;
            Some(KeySession { kid, scope, audiences, origin, partner: user.partner.clone() })
        }
    };
    let session = Session {
        id: SessionId::new(column::<String>(row, "session_id")?),
        user_id: user.id.clone(),
        roles: user.roles.clone(),
        authentication,
        key,
    };
    Ok(SignedIn {
        session,
        user,
        last_seen_at: Timestamp(column(row, "last_seen_at")?),
        expires_at: Timestamp(column(row, "session_expires_at")?),
    })
}

/// The columns that [`read`] wants, of `sessions` as `s`, beside those of the person.
macro_rules! session_columns {
    () => {
        "s.id AS session_id, s.api_key_id, s.reach, s.auth_time, s.acr, s.amr, s.last_seen_at, \
         s.expires_at AS session_expires_at"
    };
}

/// A cookie, by the hash of its secret, in the eyes of a client; of none where the id is empty.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Visit {
    token_hash: [u8; 32],
    client_id: ClientId,
}

/// Whose cookie it is, and what they have allowed the client.
pub(super) type Visited = (SignedIn, Option<Consent>);

static VISITS: LazyLock<Texts> = LazyLock::new(|| {
    Texts::new(
        2,
        concat!(
            "WITH v (token_hash, visited) AS (VALUES {})
             SELECT v.visited, s.token_hash, c.allowed, c.given_at, ",
            session_columns!(),
            ", ",
            user_columns!(),
            " FROM v JOIN sessions s ON s.token_hash = v.token_hash JOIN users u ON u.id = s.user_id
              LEFT JOIN consents c ON c.user_id = s.user_id AND c.client_id = v.visited"
        ),
    )
});

async fn find(db: Db, mut visits: Vec<Visit>) -> Result<Vec<(Visit, Visited)>> {
    let sql = VISITS.for_keys(&mut visits);
    let statement = || {
        let bind = |statement: Statement<'static>, visit: &Visit| {
            statement.bind(visit.token_hash.to_vec()).bind(visit.client_id.as_str().to_owned())
        };
        visits.iter().fold(sqlx::query(sql), bind)
    };
    let read_visit = |row: &AnyRow| {
        let token_hash = column::<Vec<u8>>(row, "token_hash")?;
        let corrupt = |_| StoreError::Corrupt { what: "session", why: "a hash of another length".to_owned() };
        let visit = Visit {
            token_hash: token_hash.try_into().map_err(corrupt)?,
            client_id: ClientId::new(column::<String>(row, "visited")?),
        };
        Ok((visit, (read(row)?, consents::read_joined(row)?)))
    };
    db.rows(statement).await?.iter().map(read_visit).collect()
}

impl Store {
    /// The live session whose cookie hashes to `token_hash`, seen within `idle`.
    pub async fn session(&self, token_hash: [u8; 32], idle: Span, now: Timestamp) -> Result<Option<SignedIn>> {
        let visited = self.session_and_consent(token_hash, &ClientId::new(""), idle, now).await?;
        Ok(visited.map(|(signed_in, _)| signed_in))
    }

    /// The same, with what its person has allowed `client`.
    pub async fn session_and_consent(
        &self,
        token_hash: [u8; 32],
        client: &ClientId,
        idle: Span,
        now: Timestamp,
    ) -> Result<Option<(SignedIn, Option<Consent>)>> {
        let visit = Visit { token_hash, client_id: client.clone() };
        let db = self.db.clone();
        let together = move |visits| Box::pin(find(db.clone(), visits)) as Found<_, _>;
        let visited = self.gathers.visits.find(visit, together).await?;
        Ok(visited.filter(|(found, _)| {
            found.expires_at > now && found.last_seen_at > now - idle && found.user.disabled_at.is_none()
        }))
    }

    /// Begins a session in place of `replaced`, which ends with its online grants unless it is the same one: the
    /// same person who signs in again keeps the `sid`, under a new secret. `false` where the password was changed or
    /// the person disabled since it was checked.
    pub async fn begin_session(
        &self,
        new: NewSession,
        replaced: Option<Replaced>,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        let began = self.write_and_forget(move |conn| {
            Box::pin(async move {
                let mut began = Vec::new();
                let stands = match &new.proof {
                    Proof::Password(set_at) => users::hold_password(conn, &new.user_id, *set_at).await?,
                    Proof::ApiKey(kid, _) => {
                        users::hold(conn, &new.user_id).await? && api_keys::hold(conn, kid, now).await?
                    }
                    Proof::HandOff(link, _) => {
                        users::hold(conn, &new.user_id).await?
                            && links::redeem(conn, *link, LinkKind::HandOff, &new.user_id, now).await?
                    }
                };
                if !stands {
                    return Ok((false, began));
                }
                if let Some(old) = replaced.filter(|old| old.id != new.id)
                    && end(conn, &old.id, now).await?
                {
                    events::insert(conn, &old.event).await?;
                }
                upsert(conn, &new, now).await?;
                match &new.proof {
                    Proof::Password(_) => {}
                    Proof::ApiKey(kid, _) => end_oldest_of_key(conn, kid, now).await?,
                    Proof::HandOff(..) => {
                        end_oldest_handed_over(conn, &new.user_id, now).await?;
                        began = onboardings::first_auth(conn, &[(new.user_id.clone(), now)]).await?;
                    }
                }
                events::insert(conn, &event).await?;
                Ok((true, began))
            })
        });
        let (began, partners) = began.await?;
        for partner in partners {
            metrics::onboarding(partner.as_str(), OnboardingState::FirstAuth.as_str());
        }
        Ok(began)
    }

    /// Notes that a session was used, at most as often as the caller asks.
    pub async fn touch_session(&self, id: SessionId, now: Timestamp) -> Result<()> {
        let sql = "UPDATE sessions SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2";
        self.db.execute(move || sqlx::query(sql).bind(id.as_str().to_owned()).bind(now.millis())).await?;
        Ok(())
    }

    /// Up to `limit` live sessions, of one person or of all, in the order of their ids, after the one with id `after`.
    pub async fn sessions(
        &self,
        user_id: Option<&UserId>,
        after: Option<&SessionId>,
        limit: i64,
        idle: Span,
        now: Timestamp,
    ) -> Result<Vec<ListedSession>> {
        // By id, which an index orders and which still tells where to go on when that session has ended. A text for each,
        // so that its index is used.
        macro_rules! page_of {
            ($whose:literal) => {
                concat!(
                    "SELECT s.id, s.user_id, u.username, u.email, s.auth_time, s.created_at, s.last_seen_at, s.expires_at
                     FROM sessions s JOIN users u ON u.id = s.user_id
                     WHERE s.id > $1 AND ",
                    $whose,
                    " AND s.expires_at > $3 AND s.last_seen_at > $4 AND u.disabled_at IS NULL
                     ORDER BY s.id LIMIT $5"
                )
            };
        }
        let sql = if user_id.is_some() { page_of!("s.user_id = $2") } else { page_of!("$2 = ''") };
        let after = after.map_or("", SessionId::as_str).to_owned();
        let user_id = user_id.map_or("", UserId::as_str).to_owned();
        let seen_after = (now - idle).millis();
        let statement = || {
            let statement = sqlx::query(sql).bind(after.clone()).bind(user_id.clone()).bind(now.millis());
            statement.bind(seen_after).bind(limit)
        };
        self.db.rows(statement).await?.iter().map(read_listed).collect()
    }

    /// Ends a session from outside, as a sign-out would; whose it was, which the event learns as well.
    pub async fn revoke_session(&self, id: SessionId, event: Event, now: Timestamp) -> Result<Option<UserId>> {
        self.change(move |conn| {
            Box::pin(async move {
                let row = sqlx::query("DELETE FROM sessions WHERE id = $1 RETURNING user_id")
                    .bind(id.as_str())
                    .fetch_optional(&mut *conn)
                    .await?;
                let Some(row) = row else { return Ok(None) };
                super::grants::revoke_online_of_session(conn, &id, now).await?;
                let user_id = UserId::new(column::<String>(&row, "user_id")?);
                events::insert(conn, &event.of_user(&user_id)).await?;
                Ok(Some(user_id))
            })
        })
        .await
    }

    /// Ends every session of a person, as sign-outs would; how many there were, which the event learns as well.
    pub async fn revoke_sessions_of_user(&self, user_id: UserId, event: Event, now: Timestamp) -> Result<usize> {
        self.change(move |conn| {
            Box::pin(async move {
                // Whoever signs in at the same moment does so before this or after it.
                users::hold(conn, &user_id).await?;
                let rows = sqlx::query("DELETE FROM sessions WHERE user_id = $1 RETURNING id")
                    .bind(user_id.as_str())
                    .fetch_all(&mut *conn)
                    .await?;
                for row in &rows {
                    let id = SessionId::new(column::<String>(row, "id")?);
                    super::grants::revoke_online_of_session(conn, &id, now).await?;
                }
                if !rows.is_empty() {
                    events::insert(conn, &event.with("sessions", rows.len())).await?;
                }
                Ok(rows.len())
            })
        })
        .await
    }

    /// Signs out: ends the session and its online grants with their tokens; offline grants live on.
    pub async fn end_session(&self, id: SessionId, event: Event, now: Timestamp) -> Result<()> {
        self.write_and_forget(move |conn| {
            Box::pin(async move {
                // Of two clicks the second ends nothing.
                if end(conn, &id, now).await? {
                    events::insert(conn, &event).await?;
                }
                Ok(())
            })
        })
        .await
    }
}

async fn upsert(conn: &mut Conn, new: &NewSession, now: Timestamp) -> Result<()> {
    let (kid, reach) = match new.proof.reach() {
        None => (None, None),
        Some(reach) => {
            let KeySession { kid, scope, audiences, origin, partner: _ } = reach.clone();
            (kid, Some(to_json("session", &Reach { scope, audiences, origin })?))
        }
    };
    sqlx::query(
        "INSERT INTO sessions (id, token_hash, user_id, auth_time, acr, amr, created_at, last_seen_at, expires_at,
             api_key_id, reach)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10)
         ON CONFLICT (id) DO UPDATE SET token_hash = excluded.token_hash, auth_time = excluded.auth_time,
             acr = excluded.acr, amr = excluded.amr, last_seen_at = excluded.last_seen_at,
             expires_at = excluded.expires_at, api_key_id = excluded.api_key_id, reach = excluded.reach",
    )
    .bind(new.id.as_str())
    .bind(new.token_hash.to_vec())
    .bind(new.user_id.as_str())
    .bind(new.authentication.auth_time.map_or(NOBODY_THERE, Timestamp::millis))
    .bind(new.authentication.acr.as_str())
    .bind(to_json("session", &new.authentication.amr)?)
    .bind(now.millis())
    .bind(new.expires_at.millis())
    .bind(kid.as_ref().map(ApiKeyId::as_str))
    .bind(reach)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends the sessions that came from a key; their grants end with the key themselves.
pub(super) async fn end_all_of_key(conn: &mut Conn, kid: &ApiKeyId) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE api_key_id = $1").bind(kid.as_str()).execute(conn).await?;
    Ok(())
}

async fn end_oldest_of_key(conn: &mut Conn, kid: &ApiKeyId, now: Timestamp) -> Result<()> {
    let oldest =
        sqlx::query("SELECT id FROM sessions WHERE api_key_id = $1 ORDER BY created_at DESC, id LIMIT 1000 OFFSET $2");
    let rows = oldest.bind(kid.as_str()).bind(MAX_OPENED_BY_KEY).fetch_all(&mut *conn).await?;
    end_each(conn, &rows, now).await
}

async fn end_oldest_handed_over(conn: &mut Conn, id: &UserId, now: Timestamp) -> Result<()> {
    let oldest = sqlx::query(
        "SELECT id FROM sessions WHERE user_id = $1 AND api_key_id IS NULL AND reach IS NOT NULL
         ORDER BY created_at DESC, id LIMIT 1000 OFFSET $2",
    );
    let rows = oldest.bind(id.as_str()).bind(MAX_HANDED_OVER).fetch_all(&mut *conn).await?;
    end_each(conn, &rows, now).await
}

/// As sign-outs would.
async fn end_each(conn: &mut Conn, rows: &[AnyRow], now: Timestamp) -> Result<()> {
    for row in rows {
        end(conn, &SessionId::new(column::<String>(row, "id")?), now).await?;
    }
    Ok(())
}

/// No session from a key outlives it.
pub(super) async fn shorten_all_of_key(conn: &mut Conn, kid: &ApiKeyId, until: Timestamp) -> Result<()> {
    sqlx::query("UPDATE sessions SET expires_at = $2 WHERE api_key_id = $1 AND expires_at > $2")
        .bind(kid.as_str())
        .bind(until.millis())
        .execute(conn)
        .await?;
    Ok(())
}

/// `false` where it had ended before.
async fn end(conn: &mut Conn, id: &SessionId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id.as_str()).execute(&mut *conn).await?;
    super::grants::revoke_online_of_session(conn, id, now).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn end_all_of_user(conn: &mut Conn, id: &UserId) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(id.as_str()).execute(conn).await?;
    Ok(())
}
