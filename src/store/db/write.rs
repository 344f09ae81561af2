//! Writes in one shape. What carries a write to the database and waits for its commit is the same for all of them; made
//! for the type of each, it would be compiled a hundred times.

use futures_util::future::BoxFuture;
use sqlx::any::AnyRow;
use tokio::sync::oneshot;

use super::{Conn, Statement};
use crate::store::{Result, StoreError};

/// Any write, and what those who run it have to know of its outcome.
pub(in crate::store) type Write<U> = Box<dyn for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<U>> + Send>;

/// Where a write puts its value.
pub(in crate::store) struct Kept<T>(oneshot::Receiver<T>);

impl<T> Kept<T> {
    /// The value of a write that was run.
    pub(in crate::store) fn value(mut self) -> Result<T> {
        self.0.try_recv().map_err(|_| StoreError::WriterStopped)
    }
}

/// Puts a write into the shape of all: it tells its value as `tell` says, and keeps it.
pub(in crate::store) fn keep<T, U, F>(write: F, tell: fn(&T) -> U) -> (Write<U>, Kept<T>)
where
    T: Send + 'static,
    U: Send + 'static,
    F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T>> + Send + 'static,
{
    let (keeps, kept) = oneshot::channel();
    let write: Write<U> = Box::new(move |conn| {
        Box::pin(async move {
            let value = write(conn).await?;
            let told = tell(&value);
            // Whoever asked may have gone away.
            let _ = keeps.send(value);
            Ok(told)
        })
    });
    (write, Kept(kept))
}

/// A statement, built anew for each connection that it is tried on.
pub(super) type Build<'a> = dyn Fn() -> Statement<'static> + Send + Sync + 'a;

/// What is wanted of a single statement that changes something.
pub(super) type Single<T> = for<'c> fn(Statement<'static>, &'c mut Conn) -> BoxFuture<'c, sqlx::Result<T>>;

/// How many rows it changed.
pub(super) fn count<'c>(statement: Statement<'static>, conn: &'c mut Conn) -> BoxFuture<'c, sqlx::Result<u64>> {
    Box::pin(async move { Ok(statement.execute(conn).await?.rows_affected()) })
}

/// The rows that it returns. The driver has read them all, and PostgreSQL's last word, which comes after the commit.
pub(super) fn fetch<'c>(statement: Statement<'static>, conn: &'c mut Conn) -> BoxFuture<'c, sqlx::Result<Vec<AnyRow>>> {
    Box::pin(statement.fetch_all(conn))
}
