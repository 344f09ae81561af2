//! What every sign-in and every refresh does to its grant: finds it, uses up its code, moves its refresh token on. Under
//! load one statement does it for many.

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use super::{StoredGrant, free_of_v, grant_columns, read};
use crate::protocol::ids::GrantId;
use crate::protocol::time::Timestamp;
use crate::store::db::{Db, Statement};
use crate::store::gather::{Done, Found, Gather, Texts};
use crate::store::users::user_columns;
use crate::store::{Result, Store, column};

/// A code to use up.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::store) struct Redemption {
    id: GrantId,
    at: Timestamp,
    refresh_expires_at: Option<Timestamp>,
    row_expires_at: Timestamp,
}

/// A refresh token to replace.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::store) struct Rotation {
    id: GrantId,
    from: u32,
    at: Timestamp,
}

static FIND: LazyLock<Texts> = LazyLock::new(|| {
    Texts::new(
        1,
        concat!(
            "SELECT ",
            grant_columns!(),
            ", ",
            user_columns!(),
            " FROM grants g JOIN users u ON u.id = g.user_id WHERE g.id IN ({})"
        ),
    )
});

/// A change of many rows at once. Together, on PostgreSQL, it passes over those that somebody else is at: waiting for one
/// while it holds the others, it could wait for somebody who waits for it. Whoever was passed over asks alone.
struct Change {
    waiting: Texts,
    passing: Texts,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Together,
    Alone,
}

impl Change {
    /// `set` of the rows for which `condition` holds, both in terms of `grants` and of `v` with these columns, the first of
    /// which is `grant_id`.
    fn new(columns: &[&str], set: &str, condition: &str) -> Self {
        let text = |free: &str, and_free: &str| {
            let names = columns.join(", ");
            let text = format!(
                "WITH v ({names}) AS (VALUES {{}}){free}
                 UPDATE grants SET {set} FROM v WHERE grants.id = v.grant_id AND {condition}{and_free}
                 RETURNING grants.id, grants.refresh_generation"
            );
            Texts::new(columns.len(), &text)
        };
        let free = concat!(", free AS (", free_of_v!("grant_id", "grants", "FOR UPDATE"), ")");
        Self { waiting: text("", ""), passing: text(free, " AND grants.id = ANY (ARRAY(SELECT id FROM free))") }
    }

    fn text(&self, db: &Db, who: Who) -> &Texts {
        if who == Who::Together && db.passes_over() { &self.passing } else { &self.waiting }
    }
}

static REDEEM: LazyLock<Change> = LazyLock::new(|| {
    Change::new(
        &["grant_id", "at", "refreshes_at", "refresh_until", "row_until"],
        "redeemed_at = v.at, refresh_rotated_at = v.refreshes_at, refresh_used_at = v.refreshes_at,
             refresh_expires_at = v.refresh_until, expires_at = v.row_until",
        "redeemed_at IS NULL AND revoked_at IS NULL",
    )
});

static ROTATE: LazyLock<Change> = LazyLock::new(|| {
    Change::new(
        &["grant_id", "generation", "at"],
        "refresh_generation = v.generation + 1, refresh_rotated_at = v.at, refresh_used_at = v.at",
        "refresh_generation = v.generation AND revoked_at IS NULL",
    )
});

impl Store {
    pub async fn grant(&self, id: &GrantId) -> Result<Option<StoredGrant>> {
        let db = self.db.clone();
        self.gathers.grants.find(id.clone(), move |ids| Box::pin(find(db.clone(), ids)) as Found<_, _>).await
    }

    /// Uses up the code. `false` where somebody else was first or the grant was revoked.
    pub async fn redeem_code(
        &self,
        id: GrantId,
        refresh_expires_at: Option<Timestamp>,
        row_expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool> {
        let one = Redemption { id, at: now, refresh_expires_at, row_expires_at };
        self.change_grant(&self.gathers.redemptions, one, |db, many, who| Box::pin(redeem(db, many, who))).await
    }

    /// Moves the refresh token from one generation to the next. `false` where somebody else was first.
    pub async fn rotate_refresh(&self, id: GrantId, from: u32, now: Timestamp) -> Result<bool> {
        let one = Rotation { id: id.clone(), from, at: now };
        let rotations = &self.gathers.rotations;
        let rotated = self.change_grant(rotations, one, |db, many, who| Box::pin(rotate(db, many, who))).await?;
        if rotated {
            self.note_rotation(&id, from, now);
        }
        Ok(rotated)
    }

    /// Whether a change that is asked for together with others is the one that was made.
    async fn change_grant<K: Clone + Eq + Hash + Send + 'static>(
        &self,
        gather: &Arc<Gather<K, Done>>,
        one: K,
        make: fn(Db, Vec<K>, Who) -> Found<K, Done>,
    ) -> Result<bool> {
        let db = self.db.clone();
        match gather.ask(one.clone(), move |many| make(db.clone(), many, Who::Together)).await? {
            Some(done) => Ok(done.is_mine()),
            None if self.db.passes_over() => Ok(!make(self.db.clone(), vec![one], Who::Alone).await?.is_empty()),
            None => Ok(false),
        }
    }
}

async fn find(db: Db, mut ids: Vec<GrantId>) -> Result<Vec<(GrantId, StoredGrant)>> {
    let sql = FIND.for_keys(&mut ids);
    let statement = || ids.iter().fold(sqlx::query(sql), |statement, id| statement.bind(id.as_str().to_owned()));
    let rows = db.rows(statement).await?;
    rows.iter().map(|row| read(row).map(|stored| (stored.grant.id.clone(), stored))).collect()
}

async fn redeem(db: Db, many: Vec<Redemption>, who: Who) -> Result<Vec<(Redemption, Done)>> {
    let texts = REDEEM.text(&db, who);
    let bind = |statement: Statement<'static>, one: &Redemption| {
        statement
            .bind(one.id.as_str().to_owned())
            .bind(one.at.millis())
            .bind(one.refresh_expires_at.map(|_| one.at.millis()))
            .bind(one.refresh_expires_at.map(Timestamp::millis))
            .bind(one.row_expires_at.millis())
    };
    change(db, texts, many, bind, |one, id, _| one.id.as_str() == id).await
}

async fn rotate(db: Db, many: Vec<Rotation>, who: Who) -> Result<Vec<(Rotation, Done)>> {
    let texts = ROTATE.text(&db, who);
    let bind = |statement: Statement<'static>, one: &Rotation| {
        statement.bind(one.id.as_str().to_owned()).bind(i64::from(one.from)).bind(one.at.millis())
    };
    let made = |one: &Rotation, id: &str, generation| one.id.as_str() == id && i64::from(one.from) + 1 == generation;
    change(db, texts, many, bind, made).await
}

/// Makes a change for all of these; those for whom it was made. `made` is asked with the id and the generation of each
/// row that changed.
async fn change<K: Clone + Send + Sync + 'static>(
    db: Db,
    texts: &'static Texts,
    many: Vec<K>,
    bind: impl Fn(Statement<'static>, &K) -> Statement<'static> + Send + Sync + 'static,
    made: impl Fn(&K, &str, i64) -> bool,
) -> Result<Vec<(K, Done)>> {
    let mut padded = many.clone();
    let sql = texts.for_keys(&mut padded);
    let rows = db.returning(move || padded.iter().fold(sqlx::query(sql), &bind)).await?;
    let mut done_for = Vec::new();
    for row in rows {
        let (id, generation) = (column::<&str>(&row, "id")?, column(&row, "refresh_generation")?);
        let done = Done::default();
        done_for.extend(many.iter().filter(|one| made(one, id, generation)).map(|one| (one.clone(), done.clone())));
    }
    Ok(done_for)
}
