//! Reading API keys: those that are presented, many of them by one statement, and those that their owners look at.

use std::sync::{Arc, LazyLock};

use sqlx::any::AnyRow;

use super::StoredApiKey;
use crate::protocol::api_key::{ApiKeyRecord, Kind, Owner};
use crate::protocol::ids::{ApiKeyId, ClientId, UserId};
use crate::protocol::time::{Span, Timestamp};
use crate::store::db::Db;
use crate::store::gather::{Found, Texts};
use crate::store::users::{self, user_columns};
use crate::store::{Result, Store, StoreError, column, from_json};

/// A key as its owner sees it in a list.
#[derive(Clone, Debug)]
pub struct ListedApiKey {
    pub record: ApiKeyRecord,
    pub last_used_at: Option<Timestamp>,
    pub last_used_ip: Option<String>,
}

/// The columns that [`read`] wants, of `api_keys` as `k`.
macro_rules! key_columns {
    () => {
        "k.kid, k.kind, k.user_id AS owner_id, k.client_id AS partner_id, k.name AS key_name, k.scopes, k.audiences, \
         k.allowed_cidrs, k.exchange_only, k.predecessor, k.created_at, k.lifetime, \
         k.expires_at, k.revoked_at"
    };
}

fn read(row: &AnyRow) -> Result<ApiKeyRecord> {
    let corrupt = |why: &str| StoreError::Corrupt { what: "API key", why: why.to_owned() };
    let kind: Kind = column::<String>(row, "kind")?.parse().map_err(|()| corrupt("unknown kind"))?;
    let owner = match kind {
        Kind::User => column::<Option<String>>(row, "owner_id")?.map(|id| Owner::User(UserId::new(id))),
        Kind::Partner => column::<Option<String>>(row, "partner_id")?.map(|id| Owner::Partner(ClientId::new(id))),
    };
    Ok(ApiKeyRecord {
        kid: ApiKeyId::new(column::<String>(row, "kid")?),
        owner: owner.ok_or_else(|| corrupt("no owner"))?,
        name: column(row, "key_name")?,
        scopes: from_json("API key", column(row, "scopes")?)?,
        audiences: from_json("API key", column(row, "audiences")?)?,
        allowed_cidrs: from_json("API key", column(row, "allowed_cidrs")?)?,
        exchange_only: column::<i64>(row, "exchange_only")? != 0,
        predecessor: column::<Option<String>>(row, "predecessor")?.map(ApiKeyId::new),
        created_at: Timestamp(column(row, "created_at")?),
        lifetime: Span::from_millis(column(row, "lifetime")?),
        expires_at: Timestamp(column(row, "expires_at")?),
        revoked_at: column::<Option<i64>>(row, "revoked_at")?.map(Timestamp),
    })
}

/// What [`read_listed`] reads, before its condition.
macro_rules! listed {
    () => {
        concat!(
            "SELECT n.used_at, n.used_ip, ",
            key_columns!(),
            " FROM api_keys k LEFT JOIN api_key_uses n ON n.kid = k.kid WHERE "
        )
    };
}

fn read_listed(row: &AnyRow) -> Result<ListedApiKey> {
    Ok(ListedApiKey {
        record: read(row)?,
        last_used_at: column::<Option<i64>>(row, "used_at")?.map(Timestamp),
        last_used_ip: column(row, "used_ip")?,
    })
}

impl Store {
    /// The key, alive or not, with its person; `None` where it was never given out. Answers from memory while no
    /// change is known.
    pub async fn api_key(&self, kid: &ApiKeyId) -> Result<Option<Arc<StoredApiKey>>> {
        let known = &self.caches.api_keys;
        if let Some(key) = self.freshness.is_fresh().then(|| known.get(kid)).flatten() {
            return Ok(Some(key));
        }
        let before = known.before();
        let db = self.db.clone();
        let read = move |kids| Box::pin(read_together(db.clone(), kids)) as Found<_, _>;
        let key = self.gathers.api_keys.find(kid.clone(), read).await?;
        if let Some(key) = &key {
            known.put(kid.clone(), before, key);
        }
        Ok(key)
    }

    /// Up to `limit` keys of one owner, or of all, the newest first, after the one with id `after`.
    pub async fn api_keys(
        &self,
        owner: Option<&Owner>,
        after: Option<&ApiKeyId>,
        limit: i64,
    ) -> Result<Vec<ListedApiKey>> {
        // A text for each kind of owner, so that its index is used.
        macro_rules! page_of {
            ($owner:literal, $of_owner:literal) => {
                concat!(
                    listed!(),
                    $owner,
                    " AND ($2 = ''
                         OR (k.created_at, k.kid) < (SELECT a.created_at, a.kid FROM api_keys a WHERE a.kid = $2 AND ",
                    $of_owner,
                    "))
                     ORDER BY k.created_at DESC, k.kid DESC LIMIT $3"
                )
            };
        }
        let (sql, owner) = match owner {
            None => (page_of!("$1 = ''", "$1 = ''"), String::new()),
            Some(Owner::User(id)) => (page_of!("k.user_id = $1", "a.user_id = $1"), id.as_str().to_owned()),
            Some(Owner::Partner(id)) => (page_of!("k.client_id = $1", "a.client_id = $1"), id.as_str().to_owned()),
        };
        let after = after.map_or("", ApiKeyId::as_str).to_owned();
        let statement = || sqlx::query(sql).bind(owner.clone()).bind(after.clone()).bind(limit);
        self.db.rows(statement).await?.iter().map(read_listed).collect()
    }

    /// One key as its owner sees it.
    pub async fn listed_api_key(&self, kid: &ApiKeyId) -> Result<Option<ListedApiKey>> {
        let sql = concat!(listed!(), "k.kid = $1");
        let row = self.db.row(|| sqlx::query(sql).bind(kid.as_str().to_owned())).await?;
        row.as_ref().map(read_listed).transpose()
    }
}

/// Those of these kids that were ever given out.
static TOGETHER: LazyLock<Texts> = LazyLock::new(|| {
    Texts::new(
        1,
        concat!(
            "SELECT k.mac, k.pepper, ",
            key_columns!(),
            ", ",
            user_columns!(),
            " FROM api_keys k LEFT JOIN users u ON u.id = k.user_id WHERE k.kid IN ({})"
        ),
    )
});

/// Those of these keys that were ever given out, each with its person.
async fn read_together(db: Db, mut kids: Vec<ApiKeyId>) -> Result<Vec<(ApiKeyId, Arc<StoredApiKey>)>> {
    let sql = TOGETHER.for_keys(&mut kids);
    let statement = || kids.iter().fold(sqlx::query(sql), |statement, kid| statement.bind(kid.as_str().to_owned()));
    let rows = db.rows(statement).await?;
    rows.iter().map(|row| read_stored(row).map(|key| (key.record.kid.clone(), Arc::new(key)))).collect()
}

fn read_stored(row: &AnyRow) -> Result<StoredApiKey> {
    let record = read(row)?;
    Ok(StoredApiKey {
        user: matches!(record.owner, Owner::User(_)).then(|| users::read(row)).transpose()?,
        record,
        mac: column(row, "mac")?,
        pepper: column(row, "pepper")?,
    })
}
