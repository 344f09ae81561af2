//! An SQLite database as a file: where it is, how it is made, and what each connection to it is set to.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions as _;
use sqlx::any::AnyConnectOptions;

use super::{Conn, quiet};
use crate::store::{Result, StoreError};

pub(super) const BUSY: u32 = 5;
pub(super) const LOCKED: u32 = 6;
pub(super) const IOERR: u32 = 10;

/// Between two looks whether the lock file is free.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The file of an SQLite database; `None` for PostgreSQL.
pub fn file(url: &str) -> Result<Option<PathBuf>> {
    url.strip_prefix("sqlite://").map(path).transpose()
}

/// The file that a URL names. The driver decodes it too; whatever we create ourselves must be the same file.
pub(super) fn path(encoded: &str) -> Result<PathBuf> {
    let unusable = |why: &str| StoreError::Unusable(format!("database.url sqlite://{encoded}: {why}"));
    if encoded.contains(['?', '#']) {
        return Err(unusable("takes no parameters"));
    }
    let decoded = percent_decode_str(encoded).decode_utf8().map_err(|_| unusable("is not UTF-8"))?;
    Ok(PathBuf::from(decoded.as_ref()))
}

pub(super) fn create_file(path: &Path) -> Result<()> {
    let unusable = |error: std::io::Error| StoreError::Unusable(format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        create_directory(parent).map_err(unusable)?;
    }
    // SQLite gives its journal files the mode of the database, so this one decides for all.
    open(path).map(drop).map_err(unusable)
}

/// For its owner alone; made where it is not there.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a directory with those above it, each with its name on the disk: without the name, whatever is synced inside
/// is lost to a power cut. SQLite does the same for the files.
fn create_directory(path: &Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        _ => File::open(parent)?.sync_all(),
    }
}

/// Waits for the lock that processes take while they prepare the database: that of a file beside it. It is given back
/// where the file is dropped.
pub(super) async fn lock(database: &Path) -> Result<File> {
    let path = database.with_extension("db.lock");
    let unusable = |error: std::io::Error| StoreError::Unusable(format!("{}: {error}", path.display()));
    let file = open(&path).map_err(unusable)?;
    let mut told = false;
    // No thread waits for it: that would hold up the end of a process that is told to end meanwhile.
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!(lock = %path.display(), "waiting for another process, which prepares the database");
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Sets what a connection must have, and asserts what durability rests on.
pub(super) async fn configure(conn: &mut Conn, read_only: bool) -> std::result::Result<(), sqlx::Error> {
    for pragma in [
        "PRAGMA busy_timeout = 5000",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
        "PRAGMA cache_size = -8000",
        // Pages that the log grows to before they are written back to the database: most of a busy page's changes are
        // then written back once. What is in it can be found by its first hash table, which has room for 4 062.
        "PRAGMA wal_autocheckpoint = 4000",
    ] {
        sqlx::query(pragma).execute(&mut *conn).await?;
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *conn).await?;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *conn).await?;
    if mode != "wal" || synchronous != 2 {
        let found =
            format!("journal_mode={mode} synchronous={synchronous}: this SQLite would not keep what it acknowledges");
        return Err(sqlx::Error::Configuration(found.into()));
    }
    if read_only {
        sqlx::query("PRAGMA query_only = ON").execute(&mut *conn).await?;
    }
    Ok(())
}

/// A connection to an SQLite database that is there, for reading it whole: it makes nothing, and configures nothing
/// that would stay.
pub(in crate::store) async fn connect_to_copy(url: &str) -> Result<Conn> {
    sqlx::any::install_default_drivers();
    let mut conn = quiet(AnyConnectOptions::from_str(&format!("{url}?mode=rw"))?).connect().await?;
    sqlx::query("PRAGMA busy_timeout = 5000").execute(&mut conn).await?;
    Ok(conn)
}

/// The primary code of an error of SQLite: the low byte of the whole.
pub(super) fn code(error: &sqlx::Error) -> Option<u32> {
    let sqlx::Error::Database(error) = error else { return None };
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}
