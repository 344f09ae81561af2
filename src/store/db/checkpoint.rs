//! Carries what was committed from SQLite's write-ahead log into its database, beside the writer and not in it: a commit
//! that had to do it as well would let everybody wait for a second sync, the longer the larger the database. It never
//! stands in a writer's way (`PASSIVE`), and what it did not get to stays in the log for the next time.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::any::AnyConnectOptions;
use tokio::sync::mpsc;

use super::Conn;

/// Writes after which it is worth while: of a few pages each, where SQLite's own measure is 1000 pages.
const WRITES: usize = 200;
/// Under load writes share their pages; the disk gets as much rest as that.
const PAUSE: Duration = Duration::from_millis(100);

/// The way to it; it ends with the last sender.
pub(super) struct Checkpoints {
    wanted: mpsc::Sender<()>,
    writes: usize,
}

impl Checkpoints {
    pub(super) fn start(options: AnyConnectOptions) -> Self {
        let (wanted, waiting) = mpsc::channel(1);
        tokio::spawn(run(options, waiting));
        Self { wanted, writes: 0 }
    }

    /// So many writes were committed.
    pub(super) fn after(&mut self, writes: usize) {
        self.writes += writes;
        // Where one is wanted already, or is on its way, this one waits until then.
        if self.writes >= WRITES && self.wanted.try_send(()).is_ok() {
            self.writes = 0;
        }
    }
}

async fn run(options: AnyConnectOptions, mut wanted: mpsc::Receiver<()>) {
    let mut own: Option<Conn> = None;
    while wanted.recv().await.is_some() {
        let outcome = match &mut own {
            Some(conn) => checkpoint(conn).await,
            None => match super::group::connect(&options).await {
                Ok(conn) => checkpoint(own.insert(conn)).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the write-ahead log was not carried over; it grows until it is");
            own = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn checkpoint(conn: &mut Conn) -> sqlx::Result<()> {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(conn).await?;
    tracing::trace!(frames = row.try_get::<i64, _>(1)?, carried = row.try_get::<i64, _>(2)?, "checkpoint");
    Ok(())
}
