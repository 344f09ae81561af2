//! How processes learn of each other's administrative changes: one counter, moved in the transaction of each
//! change, polled twice a second. Caches are dropped when it moved, and not used at all while it could not be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::db::{Conn, Write, keep};
use super::{Result, Store, StoreError, column};
use crate::ambient::Stopwatch;
use crate::telemetry::traces;

/// No cached answer is older than this.
const MAX_AGE_MICROS: u64 = 1_000_000;

/// When the counter was last read, and what it said.
pub(super) struct Freshness {
    epoch: Stopwatch,
    version: AtomicI64,
    read_at_micros: AtomicU64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { epoch: Stopwatch::start(), version: AtomicI64::new(-1), read_at_micros: AtomicU64::new(0) }
    }
}

impl Freshness {
    pub(super) fn is_fresh(&self) -> bool {
        let age = self.epoch.elapsed_micros().saturating_sub(self.read_at_micros.load(Ordering::Acquire));
        age <= MAX_AGE_MICROS
    }
}

/// Moves the counter; part of every administrative change.
pub(super) async fn bump(conn: &mut Conn) -> Result<()> {
    sqlx::query("UPDATE changes SET version = version + 1 WHERE id = 1").execute(conn).await?;
    Ok(())
}

impl Store {
    /// Reads the counter and drops the caches if it moved; whether it did. Called every 500 ms.
    pub async fn poll_changes(&self) -> Result<bool> {
        // Taken before the read: a change that commits while we read is seen by the next poll.
        let asked_at = self.freshness.epoch.elapsed_micros();
        let row = self.db.row(|| sqlx::query("SELECT version FROM changes WHERE id = 1")).await?;
        let version: i64 = row.map_or(Ok(0), |row| column(&row, "version"))?;
        let moved = self.freshness.version.swap(version, Ordering::AcqRel) != version;
        if moved {
            self.caches.clear();
        }
        self.freshness.read_at_micros.store(asked_at, Ordering::Release);
        Ok(moved)
    }

    /// Runs an administrative change; in this process it holds from the next request on, in others within a second.
    pub(super) async fn change<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> futures_util::future::BoxFuture<'c, Result<T>> + Send + 'static,
    {
        self.change_if(|_| true, write).await
    }

    /// The same where the outcome says whether anything changed: whoever changes nothing moves nobody's caches.
    pub(super) async fn change_if<T, F>(&self, changed: fn(&T) -> bool, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> futures_util::future::BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let (write, kept) = keep(write, changed);
        self.run_change(write).await?;
        kept.value()
    }

    async fn run_change(&self, write: Write<bool>) -> Result<bool> {
        let (db, caches, standings) = (self.db.clone(), Arc::clone(&self.caches), Arc::clone(&self.standings));
        // A task of its own: whoever asked may go away, but not between the commit and the emptied caches.
        let work = async move {
            let outcome = db
                .write(move |conn| {
                    Box::pin(async move {
                        let changed = write(conn).await?;
                        if changed {
                            bump(conn).await?;
                        }
                        Ok(changed)
                    })
                })
                .await;
            // Also where it is not known what became of it.
            if !matches!(outcome, Ok(false)) {
                caches.clear();
                standings.forget();
            }
            outcome
        };
        tokio::spawn(traces::of_this_request(work)).await.map_err(|_| StoreError::WriterStopped)?
    }
}
