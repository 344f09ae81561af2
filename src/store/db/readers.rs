//! The connections that SQLite is read by. A pool of the driver's asks each connection for a sign of life when it comes
//! back, which for a file costs a third of a read; these come back as they are, and one that failed does not come back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Conn, Statement, sqlite};

/// Reads at a time.
pub(super) const READERS: usize = 4;
/// For reads that go on when everything ends.
const LAST_READS: Duration = Duration::from_secs(5);

pub(super) struct Readers {
    options: AnyConnectOptions,
    idle: Mutex<Vec<Conn>>,
    places: Semaphore,
    /// For a place.
    patience: Duration,
}

impl Readers {
    /// With one connection made, so that what cannot be read is known at once.
    pub(super) async fn open(options: AnyConnectOptions, patience: Duration) -> sqlx::Result<Self> {
        let readers = Self { options, idle: Mutex::default(), places: Semaphore::new(READERS), patience };
        let first = readers.connect().await?;
        readers.idle().push(first);
        Ok(readers)
    }

    pub(super) async fn row(&self, statement: Statement<'static>) -> sqlx::Result<Option<AnyRow>> {
        let _place = self.place().await?;
        let mut conn = self.take().await?;
        let row = statement.fetch_optional(&mut conn).await?;
        self.idle().push(conn);
        Ok(row)
    }

    pub(super) async fn rows(&self, statement: Statement<'static>) -> sqlx::Result<Vec<AnyRow>> {
        let _place = self.place().await?;
        let mut conn = self.take().await?;
        let rows = statement.fetch_all(&mut conn).await?;
        self.idle().push(conn);
        Ok(rows)
    }

    /// In use and idle.
    pub(super) fn counts(&self) -> (usize, usize) {
        (READERS.saturating_sub(self.places.available_permits()), self.idle().len())
    }

    /// Ends the connections, when those that are reading have read.
    pub(super) async fn close(&self) {
        const ALL: u32 = READERS as u32;
        let all = timeout(LAST_READS, self.places.acquire_many(ALL)).await;
        if all.is_err() {
            tracing::warn!("closing the database while it is read");
        }
        self.places.close();
        let idle = std::mem::take(&mut *self.idle());
        for conn in idle {
            if let Err(error) = conn.close().await {
                tracing::warn!(%error, "closing the database");
            }
        }
    }

    async fn place(&self) -> sqlx::Result<tokio::sync::SemaphorePermit<'_>> {
        let place = timeout(self.patience, self.places.acquire()).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        place.map_err(|_| sqlx::Error::PoolClosed)
    }

    pub(super) async fn take(&self) -> sqlx::Result<Conn> {
        let idle = self.idle().pop();
        match idle {
            Some(conn) => Ok(conn),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> sqlx::Result<Conn> {
        let mut conn = self.options.connect().await?;
        sqlite::configure(&mut conn, true).await?;
        Ok(conn)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
