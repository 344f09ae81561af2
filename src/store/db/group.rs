//! The SQLite writer: one task that runs owned writes, many to a transaction, so that one `fsync` serves them all,
//! and answers each after the commit. No request can cancel what is in its queue.

use std::any::Any as StdAny;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::any::AnyConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::tally::{committed, tallied};
use super::write::Write;
use super::{Conn, sqlite};
use crate::store::{Result, StoreError};
use crate::telemetry::metrics;

/// Writes that wait; further ones wait outside.
const QUEUE: usize = 1024;
/// Writes that share a transaction at most: bounds how long the first of them waits for the last.
const BATCH: usize = 128;

/// The way to the writer.
pub(super) struct Queue {
    jobs: mpsc::Sender<Job>,
    /// Told once, when no more is to be taken.
    end: Arc<Notify>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Queue {
    /// Starts the writer on a configured connection; `options` are for a new one after an error.
    pub(super) fn start(conn: Conn, options: AnyConnectOptions) -> Self {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let end = Arc::new(Notify::new());
        let writer = tokio::spawn(run_writer(conn, options, jobs, Arc::clone(&end)));
        Self { jobs: sender, end, writer: Mutex::new(Some(writer)) }
    }

    /// Does what stands in the queue, takes no more, and ends the writer's connection.
    pub(super) async fn close(&self) {
        self.end.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        if let Err(error) = writer.await {
            tracing::warn!(%error, "closing the database");
        }
    }

    /// Runs a single statement in the next transaction; its outcome, after the commit.
    pub(super) async fn single<T: Send + 'static>(&self, statement: Write<T>) -> Result<T> {
        self.send(false, statement).await
    }

    /// Runs a write in the next transaction; its outcome, after the commit.
    pub(super) async fn write<T: Send + 'static>(&self, write: Write<T>) -> Result<T> {
        self.send(true, write).await
    }

    async fn send<T: Send + 'static>(&self, savepoint: bool, write: Write<T>) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let job = Job { savepoint, run: Box::new(move |conn| Box::pin(run_write(conn, write, sender))) };
        self.jobs.send(job).await.map_err(|_| StoreError::WriterStopped)?;
        receiver.await.map_err(|_| StoreError::WriterStopped)?
    }
}

/// One write on its way to the SQLite writer.
struct Job {
    /// A statement that fails leaves SQLite's transaction as it was, so only a write of several needs one; they halve
    /// the rate.
    savepoint: bool,
    run: Run,
}

/// Runs the write on a connection, or answers its caller that there is none to run it on.
type Run = Box<dyn for<'c> FnOnce(std::result::Result<&'c mut Conn, String>) -> BoxFuture<'c, Option<Ran>> + Send>;

/// A write that ran and waits for its commit.
struct Ran {
    /// The transaction is no longer to be trusted.
    broken: bool,
    failed: bool,
    /// Events that it wrote.
    events: Vec<&'static str>,
    answer: Box<dyn FnOnce(Option<StoreError>) + Send>,
}

/// Writes that share a transaction: those that ran in it, and those that have not yet.
struct Batch {
    waiting: VecDeque<Job>,
    ran: Vec<Ran>,
}

/// The SQLite writer: takes what waits, runs it in one transaction, commits, answers.
async fn run_writer(mut conn: Conn, options: AnyConnectOptions, mut jobs: mpsc::Receiver<Job>, end: Arc<Notify>) {
    loop {
        let first = tokio::select! {
            biased;
            () = end.notified() => {
                jobs.close();
                continue;
            }
            first = jobs.recv() => first,
        };
        let Some(first) = first else { break };
        let mut batch = Batch { waiting: VecDeque::from([first]), ran: Vec::new() };
        while batch.waiting.len() < BATCH {
            let Ok(next) = jobs.try_recv() else { break };
            batch.waiting.push_back(next);
        }
        let outcome = run_batch(&mut conn, &options, &mut batch).await;
        if outcome.is_ok() {
            metrics::commit_batch(batch.ran.len());
        }
        let why = outcome.err();
        if let Some(why) = &why {
            tracing::error!(error = %why, "a batch of writes was rolled back");
            replace(&mut conn, &options).await;
        }
        for write in batch.ran {
            if why.is_none() && !write.failed {
                committed(&write.events);
            }
            (write.answer)(why.as_deref().map(lost));
        }
        for job in batch.waiting {
            (job.run)(Err(why.clone().unwrap_or_default())).await;
        }
    }
    if let Err(error) = conn.close().await {
        tracing::warn!(%error, "closing the database");
    }
}

/// Runs the writes in one transaction. After an error that may have ended it, everything in the batch fails
/// unacknowledged.
async fn run_batch(conn: &mut Conn, options: &AnyConnectOptions, batch: &mut Batch) -> std::result::Result<(), String> {
    begin(conn, options).await.map_err(|error| error.to_string())?;
    let outcome = match run_jobs(conn, batch).await {
        Ok(()) => execute(conn, "COMMIT").await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    if outcome.is_err() {
        // SQLite may have rolled back by itself; then there is nothing to end.
        if let Err(error) = execute(conn, "ROLLBACK").await {
            tracing::debug!(%error, "rollback");
        }
    }
    outcome
}

/// Begins a transaction. A connection that cannot (it was opened while the file could only be read, say) has done
/// nothing yet, so a new one may; behind somebody else's lock a new one would only wait as long once more.
async fn begin(conn: &mut Conn, options: &AnyConnectOptions) -> sqlx::Result<()> {
    match execute(conn, "BEGIN IMMEDIATE").await {
        Err(error) if !matches!(sqlite::code(&error), Some(sqlite::BUSY | sqlite::LOCKED)) => {
            replace(conn, options).await;
            execute(conn, "BEGIN IMMEDIATE").await
        }
        other => other,
    }
}

/// Puts a new connection in the place of one that may be broken; where there is none to be had, the old one stays.
async fn replace(conn: &mut Conn, options: &AnyConnectOptions) {
    match connect(options).await {
        Ok(fresh) => *conn = fresh,
        Err(error) => tracing::warn!(%error, "the writer has no new connection"),
    }
}

async fn connect(options: &AnyConnectOptions) -> sqlx::Result<Conn> {
    let mut conn = options.connect().await?;
    sqlite::configure(&mut conn, false).await?;
    Ok(conn)
}

async fn run_jobs(conn: &mut Conn, batch: &mut Batch) -> std::result::Result<(), String> {
    while let Some(savepoint) = batch.waiting.front().map(|job| job.savepoint) {
        if savepoint {
            execute(conn, "SAVEPOINT write").await.map_err(|error| error.to_string())?;
        }
        let Some(job) = batch.waiting.pop_front() else { break };
        let Some(ran) = (job.run)(Ok(&mut *conn)).await else { continue };
        let (broken, failed) = (ran.broken, ran.failed);
        batch.ran.push(ran);
        if broken {
            return Err("another write of the same transaction failed".to_owned());
        }
        if savepoint && failed {
            execute(conn, "ROLLBACK TO write").await.map_err(|error| error.to_string())?;
        }
        if savepoint {
            execute(conn, "RELEASE write").await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

async fn execute(conn: &mut Conn, sql: &'static str) -> sqlx::Result<()> {
    sqlx::query(sql).execute(conn).await.map(drop)
}

async fn run_write<T: Send + 'static>(
    conn: std::result::Result<&mut Conn, String>,
    write: Write<T>,
    answer: oneshot::Sender<Result<T>>,
) -> Option<Ran> {
    let conn = match conn {
        Ok(conn) => conn,
        Err(why) => {
            drop(answer.send(Err(lost(&why))));
            return None;
        }
    };
    let outcome = AssertUnwindSafe(tallied(write(conn))).catch_unwind().await;
    let (outcome, events) = outcome.unwrap_or_else(|panic| {
        (Err(StoreError::Corrupt { what: "write", why: panic_text(panic.as_ref()) }), Vec::new())
    });
    // Only a refused key, or our own refusal, leaves the transaction sound for certain; anything else may have
    // ended it.
    let sound = |error: &StoreError| matches!(error, StoreError::Conflict(_) | StoreError::Refused(_));
    let broken = outcome.as_ref().is_err_and(|error| !sound(error));
    let failed = outcome.is_err();
    // Nobody may be waiting any more; the write counts all the same. What it found in a transaction that came to
    // nothing is no answer either: a name may be taken there that is free. Only what broke it says so itself.
    let answer = Box::new(move |lost: Option<StoreError>| {
        let outcome = match lost {
            Some(lost) if !broken => Err(lost),
            _ => outcome,
        };
        drop(answer.send(outcome));
    });
    Some(Ran { broken, failed, events, answer })
}

/// What a caller hears whose write was not committed through no fault of its own.
fn lost(why: &str) -> StoreError {
    StoreError::RolledBack(why.to_owned())
}

fn panic_text(panic: &(dyn StdAny + Send)) -> String {
    panic.downcast_ref::<&str>().map_or_else(|| "panicked".to_owned(), |text| format!("panicked: {text}"))
}
