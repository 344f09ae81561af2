//! What a connection to PostgreSQL is set to, and writes: each a transaction of its own on a connection of the pool.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::any::AnyConnectOptions;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, ConnectOptions as _, Connection as _};
use tokio::time::timeout;
use url::Url;

use super::tally::{committed, tallied};
use super::write::{Build, Single, Write};
use super::{Conn, STALE_AT_ONCE, is_stale};
use crate::store::{Result, StoreError};

/// Has our statements go by indexes, in their order, and look into another table row by row. Each is made for one index,
/// but a plan is made from what the server counted last and kept until it counts again: one from when a table was small,
/// or a partner not there yet, would go on to read all of it, under the first rush that fills it. What has to read or
/// sort everything still does; compiling it would not pay.
pub(super) async fn settle(conn: &mut Conn) -> sqlx::Result<()> {
    let sql = "SELECT set_config(name, 'off', false) FROM (VALUES
                   ('enable_seqscan'), ('enable_sort'), ('enable_hashjoin'), ('enable_mergejoin'), ('jit')
               ) settings (name)";
    sqlx::query(sql).execute(conn).await.map(drop)
}

/// Names and claims are in every script there is; a database of another encoding would refuse some of them, later. One
/// without any (SQL_ASCII) keeps what it gets.
pub(super) async fn check_encoding(pool: &AnyPool) -> Result<()> {
    let encoding: String = sqlx::query_scalar("SELECT current_setting('server_encoding')").fetch_one(pool).await?;
    if ["UTF8", "SQL_ASCII"].contains(&encoding.as_str()) {
        return Ok(());
    }
    let advice = "make one with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`";
    Err(StoreError::Unusable(format!(
        "the encoding of the database is {encoding}, which cannot hold every name; {advice}"
    )))
}

/// Why there is no connection: a pool that waited in vain does not know, a connection of its own does.
pub(super) async fn unreachable(
    url: &str,
    options: &AnyConnectOptions,
    patience: Duration,
    error: sqlx::Error,
) -> StoreError {
    let error = match error {
        sqlx::Error::PoolTimedOut => match timeout(patience, options.connect()).await {
            Ok(Err(why)) => why,
            Ok(Ok(_)) | Err(_) => error,
        },
        other => other,
    };
    // Without what the server's own source calls the place.
    let why = match &error {
        sqlx::Error::Database(inner) => inner.message().to_owned(),
        other => other.to_string(),
    };
    let place = Url::parse(url).ok().map(|url| {
        let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned();
        format!("{host}:{}", url.port().unwrap_or(5432))
    });
    let place = place.unwrap_or_else(|| "database.url".to_owned());
    StoreError::Unusable(format!("PostgreSQL at {place}: {why}; is it running, and does `database.url` name it?"))
}

/// Whether the server keeps what it acknowledges is its operator's choice, and may be meant; we say it once.
pub(super) async fn inspect(conn: &mut Conn, warned: &AtomicBool) -> sqlx::Result<()> {
    let sql = "SELECT name FROM pg_settings
               WHERE name IN ('synchronous_commit', 'fsync') AND setting = 'off' ORDER BY name";
    let off: Vec<String> = sqlx::query_scalar(sql).fetch_all(conn).await?;
    if !off.is_empty() && !warned.swap(true, Ordering::Relaxed) {
        let settings = off.join(", ");
        tracing::warn!(
            settings,
            "this PostgreSQL has them off: when it crashes, codes and tokens that were used or revoked may count again"
        );
    }
    Ok(())
}

/// Runs one statement, which is a transaction by itself. What a server says that was shut down (57P01) it says instead of
/// doing it, so the next connection is asked; with a connection that breaks without a word, nobody can know.
pub(super) async fn single<T>(pool: &AnyPool, statement: &Build<'static>, run: Single<T>) -> Result<T> {
    let mut passed_over = 0;
    loop {
        let mut conn = acquire(pool, &mut passed_over).await?;
        let error = match run(statement(), &mut conn).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if is_shut_down(&error) && passed_over < STALE_AT_ONCE {
            passed_over += 1;
            continue;
        }
        let error = StoreError::from(error);
        if is_read_only(&error) {
            conn.close_on_drop();
        }
        return Err(error);
    }
}

/// Until BEGIN was answered nothing was sent that could have been done, so stale connections may be passed over.
pub(super) async fn write(pool: &AnyPool, write: Write<()>) -> Result<()> {
    let mut passed_over = 0;
    loop {
        let mut conn = acquire(pool, &mut passed_over).await?;
        let mut transaction = match conn.begin().await {
            Err(error) if is_stale(&error) && passed_over < STALE_AT_ONCE => {
                passed_over += 1;
                continue;
            }
            other => other?,
        };
        let error = match tallied(write(&mut transaction)).await {
            (Ok(()), events) => {
                transaction.commit().await?;
                committed(&events);
                return Ok(());
            }
            (Err(error), _) => error,
        };
        drop(transaction);
        if is_read_only(&error) {
            conn.close_on_drop();
        }
        return Err(error);
    }
}

async fn acquire(pool: &AnyPool, passed_over: &mut u32) -> Result<PoolConnection<Any>> {
    loop {
        match pool.acquire().await {
            Err(error) if is_stale(&error) && *passed_over < STALE_AT_ONCE => *passed_over += 1,
            other => return Ok(other?),
        }
    }
}

fn is_shut_down(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner) if inner.code().as_deref() == Some("57P01"))
}

/// A session that may only read stays so: its server became a standby, or was told so when the session began. The
/// next one may find another server, or none of that any more.
fn is_read_only(error: &StoreError) -> bool {
    let StoreError::Unavailable(sqlx::Error::Database(error)) = error else { return false };
    error.code().as_deref() == Some("25006")
}
