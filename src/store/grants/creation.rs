//! Making grants. Under load one statement makes many of those that are for a code.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use super::{NOBODY_THERE, free_of_v};
use crate::protocol::api_key::MAX_OPENED_BY_KEY;
use crate::protocol::grant::GrantRecord;
use crate::protocol::ids::{ApiKeyId, GrantId};
use crate::protocol::time::Timestamp;
use crate::store::db::{Db, Kind, Statement};
use crate::store::events::{self, Event};
use crate::store::gather::{Done, Found, Texts};
use crate::store::{Result, Store, column, to_json};

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

/// A grant's row as it is written.
struct Row {
    new: NewGrant,
    scope: String,
    resources: String,
    claims: String,
    amr: String,
    created_at: Timestamp,
}

impl Row {
    fn new(new: NewGrant, created_at: Timestamp) -> Result<Self> {
        let grant = &new.grant;
        let (scope, resources) = (to_json("grant", &grant.scope)?, to_json("grant", &grant.resources)?);
        let (claims, amr) = (to_json("grant", &grant.claims)?, to_json("grant", &grant.authentication.amr)?);
        Ok(Self { new, scope, resources, claims, amr, created_at })
    }

    /// The parameters of [`columns`], in their order.
    fn bind(&self, statement: Statement<'static>) -> Statement<'static> {
        let NewGrant { grant, code_hash, refresh_seed, expires_at, event: _ } = &self.new;
        statement
            .bind(grant.id.as_str().to_owned())
            .bind(grant.client_id.as_str().to_owned())
            .bind(grant.user_id.as_str().to_owned())
            .bind(grant.session_id.as_ref().map(|id| id.as_str().to_owned()))
            .bind(self.scope.clone())
            .bind(self.resources.clone())
            .bind(self.claims.clone())
            .bind(grant.authentication.auth_time.map_or(NOBODY_THERE, Timestamp::millis))
            .bind(grant.authentication.acr.clone())
            .bind(self.amr.clone())
            .bind(i64::from(grant.offline))
            .bind(grant.nonce.clone())
            .bind(grant.redirect_uri.clone())
            .bind(grant.code_challenge.as_ref().map(|challenge| challenge.as_str().to_owned()))
            .bind(code_hash.map(|hash| hash.to_vec()).unwrap_or_default())
            .bind(grant.code_expires_at.millis())
            .bind(refresh_seed.to_vec())
            .bind(self.created_at.millis())
            .bind(expires_at.millis())
            .bind(grant.api_key_id.as_ref().map(|kid| kid.as_str().to_owned()))
            .bind(grant.redeemed_at.map(Timestamp::millis))
            .bind(grant.refresh.map(|refresh| refresh.used_at.millis()))
            .bind(grant.refresh.map(|refresh| refresh.expires_at.millis()))
            .bind(i64::from(grant.facade))
    }
}

macro_rules! columns {
    () => {
        "id, client_id, user_id, session_id, scope, resources, claims, auth_time, acr, amr, offline, nonce, redirect_uri,
         code_challenge, code_hash, code_expires_at, refresh_seed, created_at, expires_at, api_key_id, redeemed_at,
         refresh_used_at, refresh_expires_at, facade"
    };
}

/// What [`columns`] says, and what is filled in.
macro_rules! insert {
    () => {
        concat!("INSERT INTO grants (", columns!(), ", refresh_rotated_at, refresh_generation) SELECT ")
    };
}

/// The grant's row, before what makes it conditional.
macro_rules! insert_row {
    () => {
        concat!(
            insert!(),
            "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
             $24, $22, 0"
        )
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

/// A grant for a code, to be made together with others. Two of one id differ in the code.
#[derive(Clone)]
pub(in crate::store) struct Creation(Arc<Row>);

impl Creation {
    fn identity(&self) -> (&GrantId, Option<[u8; 32]>) {
        (&self.0.new.grant.id, self.0.new.code_hash)
    }
}

impl PartialEq for Creation {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Creation {}

impl Hash for Creation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// Many at once, none of them from a key. One for a client that was deleted must not spoil it for the others.
const TOGETHER_ON_SQLITE: &str = concat!(
    "WITH v (",
    columns!(),
    ") AS (VALUES {}) ",
    insert!(),
    columns!(),
    ", refresh_used_at, 0 FROM v
     WHERE EXISTS (SELECT 1 FROM clients WHERE clients.id = v.client_id)
         AND EXISTS (SELECT 1 FROM users WHERE users.id = v.user_id AND users.disabled_at IS NULL)
         AND (v.session_id IS NULL OR EXISTS (SELECT 1 FROM sessions WHERE sessions.id = v.session_id))
     ON CONFLICT (id) DO NOTHING RETURNING id, code_hash"
);

/// The same, with the locks of [`INSERT_ON_POSTGRES`], and that of the client's key, where they are free. Waiting for one
/// while it holds the others, it could wait for somebody who waits for it; whoever was passed over asks alone. What it may
/// wait for is another grant of the same id, so everybody inserts in one order.
const TOGETHER_ON_POSTGRES: &str = concat!(
    "WITH v (",
    columns!(),
    ") AS (VALUES {}),
     people AS (",
    free_of_v!("user_id", "users", "AND x.disabled_at IS NULL FOR SHARE"),
    "), alive AS (",
    free_of_v!("session_id", "sessions", "FOR SHARE"),
    "), known AS (",
    free_of_v!("client_id", "clients", "FOR KEY SHARE"),
    ") ",
    insert!(),
    columns!(),
    ", refresh_used_at, 0 FROM v
     WHERE user_id IN (SELECT people.id FROM people)
         AND (session_id IS NULL OR session_id IN (SELECT alive.id FROM alive))
         AND client_id IN (SELECT known.id FROM known)
     ORDER BY id
     ON CONFLICT (id) DO NOTHING RETURNING id, code_hash"
);

static TOGETHER: LazyLock<[Texts; 2]> =
    LazyLock::new(|| [TOGETHER_ON_SQLITE, TOGETHER_ON_POSTGRES].map(|text| Texts::new(24, text)));

async fn create(db: Db, many: Vec<Creation>) -> Result<Vec<(Creation, Done)>> {
    let [on_sqlite, on_postgres] = &*TOGETHER;
    let texts = match db.kind() {
        Kind::Sqlite => on_sqlite,
        Kind::Postgres => on_postgres,
    };
    let mut padded = many.clone();
    let sql = texts.for_keys(&mut padded);
    let statement = move || padded.iter().fold(sqlx::query(sql), |statement, one| one.0.bind(statement));
    let mut created = Vec::new();
    for row in db.returning(statement).await? {
        let (id, code_hash) = (column::<&str>(&row, "id")?, column::<&[u8]>(&row, "code_hash")?);
        let is = |one: &&Creation| {
            let (own, own_hash) = one.identity();
            own.as_str() == id && own_hash.map_or(Vec::new(), Vec::from) == code_hash
        };
        created.extend(many.iter().find(is).map(|one| (one.clone(), Done::default())));
    }
    Ok(created)
}

const fn insert_sql(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite => INSERT_ON_SQLITE,
        Kind::Postgres => INSERT_ON_POSTGRES,
    }
}

/// The statement that makes a grant, if what it leans on stands.
pub(in crate::store) fn insert(
    kind: Kind,
    new: NewGrant,
    now: Timestamp,
) -> Result<impl Fn() -> Statement<'static> + Send + Sync + 'static> {
    let row = Row::new(new, now)?;
    Ok(insert_row(kind, Arc::new(row)))
}

fn insert_row(kind: Kind, row: Arc<Row>) -> impl Fn() -> Statement<'static> + Send + Sync + 'static {
    move || row.bind(sqlx::query(insert_sql(kind)))
}

impl Store {
    /// Writes the grant whose code or refresh token is about to leave.
    pub async fn create_grant(&self, new: NewGrant, now: Timestamp) -> Result<GrantCreation> {
        let (id, api_key_id) = (new.grant.id.clone(), new.grant.api_key_id.clone());
        let created = match &api_key_id {
            None => self.create_grant_for_code(Row::new(new, now)?).await?,
            Some(kid) => {
                let event = new.event.clone();
                self.create_grant_of_key(insert(self.db.kind(), new, now)?, kid.clone(), event).await?
            }
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

    async fn create_grant_for_code(&self, row: Row) -> Result<bool> {
        let (one, db) = (Creation(Arc::new(row)), self.db.clone());
        let together = move |many| Box::pin(create(db.clone(), many)) as Found<_, _>;
        match self.gathers.creations.ask(one.clone(), together).await? {
            Some(done) => Ok(done.is_mine()),
            // On SQLite one whose client was deleted; here it says so.
            None => self.conditional(insert_row(self.db.kind(), one.0)).await,
        }
    }

    /// The same for one that an API key opened; the oldest of too many ends.
    async fn create_grant_of_key(
        &self,
        statement: impl Fn() -> Statement<'static> + Send + Sync + 'static,
        kid: ApiKeyId,
        event: Option<Event>,
    ) -> Result<bool> {
        let ended_one = |(_, ended): &(bool, u64)| *ended > 0;
        let written = self.write_and_forget_if(ended_one, move |conn| {
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
        let (created, _) = written.await?;
        Ok(created)
    }
}
