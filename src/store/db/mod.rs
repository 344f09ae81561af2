//! The two databases behind one face. Reads are single statements on a pool. Writes are owned closures that no
//! request can cancel: on SQLite one task commits them in groups (`group.rs`), on PostgreSQL each is a transaction of
//! its own. A write is acknowledged only after its commit.

mod group;
mod postgres;
mod readers;
mod sqlite;
mod tally;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::Migrator;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _};
use tokio::sync::RwLock;
use tracing::Instrument as _;

use super::{Pool, Result, StoreError};
use crate::telemetry::metrics::Timer;
use crate::telemetry::traces;
use group::Queue;
use readers::{READERS, Readers};
pub(super) use sqlite::connect_to_copy;
pub use sqlite::file as sqlite_file;
pub(super) use tally::{committed, wrote};
use write::{Build, Single};
pub(super) use write::{Write, keep};

pub(super) type Conn = AnyConnection;
pub(super) type Statement<'q> = Query<'q, Any, AnyArguments>;

const POSTGRES_CONNECTIONS: u32 = 16;
/// A restart of PostgreSQL leaves every connection of the pool stale at once.
const STALE_AT_ONCE: u32 = POSTGRES_CONNECTIONS;
/// A connection that rested for longer is asked whether it still lives before it is used.
const RESTED: Duration = Duration::from_secs(1);

/// For the few statements that must differ.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

#[derive(Clone)]
pub(super) struct Db {
    options: AnyConnectOptions,
    ways: Ways,
}

/// How a database is read and written.
#[derive(Clone)]
enum Ways {
    Sqlite {
        readers: Arc<Readers>,
        queue: Arc<Queue>,
        path: PathBuf,
    },
    Postgres {
        pool: AnyPool,
        /// Every write holds it for reading until it is done, so that closing can wait for all of them.
        running: Arc<RwLock<()>>,
    },
}

impl Db {
    /// Whoever needs a connection waits for it with `patience`.
    pub(super) async fn open(url: &str, patience: Duration) -> Result<Self> {
        sqlx::any::install_default_drivers();
        match url.strip_prefix("sqlite://") {
            Some(encoded) => Self::open_sqlite(url, &sqlite::path(encoded)?, patience).await,
            None => Self::open_postgres(url, patience).await,
        }
    }

    async fn open_sqlite(url: &str, path: &Path, patience: Duration) -> Result<Self> {
        sqlite::create_file(path)?;
        let options = quiet(AnyConnectOptions::from_str(&format!("{url}?mode=rwc"))?);
        let unusable = |error: sqlx::Error| {
            // What SQLite says where it finds no room for its shared memory.
            let hint = if sqlite::code(&error) == Some(sqlite::IOERR) { "; is the disk full?" } else { "" };
            StoreError::Unusable(format!("{}: {error}{hint}", path.display()))
        };
        let mut writer = options.connect().await.map_err(unusable)?;
        // The first of several processes switches to WAL, for which SQLite waits for nobody.
        let lock = sqlite::lock(path).await?;
        sqlite::configure(&mut writer, false).await.map_err(unusable)?;
        drop(lock);
        let readers = Arc::new(Readers::open(options.clone(), patience).await.map_err(unusable)?);
        let queue = Arc::new(Queue::start(writer, options.clone()));
        Ok(Self { options, ways: Ways::Sqlite { readers, queue, path: path.to_owned() } })
    }

    async fn open_postgres(url: &str, patience: Duration) -> Result<Self> {
        let options = quiet(AnyConnectOptions::from_str(url)?);
        let warned = Arc::new(AtomicBool::new(false));
        let pool = AnyPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(patience)
            // A ping before each use costs a third of the reads. Most of what it would have found is found after a
            // rest; `is_stale` handles what is left.
            .test_before_acquire(false)
            .before_acquire(|conn, since| {
                Box::pin(async move { Ok(since.idle_for < RESTED || conn.ping().await.is_ok()) })
            })
            .after_connect(move |conn, _| {
                let warned = Arc::clone(&warned);
                Box::pin(async move {
                    postgres::settle(conn).await?;
                    postgres::inspect(conn, &warned).await
                })
            })
            .connect_with(options.clone())
            .await;
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => return Err(postgres::unreachable(url, &options, patience, error).await),
        };
        postgres::check_encoding(&pool).await?;
        Ok(Self { options, ways: Ways::Postgres { pool, running: Arc::default() } })
    }

    /// Applies the migrations that are missing. Processes that start at once take turns: PostgreSQL has an
    /// advisory lock for it, SQLite a lock file beside the database.
    pub(super) async fn migrate(&self) -> Result<()> {
        let lock = match &self.ways {
            Ways::Sqlite { path, .. } => Some(sqlite::lock(path).await?),
            Ways::Postgres { .. } => None,
        };
        let migrations = migrations();
        // On a connection of its own, with the rights to write. `run_direct` and not `run`: the latter's generic
        // `Acquire` would make this future one that no other thread may run.
        let mut conn = self.options.connect().await?;
        if let Ways::Sqlite { .. } = &self.ways {
            sqlite::configure(&mut conn, false).await?;
        }
        let outcome = migrations.run_direct(None, &mut conn, false).await;
        conn.close().await?;
        drop(lock);
        outcome.map_err(|error| StoreError::Unusable(format!("the database could not be migrated: {error}")))
    }

    /// The last migration that the tables have seen, and the one that this release needs.
    pub(super) async fn migrated(&self) -> Result<(Option<i64>, i64)> {
        let sql = "SELECT MAX(version) AS version FROM _sqlx_migrations WHERE success";
        let row = self.row(|| sqlx::query(sql)).await?;
        let found = row.map(|row| super::column(&row, "version")).transpose()?.flatten();
        Ok((found, migrations().iter().map(|migration| migration.version).max().unwrap_or_default()))
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.ways {
            Ways::Sqlite { .. } => Kind::Sqlite,
            Ways::Postgres { .. } => Kind::Postgres,
        }
    }

    /// Whether others may hold a row, so that a statement can pass over it. SQLite has one writer.
    pub(super) fn passes_over(&self) -> bool {
        matches!(self.ways, Ways::Postgres { .. })
    }

    pub(super) fn pool(&self) -> Pool {
        match &self.ways {
            Ways::Sqlite { readers, .. } => {
                let (in_use, idle) = readers.counts();
                Pool { in_use, idle, most: READERS }
            }
            Ways::Postgres { pool, .. } => {
                let (size, idle) = (pool.size() as usize, pool.num_idle());
                let most = pool.options().get_max_connections() as usize;
                Pool { in_use: size.saturating_sub(idle), idle, most }
            }
        }
    }

    /// Waits for what was accepted, then ends the connections: SQLite's file is whole by itself then, without a
    /// log, unless a read was cut off.
    pub(super) async fn close(&self) {
        match &self.ways {
            Ways::Sqlite { readers, queue, .. } => {
                readers.close().await;
                // The last to go moves the log into the database and deletes it.
                queue.close().await;
            }
            Ways::Postgres { pool, running } => {
                drop(running.write().await);
                pool.close().await;
            }
        }
    }

    /// At most one row. `statement` builds the query anew if the connection turns out to be stale.
    pub(super) async fn row(&self, statement: impl Fn() -> Statement<'static> + Send + Sync) -> Result<Option<AnyRow>> {
        self.read_row(&statement).await
    }

    async fn read_row(&self, statement: &Build<'_>) -> Result<Option<AnyRow>> {
        let _watched = (Timer::db_read(), traces::step("database read"));
        let pool = match &self.ways {
            Ways::Sqlite { readers, .. } => return Ok(readers.row(statement()).await?),
            Ways::Postgres { pool, .. } => pool,
        };
        for _ in 0..STALE_AT_ONCE {
            match statement().fetch_optional(pool).await {
                Err(error) if is_stale(&error) => {}
                other => return Ok(other?),
            }
        }
        Ok(statement().fetch_optional(pool).await?)
    }

    pub(super) async fn rows(&self, statement: impl Fn() -> Statement<'static> + Send + Sync) -> Result<Vec<AnyRow>> {
        self.read_rows(&statement).await
    }

    async fn read_rows(&self, statement: &Build<'_>) -> Result<Vec<AnyRow>> {
        let _watched = (Timer::db_read(), traces::step("database read"));
        let pool = match &self.ways {
            Ways::Sqlite { readers, .. } => return Ok(readers.rows(statement()).await?),
            Ways::Postgres { pool, .. } => pool,
        };
        for _ in 0..STALE_AT_ONCE {
            match statement().fetch_all(pool).await {
                Err(error) if is_stale(&error) => {}
                other => return Ok(other?),
            }
        }
        Ok(statement().fetch_all(pool).await?)
    }

    /// Runs one statement that changes something and answers after its commit: the number of rows it changed. On
    /// PostgreSQL it is a transaction by itself, without the round trips of `BEGIN` and `COMMIT`; on SQLite it needs no
    /// savepoint. Dropping the returned future does not stop it.
    pub(super) async fn execute(
        &self,
        statement: impl Fn() -> Statement<'static> + Send + Sync + 'static,
    ) -> Result<u64> {
        self.single(Box::new(statement), write::count).await
    }

    /// The same for one that tells of what it changed: the rows that it returns.
    pub(super) async fn returning(
        &self,
        statement: impl Fn() -> Statement<'static> + Send + Sync + 'static,
    ) -> Result<Vec<AnyRow>> {
        self.single(Box::new(statement), write::fetch).await
    }

    async fn single<T: Send + 'static>(&self, statement: Box<Build<'static>>, run: Single<T>) -> Result<T> {
        let _watched = (Timer::db_write(), traces::step("database write"));
        match &self.ways {
            Ways::Sqlite { queue, .. } => {
                let work: Write<T> = Box::new(move |conn| {
                    let running = run(statement(), conn);
                    Box::pin(async move { Ok(running.await?) })
                });
                queue.single(work).await
            }
            Ways::Postgres { pool, running } => {
                let pool = pool.clone();
                spawn(running, async move { postgres::single(&pool, &*statement, run).await }).await
            }
        }
    }

    /// Runs `write` in a transaction and answers after its commit. Dropping the returned future does not stop it.
    pub(super) async fn write<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let (write, kept) = keep(write, |_| ());
        self.run(write).await?;
        kept.value()
    }

    pub(super) async fn run(&self, write: Write<()>) -> Result<()> {
        let _watched = (Timer::db_write(), traces::step("database write"));
        match &self.ways {
            Ways::Sqlite { queue, .. } => queue.write(write).await,
            Ways::Postgres { pool, running } => {
                let pool = pool.clone();
                spawn(running, async move { postgres::write(&pool, write).await }).await
            }
        }
    }
}

/// Runs a write to its end, whatever becomes of who waits for it.
async fn spawn<T: Send + 'static>(
    running: &Arc<RwLock<()>>,
    write: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let running = Arc::clone(running).read_owned().await;
    let work = async move {
        let outcome = write.await;
        drop(running);
        outcome
    };
    tokio::spawn(work.in_current_span()).await.map_err(|_| StoreError::WriterStopped)?
}

fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("./migrations");
    // A newer release may have added tables while this one still runs beside it.
    migrations.set_ignore_missing(true);
    migrations
}

/// Statements are told at the level `debug` under `sqlx::query`, with their text only and never a bound value. A slow
/// one is no warning: how long requests take is told with them.
fn quiet(mut options: AnyConnectOptions) -> AnyConnectOptions {
    options.log_settings.slow_statements_level = options.log_settings.statements_level;
    options
}

/// A connection that died while it rested in the pool: nothing was executed, so asking again is safe for a read.
fn is_stale(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_))
        || matches!(error, sqlx::Error::Database(inner) if inner.code().is_some_and(|code| code.starts_with("57P")))
}
