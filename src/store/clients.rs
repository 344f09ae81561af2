//! Registered clients with their secrets' hashes.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::any::AnyRow;

use super::db::{Conn, Statement};
use super::events::{self, Author, Event, EventKind};
use super::{Result, Store, StoreError, column, from_json, to_json};
use crate::protocol::client::{Client, ClientMetadata};
use crate::protocol::client_auth::StoredSecret;
use crate::protocol::ids::ClientId;
use crate::protocol::time::Timestamp;

/// A client with what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    pub client: Client,
    pub secrets: Vec<StoredSecret>,
    /// Stands in the configuration file, which alone changes it.
    pub declared: bool,
    pub created_at: Timestamp,
}

/// A client that the configuration file declares.
#[derive(Clone, Debug)]
pub struct DeclaredClient {
    pub id: ClientId,
    pub metadata: ClientMetadata,
    pub secret_sha256: Option<String>,
}

const SELECT: &str = "SELECT id, metadata, secrets, declared, created_at, disabled_at FROM clients WHERE id = $1";

fn read(row: &AnyRow) -> Result<ClientRecord> {
    let disabled_at: Option<i64> = column(row, "disabled_at")?;
    Ok(ClientRecord {
        client: Client {
            id: ClientId::new(column::<String>(row, "id")?),
            metadata: from_json("client", column(row, "metadata")?)?,
            disabled_at: disabled_at.map(Timestamp),
        },
        secrets: from_json("client secret", column(row, "secrets")?)?,
        declared: column::<i64>(row, "declared")? != 0,
        created_at: Timestamp(column(row, "created_at")?),
    })
}

fn select(id: &ClientId) -> Statement<'static> {
    sqlx::query(SELECT).bind(id.as_str().to_owned())
}

impl Store {
    /// The client, disabled or not; `None` where there is none. Answers from memory while no change is known.
    pub async fn client(&self, id: &ClientId) -> Result<Option<Arc<ClientRecord>>> {
        let known = &self.caches.clients;
        if let Some(record) = self.freshness.is_fresh().then(|| known.get(id)).flatten() {
            return Ok(Some(record));
        }
        let before = known.before();
        let row = self.db.row(|| select(id)).await?;
        let record = row.as_ref().map(read).transpose()?.map(Arc::new);
        if let Some(record) = &record {
            known.put(id.clone(), before, record);
        }
        Ok(record)
    }

    pub async fn clients(&self) -> Result<Vec<ClientRecord>> {
        let sql = "SELECT id, metadata, secrets, declared, created_at, disabled_at FROM clients ORDER BY id";
        self.db.rows(|| sqlx::query(sql)).await?.iter().map(read).collect()
    }

    /// Whether a browser app of this origin may call us: an enabled client has it among its `allowed_origins` or as
    /// the origin of a redirect URI.
    pub async fn is_registered_origin(&self, origin: &str) -> Result<bool> {
        let known = &self.caches.origins;
        if let Some(origins) = self.freshness.is_fresh().then(|| known.get(&())).flatten() {
            return Ok(origins.contains(origin));
        }
        let before = known.before();
        let clients = self.clients().await?;
        let enabled = clients.iter().map(|record| &record.client).filter(|client| client.is_enabled());
        let origins: HashSet<String> = enabled.flat_map(|client| client.metadata.origins()).collect();
        let origins = Arc::new(origins);
        known.put((), before, &origins);
        Ok(origins.contains(origin))
    }

    /// # Errors
    /// `Conflict` where the id is taken, by a client or as a user's `sub`.
    pub async fn create_client(&self, record: ClientRecord, event: Event) -> Result<()> {
        self.change(move |conn| Box::pin(async move { insert(conn, &record, event).await })).await
    }

    /// Makes metadata, secrets and status what `change` makes of the client as it stands, with an event for each of these
    /// that is another by it: of two changes at once neither undoes the other. The client as it is then; `None` where
    /// there is none. Where `change` refuses, nothing happens.
    pub async fn change_client<E: Send + 'static>(
        &self,
        id: ClientId,
        change: impl FnOnce(ClientRecord) -> std::result::Result<ClientRecord, E> + Send + 'static,
        author: Author,
        now: Timestamp,
    ) -> Result<Option<std::result::Result<ClientRecord, E>>> {
        let write = self.change_if(
            |outcome| matches!(outcome, Some(Ok(_))),
            move |conn| {
                Box::pin(async move {
                    let Some(before) = locked(conn, &id).await? else { return Ok(None) };
                    let after = match change(before.clone()) {
                        Ok(after) => after,
                        Err(refusal) => return Ok(Some(Err(refusal))),
                    };
                    replace(conn, &before, &after, &author, now).await?;
                    Ok(Some(Ok(after)))
                })
            },
        );
        write.await
    }

    /// Forgets the client with its grants and consents; its id stays taken.
    pub async fn delete_client(&self, id: ClientId, event: Event) -> Result<bool> {
        self.change(move |conn| {
            Box::pin(async move {
                let delete = sqlx::query("DELETE FROM clients WHERE id = $1").bind(id.as_str());
                let done = delete.execute(&mut *conn).await?;
                if done.rows_affected() > 0 {
                    events::insert(conn, &event.of_client(&id)).await?;
                }
                Ok(done.rows_affected() > 0)
            })
        })
        .await
    }

    /// Makes the declared clients what the configuration says and disables those that left it. Returns the ids of
    /// the latter.
    ///
    /// # Errors
    /// `Unusable` where a declared id belongs to a client that was made by hand.
    pub async fn sync_declared_clients(
        &self,
        declared: Vec<DeclaredClient>,
        author: Author,
        now: Timestamp,
    ) -> Result<Vec<ClientId>> {
        let known = self.clients().await?;
        let mut gone: Vec<ClientId> = Vec::new();
        let mut writes: Vec<(bool, ClientRecord)> = Vec::new();
        for old in known.iter().filter(|old| old.declared && old.client.is_enabled()) {
            if !declared.iter().any(|new| new.id == old.client.id) {
                let mut record = old.clone();
                record.client.disabled_at = Some(now);
                gone.push(record.client.id.clone());
                writes.push((false, record));
            }
        }
        for new in declared {
            let old = known.iter().find(|old| old.client.id == new.id);
            if old.is_some_and(|old| !old.declared) {
                let text = format!(
                    "client `{}` is declared in the configuration but was made by `keyward client create`; delete one of the two",
                    new.id
                );
                return Err(StoreError::Unusable(text));
            }
            let record = declared_record(new, old, now);
            if old != Some(&record) {
                writes.push((old.is_none(), record));
            }
        }
        // In one order for all processes, so that two which start at once wait for each other one after the other.
        writes.sort_by(|(_, one), (_, other)| one.client.id.cmp(&other.client.id));
        if !writes.is_empty() {
            let write =
                self.change(move |conn| Box::pin(async move { write_declared(conn, writes, &author, now).await }));
            write.await?;
        }
        Ok(gone)
    }
}

fn declared_record(new: DeclaredClient, old: Option<&ClientRecord>, now: Timestamp) -> ClientRecord {
    let same_secret = |stored: &&StoredSecret| Some(&stored.sha256) == new.secret_sha256.as_ref();
    let kept = old.and_then(|old| old.secrets.iter().find(same_secret)).cloned();
    let fresh = new.secret_sha256.clone().map(|sha256| StoredSecret { sha256, created_at: now, expires_at: None });
    ClientRecord {
        client: Client { id: new.id, metadata: new.metadata, disabled_at: None },
        secrets: kept.or(fresh).into_iter().collect(),
        declared: true,
        created_at: old.map_or(now, |old| old.created_at),
    }
}

async fn write_declared(
    conn: &mut Conn,
    writes: Vec<(bool, ClientRecord)>,
    author: &Author,
    now: Timestamp,
) -> Result<()> {
    for (is_new, record) in writes {
        if !is_new {
            if let Some(before) = locked(conn, &record.client.id).await? {
                replace(conn, &before, &record, author, now).await?;
            }
        } else if !super::users::try_subject(conn, record.client.id.as_str(), "client").await? {
            // Another process that starts at the same time was faster, or the id is somebody else's.
            let row = select(&record.client.id).fetch_optional(&mut *conn).await?;
            if row.is_none() {
                let id = &record.client.id;
                let why =
                    format!("the client_id `{id}` was given to somebody else before; choose another for this client");
                return Err(StoreError::Unusable(why));
            }
        } else {
            insert_claimed(conn, &record, author.event(EventKind::ClientCreated, now)).await?;
        }
    }
    Ok(())
}

async fn insert(conn: &mut Conn, record: &ClientRecord, event: Event) -> Result<()> {
    super::users::claim_subject(conn, record.client.id.as_str(), "client").await?;
    insert_claimed(conn, record, event).await
}

async fn insert_claimed(conn: &mut Conn, record: &ClientRecord, event: Event) -> Result<()> {
    let id = record.client.id.as_str();
    let now = record.created_at.millis();
    sqlx::query(
        "INSERT INTO clients (id, metadata, secrets, declared, created_at, updated_at, disabled_at)
         VALUES ($1, $2, $3, $4, $5, $5, $6)",
    )
    .bind(id)
    .bind(to_json("client", &record.client.metadata)?)
    .bind(to_json("client secret", &record.secrets)?)
    .bind(i64::from(record.declared))
    .bind(now)
    .bind(record.client.disabled_at.map(Timestamp::millis))
    .execute(&mut *conn)
    .await?;
    events::insert(conn, &event.of_client(&record.client.id)).await
}

/// The client, nobody else changing it until the transaction ends.
async fn locked(conn: &mut Conn, id: &ClientId) -> Result<Option<ClientRecord>> {
    sqlx::query("UPDATE clients SET id = id WHERE id = $1").bind(id.as_str()).execute(&mut *conn).await?;
    select(id).fetch_optional(&mut *conn).await?.as_ref().map(read).transpose()
}

async fn replace(
    conn: &mut Conn,
    before: &ClientRecord,
    after: &ClientRecord,
    author: &Author,
    now: Timestamp,
) -> Result<()> {
    let events = events::changes_of_client(before, after, author, now)?;
    sqlx::query(
        "UPDATE clients SET metadata = $2, secrets = $3, declared = $4, updated_at = $5, disabled_at = $6 WHERE id = $1",
    )
    .bind(before.client.id.as_str())
    .bind(to_json("client", &after.client.metadata)?)
    .bind(to_json("client secret", &after.secrets)?)
    .bind(i64::from(after.declared))
    .bind(now.millis())
    .bind(after.client.disabled_at.map(Timestamp::millis))
    .execute(&mut *conn)
    .await?;
    events::insert_all(conn, &events).await
}
