//! Writes on PostgreSQL, each a transaction of its own on a connection of the pool.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Connection as _};

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
